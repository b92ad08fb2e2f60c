"""One door to the bounds of independent units: by name of inequality and assumption, with or without a subsample."""

from typing import Any, NamedTuple

import numpy as np

from sublora.errors import SubloraError
from sublora.inequalities import independent, subsampling, unseen
from sublora.inequalities.subsampling import Parts

INEQUALITIES = ("hoeffding", "kl", "empirical_bernstein", "binomial_tail", "betting")
ASSUMPTIONS = ("iid", "pool", "unseen")
NEED_ALL_UNITS = ("empirical_bernstein", "binomial_tail")
"""They hold for assumption iid with all m units evaluated, and not otherwise."""


class Bound(NamedTuple):
    """A bound in units of the range, the `empirical` mean it stands on, and for hoeffding its three `parts`."""

    bound: float
    empirical: float
    parts: Parts | None

    def unscaled(self, low: float, width: float) -> "Bound":
        """The same for the losses themselves, of range [low, low + width]."""
        empirical = low + width * self.empirical
        parts = self.parts and Parts(empirical, width * self.parts.complexity, width * self.parts.subsampling)
        return Bound(low + width * self.bound, empirical, parts)


def bound_mean(
    values_n: np.ndarray,
    *,
    inequality: str,
    assumption: str,
    message_bits: float,
    delta: float,
    m: int,
    pool: int | None = None,
    candidates: int = 1,
    places: np.ndarray | None = None,
    pilot: tuple[np.ndarray, np.ndarray] | None = None,
    one_inner: bool = False,
) -> Bound:
    """Bound on what `assumption` names, for losses `values_n` of n of the m training units, scaled to [0, 1].

    n = m (all units evaluated) uses the inequalities for independent units, with no second term and the whole of delta;
    n < m those for a subsample, where `candidates` (A) and `pilot` enter. Which of the two is a matter of n alone.

    `inequality`: hoeffding | kl | empirical_bernstein and binomial_tail (losses of 0 or 1), iid and n = m only | betting.
    `assumption`: iid (a fresh unit's expected loss), pool (mean over the `pool` = M units the m were drawn from), unseen (mean over
    the M - m others). `message_bits`: K; `pool`: M, ignored for iid. `places`: where each unit stands in the order in which the
    split drew the m, 0 to m - 1, ascending where n = m; needed for betting, unseen. `pilot`: (losses, places) of the same model on
    units drawn independently of these; only betting with n < m uses it. `one_inner`: as in `betting_two_stage`.

    No bound is clipped: it may exceed 1. Raises SubloraError for an unknown name, a pair that does not exist, a missing
    pool, m > M (for unseen m >= M), n > m, and values, places, delta, message_bits or candidates out of range.
    """
    if inequality not in INEQUALITIES:
        raise SubloraError(f"inequality: {inequality!r} is none of {', '.join(INEQUALITIES)}")
    if assumption not in ASSUMPTIONS:
        raise SubloraError(f"assumption: {assumption!r} is none of {', '.join(ASSUMPTIONS)}")
    values_n = independent.check_unit("values_n", values_n)
    n, mean = values_n.size, float(values_n.mean())
    subsampling.shares(n, m)
    independent.check_count("candidates", candidates)
    M = _pool(pool, assumption, m)
    if inequality in NEED_ALL_UNITS and (assumption != "iid" or n < m):
        raise SubloraError(f"inequality: {inequality} holds for assumption iid with all m units evaluated only")
    if inequality == "empirical_bernstein":
        return Bound(independent.empirical_bernstein(values_n, message_bits, delta), mean, None)
    known = from_mean(
        mean, n, inequality=inequality, message_bits=message_bits, delta=delta, m=m, unseen_of=M, candidates=candidates
    )
    if known is not None:
        return known
    if n == m:
        return Bound(_all_units(values_n, independent.complexity_nats(message_bits, delta), inequality, places, M), mean, None)

    drawn = (message_bits, delta, m)
    if inequality == "kl":
        if M is None:
            bound = subsampling.kl_subsampled(values_n, *drawn, candidates=candidates)
        else:
            bound = unseen.kl_unseen_subsampled(values_n, *drawn, candidates=candidates, M=M)
    elif M is None:
        first = pilot and pilot[0]
        bound = subsampling.betting_subsampled(values_n, *drawn, candidates=candidates, pilot=first, one_inner=one_inner)
    elif places is None:
        raise SubloraError("places: missing; betting, unseen, needs each unit's place in the split's order")
    else:
        shared: dict[str, Any] = {"candidates": candidates, "M": M, "pilot": pilot, "one_inner": one_inner}
        bound = unseen.betting_unseen_blocks(values_n, places, *drawn, **shared)
    return Bound(bound, mean, None)


def from_mean(
    mean: float, n: int, *, inequality: str, message_bits: float, delta: float, m: int, unseen_of: int | None, candidates: int
) -> Bound | None:
    """`bound_mean` for what the mean of the n losses determines: hoeffding, and kl of all m units. None for the others.

    unseen_of: M where the pool's other units are bounded; None for iid and pool. Raises SubloraError as `bound_mean`.
    """
    M, nats = unseen_of, independent.complexity_nats(message_bits, delta)
    if inequality == "kl" and n == m:
        return Bound(independent.kl(mean, nats, m) if M is None else unseen.kl_unseen(mean, nats, m, M=M), mean, None)
    if inequality != "hoeffding":
        return None
    if n == m:
        bound = independent.hoeffding(mean, nats, m) if M is None else unseen.hoeffding_unseen(mean, nats, m, M=M)
        return Bound(bound, mean, Parts(mean, bound - mean, 0.0))
    drawn: tuple = (mean, message_bits, delta, m, n)
    if M is None:
        parts = subsampling.hoeffding_subsampled(*drawn, candidates=candidates)
    else:
        parts = unseen.hoeffding_unseen_subsampled(*drawn, candidates=candidates, M=M)
    return Bound(parts.bound, mean, parts)


def _pool(pool: int | None, assumption: str, m: int) -> int | None:
    """M, checked, if the pool's other units are bounded; None for assumptions iid and pool, which share their bounds."""
    if assumption == "iid":
        return None
    if pool is None:
        raise SubloraError(f"pool: missing; assumption {assumption!r} needs the size of the pool")
    if independent.check_count("pool", pool) < m + (assumption == "unseen"):
        raise SubloraError(f"pool: {pool} units are too few for assumption {assumption!r} with m = {m}")
    return pool if assumption == "unseen" else None


def _all_units(values: np.ndarray, nats: float, inequality: str, places: np.ndarray | None, M: int | None) -> float:
    m = values.size
    if inequality == "binomial_tail":
        if not np.isin(values, (0.0, 1.0)).all():
            raise SubloraError("values_n: a value is neither 0 nor 1; binomial_tail is for such losses only")
        return independent.binomial_tail(int(values.sum()), nats, m)
    bets = independent.betting_grid(m, nats)
    if M is None:
        return independent.betting(values, nats, bets)
    if places is None or not np.array_equal(places, np.arange(m)):
        raise SubloraError(f"places: not 0 to {m - 1} in this order, although all m units are evaluated; sort the values")
    return unseen.betting_unseen(values, nats, bets, M=M)
