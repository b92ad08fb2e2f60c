"""Scores of packed windows are those of one document at a time; every token is scored once."""

import numpy as np
import pytest
import torch
from torch import nn

from sublora import config
from sublora.bounds.scoring import Scores, score
from sublora.data import write_store
from sublora.errors import SubloraError
from sublora.models import GPT

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
    return GPT(config.Model(layers=2, heads=2, width=16, block=BLOCK, weight_std=0.3, embedding_std=0.5), V).eval()


@torch.no_grad()
def plainly(gpt, document, stride):
    """One document, token by token, by the rule: a window of BLOCK tokens that moves by `stride`."""
    logs, ranks = [], []
    context = np.concatenate([[V - 1], document[:-1]])
    for position in range(len(document)):
        window_end = BLOCK if position < BLOCK else min(len(document), BLOCK + stride * -(-(position + 1 - BLOCK) // stride))
        begin = max(0, min(window_end, len(document)) - BLOCK)
        logits = gpt(torch.from_numpy(context[begin : position + 1].astype(np.int64))[None])[0, -1]
        logs.append(float(logits.log_softmax(0)[document[position]]))
        others = [z for token, z in enumerate(logits.tolist()) if token != document[position]]
        ranks.append(sum(not z < float(logits[document[position]]) for z in others))
    return logs, ranks


@pytest.mark.parametrize("stride", [1, 5, 12])
@pytest.mark.parametrize("batch_tokens", [1, 30, 4096])
def test_packed_scores_equal_plain_ones(store, gpt, stride, batch_tokens):
    documents = np.array([3, 0, 5, 6, 1, 2, 8, 7, 4])
    scores = score(gpt, store, documents, BLOCK, stride, batch_tokens, "test")
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
    scores = score(Fixed(logits), store, np.arange(len(store)), BLOCK, 6, 100, "test")
    ends = scores.offsets[1:] - 1  # the end-of-text tokens: id V - 1
    assert (scores.rank[ends] == expected).all()


def test_another_vocabulary_is_refused(store):
    with pytest.raises(SubloraError, match="the model has 10 tokens, the token store 9"):
        score(Fixed([0.0] * 10), store, np.arange(3), BLOCK, 6, 100, "test")


def test_scores_survive_the_disk(store, gpt, tmp_path):
    scores = score(gpt, store, np.arange(4), BLOCK, 6, 100, "test")
    scores.save(tmp_path / "scores.safetensors")
    again = Scores.load(tmp_path / "scores.safetensors")
    for name, value in vars(scores).items():
        np.testing.assert_array_equal(vars(again)[name], value)
    (tmp_path / "scores.safetensors").write_bytes(b"x" * 30)
    with pytest.raises(SubloraError, match="not a file of scores"):
        Scores.load(tmp_path / "scores.safetensors")
