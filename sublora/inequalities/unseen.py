"""From a pool to the units outside the training set: statements about unseen documents with no assumption.

The training set is a uniformly random subset of m of a finite pool of M units, drawn by us. A bound U on the pool's
mean, and the mean X of all m training losses, give the mean over the other M - m units exactly:
`R_unseen = (M R_pool - m X)/(M - m) <= X + M/(M - m) (U - X)`. Losses are scaled to [0, 1]; complexities are nats.
Every bound holds for all messages at once with probability >= 1 - delta over the split (and the subsample); none is
clipped at 1. Arguments out of range raise SubloraError with the argument's name.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from sublora.errors import SubloraError
from sublora.inequalities.independent import (
    CEILING,
    betting_grid,
    check_bets,
    check_count,
    check_mean,
    check_nats,
    check_unit,
    kl,
    log_growth,
    mixed,
    smallest_refuted,
)
from sublora.inequalities.subsampling import INNER_BETS, Parts, best_bet, best_inner, smallest_by_bets, split_nats, upper_limit

BLOCKS = 16  # with 4 the bound is 0.09 bits looser on a real run, with 32 tighter by 0.01


def inflation(m: int, *, M: int) -> float:
    """`M/(M - m)`, the factor on a pool bound's gap."""
    m, M = check_count("m", m), check_count("M", M)
    if m >= M:
        raise SubloraError(f"m: {m} training units of a pool of M = {M} leave none unseen")
    return M / (M - m)


def serfling_root(nats: float, m: int, *, M: int) -> float:
    """`sqrt(nats (1 - (m-1)/M)/(2m))`: how far a pool's mean lies above that of m units drawn without replacement.

    Serfling 1974, Corollary 1.1, with the prior: fails with probability `exp(-nats)`, summed over all messages.
    """
    m, M = check_count("m", m), check_count("M", M)
    return math.sqrt(check_nats("nats", nats) * (1.0 - (m - 1) / M) / (2 * m))


def hoeffding_unseen(mean: float, nats: float, m: int, *, M: int) -> float:
    """`mean + M/(M - m) sqrt(B (1 - (m-1)/M)/(2m))`: Serfling 1974 with the prior, converted. May exceed 1.

    `mean`: of all m training losses; `nats`: `complexity_nats(K, delta)`.
    """
    return check_mean(mean) + inflation(m, M=M) * serfling_root(nats, m, M=M)


def betting_unseen(values_in_split_order: np.ndarray, nats: float, bets: np.ndarray, *, M: int) -> float:
    """Betting on a sample without replacement, with the running candidate: bound on the unseen mean; 1.0 if none.

    With candidate u for the pool's mean, the mean of what is left before unit t is `u_t = (M u - sum_{j<t} X_j)/(M - t + 1)`, and
    `W_c(u) = sum_t ln(1 + c (u_t - X_t)/(1 - u_t))` is the log of a martingale at u = R (Waudby-Smith & Ramdas 2024,
    section 5); the mixture over bets refutes u as in `betting`. In terms of the unseen mean v, `M u = m X + (M - m) v`, so that
    `(u_t - X_t)/(1 - u_t) = Y_t (M - t + 1)/((M - m)(1 - v) + Y_t + ... + Y_m) - 1` with `Y = 1 - X`: every v in [0, 1) is a
    possible pool (a u that no pool has is a v outside [0, 1]), W grows with v, and the smallest v refuted is the bound.

    `values_in_split_order`: losses of all m training units in the order in which the split drew them, or in a random order
    independent of them; not sorted by place in the pool. Shape (m,), in [0, 1].
    `nats`: `complexity_nats(K, delta)`; `bets`: fixed in advance, `betting_grid(m, nats)`.
    """
    values = check_unit("values_in_split_order", values_in_split_order)
    nats, bets, m = check_nats("nats", nats), check_bets(bets), values.size
    inflation(m, M=M)
    y = 1.0 - values
    stakes = y * (M - np.arange(m, dtype=np.float64))
    left = np.cumsum(y[::-1])[::-1]

    def margin(v: float) -> float:
        return mixed(log_growth(stakes / ((M - m) * (1.0 - v) + left), bets)) - nats

    return smallest_refuted(margin, start=0.0, step=float(values.mean()) + math.sqrt(nats / (2 * m)))


def betting_unseen_blocks(
    values_n: np.ndarray,
    places: np.ndarray,
    message_bits: float,
    delta: float,
    m: int,
    *,
    candidates: int,
    M: int,
    pilot: tuple[np.ndarray, np.ndarray] | None = None,
    one_inner: bool = False,
) -> float:
    """`betting_unseen` judged from n of the m training units, its running candidate moved on in BLOCKS steps; 1.0 if none.

    The order in which the split drew the training units is cut into blocks at fixed places `e_b`. Given the blocks before, a block
    is drawn without replacement from the rest of the pool, so for the unseen mean v, `Y = 1 - X` and `left_b` = the sum of Y over
    all training units from e_b on, the wealth `prod_i (1 - c) + c Y_i (M - e_b)/((M - m)(1 - v) + left_b)` has expectation at most
    1 (Hoeffding 1963, Theorem 4, block by block; in one block it is `betting` on the pool, in m it is `betting_unseen`).
    First event, probability >= 1 - s delta: for every message and bet c, the mean Z of the logarithms over the m units is below
    `tau = (K ln 2 + ln(G/(s delta)))/m`. Second, except with probability `(1-s) delta/2`: each left_b is at most (m - e_b) times
    the upper limit of its mean from those of the n units that lie there, complexity `ln(2 A BLOCKS/((1-s) delta))`. Third: v is
    refuted if betting against "the mean Z is at most tau", complexity `ln(2A/((1-s) delta))`, succeeds (`betting_two_stage`). With
    left_b replaced by its limit Z is smaller everywhere, so nothing is refuted that Z itself would not refute.

    `places`: where each of the n units stands in the order of the split, different integers in 0..m-1. `pilot`: (losses, places)
    of the same model on units drawn independently of these, on which the bet c is chosen; without it all G bets are tried, and
    the third complexity has ln G more. `one_inner`: as in `betting_two_stage`; so is the one bet of each of the second's limits.
    """
    inflation(m, M=M)
    values_n = check_unit("values_n", values_n)
    first, third = split_nats(message_bits, delta, m, values_n.size, candidates=candidates, parts=2)
    _, second = split_nats(message_bits, delta, m, values_n.size, candidates=candidates, parts=2 * BLOCKS)
    bets = betting_grid(m, first)
    tau = (first + math.log(bets.size)) / m
    edges = np.arange(BLOCKS) * m // BLOCKS

    def refuted(
        values: np.ndarray,
        places: np.ndarray,
        tried: np.ndarray,
        second: float,
        third: float,
        *,
        rows: Sequence[np.ndarray | None] = BLOCKS * (None,),
        inner: np.ndarray | None = None,
    ) -> tuple[float, int, np.ndarray, list[tuple[np.ndarray, float]]]:
        places = _places(places, values.size, m)
        y, block = 1.0 - values, np.searchsorted(edges, places, side="right") - 1
        behind = [y[places >= edge] for edge in edges]
        limits = [upper_limit(each, second, row) if each.size else 1.0 for each, row in zip(behind, rows, strict=True)]
        left = (m - edges) * np.array(limits)
        stakes, left = y * (M - edges[block]), left[block]

        def gains(v: float) -> np.ndarray:
            return stakes / ((M - m) * (1.0 - v) + left)

        u, best = smallest_by_bets(gains, tried, tau, third, start=float(values.mean()), inner=inner)
        return u, best, gains(min(u, CEILING)), list(zip(behind, limits, strict=True))

    if pilot is None:
        return refuted(values_n, places, bets, second, third + math.log(bets.size))[0]
    pilot_values = check_unit("pilot", pilot[0])
    # as if the pilot were n units: its mean wealth stands for what the certifying units will show
    share = pilot_values.size / values_n.size
    _, best, gained, behind = refuted(pilot_values, pilot[1], bets, second * share, third * share)
    if not one_inner:
        return refuted(values_n, places, bets[best : best + 1], second, third)[0]
    of_limits, of_third = (betting_grid(values_n.size, nats, INNER_BETS) for nats in (second, third))
    rows = [best_bet(each, limit, of_limits) if each.size else None for each, limit in behind]
    inner = best_inner(gained, bets[best], tau, of_third)
    return refuted(values_n, places, bets[best : best + 1], second, third, rows=rows, inner=inner)[0]


def _places(places: np.ndarray, n: int, m: int) -> np.ndarray:
    places = np.asarray(places)
    if places.shape != (n,) or places.dtype.kind not in "iu" or np.unique(places).size < n or places.min() < 0 or places.max() >= m:
        raise SubloraError(f"places: not {n} different integers from 0 to {m - 1}; give each unit's place in the split's order")
    return places


def hoeffding_unseen_subsampled(
    mean_n: float, message_bits: float, delta: float, m: int, n: int, *, candidates: int, M: int
) -> Parts:
    """`mean_n + sqrt(ln(A/((1-s) delta))/(2n)) + M/(M - m) sqrt((K ln 2 + ln(1/(s delta)))(1 - (m-1)/M)/(2m))`.

    In `X + M/(M - m)(U - X)` the first X by its upper limit from the n units, `U - X` by the first root alone, which
    does not depend on X: so the subsample's error is not inflated. `.bound` may exceed 1.
    """
    first, second = split_nats(message_bits, delta, m, n, candidates=candidates)
    complexity = inflation(m, M=M) * serfling_root(first, m, M=M)
    return Parts(check_mean(mean_n), complexity, math.sqrt(second / (2 * n)))


def kl_unseen(mean: float, nats: float, m: int, *, M: int) -> float:
    """`X + M/(M - m) (U - X)`, X the `mean` of all m training losses, U = `kl(mean, nats, m)` the pool's bound. May exceed 1."""
    return mean + inflation(m, M=M) * (kl(mean, nats, m) - mean)


def kl_unseen_subsampled(values_n: np.ndarray, message_bits: float, delta: float, m: int, *, candidates: int, M: int) -> float:
    """The largest `kl_unseen(q)` over every training mean q up to its upper limit from the n units. May exceed 1.

    `kl` is concave in the mean (the set `{(q, r): kl(q || r) <= b}` is convex), and so is
    `q + M/(M - m)(kl(q) - q)`; where kl closes in on 1 it falls with q, hence the largest value and not the last.
    """
    first, second = split_nats(message_bits, delta, m, check_unit("values_n", values_n).size, candidates=candidates)
    upper = upper_limit(values_n, second)
    found = minimize_scalar(lambda q: -kl_unseen(q, first, m, M=M), bounds=(0.0, upper), method="bounded", options={"xatol": 1e-9})
    return max(-float(found.fun), kl_unseen(upper, first, m, M=M))
