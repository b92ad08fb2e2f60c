"""Bounds when only n of the m training units are evaluated: one part of delta for the training set, one for the subsample.

The n units are a uniformly random subset of the m, drawn by `subsample` after the message is fixed. `candidates` (A) is
the number of messages whose subsample result anyone looked at before choosing this one; it is paid in the subsample
term. n, and with it s, is fixed in advance. Losses are scaled to [0, 1]; complexities are nats. Arguments out of range raise
SubloraError with the argument's name.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sublora.errors import SubloraError
from sublora.inequalities.independent import (
    CEILING,
    betting,
    betting_grid,
    check_bets,
    check_count,
    check_delta,
    check_mean,
    check_nats,
    check_unit,
    complexity_nats,
    kl,
    log_growth,
    mixed,
    smallest_refuted,
)

INNER_BETS = 12  # bets of the second stage; the first stage has the 20 of betting_grid


class Parts(NamedTuple):
    """The three terms of a bound, in units of the range; `bound` is their sum."""

    empirical: float
    complexity: float
    subsampling: float

    @property
    def bound(self) -> float:
        return self.empirical + self.complexity + self.subsampling


def shares(n: int, m: int) -> float:
    """`s = n/(n + m)`: the training term may fail with probability `s delta`, the subsample with `(1 - s) delta`.

    Lotfi et al. 2024a, section 4.3. Raises SubloraError unless `1 <= n <= m`.
    """
    n, m = check_count("n", n), check_count("m", m)
    if n > m:
        raise SubloraError(f"n: {n} units evaluated is more than the m = {m} units there are")
    return n / (n + m)


def _open_share(share: float) -> float:
    if not 0.0 < share < 1.0:
        raise SubloraError(f"share: {share!r} is not in (0, 1); both parts need some of delta")
    return share


def split_nats(
    message_bits: float, delta: float, m: int, n: int, *, candidates: int, parts: int = 1, share: float | None = None
) -> tuple[float, float]:
    """`(K ln 2 + ln(1/(s delta)), ln(A parts/((1 - s) delta)))` in nats: complexity of the training and the subsample term.

    `parts`: into how many equal parts the subsample's share of delta is divided; `share`: another s than that of `shares`.
    """
    s, delta, candidates = shares(n, m), check_delta(delta), check_count("candidates", candidates)
    s = s if share is None else _open_share(share)
    return complexity_nats(message_bits, s * delta), math.log(candidates * parts / ((1.0 - s) * delta))


def hoeffding_subsampled(mean_n: float, message_bits: float, delta: float, m: int, n: int, *, candidates: int) -> Parts:
    """`mean_n + sqrt((K ln 2 + ln(1/(s delta)))/(2m)) + sqrt(ln(A/((1-s) delta))/(2n))`; its `.bound` may exceed 1.

    Lotfi et al. 2024a, Theorem for subsampled evaluation (there A = 1, with replacement; without is no worse, Hoeffding
    1963, Theorem 4). Holds for every message at once with probability >= 1 - delta over the m units and the subsample.
    """
    first, second = split_nats(message_bits, delta, m, n, candidates=candidates)
    return Parts(check_mean(mean_n), math.sqrt(first / (2 * m)), math.sqrt(second / (2 * n)))


def upper_limit(values_n: np.ndarray, nats: float, bets: np.ndarray | None = None) -> float:
    """Upper confidence limit of the mean of the m units from n of them, by `betting`; fails with probability `exp(-nats)`.

    `values_n`: shape (n,), in [0, 1]; `bets`: fixed in advance, by default INNER_BETS of them.
    """
    values_n = check_unit("values_n", values_n)
    return betting(values_n, nats, betting_grid(values_n.size, nats, INNER_BETS) if bets is None else bets)


def kl_subsampled(values_n: np.ndarray, message_bits: float, delta: float, m: int, *, candidates: int) -> float:
    """`kl(upper, K ln 2 + ln(1/(s delta)), m)`, `upper` the limit of the training mean at `ln(A/((1-s) delta))`.

    kl with the prior grows with the training mean, so an upper limit of that mean may stand in for it.
    """
    first, second = split_nats(message_bits, delta, m, check_unit("values_n", values_n).size, candidates=candidates)
    return kl(upper_limit(values_n, second), first, m)


def betting_subsampled(
    values_n: np.ndarray,
    message_bits: float,
    delta: float,
    m: int,
    *,
    candidates: int,
    pilot: np.ndarray | None = None,
    one_inner: bool = False,
) -> float:
    """`betting` when n of the m units are evaluated: `betting_two_stage`, its two complexities those of `split_nats`.

    `values_n`: shape (n,), in [0, 1]; `pilot`: losses of the same model on units drawn independently of these
    (`subsample(..., purpose="pilot")`), shape (any,), or None. `one_inner`: as in `betting_two_stage`.
    """
    first, second = split_nats(message_bits, delta, m, check_unit("values_n", values_n).size, candidates=candidates)
    return betting_two_stage(values_n, first, second, m, pilot=pilot, one_inner=one_inner)


def betting_two_stage(
    values_n: np.ndarray,
    first: float,
    second: float,
    m: int,
    bets: np.ndarray | None = None,
    *,
    pilot: np.ndarray | None = None,
    one_inner: bool = False,
) -> float:
    """The smallest u refuted by betting on the m units, judged from n of them; 1.0 if there is none.

    First event, probability >= 1 - exp(-`first` + K ln 2): for every message and every bet c of the G,
    `(1/m) sum_m Z_i(R, c) < tau = (first + ln G)/m`, `Z_i(u, c) = ln(1 + c (u - X_i)/(1 - u)) >= ln(1 - c)`. Second,
    from the n: u is refuted if for some c the mean of Z(u, c) over the m units is at least tau, by betting against
    "it is at most tau" with complexity `second + ln G` and a uniform mixture over the inner bets b, whose wealth is
    the product of `1 + b (Z_i - tau)/(tau - ln(1 - c))`: the test "LCB >= tau" at a single evaluation.

    This is the fixed-sequence walk down a grid of u, whatever the grid, at once for all of them: Z grows with u and tau
    does not depend on it, so the wealth of every (b, c) grows with u, and refutation at any u <= R implies refutation
    at R itself, which has probability at most exp(-`second`). Hence a root search replaces the walk.

    With a `pilot` the one bet c that does best on it is the only one tested, and ln G leaves the second complexity; with
    `one_inner` so is the one inner bet, which costs no ln of their number (statements of documents, without a reference, keep the
    mixture: they are as certificates have them).
    All bets are fixed in advance: `bets` is by default `betting_grid` of (m, first), and the inner ones that of the n units.
    """
    values_n = check_unit("values_n", values_n)
    first, second = check_nats("first", first), check_nats("second", second)
    shares(values_n.size, m)
    bets = betting_grid(m, first) if bets is None else check_bets(bets)
    tau = (first + math.log(bets.size)) / m

    def search(values: np.ndarray, tested: np.ndarray, nats: float, *, inner: np.ndarray | None = None) -> tuple[float, int]:
        return smallest_by_bets(lambda u: (1.0 - values) / (1.0 - u), tested, tau, nats, start=float(values.mean()), inner=inner)

    if pilot is None:
        return search(values_n, bets, second + math.log(bets.size))[0]
    pilot = check_unit("pilot", pilot)
    # as if the pilot were n units: its mean wealth stands for what the certifying units will show
    u, best = search(pilot, bets, second * pilot.size / values_n.size)
    inner = betting_grid(values_n.size, second, INNER_BETS)
    if one_inner:
        inner = best_inner((1.0 - pilot) / (1.0 - min(u, CEILING)), bets[best], tau, inner)
    return search(values_n, bets[best : best + 1], second, inner=inner)[0]


def best_bet(values: np.ndarray, u: float, bets: np.ndarray) -> np.ndarray:
    """Of some bets the one that does best against the mean u, as a row; found on a pilot, it is fixed before the n are drawn."""
    return bets[[np.argmax(log_growth((1.0 - values) / (1.0 - min(u, CEILING)), bets))]]


def best_inner(gains: np.ndarray, bet: float, tau: float, bets: np.ndarray) -> np.ndarray:
    """The same of the inner bets of `smallest_by_bets`, for one outer bet. gains: at the u that is refuted."""
    low = math.log1p(-bet)
    return bets[[np.argmax(log_growth((np.log((1.0 - bet) + bet * gains) - low) / (tau - low), bets))]]


def smallest_by_bets(
    gains: Callable[[float], np.ndarray],
    bets: np.ndarray,
    tau: float,
    nats: float,
    *,
    start: float,
    inner: np.ndarray | None = None,
) -> tuple[float, int]:
    """The smallest u, from `start` on, that some bet refutes, and the index of that bet; (1.0, 0) if no bet refutes anything.

    A bet c refutes u if, on the n units, betting against "the mean of `Z = ln((1 - c) + c g)` is at most tau" reaches `nats`, a
    uniform mixture over the inner bets. `gains`: from u to the n values g >= 0, growing with u. `inner`: fixed in advance, by
    default those of the n units.
    """
    inner = betting_grid(gains(0.0).size, nats, INNER_BETS) if inner is None else inner
    step = math.sqrt(tau / 2.0)

    def margin(c: float, u: float) -> float:
        low = math.log1p(-c)
        z = np.log((1.0 - c) + c * gains(u))
        return mixed(log_growth((z - low) / (tau - low), inner)) - nats

    least, best = 1.0, 0
    for index, c in enumerate(bets):
        if least < 1.0 and margin(c, least) < 0.0:
            continue  # refutes less than an earlier bet does
        u = smallest_refuted(functools.partial(margin, c), start=start, step=step)
        if u < least:
            least, best = u, index
    return least, best


def subsample(message: bytes, store_sha256: str, m: int, n: int, purpose: str = "certificate") -> np.ndarray:
    """n of the units 0..m-1, uniformly without replacement, in the order drawn: int64, shape (n,).

    Unknown until the message is fixed: the n smallest of m keys, the raw 64-bit outputs of Philox keyed with the first
    8 bytes (big-endian) of SHA-256(message || store hash), the store hash as its 32 bytes; equal keys in order of
    index. Any other `purpose` ("pilot", "order") is appended, as UTF-8, to what is hashed, and gives an independent
    draw; n = m is a random order of all units. From more than 16 n and 2^20 units the draw does not take memory for all m: it is
    the first n different ones of the outputs' last ceil(log2 m) bits, values of m or more left out. Raw outputs are part of
    numpy's compatibility promise: the draw is the same in every version.
    """
    shares(n, m)
    suffix = b"" if purpose == "certificate" else purpose.encode()
    seed = int.from_bytes(hashlib.sha256(message + bytes.fromhex(store_sha256) + suffix).digest()[:8], "big")
    if m > max(16 * n, 2**20):
        return _first_different(np.random.Philox(key=seed), m, n)
    keys = np.random.Philox(key=seed).random_raw(m)
    return np.argsort(keys, kind="stable")[:n].astype(np.int64)


def _first_different(stream: np.random.Philox, m: int, n: int) -> np.ndarray:
    """The first n different values below m of the stream, each output cut to the bits that m - 1 needs. m far above n."""
    mask, drawn = np.uint64((1 << (m - 1).bit_length()) - 1), np.empty(0, np.int64)
    while True:
        values = (stream.random_raw(4 * n) & mask).astype(np.int64)
        drawn = np.concatenate([drawn, values[values < m]])
        different = np.sort(np.unique(drawn, return_index=True)[1])
        if len(different) >= n:
            return drawn[different[:n]]
