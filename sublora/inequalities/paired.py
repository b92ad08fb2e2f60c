"""Two models on the same units, `D = loss_1 - loss_2`, and what held-out units prove: intervals, one-sided mixtures, e-values.

From training units the pair is one hypothesis, whose message has the bits of both. From held-out units, on which nothing was
chosen, neither message counts. Given the models, the test split is all that is left: its mean is known if all of it was scored,
and from the first n of its random order it is bounded without replacement. Losses are in bits per token, or errors; complexities
are nats. Arguments out of range raise SubloraError with the argument's name.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sublora.errors import SubloraError
from sublora.inequalities.independent import betting, betting_grid, check_count, check_delta, check_nats, log_growth, mixed
from sublora.inequalities.means import bound_mean
from sublora.inequalities.reference import Reference, bound_difference, bound_offset
from sublora.inequalities.smoothing import document_means, scale_to_unit
from sublora.inequalities.unseen import betting_unseen

SHARE = 0.5
"""The second model's share in the one-sided mixture, fixed beforehand."""
TAU = 1.0
"""From a subsample no difference of the mixture counts as less than minus this, unless another is given; fixed beforehand."""


ALONE = np.zeros(0, np.int64)
"""`members` of units that are no groups."""


class Interval(NamedTuple):
    """Limits of a mean. lower is -inf where the statement is one-sided."""

    lower: float
    upper: float


def from_training(differences: np.ndarray, *, low: float, high: float, delta: float, **drawn: Any) -> Interval:
    """The mean of D in [low, high], by betting, each side at delta/2, with the bits of the pair.

    drawn: inequality (betting, if it is not named), assumption, message_bits, m, pool, candidates (pairs), places, pilot:
    as in `bound_mean`.
    """
    width, drawn = high - low, {"inequality": "betting", "one_inner": True, **drawn}
    pilot = drawn.pop("pilot", None)

    def upper(sign: float) -> float:
        def scaled(values: np.ndarray) -> np.ndarray:
            return scale_to_unit(sign * values, low=low if sign > 0 else -high, width=width)

        tried = pilot and (scaled(pilot[0]), pilot[1])
        return bound_mean(scaled(differences), delta=check_delta(delta) / 2, pilot=tried, **drawn).bound

    return Interval(max(high - width * upper(-1.0), low), min(low + width * upper(1.0), high))


def held_out_limit(
    values: np.ndarray, *, low: float, high: float, nats: float, population: int | None = None, bets: np.ndarray | None = None
) -> float:
    """Upper limit, by betting, of the mean that n held-out units estimate; fails with probability `exp(-nats)`. No message counts.

    population None: the expected value of a fresh unit. Else: the mean over that many units, of which these are the first n in
    random order, with the running candidate: exact where n is all of them. values: in [low, high], in that order. bets: fixed in
    advance, `betting_grid(n, nats)` if not given. With nats = ln(1/delta) it is the test-set bound (Langford 2005).
    """
    scaled = scale_to_unit(values, low=low, width=high - low)
    n, nats = scaled.size, check_nats("nats", nats)
    bets = betting_grid(n, nats) if bets is None else bets
    if population is None:
        return low + (high - low) * betting(scaled, nats, bets)
    if n > check_count("population", population):
        raise SubloraError(f"population: {n} units scored is more than the {population} there are")
    if n == population:
        return float(np.mean(values))
    rest = betting_unseen(scaled, nats, bets, M=population)
    return low + (high - low) * (n * float(scaled.mean()) + (population - n) * rest) / population


def from_held_out(
    differences: np.ndarray,
    *,
    low: float,
    high: float,
    delta: float,
    comparisons: int = 1,
    bits: float = 0.0,
    population: int | None = None,
    bets: np.ndarray | None = None,
) -> Interval:
    """The mean of D in [low, high], each side at delta/(2J). comparisons: J, listed beforehand.

    bits: log2 of the configurations that could have been chosen on other splits; the rest as in `held_out_limit`.
    """
    nats = side_nats(delta, comparisons, bits)
    upper = held_out_limit(differences, low=low, high=high, nats=nats, population=population, bets=bets)
    lower = -held_out_limit(-differences, low=-high, high=-low, nats=nats, population=population, bets=bets)
    return Interval(max(lower, low), min(upper, high))


def side_nats(delta: float, comparisons: int, bits: float = 0.0) -> float:
    """`ln(2J/delta) + bits ln 2`: what one side of one of J intervals costs, and one of the two parts of a one-sided statement."""
    return math.log(2 * check_count("comparisons", comparisons) / check_delta(delta)) + check_nats("bits", bits) * math.log(2.0)


class Mixed(NamedTuple):
    """The first model mixed with the second, beside the second: `loss_1' - loss_2 = differences + price`.

    differences: at most `excess`, float64 (n,); largest: of -differences + excess; price: of each unit, what the mixture may lose
    at most beside the second model; 0 for single tokens, whose differences are at most excess = log2(1/share) instead.
    """

    differences: np.ndarray
    price: np.ndarray
    excess: float
    largest: float

    @property
    def mean(self) -> float:
        """The mean of `loss_1' - loss_2`."""
        return float(self.differences.mean() + self.price.mean())


def mixed_with(
    first: np.ndarray,
    second: np.ndarray,
    lengths: np.ndarray,
    *,
    high: float,
    shortest: int,
    single: bool = False,
    members: np.ndarray = ALONE,
) -> Mixed:
    """`loss_1' = -log2[(1-e) 2^-(L loss_1) + e 2^-(L loss_2)]/L`, e = `SHARE`: section 15 with the second model as reference.

    first, second: bits per token (or byte) of each unit; high: the most that the second can lose; lengths: L of each, in tokens (or
    bytes); shortest: the least L of any unit of the population, not of the sample; single: units are single tokens. members:
    where units are groups, all of this is of documents, of which each group has some; the result is of groups, by their means.
    """
    top = -math.log2(SHARE) / shortest
    code = Reference(np.asarray(second, np.float64), np.asarray(lengths, np.float64), SHARE, second, top, high + top)
    code = code if single else code.as_offset()
    differences = np.minimum(code.mixture(first * code.lengths) - code.offsets, code.excess)
    price = np.zeros(differences.size) if single else -math.log2(SHARE) / code.lengths
    return Mixed(of_units(differences, members), of_units(price, members), code.excess, code.largest)


def of_units(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The values of units: those given, or the means over each group's documents, `members[i] : members[i+1]`."""
    return document_means(values, members) if members.size else values


def mixture_from_training(
    found: Mixed,
    lengths: np.ndarray,
    *,
    shortest: int,
    charged: float,
    delta: float,
    pilot: tuple[Mixed, np.ndarray] | None = None,
    tau: float = TAU,
    **drawn: Any,
) -> float:
    """Upper limit of the mean of `loss_1' - loss_2`: that of the differences, and that of the price of mixing, each at delta/2.

    lengths: L of all m training units, in the split's order (of a group: one over the mean of its documents' 1/L): the price
    depends on nothing else, and pays for no message. tau: in place of `TAU`.
    charged: log2 of the configurations, which the price pays, too. drawn: assumption, message_bits (of the pair, with those of
    configurations), m, pool, candidates, places. pilot: (mixture of the pilot's units, their places).
    """
    single = found.excess > 0.0
    tried = pilot and (pilot[0].differences, pilot[1])
    by: dict[str, Any] = {"excess": found.excess, "largest": found.largest, "tau": tau, "inequality": "betting"}
    upper = bound_difference(found.differences, pilot=tried, delta=delta if single else delta / 2, **by, **drawn)
    if single:
        return upper
    of_all: dict[str, Any] = {"assumption": drawn["assumption"], "pool": drawn.get("pool")}
    return upper - math.log2(SHARE) * bound_offset(
        1.0 / lengths, largest=1.0 / shortest, message_bits=charged, delta=delta / 2, **of_all
    )


def mixture_from_held_out(
    found: Mixed, *, shortest: int, delta: float, comparisons: int = 1, bits: float = 0.0, population: int | None = None
) -> float:
    """The same from held-out units, at delta/(2J) a part. Arguments as `from_held_out`."""
    by: dict[str, Any] = {"population": population, "nats": side_nats(delta, comparisons, bits)}
    single = found.excess > 0.0
    if single:
        by["nats"] -= math.log(2.0)
    upper = held_out_limit(found.differences, low=found.excess - found.largest, high=found.excess, **by)
    if single:
        return upper
    return upper + held_out_limit(found.price, low=0.0, high=-math.log2(SHARE) / shortest, **by)


def log_e_value(
    differences: np.ndarray, *, least: float, delta: float, bits: float = 0.0, step: float = 0.0, bets: np.ndarray | None = None
) -> float:
    """ln of an e-value against "the mean of D is at most 0", D >= `least` < 0: the mean over bets of `prod(1 + c D/|least|)`.

    Its expectation is at most 1 for independent units, and for units drawn from a finite population without replacement.
    bits: log2 of the configurations; the e-value is divided by them. step: each D counts as so much less, for another machine may
    find it so. bets: fixed in advance.
    """
    D = np.asarray(differences, np.float64)
    if not least < 0.0 or not (D >= least - 1e-9 * (1.0 - least)).all():
        raise SubloraError(f"least: {least!r} is not below zero, or a difference is below it")
    bets = betting_grid(D.size, math.log(2.0 / check_delta(delta))) if bets is None else bets
    gains = np.maximum(1.0 - (D - check_nats("step", step)) / least, 0.0)
    return mixed(log_growth(gains, bets)) - check_nats("bits", bits) * math.log(2.0)


def log_e_two_sided(differences: np.ndarray, *, low: float, high: float, **by: Any) -> float:
    """The same against "the mean of D is 0": the average of both directions."""
    both = np.array([log_e_value(differences, least=low, **by), log_e_value(-differences, least=-high, **by)])
    return mixed(both)


def sign_test(differences: Sequence[float]) -> float:
    """p-value, two-sided, of "these independent differences are as often above 0 as below": exact binomial; zeros are left out.

    Of one difference it is 1, of three .25 at least.
    """
    from scipy.stats import binomtest  # here, because importing it takes half a second

    signs = [value > 0 for value in differences if value != 0]
    return float(binomtest(sum(signs), len(signs)).pvalue) if signs else 1.0


def holm(log_e_values: list[float], delta: float) -> list[bool]:
    """Which of some hypotheses, listed beforehand, Holm's procedure rejects at delta, by `p = min(1, 1/e)` (Holm 1979).

    The order is that given. Logs of e-values: they need not fit in a float.
    """
    order = sorted(range(len(log_e_values)), key=lambda i: -log_e_values[i])
    rejected = [False] * len(order)
    for step, index in enumerate(order):
        if not max(log_e_values[index], 0.0) >= math.log((len(order) - step) / check_delta(delta)):
            break
        rejected[index] = True
    return rejected
