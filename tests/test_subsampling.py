"""Bounds from n of m units: the published closed form, the theory's walk taken literally, and the draw."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublora.errors import SubloraError
from sublora.inequalities.independent import (
    betting,
    betting_grid,
    binomial_tail,
    complexity_nats,
    empirical_bernstein,
    hoeffding,
    kl,
)
from sublora.inequalities.means import bound_mean
from sublora.inequalities.subsampling import (
    INNER_BETS,
    betting_subsampled,
    betting_two_stage,
    hoeffding_subsampled,
    kl_subsampled,
    shares,
    split_nats,
    subsample,
    upper_limit,
)


def text_like(n, seed=0, mean=0.3):
    return np.clip(np.random.default_rng(seed).normal(mean, 0.05, n), 0, 1)


# -- hoeffding -------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0, 1e6), st.integers(1, 10**7), st.integers(1, 10**7), st.floats(1e-4, 0.5))
def test_hoeffding_is_the_published_subsampling_bound(risk, bits, n, m, delta):
    """The released code: `r = n/(n+m)`; `sqrt((div - log(r eps))/(2m)) + sqrt(-log((1-r) eps)/(2n))`, Delta = 1."""
    n, m = sorted((n, m))
    r, div = n / (n + m), bits * math.log(2)
    published = risk + math.sqrt((div - math.log(r * delta)) / (2 * m)) + math.sqrt(-math.log((1 - r) * delta) / (2 * n))
    parts = hoeffding_subsampled(risk, bits, delta, m, n, candidates=1)
    assert parts.bound == pytest.approx(published, abs=1e-12, rel=1e-12)
    assert parts.empirical == risk and sum(parts) == pytest.approx(parts.bound, rel=1e-15)


def test_numbers_of_the_publication():
    """OpenWebText documents: m = 8,009,762, n = 10,000, delta = 0.05, and the best point's complexity 1.530 bits."""
    m, n = 8_009_762, 10_000
    assert shares(n, m) == pytest.approx(1.2469e-3, abs=1e-7)
    assert split_nats(0, 0.05, m, n, candidates=1)[0] == pytest.approx(9.683, abs=1e-3)
    parts = hoeffding_subsampled(0.5, 110_659, 0.05, m, n, candidates=1)
    assert parts.subsampling == pytest.approx(0.012241, abs=1e-6)
    assert 18.786965 * (parts.complexity + parts.subsampling) == pytest.approx(1.530, abs=1e-3)


def test_candidates_are_charged_in_the_subsample_term_only():
    one, many = (hoeffding_subsampled(0.5, 800, 0.05, 5000, 1000, candidates=a) for a in (1, 64))
    assert many.complexity == one.complexity
    expected = one.subsampling**2 + math.log(64) / 2000
    assert many.subsampling**2 == pytest.approx(expected, rel=1e-12)


# -- betting ---------------------------------------------------------------------------------------------------------


def walk(values, first, second, m, bets, inner, grid):
    """THEORY, section 5, word for word: down the grid from 1, refusing at the first u where no bet's LCB is enough."""
    tau = (first + math.log(len(bets))) / m
    accepted = 1.0
    for u in grid[::-1]:
        limits = []
        for c in bets:
            z = np.log(1 + c * (u - values) / (1 - u))
            low, high = math.log(1 - c), math.log(1 + c * u / (1 - u))
            upper = betting(np.clip(1 - (z - low) / (high - low), 0, 1), second + math.log(len(bets)), inner)
            limits.append(low + (high - low) * (1 - upper))
        if max(limits) < tau:
            return accepted
        accepted = u
    return accepted


@pytest.mark.parametrize(
    ("values", "m", "first", "second"),
    [
        (text_like(400), 2000, 60.0, 4.0),
        ((np.random.default_rng(1).random(300) < 0.6).astype(float), 1000, 20.0, 4.0),
        (np.random.default_rng(2).beta(2, 2, 300), 300, 100.0, 3.5),
    ],
    ids=["text-like", "0-1", "wide"],
)
def test_root_search_is_the_walk_down_a_grid(values, m, first, second):
    bets = betting_grid(m, first, 6)
    inner = betting_grid(len(values), second + math.log(6), INNER_BETS)
    bound = betting_two_stage(values, first, second, m, bets=bets)
    for resolution in (0.004, 0.001):
        grid = np.arange(math.floor((bound - 0.006) / resolution), math.ceil(min(bound + 0.03, 0.999) / resolution))
        grid = np.r_[grid * resolution, 0.95, 0.99]  # above, every u is accepted: acceptance grows with u
        walked = walk(values, first, second, m, bets, inner, grid)
        assert bound - 1e-8 <= walked <= bound + resolution


def test_expected_gaps():
    """THEORY 5 at m = 55,000, n = 10,000, K = 2,600 bits, sd 0.05: 0.141, 0.126, 0.030 (0.025 on all m)."""
    values = text_like(10_000)
    drawn = (2600, 0.05, 55_000)
    mean = float(values.mean())
    assert hoeffding_subsampled(mean, *drawn, 10_000, candidates=1).bound - mean == pytest.approx(0.141, abs=5e-4)
    assert kl_subsampled(values, *drawn, candidates=1) - mean == pytest.approx(0.126, abs=1e-3)
    gap = betting_subsampled(values, *drawn, candidates=1) - mean
    assert gap == pytest.approx(0.0275, abs=1.5e-3)
    everything = bound_mean(
        text_like(55_000), inequality="betting", assumption="iid", message_bits=2600, delta=0.05, m=55_000
    )
    assert everything.bound - everything.empirical == pytest.approx(0.0245, abs=1e-3) and everything.parts is None


def test_a_pilot_saves_the_choice_of_bet():
    for name, values, pilot in [
        ("text-like", text_like(5000), text_like(5000, seed=1)),
        ("0-1", (text_like(5000) < 0.3).astype(float), (text_like(2000, seed=1) < 0.3).astype(float)),
    ]:
        plain = betting_subsampled(values, 2600, 0.05, 55_000, candidates=1)
        assert values.mean() < betting_subsampled(values, 2600, 0.05, 55_000, candidates=1, pilot=pilot) < plain, name


def test_a_misleading_pilot_changes_only_the_bet():
    """The pilot picks one bet of the grid and nothing else: the bound is the one that this bet alone gives."""
    values, m = text_like(1000), 5000
    first, second = split_nats(800, 0.05, m, 1000, candidates=1)
    bets = betting_grid(m, first)
    found = betting_two_stage(values, first, second, m, pilot=np.ones(50))
    saved = first + math.log(len(bets))  # the first event is still over all bets
    alone = [betting_two_stage(values, saved, second, m, bets=bets[i : i + 1]) for i in range(len(bets))]
    assert min(abs(found - bound) for bound in alone) < 1e-8


@settings(max_examples=15)
@given(st.integers(0, 99), st.integers(0, 3000), st.integers(1, 100), st.floats(1e-3, 0.5), st.floats(1.1, 4))
def test_monotone_in_message_delta_candidates(seed, bits, candidates, delta, more):
    values = np.random.default_rng(seed).beta(3, 5, 200)
    bets, inner = betting_grid(4000, 100.0, 8), betting_grid(200, 6.0, 6)

    def bounds(bits, delta, candidates):
        first, second = split_nats(bits, delta, 4000, 200, candidates=candidates)
        return np.array(
            [
                hoeffding_subsampled(float(values.mean()), bits, delta, 4000, 200, candidates=candidates).bound,
                kl(betting(values, second, inner), first, 4000),
                betting_two_stage(values, first, second, 4000, bets=bets),
            ]
        )

    base = bounds(bits, delta, candidates)
    assert (base > values.mean()).all()
    assert (bounds(bits * more, delta, candidates) >= base - 3e-9).all()
    assert (bounds(bits, delta / more, candidates) >= base - 3e-9).all()
    assert (bounds(bits, delta, candidates * 2) >= base - 3e-9).all()


def test_nothing_proved_is_one():
    assert betting_subsampled(np.ones(50), 80, 0.05, 100, candidates=1) == 1.0
    assert betting_subsampled(np.full(50, 0.5), 1e9, 0.05, 100, candidates=1) == 1.0


def test_the_limit_lies_above_the_mean_near_kl_for_zeros_and_ones_and_far_below_it_for_text():
    values = (np.random.default_rng(0).random(2000) < 0.8).astype(float)
    mean = float(values.mean())
    assert mean < kl(mean, 4.0, 2000) < upper_limit(values, 4.0) < kl(mean, 4.0, 2000) + 0.01
    values = text_like(2000)
    mean = float(values.mean())
    assert 0 < upper_limit(values, 4.0) - mean < 0.2 * (kl(mean, 4.0, 2000) - mean)


# -- the front door --------------------------------------------------------------------------------------------------


def test_all_units_use_the_plain_inequalities_and_the_whole_of_delta():
    values, nats = text_like(3000), complexity_nats(800, 0.05)
    mean = float(values.mean())
    common = {"message_bits": 800, "delta": 0.05, "m": 3000, "candidates": 64}
    expected = {
        "hoeffding": hoeffding(mean, nats, 3000),
        "kl": kl(mean, nats, 3000),
        "empirical_bernstein": empirical_bernstein(values, 800, 0.05),
        "betting": betting(values, nats, betting_grid(3000, nats)),
    }
    for inequality, bound in expected.items():
        found = bound_mean(values, inequality=inequality, assumption="iid", **common)
        assert found.bound == bound and found.empirical == mean
        if inequality != "empirical_bernstein":
            assert bound_mean(values, inequality=inequality, assumption="pool", pool=3000, **common).bound == bound
    wrong = (values < 0.3).astype(float)
    found = bound_mean(wrong, inequality="binomial_tail", assumption="iid", **common)
    assert found.bound == binomial_tail(int(wrong.sum()), nats, 3000)
    parts = bound_mean(values, inequality="hoeffding", assumption="iid", **common).parts
    assert parts.subsampling == 0 and parts.bound == pytest.approx(expected["hoeffding"], rel=1e-15)


def test_fewer_units_use_the_subsample():
    values, drawn = text_like(500), (800, 0.05, 3000)
    common = {"message_bits": 800, "delta": 0.05, "m": 3000, "candidates": 7, "pool": 9000}
    parts = hoeffding_subsampled(float(values.mean()), 800, 0.05, 3000, 500, candidates=7)
    for assumption in ("iid", "pool"):
        found = bound_mean(values, inequality="hoeffding", assumption=assumption, **common)
        assert found.parts == parts and found.bound == parts.bound
        found = bound_mean(values, inequality="kl", assumption=assumption, **common)
        assert found.bound == kl_subsampled(values, *drawn, candidates=7)
        found = bound_mean(values, inequality="betting", assumption=assumption, **common)
        assert found.bound == betting_subsampled(values, *drawn, candidates=7)


# -- the draw --------------------------------------------------------------------------------------------------------

STORE = "00" * 32


def test_the_draw_is_pinned():
    """These numbers may never change: they decide which documents stand behind every certificate."""
    assert subsample(b"message", STORE, 1000, 6).tolist() == [990, 515, 13, 765, 910, 507]
    assert subsample(b"message", STORE, 1000, 6, "pilot").tolist() == [750, 794, 165, 480, 859, 146]


def test_the_draw_is_the_smallest_keys():
    store = hashlib.sha256(b"store").hexdigest()
    seed = int.from_bytes(hashlib.sha256(b"model" + bytes.fromhex(store)).digest()[:8], "big")
    keys = np.random.Philox(key=seed).random_raw(50)
    drawn = subsample(b"model", store, 50, 12)
    assert drawn.dtype == np.int64 and sorted(keys[drawn]) == sorted(keys)[:12]
    np.testing.assert_array_equal(subsample(b"model", store, 50, 30)[:12], drawn)
    assert sorted(subsample(b"model", store, 50, 50, "order")) == list(range(50))


def test_the_draw_depends_on_message_store_and_purpose():
    draws = [
        subsample(b"a", STORE, 10_000, 8),
        subsample(b"b", STORE, 10_000, 8),
        subsample(b"a", "01" + STORE[2:], 10_000, 8),
        subsample(b"a", STORE, 10_000, 8, "pilot"),
    ]
    assert len({tuple(draw) for draw in draws}) == 4


def test_every_unit_is_drawn_equally_often():
    counts = np.bincount(
        np.concatenate([subsample(i.to_bytes(2, "big"), STORE, 20, 5) for i in range(4000)]), minlength=20
    )
    chi2 = ((counts - 1000) ** 2 / (1000 * 0.75)).sum() * 19 / 20
    assert chi2 < 43.8  # 99.9% of chi-squared with 19 degrees of freedom


# -- bad input -------------------------------------------------------------------------------------------------------

HALF = np.full(10, 0.5)


def door(values=HALF, inequality="betting", assumption="iid", message_bits=8, delta=0.05, m=20, **more):
    return bound_mean(
        values, inequality=inequality, assumption=assumption, message_bits=message_bits, delta=delta, m=m, **more
    )


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: shares(11, 10), "n"),
        (lambda: shares(0, 10), "n"),
        (lambda: hoeffding_subsampled(0.5, 8, 0.05, 10, 11, candidates=1), "n"),
        (lambda: hoeffding_subsampled(0.5, 8, 0.05, 20, 10, candidates=0), "candidates"),
        (lambda: hoeffding_subsampled(1.5, 8, 0.05, 20, 10, candidates=1), "mean"),
        (lambda: hoeffding_subsampled(0.5, -8, 0.05, 20, 10, candidates=1), "message_bits"),
        (lambda: hoeffding_subsampled(0.5, 8, 1.0, 20, 10, candidates=1), "delta"),
        (lambda: kl_subsampled([], 8, 0.05, 20, candidates=1), "values_n"),
        (lambda: betting_subsampled([0.5, math.nan], 8, 0.05, 20, candidates=1), "values_n"),
        (lambda: betting_subsampled(HALF, 8, 0.05, 9, candidates=1), "n"),
        (lambda: betting_subsampled(HALF, 8, 0.05, 20, candidates=1, pilot=[2.0]), "pilot"),
        (lambda: betting_two_stage(HALF, 1.0, 1.0, 9), "n"),
        (lambda: betting_two_stage(HALF, -1.0, 1.0, 20), "first"),
        (lambda: subsample(b"m", STORE, 10, 11), "n"),
        (lambda: door(inequality="chernoff"), "inequality"),
        (lambda: door(assumption="martingale"), "assumption"),
        (lambda: door(inequality="empirical_bernstein"), "inequality"),
        (lambda: door(inequality="empirical_bernstein", assumption="pool", m=10, pool=30), "inequality"),
        (lambda: door(inequality="binomial_tail"), "inequality"),
        (lambda: door(inequality="binomial_tail", m=10), "values_n"),
        (lambda: door(assumption="unseen", pool=30), "places"),
        (lambda: door(assumption="unseen", pool=30, m=10), "places"),
        (lambda: door(assumption="unseen", pool=30, m=10, places=np.arange(10)[::-1]), "places"),
        (lambda: door(assumption="pool"), "pool"),
        (lambda: door(assumption="pool", pool=19), "pool"),
        (lambda: door(assumption="unseen", pool=20), "pool"),
        (lambda: door(m=9), "n"),
        (lambda: door(candidates=0), "candidates"),
        (lambda: door(values=np.array([])), "values_n"),
        (lambda: door(delta=0.0), "delta"),
        (lambda: door(message_bits=-1), "message_bits"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(SubloraError, match=f"^{named}:") as error:
        call()
    assert "\n" not in str(error.value)
