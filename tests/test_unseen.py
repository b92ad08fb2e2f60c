"""From a pool to the units outside the training set: exact conversions and the running candidate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from sublora.errors import SubloraError
from sublora.inequalities.independent import betting, betting_grid, complexity_nats, kl, log_growth
from sublora.inequalities.means import bound_mean
from sublora.inequalities.subsampling import betting_two_stage, split_nats, upper_limit
from sublora.inequalities.unseen import (
    BLOCKS,
    betting_unseen,
    betting_unseen_blocks,
    hoeffding_unseen,
    hoeffding_unseen_subsampled,
    inflation,
    kl_unseen,
    kl_unseen_subsampled,
)


def text_like(n, seed=0):
    return np.clip(np.random.default_rng(seed).normal(0.37, 0.05, n), 0, 1)


def unseen(upper_pool, mean, m, M):
    """The conversion of section 3: a bound on the unseen mean, from the training mean and a bound on the pool's."""
    return mean + inflation(m, M=M) * (upper_pool - mean)


@given(st.integers(0, 10**6), st.integers(1, 199))
def test_the_conversion_is_exact(seed, m):
    pool = np.random.default_rng(seed).random(200)
    assert unseen(pool.mean(), pool[:m].mean(), m, M=200) == pytest.approx(pool[m:].mean(), abs=1e-11)


def test_serfling_by_hand():
    """m = 3 of M = 4: M/(M - m) = 4, Serfling's factor 1 - 2/4."""
    assert hoeffding_unseen(0.25, 6.0, 3, M=4) == pytest.approx(0.25 + 4 * math.sqrt(6.0 * 0.5 / 6), rel=1e-15)


@pytest.mark.parametrize(("share", "factor"), [(0.5, 1.4), (0.9, 3.2), (0.95, 4.5)])
def test_inflation_against_hoeffding_on_the_same_training_set(share, factor):
    """THEORY 3: 1.4, 3.2, 4.5 times with Serfling."""
    M = 100_000
    m = round(share * M)
    gap = hoeffding_unseen(0.0, 10.0, m, M=M) / math.sqrt(10.0 / (2 * m))
    assert gap == pytest.approx(factor, abs=0.05)


def test_subsampled_hoeffding_inflates_the_first_root_only():
    m, n, M = 3000, 1000, 4000
    parts = hoeffding_unseen_subsampled(0.3, 800, 0.05, m, n, candidates=5, M=M)
    first, second = split_nats(800, 0.05, m, n, candidates=5)
    assert parts.complexity == pytest.approx(4 * math.sqrt(first * (1 - 2999 / 4000) / 6000), rel=1e-14)
    assert parts.subsampling == pytest.approx(math.sqrt(second / 2000), rel=1e-14)
    assert parts.bound == sum(parts)


# -- the running candidate -------------------------------------------------------------------------------------------


def literal_wealth(values, u, M, bets):
    """Section 3 as written: u_t = (M u - sum_{j<t} X_j)/(M - t + 1), bets on (u_t - X_t)/(1 - u_t)."""
    wealth, total = np.zeros(len(bets)), 0.0
    for t, x in enumerate(values, start=1):
        candidate = (M * u - total) / (M - t + 1)
        if candidate >= 1.0:
            return np.full(len(bets), math.inf)
        wealth += np.log1p(bets * (candidate - x) / (1 - candidate))
        total += x
    return wealth


@pytest.mark.parametrize(("m", "M", "nats"), [(60, 80, 9.0), (100, 1000, 20.0), (19, 20, 3.0), (1, 2, 0.5)])
@pytest.mark.parametrize("kind", ["text", "0-1"])
def test_running_candidate_is_section_3_converted(m, M, nats, kind):
    rng = np.random.default_rng(m)
    values = text_like(m) if kind == "text" else (rng.random(m) < 0.3).astype(float)
    bets = betting_grid(m, nats, 7)
    low, high = 0.0, 1.0
    for _ in range(60):
        u = (low + high) / 2
        refuted = np.logaddexp.reduce(literal_wealth(values, u, M, bets)) - math.log(len(bets)) >= nats
        low, high = (low, u) if refuted else (u, high)
    expected = unseen(high, float(values.mean()), m, M=M)
    assert betting_unseen(values, nats, bets, M=M) == pytest.approx(min(expected, 1.0), abs=1e-6)


def test_running_candidate_by_hand():
    """m = 1, X = 0: the factor is 1 + c u/(1 - u) at u = (M - 1) v/M, so M = 2, c = 1/2, B = ln 1.25: u = 1/3."""
    assert betting_unseen(np.zeros(1), math.log(1.25), np.array([0.5]), M=2) == pytest.approx(2 / 3, abs=1e-8)


@settings(max_examples=30)
@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_wealth_grows_with_the_unseen_mean(seed, m, left, rate):
    """What the root search stands on, also for the extremes: all ones, all zeros."""
    values = (np.random.default_rng(seed).random(m) < rate).astype(float)
    y, bets = 1 - values, np.array([0.01, 0.5, 0.999])
    tails = np.cumsum(y[::-1])[::-1]
    wealths = [
        log_growth(y * (m + left - np.arange(m)) / (left * (1 - v) + tails), bets) for v in np.linspace(0, 0.9999, 20)
    ]
    assert (np.diff(wealths, axis=0) >= -1e-9).all() and np.isfinite(wealths).all()
    assert 0 <= betting_unseen(values, 3.0, bets, M=m + left) <= 1


def test_running_candidate_beats_the_conversion():
    """On text-like losses and the embedded corpus's sizes the gap is about half the converted pool bound's."""
    M, m, bits = 55_381, 41_536, 4000
    pool = text_like(M)
    nats = complexity_nats(bits, 0.05)
    bets = betting_grid(m, nats)
    mean, truth = pool[:m].mean(), pool[m:].mean()
    running = betting_unseen(pool[:m], nats, bets, M=M)
    converted = unseen(betting(pool[:m], nats, bets), mean, m, M=M)
    assert truth < running < converted < hoeffding_unseen(mean, nats, m, M=M)
    assert running - mean == pytest.approx(0.092, abs=0.003)
    assert converted - mean == pytest.approx(0.171, abs=0.003)


def test_nothing_proved():
    assert betting_unseen(np.ones(50), 3.0, betting_grid(50, 3.0), M=60) == 1.0
    assert betting_unseen(np.full(50, 0.4), 1e6, betting_grid(50, 1e6), M=60) == 1.0


# -- subsamples ------------------------------------------------------------------------------------------------------


def test_subsampled_kl_is_the_largest_over_the_possible_training_means():
    for values, m, M, bits in [
        (text_like(1000), 4000, 6000, 400),
        ((np.random.default_rng(0).random(300) < 0.9).astype(float), 400, 2000, 300),  # here it falls with the mean
    ]:
        first, second = split_nats(bits, 0.05, m, len(values), candidates=1)
        upper = upper_limit(values, second)
        every = [kl_unseen(q, first, m, M=M) for q in np.r_[np.linspace(0, upper, 2001), upper]]
        found = kl_unseen_subsampled(values, bits, 0.05, m, candidates=1, M=M)
        assert found >= max(every) - 1e-12
        assert found == pytest.approx(max(every), abs=1e-4)


def test_kl_unseen_can_fall_with_the_mean():
    """So an upper limit of the training mean alone, put in, would not be an upper bound."""
    m, M, nats = 400, 500, 200.0
    assert kl_unseen(0.95, nats, m, M=M) < kl_unseen(0.6, nats, m, M=M)
    assert kl_unseen(0.6, nats, m, M=M) == unseen(kl(0.6, nats, m), 0.6, m, M=M)


def test_the_front_door_finds_each_of_them():
    values, m, M = text_like(400), 400, 600
    common = {"assumption": "unseen", "message_bits": 80, "delta": 0.05, "pool": M}
    nats, mean = complexity_nats(80, 0.05), float(values.mean())
    bets = betting_grid(m, nats)
    for inequality, expected in [
        ("hoeffding", hoeffding_unseen(mean, nats, m, M=M)),
        ("kl", kl_unseen(mean, nats, m, M=M)),
        ("betting", betting_unseen(values, nats, bets, M=M)),
    ]:
        assert bound_mean(values, inequality=inequality, m=m, places=np.arange(m), **common).bound == expected

    for inequality, expected in [
        ("hoeffding", hoeffding_unseen_subsampled(mean, 80, 0.05, 500, 400, candidates=2, M=M).bound),
        ("kl", kl_unseen_subsampled(values, 80, 0.05, 500, candidates=2, M=M)),
        ("betting", betting_unseen_blocks(values, np.arange(400), 80, 0.05, 500, candidates=2, M=M)),
    ]:
        found = bound_mean(values, inequality=inequality, m=500, candidates=2, places=np.arange(400), **common)
        assert found.bound == expected
        assert (found.parts is None) == (inequality != "hoeffding")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: inflation(10, M=10), "m"),
        (lambda: kl_unseen(0.4, 1.0, 11, M=10), "m"),
        (lambda: kl_unseen(1.4, 1.0, 5, M=10), "mean"),
        (lambda: hoeffding_unseen(0.5, -1.0, 5, M=10), "nats"),
        (lambda: hoeffding_unseen(0.5, 1.0, 10, M=10), "m"),
        (lambda: betting_unseen([], 1.0, [0.5], M=10), "values_in_split_order"),
        (lambda: betting_unseen([0.5, math.nan], 1.0, [0.5], M=10), "values_in_split_order"),
        (lambda: betting_unseen([0.5, 0.5], 1.0, [0.5], M=2), "m"),
        (lambda: betting_unseen([0.5, 0.5], 1.0, [1.5], M=3), "bets"),
        (lambda: hoeffding_unseen_subsampled(0.5, 8, 0.05, 10, 11, candidates=1, M=20), "n"),
        (lambda: kl_unseen_subsampled([0.5], 8, 0.05, 10, candidates=1, M=10), "m"),
        (lambda: betting_unseen_blocks([0.5], np.array([0]), 8, 0.05, 10, candidates=1, M=10), "m"),
        (lambda: betting_unseen_blocks([0.5], np.array([0]), 8, 1.5, 10, candidates=1, M=20), "delta"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(SubloraError, match=f"^{named}:") as error:
        call()
    assert "\n" not in str(error.value)


# -- the running candidate from a subsample --------------------------------------------------------------------------


def blocks_by_hand(values, places, bits, delta, m, A, M):
    """The theorem's steps one after the other, on a fine grid of v instead of a root search."""
    n, B = len(values), BLOCKS
    s = n / (n + m)
    first = bits * math.log(2) - math.log(s * delta)
    bets = betting_grid(m, first)
    tau = (first + math.log(len(bets))) / m
    second = math.log(2 * B * A / ((1 - s) * delta))
    third = math.log(2 * A / ((1 - s) * delta)) + math.log(len(bets))
    inner = betting_grid(n, third, 12)
    edges = [b * m // B for b in range(B)]
    z_parts = []
    for value, place in zip(values, places, strict=True):
        b = max(i for i, edge in enumerate(edges) if place >= edge)
        inside = np.array([1 - x for x, p in zip(values, places, strict=True) if p >= edges[b]])
        limit = betting(inside, second, betting_grid(len(inside), second, 12))
        z_parts.append(((1 - value) * (M - edges[b]), (m - edges[b]) * limit))
    for v in np.linspace(0.0, 0.999, 1000):
        for c in bets:
            z = np.array([math.log(1 - c + c * stake / ((M - m) * (1 - v) + left)) for stake, left in z_parts])
            low = math.log(1 - c)
            wealth = [np.log(1 + b * (z - tau) / (tau - low)).sum() for b in inner]
            if logsumexp(wealth) - math.log(len(inner)) >= third:
                return v
    return 1.0


def test_blocks_agree_with_their_steps_done_by_hand():
    rng, m, M = np.random.default_rng(5), 400, 600
    places = rng.permutation(m)[:120]
    values = np.clip(rng.normal(0.3, 0.05, 120), 0, 1)
    found = betting_unseen_blocks(values, places, 12, 0.05, m, candidates=3, M=M)
    by_hand = blocks_by_hand(values, places, 12, 0.05, m, 3, M)
    assert by_hand - 1e-3 <= found <= by_hand + 1e-9 and found < 0.8


def test_blocks_are_tighter_than_the_conversion_and_looser_than_all_units():
    rng, m, M, bits = np.random.default_rng(6), 8000, 11_000, 300
    values = np.clip(rng.normal(0.4, 0.06, m), 0, 1)
    drawn, other = np.sort(rng.permutation(m)[:2000]), np.sort(rng.permutation(m)[:300])
    first, second = split_nats(bits, 0.05, m, 2000, candidates=1, parts=2)
    upper = betting_two_stage(values[drawn], first, second, m, pilot=values[other])
    converted = unseen(upper, 1 - upper_limit(1 - values[drawn], second), m, M=M)  # by an upper and a lower limit
    blocks = betting_unseen_blocks(values[drawn], drawn, bits, 0.05, m, candidates=1, M=M, pilot=(values[other], other))
    nats = complexity_nats(bits, 0.05)
    everything = betting_unseen(values, nats, betting_grid(m, nats), M=M)
    assert 0.4 < everything < blocks < converted
    assert blocks - everything < 0.5 * (converted - everything)
    pilot = values[other], other
    assert blocks <= betting_unseen_blocks(values[drawn], drawn, bits + 100, 0.05, m, candidates=1, M=M, pilot=pilot)
    assert blocks <= betting_unseen_blocks(values[drawn], drawn, bits, 0.05, m, candidates=8, M=M, pilot=pilot)
    without = betting_unseen_blocks(values[drawn], drawn, bits, 0.05, m, candidates=1, M=M)
    assert abs(without - blocks) < 0.1 * (blocks - 0.4)
    found = bound_mean(
        values[drawn], inequality="betting", assumption="unseen", message_bits=bits, delta=0.05, m=m, pool=M,
        places=drawn, pilot=pilot,
    )  # fmt: skip
    assert found.bound == blocks


@pytest.mark.parametrize("places", [[0, 1, 1], [0, 1], [0, 1, 10], [-1, 0, 1], [0.0, 1.0, 2.0]])
def test_places_that_are_none_are_named(places):
    with pytest.raises(SubloraError, match="^places: "):
        betting_unseen_blocks([0.1, 0.2, 0.3], np.array(places), 8, 0.05, 10, candidates=1, M=20)
