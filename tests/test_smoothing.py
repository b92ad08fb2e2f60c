"""Prediction smoothing: the range of the loss, and everything that must count against the model."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublora.errors import SubloraError
from sublora.inequalities.smoothing import document_means, loss_range, scale_to_unit, smoothed_bits, topk_errors

ALPHAS = st.floats(1e-6, 1 - 1e-6)
VOCABULARIES = st.integers(2, 60_000)


@pytest.mark.parametrize(
    ("alpha", "gpt2", "llama", "floor"),
    [
        (1e-4, 28.905, 28.253, 0.0001),
        (1e-3, 25.581, 24.930, 0.0014),
        (5e-3, 23.254, 22.602, 0.0072),
        (0.01, 22.246, 21.595, 0.0145),
        (0.05, 19.865, 19.214, 0.0740),
        (0.1, 18.787, 18.136, 0.1520),
        (0.25, 17.202, 16.551, 0.4150),
        (0.5, 15.617, 14.966, 1.0000),
    ],
)
def test_ranges_at_the_published_vocabularies(alpha, gpt2, llama, floor):
    low, width = loss_range(alpha, 50257)
    assert width == pytest.approx(gpt2, abs=6e-4)
    assert low == pytest.approx(floor, abs=6e-5)
    assert loss_range(alpha, 32000)[1] == pytest.approx(llama, abs=6e-4)


@given(ALPHAS, VOCABULARIES)
def test_range_ends_are_the_losses_of_certainty_and_impossibility(alpha, vocab_size):
    low, width = loss_range(alpha, vocab_size)
    assert low == pytest.approx(-math.log2(1 - alpha + alpha / vocab_size), rel=1e-12)
    assert low + width == pytest.approx(math.log2(vocab_size / alpha), rel=1e-9)
    ends = smoothed_bits(np.array([0.0, -1e9]), alpha, vocab_size)
    np.testing.assert_allclose(ends, [low, low + width], rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30), ALPHAS, VOCABULARIES)
def test_no_log_probability_leaves_the_range(logs, alpha, vocab_size):
    low, width = loss_range(alpha, vocab_size)
    bits = smoothed_bits(np.array(logs), alpha, vocab_size)
    assert bits.dtype == np.float64 and bits.shape == (len(logs),)
    assert (bits >= low).all() and (bits <= low + width).all()
    assert (bits[~np.isfinite(logs)] == low + width).all()


def test_smoothed_probabilities_sum_to_one():
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(257)))
    assert np.exp2(-smoothed_bits(logs, 0.1, 257)).sum() == pytest.approx(1.0, rel=1e-12)


def test_float32_rounding_above_zero_is_certainty():
    low, _ = loss_range(0.1, 257)
    assert smoothed_bits(np.array([1e-7], dtype=np.float32), 0.1, 257)[0] == low


def test_topk_ties_and_nan_are_errors():
    """Ranks as scoring counts them: the others that are not below the right token."""
    logits = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [np.nan] * 3, [0.0, np.nan, 1.0], [5.0, 5.0, 1.0]])
    right = logits[:, :1]
    rank = (~(logits < right)).sum(axis=1) - (~(right < right)).ravel()
    assert rank.tolist() == [0, 2, 2, 2, 1]
    assert topk_errors(rank, 1).tolist() == [0, 1, 1, 1, 1]
    assert topk_errors(rank, 2).tolist() == [0, 1, 1, 1, 0]
    assert topk_errors(np.array([0.0, np.nan]), 10).tolist() == [0, 1]


@given(st.lists(st.lists(st.floats(0, 1e3), min_size=1, max_size=9), min_size=1, max_size=20))
def test_document_means(documents):
    offsets = np.cumsum([0] + [len(d) for d in documents])
    means = document_means(np.concatenate(documents), offsets)
    np.testing.assert_allclose(means, [np.mean(d) for d in documents], rtol=1e-12, atol=1e-12)


def test_scaling_absorbs_rounding_and_nothing_else():
    low, width = loss_range(0.1, 257)
    assert scale_to_unit([low - 1e-12, low + width / 2, low + width + 1e-12], low=low, width=width).tolist() == [0.0, 0.5, 1.0]
    for wrong in (low - 1e-6, low + width + 1e-6, math.nan):
        with pytest.raises(SubloraError, match="losses"):
            scale_to_unit([low, wrong], low=low, width=width)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: loss_range(0.0, 257), "alpha"),
        (lambda: loss_range(1.0, 257), "alpha"),
        (lambda: loss_range(math.nan, 257), "alpha"),
        (lambda: loss_range(0.1, 1), "vocab_size"),
        (lambda: loss_range(0.1, 256.5), "vocab_size"),
        (lambda: topk_errors([-1], 1), "rank"),
        (lambda: topk_errors([1], 0), "k"),
        (lambda: document_means([], [0]), "offsets"),
        (lambda: document_means([1.0, 2.0], [0, 1]), "offsets"),
        (lambda: document_means([1.0, 2.0], [1, 2]), "offsets"),
        (lambda: document_means([1.0, 2.0], [0, 2, 2]), "offsets: document 1"),
        (lambda: scale_to_unit([], low=0.0, width=1.0), "losses"),
        (lambda: scale_to_unit([0.5], low=0.0, width=0.0), "width"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(SubloraError, match=f"^{named}") as error:
        call()
    assert "\n" not in str(error.value)
