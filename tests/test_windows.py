"""No window looks at the end of its document, in scoring and in training; what happens to probabilities where one does."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from worlds import moved_back

from sublora.data import write_store
from sublora.experiment import Gpt
from sublora.models import GPT
from sublora.scoring.scores import score, unit_windows
from sublora.training.batches import IGNORED, Sampler


def store_of(folder, documents, vocab_size):
    documents = [np.array(document, np.uint8) for document in documents]
    return write_store(folder, documents, name="toy", tokenizer="toy", vocab_size=vocab_size, eot=vocab_size - 1)


def scored(model, store, block, stride, rule):
    windows = rule(store.offsets[:-1], store.lengths, block, stride)
    scores = score(model, store, windows, store.offsets, np.arange(len(store)), batch_tokens=64, label="test")
    return [scores.log_probability[a:b] for a, b in zip(scores.offsets[:-1], scores.offsets[1:], strict=True)]


@pytest.mark.parametrize("stride", [1, 5, 12])
def test_a_loss_does_not_change_when_later_tokens_are_appended(tmp_path, stride):
    V, block = 9, 12
    text = np.random.default_rng(0).integers(0, V - 1, 40)
    lengths = [13, 17, 18, 23, 25, 40]
    store = store_of(tmp_path / "store", [text[:n] for n in lengths], V)
    gpt = GPT(Gpt(layers=2, heads=2, width=16, block=block, weight_std=0.3, embedding_std=0.5), V).eval()
    *shorter, longest = scored(gpt, store, block, stride, unit_windows)
    for n, losses in zip(lengths, shorter, strict=False):
        np.testing.assert_allclose(losses[:n], longest[:n], atol=2e-6)
    *shorter, longest = scored(gpt, store, block, stride, moved_back)
    moved = [abs(losses[:n] - longest[:n]).max() > 1e-3 for n, losses in zip(lengths, shorter, strict=False)]
    assert any(moved) or stride == 1, "the twin moves a window; by one token at a time there is nothing to move"


class Cue(nn.Module):
    """Two tokens, 1 the end of text: says "end" at a window's last place, unless it sees the start of the document."""

    def __init__(self, block):
        super().__init__()
        self.sure, self.block = nn.Parameter(torch.tensor(5.0)), block

    def forward(self, tokens):
        opening, place = tokens[:, :1] == 1, torch.arange(tokens.shape[1])
        end = torch.where((place == self.block - 1) & ~opening, self.sure, -self.sure)
        return torch.stack([-end, end], dim=2)


def total_probability(logs):
    """Of all documents over two tokens: the empty one, one of each further length, and all that begin as the longest ones."""
    *shorter, longest = logs
    empty = -math.expm1(longest[0])  # no store has it
    return empty + sum(math.exp(document.sum()) for document in shorter) + math.exp(longest[:-1].sum())


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_the_probabilities_of_all_documents_sum_to_one(tmp_path, stride):
    store, block = store_of(tmp_path / "store", [[0] * n for n in range(1, 60)], 2), 8
    gpt = GPT(Gpt(layers=2, heads=2, width=16, block=block, weight_std=0.5, embedding_std=0.5), 2).eval()
    for model in (Cue(block), gpt):
        assert total_probability(scored(model, store, block, stride, unit_windows)) == pytest.approx(1, abs=1e-5)
    twin = total_probability(scored(Cue(block), store, block, stride, moved_back))
    assert twin > 1.5 or stride == 1, "the twin has more than there is; by one token at a time there is nothing to move"


def test_training_windows_begin_where_scored_ones_do_and_every_token_counts_the_same(tmp_path):
    block, lengths = 8, np.array([8, 9, 15, 30])
    store = store_of(tmp_path / "store", [range(n - 1) for n in lengths], 41)  # a token is its own place
    for sampling in ("document", "token"):
        batch = Sampler(store, np.arange(4), block, sampling, seed=0).batch(0, 40_000)
        targets, inputs = batch.targets.numpy(), batch.inputs.numpy()
        begin = np.where(inputs[:, 0] == 40, 0, inputs[:, 0] + 1)
        assert set(begin) == {0, 8, 16, 24}
        real = targets != IGNORED
        weights = np.where(real, batch.weights.numpy()[:, None], 0)
        assert weights.sum() == pytest.approx(1, abs=1e-4)
        # the token at place 8 of document 1 is its end of text, alone in its window; no other window has one real token
        share = weights[(real.sum(1) == 1) & (targets[:, 0] == 40)].sum()
        expected = 1 / 4 / 9 if sampling == "document" else 1 / lengths.sum()
        assert share == pytest.approx(expected, rel=0.15), "the twin, a window drawn uniformly, gives it 1/8 for documents"
