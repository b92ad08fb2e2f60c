"""Bounds for independent units: closed forms, hand-computed values, order and monotonicity."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import beta, binom

from sublora.errors import SubloraError
from sublora.inequalities.independent import (
    betting,
    betting_grid,
    binary_kl,
    binomial_tail,
    complexity_nats,
    empirical_bernstein,
    hoeffding,
    kl,
    log_binomial_cdf,
    log_growth,
    log_wealth,
)

MEANS = st.floats(0, 1)
NATS = st.floats(1e-3, 1e4)
UNITS = st.integers(2, 10**6)


def text_like(m, seed=0):
    return np.clip(np.random.default_rng(seed).normal(0.37, 0.05, m), 0, 1)


def kl_inf(values, nats):
    """inf { u : max over bets of W_c(u) >= nats }: what betting would give if the best bet were known."""

    def most(u):
        found = minimize_scalar(
            lambda c: -log_wealth(values, u, np.array([c]))[0], bounds=(1e-6, 0.999), method="bounded", options={"xatol": 1e-9}
        )
        return max(-found.fun, log_wealth(values, u, np.array([0.999]))[0])

    low, high = float(values.mean()), 1 - 1e-9
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (low, middle) if most(middle) >= nats else (middle, high)
    return high


# -- complexity and closed forms -------------------------------------------------------------------------------------


def test_complexity():
    assert complexity_nats(16, 0.05) == pytest.approx(16 * 0.6931471805599453 + 2.995732273553991, rel=1e-15)
    assert complexity_nats(0, 0.05) == pytest.approx(2.995732273553991, rel=1e-15)


@pytest.mark.parametrize(("risk", "bits", "m"), [(0.3, 110_659, 8_009_762), (0.9, 2_600, 55_000), (0.0, 0, 1)])
def test_hoeffding_is_the_published_bound(risk, bits, m):
    """The released code: `div = bits * log(2)`; `risk + Delta sqrt((div - log(eps))/(2m))`, here with Delta = 1."""
    assert hoeffding(risk, complexity_nats(bits, 0.05), m) == pytest.approx(
        risk + math.sqrt((bits * math.log(2) - math.log(0.05)) / (2 * m)), abs=1e-12
    )


def test_hoeffding_is_not_clipped():
    assert hoeffding(0.9, 1e6, 10) > 100


@pytest.mark.parametrize("nats", [1e-3, 8.0, 3000.0])
def test_kl_without_errors_has_a_closed_form(nats):
    assert kl(0.0, nats, 100) == pytest.approx(1 - math.exp(-nats / 100), rel=1e-12)
    assert kl(1.0, nats, 100) == 1.0


@given(MEANS, NATS, UNITS)
def test_kl_inverts_the_relative_entropy(mean, nats, m):
    upper = kl(mean, nats, m)
    assert mean <= upper <= 1
    if upper < 1 - 1e-6:
        assert m * binary_kl(mean, upper) == pytest.approx(nats, rel=1e-4, abs=m * 1e-15)


def test_binary_kl():
    assert binary_kl(0.25, 0.5) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-14)
    assert binary_kl(0.3, 0.3) == 0 and binary_kl(0.3, 1.0) == math.inf and binary_kl(0.3, 0.0) == math.inf
    assert binary_kl(0.0, 0.2) == pytest.approx(-math.log(0.8)) and binary_kl(1.0, 0.2) == pytest.approx(-math.log(0.2))
    # near the diagonal, where the two terms cancel: kl(q || q + h) = h^2/(2 q (1-q)) + ...
    assert binary_kl(0.5, 0.5 + 1e-7) == pytest.approx(2e-14, rel=1e-6)


@pytest.mark.parametrize(("errors", "m", "nats"), [(0, 100, 8.5), (37, 100, 8.5), (700, 2000, 14), (99, 100, 3)])
def test_binomial_tail_is_clopper_pearson(errors, m, nats):
    assert binomial_tail(errors, nats, m) == pytest.approx(beta.isf(math.exp(-nats), errors + 1, m - errors), rel=1e-10)


def test_binomial_cdf_far_in_the_tail_is_exact():
    """Against integers of any size: P(Bin(3000, 9/10) <= 300) is about exp(-4,600), far below the smallest float."""
    m, k, r = 3000, 300, Fraction(9, 10)
    numerator = sum(math.comb(m, j) * 9**j for j in range(k + 1))
    exact = math.log(numerator) - m * math.log(10)
    assert exact < -4000 and binom.cdf(k, m, 0.9) == 0.0
    assert log_binomial_cdf(k, m, float(r)) == pytest.approx(exact, abs=1e-8)
    assert log_binomial_cdf(37, 100, 0.5) == pytest.approx(binom.logcdf(37, 100, 0.5), abs=1e-11)
    assert log_binomial_cdf(4_000_000, 8_000_000, 0.5) == pytest.approx(binom.logcdf(4_000_000, 8_000_000, 0.5), abs=1e-6)


@pytest.mark.parametrize("nats", [0.1, 3.0, 1600.0, 8000.0, 80_000.0])
def test_binomial_tail_below_kl_at_any_number_of_nats(nats):
    for errors, m in [(0, 41_000), (20_000, 41_000), (40_999, 41_000), (41_000, 41_000)]:
        assert errors / m <= binomial_tail(errors, nats, m) <= kl(errors / m, nats, m) + 1e-12


def test_empirical_bernstein_by_hand():
    """X = 0, 0, 1, 1: mean 1/2, sample variance 1/3."""
    nats = 8 * math.log(2) + math.log(40)
    expected = 0.5 + math.sqrt(2 * nats / (3 * 4)) + 7 * nats / 9
    assert empirical_bernstein(np.array([0.0, 0, 1, 1]), 8, 0.05) == pytest.approx(expected, rel=1e-14)


# -- betting ---------------------------------------------------------------------------------------------------------


def test_wealth_by_hand():
    """u = 1/2: (u - X)/(1 - u) is 1 for X = 0, 0 for X = 1/2, -1 for X = 1."""
    values = np.array([0.0] * 20 + [0.5] * 3 + [1.0] * 4)
    wealth = log_wealth(values, 0.5, np.array([0.5, 0.9]))
    np.testing.assert_allclose(
        wealth, [20 * math.log(1.5) + 4 * math.log(0.5), 20 * math.log(1.9) + 4 * math.log(0.1)], rtol=1e-12
    )


@given(st.integers(1, 100), st.floats(1e-3, 1e4))
def test_growth_is_the_sum_of_logs_whatever_the_length(m, scale):
    gains = scale * np.random.default_rng(m).random(m)
    bets = np.array([0.001, 0.5, 0.999])
    expected = [np.log1p(c * (gains - 1)).sum() for c in bets]
    np.testing.assert_allclose(log_growth(gains, bets), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bet", [0.1, 0.5, 0.999])
def test_one_bet_on_a_constant_has_a_closed_form(bet):
    """X = x always: m ln(1 + c (u - x)/(1 - u)) = B gives (u - x)/(1 - u) = (exp(B/m) - 1)/c."""
    for x, m, nats in [(0.0, 10, 3.0), (0.25, 50, 40.0), (0.8, 100, 2.0)]:
        odds = math.expm1(nats / m) / bet
        assert betting(np.full(m, x), nats, np.array([bet])) == pytest.approx((x + odds) / (1 + odds), abs=3e-9)


def test_two_bets_are_mixed_and_pay_for_the_choice():
    """m = 1, X = 0, odds o = u/(1-u): the mean of 1 + o/4 and 1 + 3 o/4 is 1 + o/2 = exp(B)."""
    odds = 2 * math.expm1(1.5)
    assert betting(np.zeros(1), 1.5, np.array([0.25, 0.75])) == pytest.approx(odds / (1 + odds), abs=3e-9)
    # and twice the same bet costs nothing
    values = text_like(500)
    assert betting(values, 9.0, np.array([0.3, 0.3])) == pytest.approx(betting(values, 9.0, np.array([0.3])), abs=3e-9)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([200, 1500]), st.floats(4.0, 300.0), st.booleans())
def test_betting_lies_between_two_kl_inf_bounds(seed, m, nats, binary):
    rng = np.random.default_rng(seed)
    values = (rng.random(m) < 0.4).astype(float) if binary else rng.beta(3, 5, m)
    bets = betting_grid(m, nats)
    bound = betting(values, nats, bets)
    assert kl_inf(values, nats) - 1e-7 <= bound <= kl_inf(values, 1.05 * (nats + math.log(len(bets)))) + 1e-7


def test_kl_inf_of_zeros_and_ones_is_kl():
    values = np.r_[np.ones(80), np.zeros(120)]
    assert kl_inf(values, 20.0) == pytest.approx(kl(0.4, 20.0, 200), abs=1e-6)


@pytest.mark.parametrize(("m", "nats", "gap"), [(41_000, 1600, 0.0261), (41_000, 8000, 0.1135), (2000, 14, 0.0069)])
def test_betting_gap_on_text_like_losses(m, nats, gap):
    """Measured once; hoeffding's is 0.14, 0.31 and 0.059. The loss against a fine grid of bets stays below one percent."""
    values = text_like(m)
    found = betting(values, nats, betting_grid(m, nats)) - values.mean()
    assert found == pytest.approx(gap, rel=0.06)
    assert found <= 1.01 * (betting(values, nats, betting_grid(m, nats, 300)) - values.mean())


def test_the_returned_end_is_refuted():
    values, bets = text_like(3000), betting_grid(3000, 60.0)
    for nats in (5.0, 60.0, 900.0):
        bound = betting(values, nats, bets)
        mixture = np.logaddexp.reduce(log_wealth(values, bound, bets)) - math.log(len(bets))
        assert mixture >= nats
        below = np.logaddexp.reduce(log_wealth(values, bound - 3e-9, bets)) - math.log(len(bets))
        assert below < nats


def test_no_nats_at_all_is_still_an_answer():
    values = text_like(200)
    for bound in (betting(values, 0.0, betting_grid(200, 0.0)), kl(0.4, 0.0, 200), hoeffding(0.4, 0.0, 200)):
        assert values.mean() <= bound < 0.5
    assert betting(np.full(9, 0.25), 0.0, np.array([0.5])) == 0.25


def test_nothing_proved_is_one():
    assert betting(np.ones(100), 3.0, betting_grid(100, 3.0)) == 1.0
    assert betting(np.zeros(3), 1e5, betting_grid(3, 1e5)) == 1.0


@given(st.integers(1, 10**7), st.floats(0, 1e6), st.integers(1, 40))
def test_grid_is_usable_and_depends_on_no_data(m, nats, size):
    bets = betting_grid(m, nats, size)
    assert bets.shape == (size,) and (bets > 0).all() and (bets <= 0.999).all() and (np.diff(bets) > 0).all()


# -- order and monotonicity ------------------------------------------------------------------------------------------


@given(MEANS, NATS, UNITS)
def test_kl_is_never_above_hoeffding(mean, nats, m):
    assert kl(mean, nats, m) <= hoeffding(mean, nats, m) + 1e-12


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(0, 3000), st.floats(1.05, 3.0), st.floats(1e-4, 0.5))
def test_monotone_in_message_delta_and_units(seed, bits, more, delta):
    values = np.random.default_rng(seed).beta(3, 5, 240)
    bets = betting_grid(240, 100.0)

    def all_bounds(values, bits, delta):
        nats, mean, m = complexity_nats(bits, delta), float(values.mean()), len(values)
        return np.array(
            [
                hoeffding(mean, nats, m),
                kl(mean, nats, m),
                binomial_tail(round(mean * m), nats, m),
                empirical_bernstein(values, bits, delta),
                betting(values, nats, bets),
            ]
        )

    base = all_bounds(values, bits, delta)
    assert (base >= values.mean() - 1 / 240).all()
    assert (all_bounds(values, bits * more, delta) >= base - 3e-9).all()
    assert (all_bounds(values, bits, delta / more) >= base - 3e-9).all()
    assert (all_bounds(np.tile(values, 3), bits, delta) <= base + 1 / 240).all()


def test_every_bound_shrinks_to_the_mean():
    gaps = []
    for m in (10**3, 10**4, 10**5, 10**6):
        values, nats = text_like(m), complexity_nats(100, 0.05)
        mean = float(values.mean())
        bounds = [hoeffding(mean, nats, m), kl(mean, nats, m), betting(values, nats, betting_grid(m, nats))]
        gaps.append(np.array(bounds + [empirical_bernstein(values, 100, 0.05)]) - mean)
    assert (np.diff(gaps, axis=0) < 0).all() and (gaps[-1] < 0.007).all()


# -- bad input -------------------------------------------------------------------------------------------------------

BETS = np.array([0.5])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: complexity_nats(-1, 0.05), "message_bits"),
        (lambda: complexity_nats(math.nan, 0.05), "message_bits"),
        (lambda: complexity_nats(8, 0.0), "delta"),
        (lambda: complexity_nats(8, 1.0), "delta"),
        (lambda: hoeffding(1.1, 1.0, 10), "mean"),
        (lambda: hoeffding(math.nan, 1.0, 10), "mean"),
        (lambda: hoeffding(0.5, -1.0, 10), "nats"),
        (lambda: hoeffding(0.5, math.inf, 10), "nats"),
        (lambda: hoeffding(0.5, 1.0, 0), "m"),
        (lambda: hoeffding(0.5, 1.0, 10.5), "m"),
        (lambda: kl(-0.1, 1.0, 10), "mean"),
        (lambda: binomial_tail(11, 1.0, 10), "errors"),
        (lambda: binomial_tail(-1, 1.0, 10), "errors"),
        (lambda: binomial_tail(0.5, 1.0, 10), "errors"),
        (lambda: empirical_bernstein([0.5], 8, 0.05), "values"),
        (lambda: empirical_bernstein([], 8, 0.05), "values"),
        (lambda: betting([], 1.0, BETS), "values"),
        (lambda: betting([0.5, math.nan], 1.0, BETS), "values"),
        (lambda: betting([0.5, 1.5], 1.0, BETS), "values"),
        (lambda: betting([[0.5]], 1.0, BETS), "values"),
        (lambda: betting([0.5], -1.0, BETS), "nats"),
        (lambda: betting([0.5], 1.0, []), "bets"),
        (lambda: betting([0.5], 1.0, [1.0]), "bets"),
        (lambda: betting([0.5], 1.0, [math.nan]), "bets"),
        (lambda: betting_grid(0, 1.0), "m"),
        (lambda: betting_grid(10, 1.0, 0), "size"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(SubloraError, match=f"^{named}:") as error:
        call()
    assert "\n" not in str(error.value)
