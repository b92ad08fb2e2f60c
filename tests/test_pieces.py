"""A step is trained in pieces of alike lengths, without most of the padding, and has the gradients of the padded batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tiny import settings, write_texts

from sublora.data import write_store
from sublora.experiment import Gpt, Subspace, as_experiment
from sublora.models import build, output
from sublora.models.references import DocumentCode
from sublora.run import Run
from sublora.training import Sampler, loop, precision
from sublora.training.batches import IGNORED

V, BLOCK = 41, 256


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    random = np.random.default_rng(1)
    texts = [np.append(random.integers(0, V - 1, n), V - 1) for n in random.integers(2, 90, 40).tolist() + [250, 300, 700]]
    return write_store(tmp_path_factory.mktemp("pieces") / "store", texts, name="toy", tokenizer="toy", vocab_size=V, eot=V - 1)


def model_of(residual=False):
    shape = Gpt(layers=1, heads=2, width=16, block=BLOCK, residual=residual, embedding_std=0.3, weight_std=0.3)
    model = build(shape, Subspace(parametrization="full"), V)
    torch.manual_seed(0)
    with torch.no_grad():
        model.coordinates.normal_(0, 0.02)
    return model


def padded(model, batch):
    """The loss in bits, as the paper's code goes about it: all positions of all windows, and all of their logits."""
    given = (batch.inputs,) if batch.log_q is None else (batch.inputs, batch.past())
    nats = F.cross_entropy(model(*given).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="none")
    loss = (nats.view(batch.targets.shape).sum(1) * batch.weights).sum() / np.log(2)
    loss.backward()
    return loss.detach(), model.coordinates.grad.clone()


@pytest.mark.parametrize("at_once", [2**24, 7 * V])  # whole logits; a few at a time
@pytest.mark.parametrize("sampling", ["document", "token"])
@pytest.mark.parametrize("residual", [False, True])
def test_pieces_have_the_loss_and_the_gradients_of_the_padded_batch(store, monkeypatch, residual, sampling, at_once):
    monkeypatch.setitem(output.LOGITS, "cpu", at_once)
    code = DocumentCode((5.0, 2.0), 0.5, "uniform") if residual else None
    wanted = np.arange(0, len(store.tokens), 3) if sampling == "token" else None  # as for positions
    batch = Sampler(store, np.arange(len(store)), BLOCK, sampling, 3, code=code, targets=wanted).batch(0, 24)
    model, exactly = model_of(residual), torch.autocast("cpu", enabled=False)
    loss, gradient = padded(model, batch)
    pieces = batch.pieces(10, 900, 40)
    assert len(pieces) > 2
    model.coordinates.grad = None
    found = loop._step(Accelerator(mixed_precision="no"), exactly, model, pieces, penalty=None)
    torch.testing.assert_close(found, loss, rtol=2e-6, atol=0)
    torch.testing.assert_close(model.coordinates.grad, gradient, rtol=1e-4, atol=1e-6)
    model.coordinates.grad = None
    lost = loop._step(Accelerator(mixed_precision="no"), exactly, model, pieces[1:], penalty=None)  # the twin: a piece is lost
    assert abs(lost - loss) > 0.01


def test_a_piece_without_targets_has_no_loss(store, monkeypatch):
    monkeypatch.setitem(output.LOGITS, "cpu", 7 * V)
    batch = Sampler(store, np.arange(len(store)), BLOCK, "token", 3, targets=np.zeros(0, np.int64)).batch(0, 2)
    loss = loop._step(Accelerator(mixed_precision="no"), torch.autocast("cpu", enabled=False), model_of(), [batch], penalty=None)
    assert float(loss) == 0


def test_pieces_keep_limits_and_leave_padding_out(store):
    batch = Sampler(store, np.arange(len(store)), BLOCK, "document", 5).batch(1, 32)
    real = (batch.targets != IGNORED).sum()
    pieces = batch.pieces(8, 1024, 16)
    assert all(len(piece.inputs) <= 8 and piece.inputs.numel() <= 1024 for piece in pieces)
    assert sum((piece.targets != IGNORED).sum() for piece in pieces) == real
    assert sum(piece.inputs.numel() for piece in pieces) < 1.5 * real < 0.5 * batch.inputs.numel()
    assert all(len(piece.inputs) == 1 for piece in batch.pieces(8, 1, 16))  # one at least
    (one,) = batch.pieces(32, 2**40, 2**40)  # when a call costs more than all padding: in the batch's own order
    assert torch.equal(one.weights, batch.weights) and torch.equal(one.inputs, batch.part(0, 1).inputs)


@pytest.mark.parametrize("fast, expected", [(False, "no"), (True, "bf16")])
def test_auto_precision_is_measured_once_and_stated(tmp_path, monkeypatch, fast, expected):
    slow = iter(range(10**6))

    def seconds():  # each call of the step takes 10 s in float32, and 5 or 11 in bf16
        call = next(slow)
        return 10.0 * (call // 4) + (0, 10, 10, 10 + (5 if fast else 11))[call % 4]

    monkeypatch.setattr(precision.torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=seconds))
    values = settings(write_texts(tmp_path / "texts"), training__steps=2, compression__finetune_steps=1)
    values["training"].pop("precision", None)
    values["training"].pop("validate_every")
    run = Run(as_experiment(values), tmp_path / "runs")
    run.train()
    assert (run.folder / precision.FILE).read_text("ascii") == f"{expected}\n"
    monkeypatch.setattr(precision, "_faster", lambda *_: pytest.fail("measured again"))
    for file in run.folder.glob("*.safetensors"):  # as if it had been killed before its first checkpoint
        file.unlink()
    again = Run(as_experiment(values), tmp_path / "runs")
    assert again.certify().environment.training_precision == expected


def test_a_precision_that_was_set_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_faster", lambda *_: pytest.fail("measured"))
    values = settings(write_texts(tmp_path / "texts"), training__precision="no", training__steps=1, compression__finetune_steps=1)
    values["training"].pop("validate_every")
    run = Run(as_experiment(values), tmp_path / "runs")
    data = run.certify().data()
    assert "training_precision" not in data["environment"] and not (run.folder / precision.FILE).exists()
