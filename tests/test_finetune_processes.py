"""Several processes fine-tune the same classifier as one does: what `accelerate launch` starts on several GPUs."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_models import save_model

from sublora.data.labelled import Examples
from sublora.experiment import as_experiment
from sublora.problems import LabelProblem

PROCESS = """
import json, sys
from pathlib import Path
import numpy as np
import sublora
from sublora.data.labelled import Examples
from sublora.experiment import as_experiment
from sublora.problems import LabelProblem

values, texts, labels, folder = json.loads(Path(sys.argv[1]).read_text())
training = Examples([tuple(text) for text in texts], np.array(labels))
problem, folder = LabelProblem(as_experiment(values), training, training, training.subset([]), {}), Path(folder)
model, _ = problem.train(folder)
message, _ = problem.compress(folder, model)
np.savez(sys.argv[2], coordinates=model.coordinates.detach().numpy(), message=np.frombuffer(message, np.uint8))
"""


def examples(size=64):
    draw = np.random.default_rng(0)
    words = np.array("a film good bad dull fine very not is".split())
    texts = [tuple(text) for text in ([" ".join(draw.choice(words, draw.integers(1, 8)))] for _ in range(size))]
    return Examples(texts, np.array([int("good" in text[0] or "fine" in text[0]) for text in texts]))


def settings(source, subspace=None, **training):
    training = {"epochs": 3, "batch": 16, "learning_rate": 0.05, "validate_every": 4, "watched_examples": 20, **training}
    return {
        "kind": "classify",
        "name": "tiny",
        "task": {"path": "none", "max_length": 16},
        "model": {"source": source},
        "subspace": {"dimension": 25, "rank": 2, "lora_dropout": 0.0, **(subspace or {})},
        "training": {**training, "precision": "no", "compile": "no"},
        "compression": {"levels": 5},
    }


def problem_of(values):
    training = examples()
    return LabelProblem(as_experiment(values), training, training, training.subset(np.arange(0)), {})


def alone(values, folder):
    return problem_of(values).train(folder)[0].coordinates.detach().numpy()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), "gpt2")


def test_validations_scale_with_the_steps(tmp_path, model):
    _, log = problem_of(settings(model, validate_every=None)).train(tmp_path / "six")
    assert log["step"].tolist() == [2, 4, 6, 8, 10, 12]


def test_a_batch_in_parts_gives_the_same_coordinates(tmp_path, model):
    whole = alone(settings(model), tmp_path / "whole")
    parts = alone(settings(model, accumulation=4), tmp_path / "parts")
    assert np.abs(whole).max() > 0.1
    np.testing.assert_allclose(parts, whole, atol=1e-3)


def test_two_processes_give_the_same_coordinates(tmp_path, model):
    values, given = settings(model), examples()
    whole = alone(values, tmp_path / "whole")
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([values, given.texts, given.labels.tolist(), str(tmp_path / "shared")]), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, asked, tmp_path / f"rank{rank}.npz"],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    ranks = [np.load(tmp_path / f"rank{rank}.npz", allow_pickle=False) for rank in range(2)]
    for key in ("coordinates", "message"):
        np.testing.assert_array_equal(ranks[0][key], ranks[1][key])
    np.testing.assert_allclose(ranks[0]["coordinates"], whole, atol=1e-3)


def test_dropout_is_on_while_training_alone(tmp_path, model):
    values = settings(model, subspace={"lora_dropout": 0.5})
    assert np.abs(alone(values, tmp_path / "a") - alone(settings(model), tmp_path / "b")).max() > 1e-3
    classifier, _ = problem_of(values).build()
    inputs = torch.from_numpy(classifier.module.encode([("a good film",)]).ids.astype(np.int64))
    with torch.no_grad():
        classifier.coordinates.fill_(0.3)
        assert torch.equal(classifier.eval()(inputs), classifier.eval()(inputs))
