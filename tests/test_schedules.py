"""Learning rates by step, and the cool-down that a person starts."""

import math

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.run import Run
from sublora.training.loop import COOL_DOWN, load_checkpoint
from sublora.training.pretrain import phase_schedule


def rates(steps=40, **training):
    values = settings("texts")
    values["training"] = {"steps": steps, "learning_rate": 1.0, "min_learning_rate": 0.1, "warmup": 4, **training}
    experiment = as_experiment(values)
    schedule = phase_schedule(experiment, steps, 1.0, 0.1)
    return [schedule.rate(step) for step in range(steps)]


def test_a_cosine_falls_once():
    found = rates()
    assert found[:4] == [0.25, 0.5, 0.75, 1.0] and found[4] == 1.0 and found[-1] == pytest.approx(0.1)
    assert found[20] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 16 / 35)) / 2)
    assert all(np.diff(found[4:]) < 0)


def test_restarts_are_lower_each_time():
    found = rates(schedule="restarts", period=9, shrink=0.5)
    assert [found[4], found[13], found[22], found[31]] == pytest.approx([1.0, 0.5, 0.25, 0.125])
    assert [found[12], found[21], found[30], found[39]] == pytest.approx([0.1] * 4)
    assert sum(np.diff(found[4:]) > 0) == 3


def test_a_constant_rate_cools_down_in_a_line():
    found = rates(schedule="constant", cooldown=10)
    assert found[4:30] == [1.0] * 26 and found[-1] == pytest.approx(0.1)
    assert np.diff(found[29:]) == pytest.approx(-0.09)
    assert rates(schedule="constant")[31] == 1.0 and rates(schedule="constant")[32] < 1.0  # a fifth of the steps


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"period": 5}, "period has no effect for schedule cosine"),
        ({"schedule": "restarts", "cooldown": 5}, "cooldown has no effect for schedule restarts"),
        ({"schedule": "constant", "cooldown": 50}, "cooldown 50 exceeds the 40 steps"),
    ],
)
def test_a_key_of_another_schedule_is_an_error(training, said):
    with pytest.raises(SubloraError, match=said):
        rates(**training)


def test_settings_without_a_schedule_are_as_they_were():
    training = as_experiment(settings("texts")).parameters()["training"]
    assert not {"schedule", "period", "shrink", "cooldown"} & training.keys()


def test_a_file_in_the_run_s_folder_starts_the_cool_down(tmp_path, capsys):
    values = settings(write_texts(tmp_path / "texts", 60), bounds__documents=20)
    values["training"] |= {"steps": 60, "schedule": "constant", "cooldown": 10, "validate_every": 5}
    run = Run(values, tmp_path / "runs")
    plain = Run({**values, "name": "plain"}, tmp_path / "runs")
    assert plain.train()["step"].max() == 60
    with run._at_work():
        (run.folder / COOL_DOWN).touch()
    log = run.train()
    assert log["step"].max() == 15 and not (run.folder / COOL_DOWN).exists()
    assert "the last step is 15" in capsys.readouterr().err
    assert load_checkpoint(run.folder / "pretrain.safetensors", {})[1]["last"] == 15
    assert Run(values, tmp_path / "runs").train()["step"].max() == 15, "it stays so"
    assert log["learning_rate"].iloc[-1] == pytest.approx(values["training"].get("min_learning_rate", 5e-4))
