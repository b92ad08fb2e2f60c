"""Entropy coders: what is coded comes back, in few bits; whatever bytes come, symbols or a ValueError."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from sublora.compression import coder as C
from sublora.compression.coder import CODERS, decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.compression.quantizers import quantize


@st.composite
def codebooks(draw, levels):
    steps = draw(st.lists(st.floats(0.01, 5), min_size=levels, max_size=levels))
    return (np.cumsum(steps) + draw(st.floats(-50, 50))).astype(np.float16)


@st.composite
def coded(draw):
    """Symbols of any histogram, and ascending levels."""
    levels = draw(st.integers(1, 20))
    symbols = draw(st.lists(st.integers(0, levels - 1), max_size=200)) * draw(st.sampled_from([1, 1, 7]))
    return np.array(symbols, np.int64), np.unique(draw(codebooks(levels)))


@pytest.mark.parametrize("coder", CODERS)
@settings(max_examples=60, deadline=None)
@given(case=coded())
def test_round_trip(coder, case):
    symbols, codebook = case
    levels = len(codebook)
    symbols = np.minimum(symbols, levels - 1)
    payload = encode_symbols(symbols, levels, coder, codebook)
    decoded = decode_symbols(payload, len(symbols), levels, coder, codebook)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, symbols)


@pytest.mark.parametrize("coder", CODERS)
def test_round_trip_with_the_most_levels(coder):
    random = np.random.default_rng(0)
    symbols = np.clip(np.round(random.normal(127, 40, size=5000)), 0, 254).astype(int)
    codebook = np.linspace(-1, 1, 255).astype(np.float16)
    payload = encode_symbols(symbols, 255, coder, codebook)
    np.testing.assert_array_equal(decode_symbols(payload, 5000, 255, coder, codebook), symbols)


@pytest.mark.parametrize("coder", CODERS)
@settings(max_examples=150, deadline=None)
@given(payload=st.binary(max_size=60), size=st.integers(0, 3000), levels=st.integers(1, 255))
def test_any_bytes_are_symbols_or_a_value_error(coder, payload, size, levels):
    try:
        symbols = decode_symbols(payload, size, levels, coder, np.arange(levels, dtype=np.float16))
    except ValueError as error:
        assert str(error).startswith("the coded symbols are invalid")
        return
    assert symbols.shape == (size,) and (symbols < levels).all()


@settings(max_examples=150, deadline=None)
@given(coded())
def test_no_shorter_bytes_decode_to_the_same(case):
    """Neither the payload's beginning nor that beginning plus one, the only other candidate of its length."""
    symbols, codebook = case
    levels = len(codebook)
    symbols = np.minimum(symbols, levels - 1)
    payload = encode_symbols(symbols, levels)
    if not payload:
        return
    below = payload[:-1]
    above = (int.from_bytes(below, "big") + 1) % (1 << 8 * len(below))
    for shorter in (below, above.to_bytes(len(below), "big")):
        try:
            decoded = decode_symbols(shorter, len(symbols), levels)
        except ValueError:
            continue
        assert not np.array_equal(decoded, symbols)


@pytest.mark.parametrize("draw", ["normal", "laplace"])
@pytest.mark.parametrize(("size", "levels"), [(1000, 3), (1000, 8), (1000, 16), (3025, 11), (50_000, 3), (50_000, 16)])
@pytest.mark.parametrize("name", ["uniform", "kmeans"])
def test_trained_like_coordinates_cost_hardly_more_than_their_entropy(draw, size, levels, name):
    codebook, symbols = quantize(getattr(np.random.default_rng(0), draw)(size=size), name, levels)
    _, payload = shortest(symbols, codebook)
    assert 8 * len(payload) <= 1.005 * entropy_bits(symbols) + 40


@pytest.mark.parametrize("levels", [3, 8, 16])
@pytest.mark.parametrize("size", [1000, 20_000])
def test_any_histogram_costs_no_more_than_learning_it(levels, size):
    """Shares drawn evenly: (L-1)/2·log2 d bits of learning at most (Krichevsky & Trofimov 1981), and the last byte."""
    random = np.random.default_rng(levels)
    symbols = random.choice(levels, size, p=random.dirichlet(np.ones(levels)))
    _, payload = shortest(symbols, np.arange(levels).astype(np.float16))
    assert 8 * len(payload) <= entropy_bits(symbols) + (levels - 1) / 2 * np.log2(size) + 16


def test_skewed_symbols_cost_less_than_one_bit_each():
    symbols = np.zeros(10_000, int)
    symbols[::100] = 1
    assert 8 * len(encode_symbols(symbols, 2)) < 1.02 * entropy_bits(symbols) + 64 < 1000


def test_shortest_is_the_shortest_and_shapes_pay_where_they_fit():
    random = np.random.default_rng(0)
    for draw, expected in ((random.laplace, "laplace"), (random.normal, "gaussian")):
        codebook, symbols = quantize(draw(size=5000), "uniform", 16)
        coder, payload = shortest(symbols, codebook)
        assert coder == expected
        assert len(payload) == min(len(encode_symbols(symbols, 16, name, codebook)) for name in CODERS)
        assert len(payload) + 3 < len(encode_symbols(symbols, 16))


def test_a_wrong_shape_is_unlearnt():
    """Two far peaks are neither Laplace nor normal; the prior's strength then is so low that little is lost."""
    symbols = np.random.default_rng(0).choice(9, 20_000, p=[0.3, 0.15, 0.04, 0.005, 0.01, 0.005, 0.04, 0.15, 0.3])
    adaptive = len(encode_symbols(symbols, 9))
    for coder in ("laplace", "gaussian"):
        assert len(encode_symbols(symbols, 9, coder, np.arange(9).astype(np.float16))) <= adaptive + 4


@pytest.mark.parametrize("levels", [3, 8, 16])
@pytest.mark.parametrize("size", [1000, 20_000])
def test_a_table_costs_half_a_logarithm_a_level(levels, size):
    random = np.random.default_rng(levels)
    symbols = random.choice(levels, size, p=random.dirichlet(np.ones(levels)))
    assert 8 * len(encode_symbols(symbols, levels, "static")) <= entropy_bits(symbols) + 4 + levels / 2 * np.log2(size) + 8


@pytest.mark.parametrize(("name", "distribution"), [("laplace", stats.laplace), ("gaussian", stats.norm)])
def test_cumulative_distributions(name, distribution):
    z = np.linspace(-50, 50, 2001)
    np.testing.assert_allclose(C._CUMULATIVE[name](z), distribution.cdf(z), atol=1e-7)


def test_exp_log_and_log_gamma_are_near_a_librarys_and_do_without_it(monkeypatch):
    """Headers are chosen by them, so a machine's own last digits must not enter: nothing of numpy's but exact operations."""
    x, y = np.linspace(-50, 5, 2001), np.geomspace(2.0**-14, 2.0**41, 2001)
    wanted = np.exp(x), np.log(y), special.gammaln(y)
    for name in ("exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "power"):
        monkeypatch.delattr(np, name)
    np.testing.assert_allclose(C._exp(x), wanted[0], rtol=1e-15)
    np.testing.assert_allclose(C._log(y), wanted[1], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(C._log_gamma(y), wanted[2], rtol=1e-9, atol=1e-9)
    codebook, symbols = np.linspace(-1, 1, 7).astype(np.float16), np.arange(300) % 7
    assert len(shortest(symbols, codebook)[1]) > 90


def test_the_choice_of_a_header_does_not_depend_on_the_order_of_sums(monkeypatch):
    """Twin: parts that are not rounded to whole numbers, whose sum another machine may end elsewhere."""
    counts, prior = np.arange(1, 60), np.full(59, 0.5)
    parts = C._log_gamma(prior + counts) - C._log_gamma(prior)
    assert parts.sum() != parts[np.random.default_rng(0).permutation(59)].sum()
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(59)
        assert C._cost(counts[order], prior[order]) == C._cost(counts, prior)


@pytest.mark.parametrize("coder", CODERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_priors_add_up_exactly(coder, data):
    """In any order, with any counts: else the encoder's and another machine's models could differ in their last digits."""
    levels = data.draw(st.integers(2, 40))
    codebook = np.unique(data.draw(codebooks(levels)))
    prior = C._prior(coder, len(codebook), codebook, lambda size: data.draw(st.integers(0, size - 1)))
    assert (prior > 0).all()
    counts = np.random.default_rng(0).integers(0, 2**28 // levels, len(codebook))
    ratios = [(int(count) + float(share)).as_integer_ratio() for count, share in zip(counts, prior, strict=True)]
    denominator = max(bottom for _, bottom in ratios)
    total = sum(top * (denominator // bottom) for top, bottom in ratios)
    assert denominator <= 2**16 and total < 2**53


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([0, 3], 3), "must be in"),
        (([-1], 3), "must be in"),
        (([0], 3, "zip"), "'zip' is none of adaptive, static, laplace, gaussian"),
        (([0], 256), "from 1 to 255"),
        (([0], 3, "laplace"), "needs the 3 levels"),
        (([0], 3, "gaussian", np.array([0, 1])), "needs the 3 levels"),
        (([0], 3, "gaussian", np.array([0, 1, 1])), "strictly ascending"),
    ],
)
def test_what_cannot_be_coded(arguments, match):
    with pytest.raises(ValueError, match=match):
        encode_symbols(np.array(arguments[0]), *arguments[1:])
