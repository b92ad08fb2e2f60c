"""The arrow of time as a measurement: right where there is none, and wrong where windows overlap."""

import math

import numpy as np
import pytest

from sublora.inequalities.paired import from_held_out, log_e_two_sided, mixed, sign_test

TRIALS = 200
BETS = np.array([0.02, 0.06, 0.2, 0.5])


def no_arrow(draw, n):
    """Both models' losses on n documents of i.i.d. tokens, bits per token: other predictions, the same expected loss."""
    one, other = (-np.log2(0.25 + np.array(error)) for error in ([0.1, -0.1, 0, 0], [0, 0, 0.1, -0.1]))
    tokens = draw.integers(0, 4, (n, 12))
    return one[tokens].mean(1), other[tokens].mean(1), math.log2(0.35 / 0.15)


@pytest.mark.parametrize("population", [None, 200])
def test_on_iid_tokens_the_interval_contains_zero(population):
    """At least 95% of 200 experiments. The twin counts each document 64 times, as overlapping windows do."""
    draw, covered, twin, rejected = np.random.default_rng(7), 0, 0, 0
    for _ in range(TRIALS):
        forward, backward, most = no_arrow(draw, population or 150)
        D, of = backward - forward, {"low": -most, "high": most, "delta": 0.05, "bets": BETS}
        truth, seen = (0.0, D) if population is None else (D.mean(), D[:150])
        found = from_held_out(seen, population=population, **of)
        covered += found.lower <= truth <= found.upper
        rejected += log_e_two_sided(seen, **of) >= math.log(20)
        again = from_held_out(np.repeat(seen, 64), **of)
        twin += again.lower <= truth <= again.upper
    assert covered >= 0.95 * TRIALS and rejected <= 0.05 * TRIALS and twin < 0.6 * TRIALS


def held_out_loss(stream, train, held_out, order=3):
    """Bits per token of windows of a stream by a model that gives .9 to what followed these `order` tokens in training."""
    known = {tuple(stream[i - order : i]): stream[i] for start in train for i in range(start + order, start + 16)}
    vocabulary, losses = int(stream.max()) + 1, []
    for i in (i for start in held_out for i in range(start + order, start + 16)):
        guess = known.get(tuple(stream[i - order : i]))
        p = 1 / vocabulary if guess is None else 0.9 if guess == stream[i] else 0.1 / (vocabulary - 1)
        losses.append(-math.log2(p))
    return np.mean(losses)


def test_an_overlapping_split_leaks():
    """64 symbols, i.i.d.: no model loses less than 6 bits on what it has not seen. Windows of 16 every 8 tokens, shuffled and then
    split, put most held-out tokens into training. A split of windows that do not overlap does not."""
    draw = np.random.default_rng(5)
    stream = draw.integers(0, 64, 20_000)

    def split(step):
        starts = draw.permutation(np.arange(0, len(stream) - 16, step))
        return starts[: len(starts) * 3 // 4], starts[len(starts) * 3 // 4 :]

    assert held_out_loss(stream, *split(16)) >= 6 > 5 > held_out_loss(stream, *split(8))


def test_the_sign_test_by_hand():
    assert sign_test([0.1, 0.2, 0.3]) == pytest.approx(2 / 8) and sign_test([0.1]) == sign_test([0.0]) == 1
    assert sign_test([-1, -1, -1, -1, -1, 1, 0]) == pytest.approx(2 * 7 / 64)


def test_the_mean_of_e_values_of_seeds_is_one():
    """Models of several seeds meet the same documents, so their e-values may be averaged, and not multiplied. Worst: all alike."""
    draw = np.random.default_rng(3)
    D = draw.choice([-1.0, 1.0], (4000, 12))
    bets = np.array([0.3, 0.9])
    one = np.array([log_e_two_sided(row, low=-1, high=1, delta=0.05, bets=bets) for row in D])
    mean = np.exp([mixed(np.full(3, value)) for value in one])
    assert mean.mean() < 1.2 < np.exp(3 * one).mean()
