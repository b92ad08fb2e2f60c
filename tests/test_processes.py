"""`sublora run --processes`: several processes do the steps of a run, and one that is killed costs no more than a line."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.errors import SubloraError
from sublora.processes import LOG, PROCESSES, _why, asked_for
from sublora.run import Run


def workers(folder):
    """The processes at work on the run in a folder."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                said = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"step" in said and os.fsencode(folder / LOG) in said and b"accelerate.commands.launch" not in said:
                found.append(int(place.name))
    return found


def kill_one(folder):
    """Kill one of two workers when they have a checkpoint."""
    while not (folder / "pretrain.safetensors").exists():
        time.sleep(0.05)
    os.kill(workers(folder)[-1], signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found below /proc")
def test_a_killed_process_ends_the_others_and_the_run_goes_on_to_the_result_of_one_process(tmp_path, monkeypatch, capsys):
    values = settings(write_texts(tmp_path / "texts", 120), bounds__documents=40, training__steps=150)
    alone = Run(values, tmp_path / "alone").certify()
    monkeypatch.setenv(PROCESSES, "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = Run(values, tmp_path / "two")
    killer = threading.Thread(target=kill_one, args=(run.folder,), daemon=True)
    killer.start()
    said = r"one of 2 processes was killed \(signal 9\); .*goes on from the last checkpoint$"
    with pytest.raises(SubloraError, match=said) as caught:
        run.train()
    assert "\n" not in str(caught.value) and str(run.folder / LOG) in str(caught.value)
    killer.join()
    assert workers(run.folder) == []
    capsys.readouterr()
    made = run.certify()
    shown = capsys.readouterr().err
    assert "pretrain: " in shown and "score training documents" in shown and "Traceback" not in shown
    assert " 0/150" not in shown  # it went on from the checkpoint
    log = [Run(values, tmp_path / name).train() for name in ("alone", "two")]
    assert log[0]["step"].tolist() == log[1]["step"].tolist()
    np.testing.assert_allclose(log[1]["validation_loss"], log[0]["validation_loss"], rtol=0.02)
    assert abs(made.message_bits - alone.message_bits) <= 32
    for one, two in zip(alone.statements, made.statements, strict=True):
        assert (one.level, one.metric, one.inequality) == (two.level, two.metric, two.inequality)
        assert abs(one.bound - two.bound) < 0.05 * one.bound


def test_what_the_processes_say_is_the_error_unless_one_was_killed(tmp_path):
    said = "sublora: texts: no document; choose another corpus\nTraceback ...\nsublora: texts: no document; choose another corpus\n"
    log = tmp_path / LOG
    assert _why(said, "exitcode  : 1 (pid: 7)", log, 2) == "texts: no document; choose another corpus"
    others = "sublora: RuntimeError: Connection closed by peer\n"
    report = "exitcode  : -15 (pid: 6)\nRoot Cause (first observed failure):\n  exitcode  : -9 (pid: 7)"
    assert "killed (signal 9)" in _why(others, report, log, 2)
    assert "one of 2 processes failed; " in _why("", "ImportError", log, 2)


@pytest.mark.parametrize("given", ["0", "two", "-1", ""])
def test_a_number_of_processes_is_checked(monkeypatch, given):
    monkeypatch.setenv(PROCESSES, given)
    with pytest.raises(SubloraError, match=f"{PROCESSES}: '{given}' is not a number of processes"):
        asked_for()


def test_one_of_several_processes_starts_no_others(monkeypatch):
    monkeypatch.setenv(PROCESSES, "4")
    assert asked_for() == 4
    monkeypatch.setenv("RANK", "0")
    assert asked_for() == 1
