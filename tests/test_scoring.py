"""Scores of packed windows are those of one document at a time; every token is scored once."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from sublora.data import write_store
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, Gpt
from sublora.inequalities.smoothing import smoothed_bits
from sublora.models import GPT
from sublora.scoring import scores as scoring
from sublora.scoring.scores import Scores, sequences, token_windows, unit_windows

BLOCK, V = 12, 9


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    random = np.random.default_rng(0)
    lengths = [1, 2, 11, 12, 13, 17, 40, 5, 24, 25]
    documents = [np.append(random.integers(0, V - 1, n - 1), V - 1).astype(np.uint8) for n in lengths if n > 1]
    path = tmp_path_factory.mktemp("scoring") / "store"
    return write_store(path, documents, name="toy", tokenizer="toy", vocab_size=V, eot=V - 1)


@pytest.fixture(scope="module")
def gpt():
    return GPT(Gpt(layers=2, heads=2, width=16, block=BLOCK, weight_std=0.3, embedding_std=0.5), V).eval()


def score(model, store, documents, block, stride, batch_tokens, **options):
    lengths = store.lengths[documents]
    windows = unit_windows(store.offsets[documents], lengths, block, stride)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return scoring.score(model, store, windows, offsets, documents, batch_tokens=batch_tokens, label="test", **options)


@torch.no_grad()
def plainly(gpt, document, stride):
    """One document, token by token, by the rule: a window of BLOCK tokens that moves by `stride`."""
    logs, ranks = [], []
    context = np.concatenate([[V - 1], document[:-1]])
    for position in range(len(document)):
        begin = 0 if position < BLOCK else stride * -(-(position + 1 - BLOCK) // stride)
        logits = gpt(torch.from_numpy(context[begin : position + 1].astype(np.int64))[None])[0, -1]
        logs.append(float(logits.log_softmax(0)[document[position]]))
        others = [z for token, z in enumerate(logits.tolist()) if token != document[position]]
        ranks.append(sum(not z < float(logits[document[position]]) for z in others))
    return logs, ranks


@pytest.mark.parametrize("stride", [1, 5, 12])
@pytest.mark.parametrize("batch_tokens", [1, 30, 4096])
def test_packed_scores_equal_plain_ones(store, gpt, stride, batch_tokens):
    documents = np.array([3, 0, 5, 6, 1, 2, 8, 7, 4])
    scores = score(gpt, store, documents, BLOCK, stride, batch_tokens)
    assert scores.offsets.tolist() == [0, *np.cumsum(store.lengths[documents])]
    for i, document in enumerate(documents):
        logs, ranks = plainly(gpt, store.document(document), stride)
        mine = slice(scores.offsets[i], scores.offsets[i + 1])
        np.testing.assert_allclose(scores.log_probability[mine], logs, atol=2e-5)
        np.testing.assert_array_equal(scores.rank[mine], ranks)


class Fixed(nn.Module):
    """The same logits everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [([0.0] * V, V - 1), ([float("nan")] * V, V - 1), ([1.0] * (V - 1) + [2.0], 0), ([1.0, 1.0] + [0.0] * (V - 2), V - 1)],
)
def test_ties_and_nan_count_against_the_model(store, logits, expected):
    scores = score(Fixed(logits), store, np.arange(len(store)), BLOCK, 6, 100)
    ends = scores.offsets[1:] - 1  # the end-of-text tokens: id V - 1
    assert (scores.rank[ends] == expected).all()


def test_another_vocabulary_is_refused(store):
    with pytest.raises(SubloraError, match="the model has 10 tokens, the token store 9"):
        score(Fixed([0.0] * 10), store, np.arange(3), BLOCK, 6, 100)


def test_scores_survive_the_disk(store, gpt, tmp_path):
    scores = score(gpt, store, np.arange(4), BLOCK, 6, 100)
    scores.save(tmp_path / "scores.safetensors")
    again = Scores.load(tmp_path / "scores.safetensors")
    for name, value in vars(scores).items():
        np.testing.assert_array_equal(vars(again)[name], value)
    (tmp_path / "scores.safetensors").write_bytes(b"x" * 30)
    with pytest.raises(SubloraError, match="not a file of scores"):
        Scores.load(tmp_path / "scores.safetensors")


@pytest.mark.parametrize("stride", [1, 5, 12])
def test_a_token_on_its_own_scores_as_within_its_document(store, gpt, stride):
    documents = np.array([3, 5, 6, 1])
    whole = score(gpt, store, documents, BLOCK, stride, 100)
    drawn = np.array([40, 0, 13, 11, 12, 21, 20, int(whole.offsets[-1]) - 1])
    windows = token_windows(store.offsets[documents], store.lengths[documents], drawn, BLOCK, stride)
    tokens = scoring.score(gpt, store, windows, np.arange(len(drawn) + 1), drawn, batch_tokens=60, label="test")
    np.testing.assert_allclose(tokens.log_probability, whole.log_probability[drawn], atol=2e-5)
    np.testing.assert_array_equal(tokens.rank, whole.rank[drawn])


@pytest.mark.parametrize("stride", [1, 5, 12])
def test_all_tokens_of_a_stream_take_the_windows_of_its_documents(store, stride):
    documents = np.array([3, 5, 6, 1])
    starts, lengths = store.offsets[documents], store.lengths[documents]
    order = np.random.default_rng(0).permutation(lengths.sum())
    whole, drawn = unit_windows(starts, lengths, BLOCK, stride), token_windows(starts, lengths, order, BLOCK, stride)
    for name in ("first", "size", "start", "ends", "place"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(whole, name))
    np.testing.assert_array_equal(order[drawn.goal], whole.goal)


def test_sequences_cover_every_token_once_and_are_read_on_their_own(store, gpt):
    documents = np.array([6, 0, 2, 8])
    starts, lengths = sequences(store.offsets[documents], store.lengths[documents], BLOCK)
    covered = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)])
    expected = np.concatenate([np.arange(store.offsets[d], store.offsets[d + 1]) for d in documents])
    np.testing.assert_array_equal(covered, expected)
    assert lengths.max() <= BLOCK and lengths.min() >= 1
    windows = unit_windows(starts, lengths, BLOCK, 5)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scores = scoring.score(gpt, store, windows, offsets, np.arange(len(lengths)), batch_tokens=50, label="test")
    logs, _ = plainly(gpt, np.asarray(store.tokens[starts[1] : starts[1] + lengths[1]]), 5)
    np.testing.assert_allclose(scores.log_probability[scores.offsets[1] : scores.offsets[2]], logs, atol=2e-5)


@pytest.mark.parametrize("piece", [1, 40, 10**6])
def test_what_the_model_expects_is_the_mean_loss_of_its_own_draws(store, gpt, monkeypatch, piece):
    monkeypatch.setitem(scoring.PIECE, "cpu", piece)
    scores = score(gpt, store, np.array([3]), BLOCK, 6, 100, expectations=True)
    document = store.document(3)
    inputs = np.concatenate([[V - 1], document[:-1]])[:BLOCK].astype(np.int64)
    with torch.no_grad():
        p = gpt(torch.from_numpy(inputs)[None])[0].double().softmax(1).numpy()
    for column, alpha in enumerate(ALPHA_GRID):
        smoothed = (1 - alpha) * p + alpha / V
        expected = (smoothed * smoothed_bits(np.log(p), alpha, V)).sum(1)
        np.testing.assert_allclose(scores.expected_bits[: len(expected), column], expected, atol=1e-4)
    for column, k in enumerate(TOP_K):
        hits = -np.sort(-p, axis=1)[:, :k].sum(1)
        np.testing.assert_allclose(scores.expected_hits[: len(hits), column], hits, atol=1e-5)


class Stops(nn.Module):
    """A model that is killed at its n-th batch."""

    def __init__(self, model, calls):
        super().__init__()
        self.model, self.calls = model, calls

    def forward(self, tokens):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.model(tokens)


def test_interrupted_scoring_goes_on_where_it_was(store, gpt, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SECONDS_BETWEEN_SAVES", 0)
    documents, keep = np.arange(len(store)), tmp_path / "scores" / "all.safetensors"
    counted = Stops(gpt, 10**6)
    whole = score(counted, store, documents, BLOCK, 6, 24, expectations=True)
    with pytest.raises(KeyboardInterrupt):
        score(Stops(gpt, 4), store, documents, BLOCK, 6, 24, expectations=True, keep=keep, identity="gpt")
    assert not keep.exists()
    again = Stops(gpt, 10**6)
    resumed = score(again, store, documents, BLOCK, 6, 24, expectations=True, keep=keep, identity="gpt")
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(vars(resumed)[name], value)
    assert again.calls == counted.calls + 4, "what was scored before is not scored again"
    assert [path.name for path in keep.parent.iterdir()] == [keep.name]
    read = score(Stops(gpt, 0), store, documents, BLOCK, 6, 24, expectations=True, keep=keep, identity="gpt")
    np.testing.assert_array_equal(read.rank, whole.rank)
    with pytest.raises(KeyboardInterrupt):  # another model's scores are not taken for this one's
        score(Stops(gpt, 0), store, documents, BLOCK, 6, 24, expectations=True, keep=keep, identity="another")


def test_a_damaged_part_is_no_obstacle(store, gpt, tmp_path):
    keep = tmp_path / "scores.safetensors"
    (tmp_path / "scores.safetensors.part0").write_bytes(b"x" * 100)
    keep.write_bytes(b"y" * 100)
    scores = score(gpt, store, np.array([1, 2]), BLOCK, 6, 24, keep=keep, identity="gpt")
    np.testing.assert_array_equal(scores.rank, score(gpt, store, np.array([1, 2]), BLOCK, 6, 24).rank)


def test_repeated_units_are_the_same_units(store, gpt):
    scores = score(gpt, store, np.array([0, 4, 2]), BLOCK, 6, 100)
    more = scores.repeated(7, 100)
    assert more.places.tolist() == [0, 14, 28, 42, 57, 71, 85]
    assert np.diff(more.offsets).tolist() == np.diff(scores.offsets)[[0, 1, 2, 0, 1, 2, 0]].tolist()
    np.testing.assert_array_equal(more.rank[more.offsets[4] : more.offsets[5]], scores.rank[scores.offsets[1] : scores.offsets[2]])


PROCESS = """
import sys
from pathlib import Path
import numpy as np
from sublora.experiment import Gpt
from sublora.data import TokenStore
from sublora.models import GPT
from sublora.scoring.scores import score, unit_windows

store, keep = TokenStore.open(sys.argv[1]), sys.argv[2]
model = GPT(Gpt(layers=2, heads=2, width=16, block=12, weight_std=0.3, embedding_std=0.5), 9).eval()
windows = unit_windows(store.offsets[:-1], store.lengths, 12, 5)
options = {"expectations": True, "keep": Path(keep), "identity": "gpt"}
scores = score(model, store, windows, store.offsets, np.arange(len(store)), batch_tokens=24, label="test", **options)
scores.save(sys.argv[3])
"""


def test_two_processes_share_the_work_and_both_have_the_whole(store, gpt, tmp_path):
    """As `accelerate launch --num_processes 2` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, store.path, tmp_path / "kept", tmp_path / f"rank{rank}"],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    alone = score(gpt, store, np.arange(len(store)), BLOCK, 5, 24, expectations=True)
    for path in ("rank0", "rank1"):
        together = Scores.load(tmp_path / path)
        np.testing.assert_array_equal(together.rank, alone.rank)
        np.testing.assert_allclose(together.expected_bits, alone.expected_bits, atol=1e-5)
    assert not list(tmp_path.glob("*.part*")) and (tmp_path / "kept").exists()
