"""Codebooks and quantization-aware training."""

import itertools
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sublora.compression import Quantized
from sublora.compression import quantizers as Q
from sublora.compression.quantizers import (
    QUANTIZERS,
    ecsq_assign,
    ecsq_codebook,
    kmeans_codebook,
    nearest,
    quantize,
    uniform_codebook,
)
from sublora.experiment import Gpt, Subspace
from sublora.message import Coded, published_bits
from sublora.models import build

TINY = Gpt(layers=1, heads=2, width=16, block=8)

VALUES = st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=60).map(np.array)


def distortion(values, codebook, symbols=None):
    symbols = nearest(values, codebook) if symbols is None else symbols
    return float(((values - codebook.astype(np.float64)[symbols]) ** 2).mean())


def rate(symbols):
    shares = np.unique(symbols, return_counts=True)[1] / len(symbols)
    return float(-(shares * np.log2(shares)).sum())


def least_error(values, levels):
    """The least squared error of any division of sorted values into at most so many runs, by trying all."""
    values = np.sort(values)
    cuts = itertools.chain(*(itertools.combinations(range(1, len(values)), k) for k in range(min(levels, len(values)))))
    return min(sum(((run - run.mean()) ** 2).sum() for run in np.split(values, cut)) for cut in cuts)


def test_uniform_levels_are_the_means_of_equal_bins():
    values = np.array([-10.0, -9.0, -2.0, 0.0, 1.0, 9.0])
    assert uniform_codebook(values, 2).tolist() == [-7.0, np.float16(10 / 3)]
    assert uniform_codebook(values, 5).tolist() == [-9.5, -6.0, np.float16(-1 / 3), 2.0, 9.0]  # empty bins keep their lower ends


def test_uniform_levels_of_skewed_values_are_the_papers_and_not_those_of_their_range():
    """The paper's bins span ±max|v|. Between min and max there are others, with another entropy, which its accounting counts."""
    values = np.random.default_rng(0).gamma(2.0, size=1000) - 0.5
    largest = max(values.max(), -values.min())
    edges = np.linspace(-largest - 1e-6, largest + 1e-6, 12)
    bins = np.digitize(values, edges) - 1
    papers = [values[bins == i].mean() if (bins == i).any() else edges[i] for i in range(11)]
    found = uniform_codebook(values, 11)
    assert found.tolist() == np.array(papers, np.float16).tolist()
    middle, half = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
    twin = uniform_codebook(values - middle, 11).astype(np.float64) + middle  # their range, in the middle of which they stand
    assert half < largest and not np.allclose(found, twin, atol=0.1)
    paper, other = (published_bits(Coded(codebook, nearest(values, codebook))) for codebook in (found, twin.astype(np.float16)))
    assert paper < other - 300


def test_nearest_by_hand():
    codebook = np.array([-1.0, 0.0, 2.0], np.float16)
    assert nearest(np.array([-9, -0.6, -0.4, 0.9, 1.1, 5]), codebook).tolist() == [0, 0, 1, 1, 2, 2]


@settings(max_examples=200, deadline=None)
@given(VALUES, st.sampled_from(QUANTIZERS), st.integers(1, 20), st.floats(0, 3))
def test_any_values_become_ascending_levels_and_symbols_of_them(values, name, levels, penalty):
    codebook, symbols = quantize(values, name, levels, penalty)
    assert codebook.dtype == np.float16 and 1 <= len(codebook) <= levels
    assert np.isfinite(codebook).all() and (codebook[1:] > codebook[:-1]).all()
    assert symbols.dtype == np.int64 and symbols.shape == values.shape
    assert 0 <= symbols.min() <= symbols.max() < len(codebook)
    if name == "ecsq":
        assert set(symbols) == set(range(len(codebook)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=9), st.integers(1, 5))
def test_kmeans_is_optimal(values, levels):
    values = np.array(values, np.float64)
    points, weights = np.unique(values, return_counts=True)
    begins = Q._optimal_cells(points, weights.astype(np.float64), min(levels, len(points)))
    cells = np.searchsorted(points[begins], values, side="right")
    error = sum(((values[cells == cell] - values[cells == cell].mean()) ** 2).sum() for cell in np.unique(cells))
    assert error == pytest.approx(least_error(values, levels), abs=1e-9)
    assert len(values) * distortion(values, kmeans_codebook(values, levels)) == pytest.approx(error, abs=0.05)  # 16-bit levels


@pytest.mark.parametrize("levels", [2, 5, 15])
def test_kmeans_is_better_than_uniform_and_improves_with_levels(levels):
    values = np.random.default_rng(0).normal(size=2000)
    codebook = kmeans_codebook(values, levels)
    assert distortion(values, codebook) < distortion(values, uniform_codebook(values, levels))
    assert distortion(values, codebook) < distortion(values, kmeans_codebook(values, levels - 1))
    means = [values[nearest(values, codebook) == i].mean() for i in range(levels)]
    np.testing.assert_allclose(means, codebook, atol=2e-3)


def test_kmeans_of_very_many_values_is_nearly_that_of_all(monkeypatch):
    values = np.random.default_rng(0).standard_t(4, size=Q.EXACT_SIZE + 1000)
    grouped = kmeans_codebook(values, 6)
    monkeypatch.setattr(Q, "EXACT_SIZE", len(values))
    exact = kmeans_codebook(values, 6)
    assert distortion(values, grouped) == pytest.approx(distortion(values, exact), rel=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 11, 16, 255])
def test_normal_levels_are_quantiles(levels):
    found = Q.normal_levels(levels)
    np.testing.assert_allclose(found, stats.norm.ppf((np.arange(levels) + 0.5) / levels), atol=2**-11 + 1e-9)
    np.testing.assert_array_equal(found, -found[::-1])
    assert (np.diff(found) > 0).all() and (0 in found) == bool(levels % 2)


def test_no_last_digit_changes_a_normal_level():
    quantile = statistics.NormalDist().inv_cdf
    exact = np.array([1024 * quantile((i + 0.5) / levels) for levels in range(2, 256) for i in range(levels)])
    assert abs(exact - np.floor(exact) - 0.5).min() > 1e-6


def test_normal_float_is_two_numbers():
    values = np.random.default_rng(0).normal(3, 2, size=1000)
    codebook, _ = quantize(values, "normal_float", 9)
    np.testing.assert_allclose(codebook, values.mean() + values.std() * Q.normal_levels(9), atol=0.01)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.lists(st.tuples(st.integers(-50, 50), st.floats(1e-6, 1)), min_size=1, max_size=9), st.floats(0, 5))
def test_ecsq_assigns_by_error_and_rate(values, levels, penalty):
    levels = sorted({level: share for level, share in levels}.items())
    codebook, shares = np.array([level for level, _ in levels], np.float16), np.array([share for _, share in levels])
    costs = (values[:, None] - codebook.astype(float)) ** 2 - penalty * values.var() * np.log2(shares)
    chosen = ecsq_assign(values, codebook, shares, penalty)
    np.testing.assert_allclose(costs[np.arange(len(values)), chosen], costs.min(1), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("draw", [np.random.default_rng(0).normal, np.random.default_rng(0).laplace])
@pytest.mark.parametrize("penalty", [0.01, 0.05, 0.2])
def test_ecsq_is_better_than_kmeans_at_error_and_rate(draw, penalty):
    values = draw(size=10_000)
    cost = {}
    for name in ("kmeans", "ecsq"):
        codebook, symbols = quantize(values, name, 11, penalty)
        cost[name] = distortion(values, codebook, symbols) / values.var() + penalty * rate(symbols)
    assert cost["ecsq"] < cost["kmeans"]


def test_ecsq_spends_fewer_bits_at_a_higher_penalty_and_is_kmeans_at_none():
    values = np.random.default_rng(1).laplace(size=3000)
    rates = [rate(quantize(values, "ecsq", 11, penalty)[1]) for penalty in (0, 0.01, 0.05, 0.2)]
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] / 2
    codebook, shares = ecsq_codebook(values, 11, 0.0)
    np.testing.assert_allclose(codebook, kmeans_codebook(values, 11), atol=5e-3)
    assert shares.sum() == pytest.approx(1) and len(codebook) == 11
    assert len(ecsq_codebook(values, 11, 0.3)[0]) < 11


@pytest.mark.parametrize("name", QUANTIZERS)
def test_one_value_is_one_level(name):
    codebook, symbols = quantize(np.full(50, 0.25), name, 4, 0.1)
    assert codebook[symbols[0]] == 0.25 and (name == "uniform" or len(codebook) == 1)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("values", [[], [np.nan, 1], [1, 1e6], [np.inf]])
def test_values_that_cannot_be_quantized(name, values):
    with pytest.raises(ValueError, match="has training diverged"):
        quantize(np.array(values), name, 3)


def test_unknown_quantizers_and_negative_penalties():
    with pytest.raises(ValueError, match="'gptq' is none of uniform, kmeans, normal_float, ecsq"):
        quantize(np.arange(5), "gptq", 3)
    with pytest.raises(ValueError, match="must not be negative"):
        quantize(np.arange(5), "ecsq", 3, -1)


@pytest.fixture
def quantized():
    model = build(TINY, Subspace(dimension=30, rank=2, lora_dropout=0.0), 9).eval()
    with torch.no_grad():
        model.coordinates.copy_(torch.randn(30, generator=torch.Generator().manual_seed(0)))
    return Quantized(model, np.array([-1, 0, 1], np.float16))


def test_the_model_in_training_is_the_coded_one(quantized):
    codebook, symbols = quantized.coded()
    tokens = torch.arange(16).view(2, 8) % 9
    with torch.no_grad():
        coded = quantized.subspace(tokens, coordinates=torch.from_numpy(codebook.astype(np.float32)[symbols]))
        torch.testing.assert_close(quantized(tokens), coded)
        assert not torch.allclose(quantized.subspace(tokens), coded)


def test_gradients_pass_straight_through_and_gather_at_the_levels(quantized):
    quantized(torch.arange(16).view(2, 8) % 9).square().sum().backward()
    w, levels = quantized.subspace.coordinates, quantized.codebook
    assert {name for name, p in quantized.named_parameters() if p.requires_grad} == {"subspace.coordinates", "codebook"}
    _, symbols = quantized.coded()
    gathered = torch.zeros(3).index_add(0, torch.from_numpy(symbols), w.grad)
    torch.testing.assert_close(levels.grad, gathered)
    assert w.grad.abs().max() > 0


def test_rate_is_near_the_entropy_when_coordinates_sit_on_levels(quantized):
    with torch.no_grad():
        quantized.subspace.coordinates.copy_(torch.tensor([-1.0] * 15 + [0.0] * 10 + [1.0] * 5))
    shares = np.array([15, 10, 5]) / 30
    bits = quantized.bits()
    assert float(bits.detach()) / 30 == pytest.approx(float(-(shares * np.log2(shares)).sum()), abs=0.02)
    bits.backward()
    assert torch.isfinite(quantized.subspace.coordinates.grad).all()


def test_levels_that_cross_while_training_stay_in_order(quantized):
    with torch.no_grad():
        quantized.codebook.copy_(torch.tensor([0.5, 2.0, -1.0]))
        tokens = torch.arange(16).view(2, 8) % 9
        codebook, symbols = quantized.coded()
        assert codebook.tolist() == [-1.0, 0.5, 2.0]
        coded = quantized.subspace(tokens, coordinates=torch.from_numpy(codebook.astype(np.float32)[symbols]))
        torch.testing.assert_close(quantized(tokens), coded)
