"""Two models compared, and test-set bounds: right in worlds where the truth is known, where each rule's broken twin is caught."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom
from test_coverage import CAUGHT, DELTA, EXACT_CAUGHT, LIMIT
from worlds import fewest_of, violated_below, zeros_and_ones

from sublora.errors import SubloraError
from sublora.inequalities.independent import betting, betting_grid, complexity_nats
from sublora.inequalities.means import bound_mean
from sublora.inequalities.paired import (
    SHARE,
    from_held_out,
    from_training,
    held_out_limit,
    holm,
    log_e_two_sided,
    log_e_value,
    mixed_with,
    mixture_from_held_out,
    mixture_from_training,
    side_nats,
)

FAIR = {"low": -1.0, "high": 1.0}


def signs(ones, n):
    """n differences of -1 and 1, so many of them 1, in an order that is even."""
    return np.where(np.arange(1, n + 1) * ones // n > np.arange(n) * ones // n, 1.0, -1.0)


def test_a_held_out_limit_of_pieces_of_documents_is_caught():
    """200 documents of 40 alike pieces. Right: a document is a unit. The twin: a piece is."""
    random, violated = np.random.default_rng(0), {"documents": 0, "pieces": 0}
    for _ in range(100):
        documents = random.normal(0.5, 0.1, 200)
        pieces = (documents[:, None] + random.normal(0, 0.05, (200, 40))).clip(0, 1)
        for name, units in (("documents", pieces.mean(axis=1)), ("pieces", pieces.ravel())):
            violated[name] += held_out_limit(units, low=0.0, high=1.0, nats=math.log(1 / DELTA)) < 0.5
    assert violated["documents"] <= 100 * LIMIT and violated["pieces"] >= 100 * CAUGHT


# -- what is computed --------------------------------------------------------------------------------------------------


def test_each_side_has_half_of_delta_and_the_bits_of_both_messages():
    random = np.random.default_rng(0)
    D, m = random.normal(-0.4, 0.3, 300).clip(-3, 2), 300
    by = {"inequality": "betting", "assumption": "iid", "message_bits": 90 + 70, "delta": DELTA / 2, "m": m}
    found = from_training(D, low=-3, high=2, delta=DELTA, assumption="iid", message_bits=160, m=m)
    assert found.upper == pytest.approx(5 * bound_mean((D + 3) / 5, **by).bound - 3, abs=1e-12)
    assert found.lower == pytest.approx(2 - 5 * bound_mean((2 - D) / 5, **by).bound, abs=1e-12)
    opposite = from_training(-D, low=-2, high=3, delta=DELTA, assumption="iid", message_bits=160, m=m)
    assert (opposite.lower, opposite.upper) == pytest.approx((-found.upper, -found.lower), abs=1e-9)


def test_held_out_intervals_by_hand():
    D = np.random.default_rng(1).normal(0.1, 0.2, 200).clip(-1, 1)
    nats = math.log(2 * 3 / DELTA) + 20 * math.log(2)
    assert side_nats(DELTA, 3, 20) == pytest.approx(nats)
    found = from_held_out(D, **FAIR, delta=DELTA, comparisons=3, bits=20)
    bets = betting_grid(200, nats)
    assert found.upper == pytest.approx(2 * betting((D + 1) / 2, nats, bets) - 1, abs=1e-9)
    assert found.lower == pytest.approx(1 - 2 * betting((1 - D) / 2, nats, bets), abs=1e-9)
    exact = from_held_out(D, **FAIR, delta=DELTA, population=200)
    assert exact.lower == exact.upper == pytest.approx(D.mean())
    nearly, some = (from_held_out(D, **FAIR, delta=DELTA, population=size) for size in (202, 10**6))
    fresh = from_held_out(D, **FAIR, delta=DELTA)
    assert nearly.upper - nearly.lower < 0.03 < fresh.upper - fresh.lower
    assert (some.lower, some.upper) == pytest.approx(fresh, abs=1e-4), "of a large population they are as independent ones"
    with pytest.raises(SubloraError, match="population"):
        from_held_out(D, **FAIR, delta=DELTA, population=199)


def test_the_mixture_by_hand_and_its_limits():
    """L = 4, losses 2 and 3 bits: -log2[(2^-8 + 2^-12)/2]/4; beside 3 that is below the price of 1/4, as it must be."""
    found = mixed_with(np.array([2.0, 9.0]), np.array([3.0, 3.0]), np.array([4, 4]), high=8.0, shortest=2)
    losses = np.array([-math.log2((2**-8 + 2**-12) / 2), -math.log2((2**-36 + 2**-12) / 2)]) / 4
    assert found.differences + found.price == pytest.approx(losses - 3.0, abs=1e-12)
    assert (found.differences <= 0).all() and (found.excess, found.largest) == (0.0, 8.5)
    single = mixed_with(np.array([2.0, 9.0]), np.array([3.0, 3.0]), np.ones(2), high=8.0, shortest=1, single=True)
    assert single.differences == pytest.approx([-math.log2((2**-2 + 2**-3) / 2) - 3, -math.log2((2**-9 + 2**-3) / 2) - 3])
    assert (single.excess, single.price.max()) == (1.0, 0.0)


def test_the_mixture_s_parts_have_half_of_delta_each():
    random = np.random.default_rng(2)
    first, second, lengths = random.uniform(1, 3, 400), random.uniform(2, 4, 400), random.integers(2, 90, 400)
    found = mixed_with(first, second, lengths, high=8.0, shortest=2)
    nats = math.log(2 * 2 / DELTA)
    parts = held_out_limit(found.differences, low=-8.5, high=0, nats=nats), held_out_limit(1 / lengths, low=0, high=0.5, nats=nats)
    assert mixture_from_held_out(found, shortest=2, delta=DELTA, comparisons=2) == pytest.approx(sum(parts), abs=1e-9)
    by = {"inequality": "betting", "assumption": "iid", "delta": DELTA / 2, "m": 400}
    of_pair = 8.5 * bound_mean((found.differences + 8.5) / 8.5, message_bits=100, **by).bound - 8.5
    of_price = bound_mean(2 / lengths, message_bits=20, **by).bound / 2
    drawn = {"assumption": "iid", "message_bits": 100, "m": 400}
    limit = mixture_from_training(found, lengths, shortest=2, charged=20, delta=DELTA, **drawn)
    assert limit == pytest.approx(of_pair + of_price, abs=1e-9)
    assert found.mean < limit < 0


def test_the_mixture_is_far_tighter_than_the_plain_interval_where_the_range_is_wide():
    """THEORY's numbers: n = 400, sd .05, ranges of 18 bits."""
    random = np.random.default_rng(3)
    second = random.uniform(3, 5, 400)
    D, lengths = random.normal(-0.03, 0.05, 400), np.full(400, 300)
    plain = from_held_out(D, low=-18, high=18, delta=DELTA)
    mixture = mixed_with(second + D, second, lengths, high=18, shortest=2)
    limit = mixture_from_held_out(mixture, shortest=300, delta=DELTA)
    assert plain.lower < 0 < plain.upper and plain.upper > 0.1
    assert limit < -0.015 and mixture.mean < -0.025


def test_e_values_and_holm_by_hand():
    D, bets = np.array([0.5, 0.5, -0.25]), np.array([0.5, 0.25])
    up = [1.25 * 1.25 * 0.875, 1.125 * 1.125 * 0.9375]
    down = [(1 - 0.125) ** 2 * 1.0625, (1 - 0.0625) ** 2 * 1.03125]
    found = log_e_value(D, least=-1, delta=DELTA, bets=bets)
    assert math.exp(found) == pytest.approx(sum(up) / 2)
    assert log_e_value(D, least=-1, delta=DELTA, bets=bets, bits=3) == pytest.approx(found - math.log(8))
    both = log_e_two_sided(D, low=-1, high=2, delta=DELTA, bets=bets)
    assert math.exp(both) == pytest.approx((sum(up) / 2 + sum(down) / 2) / 2)
    with pytest.raises(SubloraError, match="least"):
        log_e_value(D, least=-0.1, delta=DELTA)
    assert holm([math.log(e) for e in (1, 45, 1000)], 0.05) == [False, True, True]
    assert holm([math.log(e) for e in (1, 35, 1000)], 0.05) == [False, False, True], "35 is below 2/.05"
    assert holm([math.log(e) for e in (19, 35, 59)], 0.05) == [False, False, False]
    assert holm([2000.0, 1.0], 0.05) == [True, False] and holm([], 0.05) == []


@pytest.mark.parametrize("population", [None, 40])
def test_the_expectation_of_an_e_value_is_at_most_one(population):
    """Fair signs: n = 8, or the first 8 of 40. The twin bets on the mean of D without dividing by its range."""
    n, bets, total, twin = 8, np.array([0.3, 0.9]), 0.0, 0.0
    for ones in range(n + 1):
        p = math.comb(n, ones) / 2**n if population is None else math.comb(20, ones) * math.comb(20, n - ones) / math.comb(40, n)
        D = signs(ones, n)
        total += p * math.exp(log_e_two_sided(D, **FAIR, delta=DELTA, bets=bets))
        twin += p * max(math.exp(log_e_value(sign * D, least=-1, delta=DELTA, bets=bets)) for sign in (1, -1))
    assert total <= 1 + 1e-9 and twin > 1.2, "the better of two directions is no e-value"


# -- worlds, and twins with one mistake ---------------------------------------------------------------------------------


def test_a_pair_from_training_units_pays_for_both_messages():
    """12a: a fair base against the best of 2^16 fair messages, m = 2,000, hoeffding. The twin leaves the message's bits out."""
    m, H, violated = 2000, 2**16, {}
    counts = np.arange(m + 1)
    best = fewest_of(binom.cdf(counts, m, 0.5), H)
    below = np.concatenate([[0.0], np.cumsum(best)])  # P(best < k)
    base = binom.pmf(counts, m, 0.5)
    for bits in (16, 0):
        root = math.sqrt(complexity_nats(bits, DELTA / 2) / (2 * m))
        assert from_training_from_mean(-0.1, bits, m) == pytest.approx(-0.1 + 2 * root)
        # (best - base)/m + 2 root < 0
        limit = np.clip(np.ceil(counts - 2 * root * m).astype(int), 0, m + 1)
        violated[bits] = float(base @ below[limit])
    assert violated[16] <= DELTA / 2 and violated[0] >= EXACT_CAUGHT, violated


def from_training_from_mean(mean, bits, m):
    """The upper limit by hoeffding for differences of -1, 0 and 1 with that mean."""
    D = np.zeros(m)
    D[: round(-mean * m)] = -1
    return from_training(D, **FAIR, delta=DELTA, inequality="hoeffding", assumption="iid", message_bits=bits, m=m).upper


def test_pairs_whose_subsample_was_looked_at_are_counted():
    """12a: m = 10^6, n = 100; the first loses 1/2 everywhere, the second is the best of 64 fair ones on its subsample (exact).

    The twin has A = 1. Hoeffding.
    """
    m, n, violated = 10**6, 100, {}
    for A in (64, 1):

        def opposite(ones, A=A):
            D = 0.5 - zeros_and_ones(ones, n)
            drawn = {"inequality": "hoeffding", "assumption": "iid", "message_bits": 0, "m": m, "candidates": A}
            return -from_training(D, low=-0.5, high=0.5, delta=DELTA, **drawn).lower

        below = violated_below(opposite, 0.0, n)
        violated[A] = fewest_of(binom.cdf(np.arange(n + 1), n, 0.5), 64)[:below].sum()
    assert violated[64] <= LIMIT and violated[1] >= EXACT_CAUGHT, violated


def test_comparisons_listed_beforehand_share_delta():
    """12b: n = 1,000, D = -1 or 1, one bet, J = 64 independent comparisons (exact). The twin gives each the whole of delta."""
    n, J, found = 1000, 64, {}
    for comparisons in (J, 1):
        bets = np.array([math.sqrt(2 * side_nats(DELTA, comparisons) / n)])

        def upper(ones, comparisons=comparisons, bets=bets):
            return from_held_out(signs(ones, n), **FAIR, delta=DELTA, comparisons=comparisons, bets=bets).upper

        below = violated_below(upper, 0.0, n)
        one = 2 * binom.cdf(below - 1, n, 0.5)  # both sides are alike
        found[comparisons] = 1 - (1 - one) ** J
    assert found[J] <= DELTA and found[1] >= EXACT_CAUGHT, found


def test_the_test_split_s_mean_is_no_fresh_document_s():
    """12b: N_T = 400 fair signs, n = 360. The interval for the mean over the 400 holds; read as one for fresh ones it does not."""
    N, n, trials = 400, 360, 200
    random, wrong = np.random.default_rng(0), {"test split": 0, "fresh": 0}
    for _ in range(trials):
        D = random.choice([-1.0, 1.0], N)
        found = from_held_out(D[:n], **FAIR, delta=DELTA, population=N)
        wrong["test split"] += not found.lower <= D.mean() <= found.upper
        wrong["fresh"] += not found.lower <= 0.0 <= found.upper
    assert wrong["test split"] <= LIMIT * trials and wrong["fresh"] >= CAUGHT * trials, wrong


def test_held_out_units_say_nothing_of_the_pool():
    """12b: a memorizer, D = -1 with probability .9 on 500 training units and fair outside; M = 1,000, n = 450 of the other 500."""
    random, wrong, trials = np.random.default_rng(0), {"test split": 0, "pool": 0}, 60
    for _ in range(trials):
        training, test = np.where(random.random(500) < 0.9, -1.0, 1.0), random.choice([-1.0, 1.0], 500)
        found = from_held_out(test[:450], **FAIR, delta=DELTA, population=500)
        wrong["test split"] += not found.lower <= test.mean() <= found.upper
        wrong["pool"] += not found.lower <= np.r_[training, test].mean() <= found.upper
    assert wrong["test split"] <= LIMIT * trials and wrong["pool"] == trials, wrong


def test_a_test_set_bound_for_fresh_units_pays_for_what_was_tuned_on_other_splits():
    """13: M = 600, share .5; of 1,024 fair models the best on five earlier held-out halves of the same pool. The twin pays no J."""
    M, J, trials = 600, 1024, 300
    random, wrong, known = np.random.default_rng(0), {J: 0, 1: 0}, {}
    for _ in range(trials):
        losses = random.integers(0, 2, (J, M), dtype=np.int8)
        halves = [random.permutation(M)[: M // 2] for _ in range(6)]
        looked = np.bincount(np.concatenate(halves[:5]), minlength=M).astype(np.float32)
        best = losses[np.argmin(losses @ looked)]
        ones = int(best[halves[5]].sum())
        for charged in wrong:
            if (ones, charged) not in known:
                values = (signs(ones, M // 2) + 1) / 2
                nats = math.log(1 / DELTA) + math.log(charged)
                known[ones, charged] = held_out_limit(values, low=0.0, high=1.0, nats=nats)
            wrong[charged] += known[ones, charged] < 0.5
    assert wrong[J] <= LIMIT * trials and wrong[1] >= CAUGHT * trials, wrong


def test_the_mixture_s_shortest_unit_is_the_population_s():
    """As 15.5: L = 2 with probability .0022, else 100; the first predicts nothing, so the loss is the price. n = 1,000, iid."""
    n, p, violated = 1000, 0.0022, {2: 0.0, None: 0.0}
    truth = p / 2 + (1 - p) / 100
    for hits, shortest in itertools.product(range(20), violated):
        lengths = np.where(np.arange(n) < hits, 2, 100)
        least = shortest or int(lengths.min())
        found = mixed_with(np.full(n, 99.0), np.full(n, 2.0), lengths, high=8.0, shortest=least)
        bound = mixture_from_held_out(found, shortest=least, delta=DELTA)
        violated[shortest] += binom.pmf(hits, n, p) * (bound < truth)
    assert violated[2] <= DELTA / 2 and violated[None] >= EXACT_CAUGHT, violated
    assert SHARE == 0.5
