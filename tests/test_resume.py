"""Training goes on where it was interrupted, and never ends with bad weights."""

import numpy as np
import pytest
import torch

from sublora.data import Split, write_store
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.models import build
from sublora.training import Sampler, load_checkpoint, save_checkpoint, train_phase
from sublora.training.metrics import training_seconds

EXPERIMENT = as_experiment(
    {
        "name": "tiny",
        "model": {"layers": 1, "heads": 2, "width": 16, "block": 16},
        "subspace": {"dimension": 60, "rank": 2, "lora_dropout": 0.1},
        "training": {
            "steps": 24,
            "batch": 8,
            "accumulation": 2,
            "learning_rate": 0.05,
            "warmup": 2,
            "validate_every": 6,
            "validation_documents": 10,
            "precision": "no",
        },
    }
)


@pytest.fixture
def corpus(tmp_path):
    random = np.random.default_rng(0)
    documents = [np.append(np.arange(random.integers(4, 40)) % 7, 20).astype(np.uint16) for _ in range(60)]
    store = write_store(tmp_path / "store", documents, name="toy", tokenizer="toy", vocab_size=21, eot=20)
    order = random.permutation(60)
    return store, Split(order[:40], order[40:50], order[50:], "permutation", "by hand")


def fit(corpus, folder, **training):
    changed = EXPERIMENT.parameters()
    changed["training"] |= training
    experiment = as_experiment(changed)
    model = build(experiment.model, experiment.subspace, 21)
    metrics = train_phase(model, *corpus, experiment, folder, phase="pretrain")
    return model.coordinates.detach().clone(), metrics.drop(columns=["tokens_per_second", "seconds"])


@pytest.mark.parametrize("at", [3, 6, 11, 23])
def test_an_interrupted_run_ends_with_the_same_weights(corpus, tmp_path, monkeypatch, at):
    expected, expected_metrics = fit(corpus, tmp_path / "whole")
    original = Sampler.batch

    def interrupted(self, step, sequences):
        if step == at:
            raise KeyboardInterrupt
        return original(self, step, sequences)

    monkeypatch.setattr(Sampler, "batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path / "killed")
    monkeypatch.setattr(Sampler, "batch", original)
    torch.manual_seed(99)  # whatever the new process starts with
    coordinates, metrics = fit(corpus, tmp_path / "killed")
    assert torch.equal(coordinates, expected)
    assert metrics.equals(expected_metrics)
    assert metrics["validation_loss"].iloc[-1] < metrics["validation_loss"].iloc[0]


def test_a_finished_run_is_read_not_run(corpus, tmp_path, monkeypatch):
    expected, _ = fit(corpus, tmp_path)
    monkeypatch.setattr(Sampler, "batch", lambda *_: pytest.fail("trained again"))
    coordinates, metrics = fit(corpus, tmp_path)
    assert torch.equal(coordinates, expected)
    assert metrics["step"].tolist() == [6, 12, 18, 24]


def test_other_settings_are_refused(corpus, tmp_path):
    fit(corpus, tmp_path)
    with pytest.raises(SubloraError, match=r"pretrain\.safetensors: the checkpoint has schedule"):
        fit(corpus, tmp_path, learning_rate=0.01)


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(corpus, tmp_path, monkeypatch):
    original = Sampler.batch

    def poisoned(self, step, sequences):
        batch = original(self, step, sequences)
        if step == 14:
            batch.weights.fill_(float("nan"))
        return batch

    monkeypatch.setattr(Sampler, "batch", poisoned)
    with pytest.raises(SubloraError, match="not finite at step"):
        fit(corpus, tmp_path)
    tensors, facts = load_checkpoint(tmp_path / "pretrain.safetensors", {})
    assert facts["step"] == 12
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_damaged_checkpoint_is_named(corpus, tmp_path):
    fit(corpus, tmp_path)
    path = tmp_path / "pretrain.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SubloraError, match=r"pretrain\.safetensors: not a readable checkpoint"):
        fit(corpus, tmp_path)


def test_the_learning_rate_warms_up_and_falls(corpus, tmp_path):
    _, metrics = fit(corpus, tmp_path)
    rates = metrics["learning_rate"].tolist()
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(EXPERIMENT.training.min_learning_rate)


def test_a_validation_loss_that_is_not_finite_is_not_kept(corpus, tmp_path):
    with pytest.raises(SubloraError, match="not finite at step"):
        fit(corpus, tmp_path, learning_rate=1e30, min_learning_rate=1e30, validate_every=1)
    assert not (tmp_path / "pretrain.safetensors").exists()


@pytest.mark.parametrize("precision", ["bf16", "no", "auto"])
def test_any_precision_after_any_other_in_one_process(corpus, tmp_path, precision):
    fit(corpus, tmp_path / "before", precision="no" if precision != "no" else "bf16")
    coordinates, _ = fit(corpus, tmp_path / "after", precision=precision)
    assert torch.isfinite(coordinates).all() and coordinates.abs().max() > 0


@pytest.mark.parametrize("saved", [True, False])
def test_a_run_killed_beside_its_only_checkpoint_still_has_its_row(corpus, tmp_path, monkeypatch, saved):
    expected, expected_metrics = fit(corpus, tmp_path / "whole", validate_every=24)

    def killed(*arguments):
        if saved:
            save_checkpoint(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("sublora.training.loop.save_checkpoint", killed)
        fit(corpus, tmp_path / "killed", validate_every=24)
    coordinates, metrics = fit(corpus, tmp_path / "killed", validate_every=24)
    assert torch.equal(coordinates, expected) and metrics.equals(expected_metrics) and metrics["step"].tolist() == [24]
    assert training_seconds(tmp_path / "killed").keys() == {"pretrain"}


def test_the_largest_seed_is_a_seed(corpus, tmp_path):
    coordinates, _ = fit(corpus, tmp_path, seed=2**32 - 1, steps=6)
    assert torch.isfinite(coordinates).all()
