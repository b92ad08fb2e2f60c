"""Slices of the fuzzing: past findings, and some hostile messages and certificates more. `make fuzz` goes on for minutes."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from tiny import HOME

from sublora.message import Gridded, early, language
from sublora.message.frame import MessageError


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_message", HOME / "fuzz" / "fuzz_message.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_message"] = module
    spec.loader.exec_module(module)
    return module


def test_no_mutant_says_what_another_message_says_and_no_finding_comes_back(fuzz):
    found = fuzz.attack(np.random.default_rng(5), None, 300)
    assert found.inputs > 400 and found.accepted > 70 and len(fuzz.findings()) > 20


def test_two_messages_of_one_meaning_are_noticed(fuzz, monkeypatch):
    """Twin: decoders that do not encode again accept bytes behind the payload, and each such message drew another subsample."""
    attacked = fuzz.Attack(np.random.default_rng(0))
    for data in fuzz.findings():
        assert not attacked.on(data)
    monkeypatch.setattr(language, "only_form", lambda data, again: None)
    monkeypatch.setattr(early, "only_form", lambda data, again: None)
    monkeypatch.setattr("sublora.message.body.only_form", lambda data, again: None)
    with pytest.raises(AssertionError, match="says the same as"):
        for data in [*fuzz.valid_messages(np.random.default_rng(0)), *fuzz.findings()]:
            attacked.on(data)


def test_the_limit_is_of_this_processs_time_and_not_of_the_clock(fuzz, monkeypatch):
    """On a machine with other work an input may wait as long as it likes."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    monkeypatch.setattr(fuzz, "valid_messages", lambda random: [])
    monkeypatch.setattr(fuzz, "mutated", lambda messages, random: b"")
    monkeypatch.setattr(fuzz, "findings", lambda: [])

    def waiting(self, data):
        import time

        time.sleep(0.5)

    def working(self, data):
        while True:
            sum(range(1000))

    monkeypatch.setattr(fuzz.Attack, "on", waiting)
    fuzz.attack(np.random.default_rng(0), None, 1)
    monkeypatch.setattr(fuzz.Attack, "on", working)
    with pytest.raises(TimeoutError, match="of this process's time"):
        fuzz.attack(np.random.default_rng(0), None, 1)


@pytest.mark.parametrize("extra", [b"\0", b"\1", b"\0\0\0\0"])
def test_bytes_behind_a_message_are_refused_or_make_another_model(fuzz, extra):
    """Zeros are refused. Others may be the last digits of another model's integers, as any other change may be."""
    from sublora.message.frame import Reader, prefixed

    for data in fuzz.valid_messages(np.random.default_rng(0))[:60]:
        form = early if Reader(data).byte() == early.FORMAT else language
        assert form.encode(language.decode(data, 1000)) == data
        try:
            other = language.decode(prefixed(Reader(data).rest() + extra), 1000)
        except MessageError:
            continue
        assert extra == b"\1" and form is language and isinstance(other.coded, Gridded)
        assert not np.array_equal(other.coded.coordinates, language.decode(data, 1000).coded.coordinates)


def test_hostile_certificates_are_answered(tmp_path):
    command = [sys.executable, str(HOME / "fuzz" / "fuzz_verify.py"), "--seconds", "3", "--commands", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "past findings" in done.stdout
