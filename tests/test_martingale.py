"""Token-level bounds: formulas as printed, the range behind the entropy guess, order and monotonicity."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublora.errors import SubloraError
from sublora.inequalities.independent import betting_grid, complexity_nats
from sublora.inequalities.martingale import (
    azuma,
    azuma_subsampled,
    entropy_guess_width,
    freedman,
    freedman_subsampled,
    nearest_nominal,
    token_share,
)
from sublora.inequalities.smoothing import loss_range
from sublora.inequalities.subsampling import split_nats, upper_limit

ALPHA, VOCAB = 0.1, 257
LOW, WIDTH = loss_range(ALPHA, VOCAB)
GUESS_WIDTH = entropy_guess_width(ALPHA, VOCAB)
RANGES = {"low": LOW, "width": WIDTH, "guess_width": GUESS_WIDTH}


def stream(n, seed=0):
    """Losses and entropy guesses of a model that is right about its own uncertainty."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.3, 3.0], n)
    losses = np.clip(LOW + rng.gamma(2, scale), LOW, LOW + WIDTH)
    return losses, np.clip(LOW + 2 * scale, LOW, LOW + WIDTH)


def test_azuma_by_hand():
    """8 nats, 100 tokens: sqrt(8/200) = 0.2. Tuned for 400: lambda is 0.04, so 8/(0.04 100) + 0.04 100/8 = 2.5."""
    assert azuma(3.0, 8.0, 100, width=10.0, nominal=100) == pytest.approx(5.0, rel=1e-15)
    assert azuma(3.0, 8.0, 100, width=10.0, nominal=400) == pytest.approx(5.5, rel=1e-15)
    assert azuma(3.0, 1e6, 1, width=10.0, nominal=1) > 1000  # not clipped


def test_a_nominal_number_is_a_power_of_two_and_its_share_does_not_move():
    assert [nearest_nominal(N) for N in (1, 3, 1000, 1448, 1449, 2**40)] == [1, 4, 1024, 1024, 2048, 2**31]
    assert token_share(50_000, nominal=10**6) == 50_000 / 1_050_000
    assert token_share(50_000, nominal=None) == 50_000 / (50_000 + 2**31)


def test_subsampled_azuma_is_the_formula():
    N, n, s = 10**6, 10**4, 10**4 / (10**6 + 10**4)
    parts = azuma_subsampled(4.0, 8000, 0.05, N, n, candidates=9, width=WIDTH, nominal=N, share=s)
    assert parts.complexity == pytest.approx(
        WIDTH * math.sqrt((8000 * math.log(2) + math.log(1 / (s * 0.05))) / (2 * N)), rel=1e-14
    )
    assert parts.subsampling == pytest.approx(WIDTH * math.sqrt(math.log(9 / ((1 - s) * 0.05)) / (2 * n)), rel=1e-14)
    assert parts.empirical == 4.0 and parts.bound == sum(parts)


@given(st.floats(1e-4, 0.9999), st.integers(2, 400), st.integers(0, 10**6))
def test_guess_width_is_what_the_least_entropy_needs(alpha, vocab_size, seed):
    """No distribution has a smoothed entropy below the certain one's, and `a + Delta` minus that is the width."""

    def entropy(p):
        p = (1 - alpha) * p + alpha / vocab_size
        return -(p * np.log2(p)).sum()

    low, width = loss_range(alpha, vocab_size)
    certain = np.eye(vocab_size)[0]
    assert low + width - entropy(certain) == pytest.approx(entropy_guess_width(alpha, vocab_size), rel=1e-9, abs=1e-11)
    spread = np.random.default_rng(seed).dirichlet(np.full(vocab_size, 0.05))
    assert entropy(spread) >= entropy(certain) - 1e-9


def test_guess_width_is_ten_percent_below_the_range():
    assert GUESS_WIDTH / WIDTH == pytest.approx(0.9004, abs=1e-4)


def freedman_formula(losses, guesses, nats, guess_width, grid):
    """Section 6.2 as printed."""
    N, bounds = len(losses), []
    for s in grid:
        x = s * (guesses - losses) / guess_width
        variance = (x - np.log1p(x)).sum()
        bounds.append(losses.mean() + guess_width * (nats + math.log(len(grid)) + variance) / (s * N))
    return min(bounds)


@pytest.mark.parametrize("nats", [3.0, 200.0, 5000.0])
def test_freedman_is_the_formula(nats):
    losses, guesses = stream(5000)
    grid = betting_grid(5000, nats)
    clipped = np.clip(guesses, LOW + WIDTH - GUESS_WIDTH, LOW + WIDTH)
    assert (clipped > guesses).any()  # the clip is exercised
    assert freedman(losses, guesses, nats, **RANGES, grid=grid) == pytest.approx(
        freedman_formula(losses, clipped, nats, GUESS_WIDTH, grid), rel=1e-11
    )


def test_freedman_by_hand():
    """Losses always 0, guess 1/2 of range 1, D = 1/2, one s: 1/2 + (B - N ln(1 + s))/(2 s N)."""
    expected = 0.5 + (3.0 - 20 * math.log(1.5)) / (2 * 0.5 * 20)
    found = freedman(np.zeros(20), np.full(20, 0.5), 3.0, low=0.0, width=1.0, guess_width=0.5, grid=np.array([0.5]))
    assert found == pytest.approx(expected)
    twice = freedman(np.zeros(20), np.full(20, 0.5), 3.0, low=0.0, width=1.0, guess_width=0.5, grid=np.array([0.5, 0.5]))
    assert twice == pytest.approx(expected + math.log(2) / 20)  # the choice of s is paid for


def test_freedman_gains_where_the_variance_is_small():
    N, nats = 200_000, complexity_nats(4000, 0.05)
    losses, guesses = stream(N)
    plain = azuma(losses.mean(), nats, N, width=WIDTH, nominal=N)
    guessed = freedman(losses, guesses, nats, **RANGES, grid=betting_grid(N, nats))
    assert losses.mean() < guessed < losses.mean() + 0.6 * (plain - losses.mean())


@settings(max_examples=20)
@given(st.integers(0, 999), st.floats(0.1, 500), st.floats(1.1, 4))
def test_monotone_in_nats_and_tokens(seed, nats, more):
    losses, guesses = stream(300, seed)
    grid = betting_grid(300, 20.0)

    def bounds(nats, copies=1):
        mean = losses.mean()
        return np.array(
            [
                azuma(mean, nats, 300 * copies, width=WIDTH, nominal=300),
                freedman(np.tile(losses, copies), np.tile(guesses, copies), nats, **RANGES, grid=grid),
            ]
        )

    assert (bounds(nats * more) >= bounds(nats)).all()
    assert (bounds(nats, 3) <= bounds(nats)).all()


def test_subsampled_freedman_is_the_formula():
    losses, guesses = stream(400)
    N, bits, A = 5000, 300, 3
    first, second = split_nats(bits, 0.05, N, 400, candidates=A, share=0.01)
    assert first == complexity_nats(bits, 0.01 * 0.05) and second == math.log(A / (0.99 * 0.05))
    drawn = {"nominal": N, "share": 0.01}
    grid = np.array([0.1, 0.5])
    clipped = np.clip(guesses, LOW + WIDTH - GUESS_WIDTH, LOW + WIDTH)
    expected = []
    for s in grid:
        w = clipped - GUESS_WIDTH / s * np.log(1 + s * (clipped - losses) / GUESS_WIDTH)
        high = LOW + WIDTH + GUESS_WIDTH * (-math.log(1 - s) / s - 1)
        assert LOW - 1e-9 <= w.min() and w.max() <= high
        limit = LOW + (high - LOW) * upper_limit(np.clip((w - LOW) / (high - LOW), 0, 1), second + math.log(2))
        expected.append(GUESS_WIDTH * (first + math.log(2)) / (s * N) + limit)
    found = freedman_subsampled(losses, guesses, bits, 0.05, N, candidates=A, **RANGES, grid=grid, **drawn)
    assert found == pytest.approx(min(expected), rel=1e-9)
    assert freedman_subsampled(losses, guesses, bits, 0.05, N, candidates=99, **RANGES, grid=grid, **drawn) > found


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.999))
def test_range_of_the_subsampled_quantity(loss, guess, s):
    """W lies in [a, a + Delta + D(-ln(1-s)/s - 1)] for every loss and guess in their ranges, and reaches both ends."""
    loss, guess = LOW + WIDTH * loss, LOW + WIDTH - GUESS_WIDTH * guess

    def w(loss, guess):
        return guess - GUESS_WIDTH / s * math.log1p(s * (guess - loss) / GUESS_WIDTH)

    high = LOW + WIDTH + GUESS_WIDTH * (-math.log1p(-s) / s - 1)
    assert LOW - 1e-9 <= w(loss, guess) <= high + 1e-9
    assert w(LOW + WIDTH, LOW + WIDTH - GUESS_WIDTH) == pytest.approx(high, rel=1e-9)


def test_subsampled_freedman_lies_above_all_tokens():
    N, n, bits = 100_000, 10_000, 4000
    losses, guesses = stream(N)
    nats = complexity_nats(bits, 0.05)
    every = freedman(losses, guesses, nats, **RANGES, grid=betting_grid(N, nats))
    drawn = np.random.default_rng(1).choice(N, n, replace=False)
    told = {"candidates": 1, "nominal": N, "share": token_share(n, nominal=N)}
    some = freedman_subsampled(losses[drawn], guesses[drawn], bits, 0.05, N, **RANGES, **told)
    simple = azuma_subsampled(losses[drawn].mean(), bits, 0.05, N, n, width=WIDTH, **told).bound
    assert every < some < simple


LOSSES, GUESSES, GRID = np.full(5, 1.0), np.full(5, 2.0), np.array([0.5])
DRAWN = {"candidates": 1, "width": 4.0, "nominal": 10, "share": 0.5}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: azuma(math.nan, 1.0, 10, width=1.0, nominal=10), "mean"),
        (lambda: azuma(1.0, -1.0, 10, width=1.0, nominal=10), "nats"),
        (lambda: azuma(1.0, 1.0, 0, width=1.0, nominal=10), "N"),
        (lambda: azuma(1.0, 1.0, 10, width=0.0, nominal=10), "width"),
        (lambda: azuma(1.0, 1.0, 10, width=1.0, nominal=0), "nominal"),
        (lambda: azuma_subsampled(1.0, 8, 0.05, 10, 5, **{**DRAWN, "share": 1.0}), "share"),
        (lambda: token_share(0, nominal=10), "n"),
        (lambda: azuma_subsampled(1.0, 8, 0.05, 10, 11, **DRAWN), "n"),
        (lambda: azuma_subsampled(math.inf, 8, 0.05, 10, 5, **DRAWN), "mean_n"),
        (lambda: entropy_guess_width(1.0, 257), "alpha"),
        (lambda: freedman(LOSSES, GUESSES[:4], 1.0, low=0.0, width=4.0, guess_width=4.0, grid=GRID), "guesses"),
        (lambda: freedman(LOSSES, GUESSES * math.nan, 1.0, low=0.0, width=4.0, guess_width=4.0, grid=GRID), "guesses"),
        (lambda: freedman(LOSSES * math.nan, GUESSES, 1.0, low=0.0, width=4.0, guess_width=4.0, grid=GRID), "losses"),
        (lambda: freedman(LOSSES * 9, GUESSES, 1.0, low=0.0, width=4.0, guess_width=4.0, grid=GRID), "losses"),
        (lambda: freedman(LOSSES, GUESSES, 1.0, low=0.0, width=4.0, guess_width=5.0, grid=GRID), "guess_width"),
        (lambda: freedman(LOSSES, GUESSES, 1.0, low=0.0, width=4.0, guess_width=0.0, grid=GRID), "guess_width"),
        (lambda: freedman(LOSSES, GUESSES, 1.0, low=0.0, width=4.0, guess_width=4.0, grid=[1.0]), "bets"),
        (lambda: freedman([], [], 1.0, low=0.0, width=4.0, guess_width=4.0, grid=GRID), "losses"),
        (lambda: freedman_subsampled(LOSSES, GUESSES, 8, 0.05, 4, low=0.0, guess_width=4.0, **DRAWN), "n"),
        (lambda: freedman_subsampled(LOSSES, GUESSES, 8, 2.0, 40, low=0.0, guess_width=4.0, **DRAWN), "delta"),
    ],
)
def test_bad_input_is_named_in_one_line(call, named):
    with pytest.raises(SubloraError, match=f"^{named}:") as error:
        call()
    assert "\n" not in str(error.value)
