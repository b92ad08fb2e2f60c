"""One door to the bounds of independent units: by name of inequality and assumption, with or without a subsample."""

from typing import NamedTuple

import numpy as np

from sublora.errors import SubloraError
from sublora.inequalities import independent, subsampling, unseen
from sublora.inequalities.subsampling import Parts

INEQUALITIES = ("hoeffding", "kl", "empirical_bernstein", "betting")
ASSUMPTIONS = ("iid", "pool", "unseen")


class Bound(NamedTuple):
    """A bound in units of the range: `bound`, the `empirical` mean it stands on, and for hoeffding its three
    `parts`."""

    bound: float
    empirical: float
    parts: Parts | None


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
    pilot: np.ndarray | None = None,
    binary: bool = False,
    places: np.ndarray | None = None,
    pilot_places: np.ndarray | None = None,
) -> Bound:
    """Bound on what `assumption` names, for losses `values_n` of n of the m training units, scaled to [0, 1].

    n = m (all units evaluated) uses the inequalities for independent units, with no second term and the whole of delta;
    n < m those for a subsample, where `candidates` (A) and `pilot` enter. Which of the two is a matter of n alone.

    `inequality`: hoeffding | kl | empirical_bernstein (iid and n = m only) | betting. `assumption`: iid (a fresh unit's
    expected loss), pool (mean over the `pool` = M units the m were drawn from), unseen (mean over the M - m others).
    `message_bits`: K; `pool`: M, needed for pool and unseen, ignored for iid. `pilot`: losses of the same model on
    units drawn independently of `values_n`; only betting with n < m uses it. `binary`: the metric's losses are 0 or 1
    by definition; only kl with n < m uses it. `places`, `pilot_places`: where each unit stands in the order in which the split
    drew the m, 0 to m - 1, ascending where n = m; with them betting, unseen, uses the sharper running candidate.

    No bound is clipped: it may exceed 1. Raises SubloraError for an unknown name, a pair that does not exist, a missing
    pool, m > M (for unseen m >= M), n > m, and values, delta, message_bits or candidates out of range.
    """
    if inequality not in INEQUALITIES:
        raise SubloraError(f"inequality: {inequality!r} is none of {', '.join(INEQUALITIES)}")
    if assumption not in ASSUMPTIONS:
        raise SubloraError(f"assumption: {assumption!r} is none of {', '.join(ASSUMPTIONS)}")
    values_n = independent.check_unit("values_n", values_n)
    m, n, mean = independent.check_count("m", m), values_n.size, float(values_n.mean())
    subsampling.shares(n, m)
    independent.check_count("candidates", candidates)
    M = _pool(pool, assumption, m)
    if inequality == "empirical_bernstein" and (assumption != "iid" or n < m):
        raise SubloraError("inequality: empirical_bernstein holds for assumption iid with all m units evaluated only")
    if n == m:
        if inequality == "empirical_bernstein":
            return Bound(independent.empirical_bernstein(values_n, message_bits, delta), mean, None)
        nats = independent.complexity_nats(message_bits, delta)
        return _all_units(values_n, nats, inequality, places, M=M if assumption == "unseen" else None)

    drawn = (message_bits, delta, m)
    if inequality == "hoeffding":
        if assumption == "unseen":
            parts = unseen.hoeffding_unseen_subsampled(mean, *drawn, n, candidates=candidates, M=M)
        else:
            parts = subsampling.hoeffding_subsampled(mean, *drawn, n, candidates=candidates)
        return Bound(parts.bound, mean, parts)
    if inequality == "kl":
        if assumption == "unseen":
            bound = unseen.kl_unseen_subsampled(values_n, *drawn, candidates=candidates, M=M, binary=binary)
        else:
            bound = subsampling.kl_subsampled(values_n, *drawn, candidates=candidates, binary=binary)
    elif assumption == "unseen" and places is not None:
        both = None
        if pilot is not None:
            if pilot_places is None:
                raise SubloraError("pilot_places: missing; with places the pilot's are needed, too")
            both = pilot, pilot_places
        bound = unseen.betting_unseen_blocks(values_n, places, *drawn, candidates=candidates, M=M, pilot=both)
    elif assumption == "unseen":
        bound = unseen.betting_unseen_subsampled(values_n, *drawn, candidates=candidates, M=M, pilot=pilot)
    else:
        bound = subsampling.betting_subsampled(values_n, *drawn, candidates=candidates, pilot=pilot)
    return Bound(bound, mean, None)


def _pool(pool: int | None, assumption: str, m: int) -> int:
    """M, checked; m under an assumption that knows no pool."""
    if assumption == "iid":
        return m
    if pool is None:
        raise SubloraError(f"pool: missing; assumption {assumption!r} needs the size of the pool")
    if independent.check_count("pool", pool) < m + (assumption == "unseen"):
        raise SubloraError(f"pool: {pool} units are too few for assumption {assumption!r} with m = {m}")
    return pool


def _all_units(values: np.ndarray, nats: float, inequality: str, places: np.ndarray | None, *, M: int | None) -> Bound:
    """For all m units. M: of the pool whose other units are bounded; None for assumptions iid and pool."""
    m, mean = values.size, float(values.mean())
    if inequality == "hoeffding":
        bound = independent.hoeffding(mean, nats, m) if M is None else unseen.hoeffding_unseen(mean, nats, m, M=M)
        return Bound(bound, mean, Parts(mean, bound - mean, 0.0))
    if inequality == "kl":
        bound = independent.kl(mean, nats, m)
    else:
        bets = independent.betting_grid(m, nats)
        if M is not None and places is not None:
            if not np.array_equal(places, np.arange(m)):
                raise SubloraError(f"places: not 0 to {m - 1} in this order, although all m units are evaluated; sort the values")
            return Bound(unseen.betting_unseen(values, nats, bets, M=M), mean, None)
        bound = independent.betting(values, nats, bets)
    return Bound(bound if M is None else unseen.unseen(bound, mean, m, M=M), mean, None)
