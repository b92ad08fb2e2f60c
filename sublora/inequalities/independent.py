"""Bounds for independent units (or a random subset of a finite pool): plain functions of losses scaled to [0, 1].

Each holds for every hypothesis h at once with probability >= 1 - delta, over the source of independent units or over the draw of
the subset, because `nats` is `complexity_nats(h, delta)`: a union bound with the prior `2^-K(h)`. Complexities are thousands of
nats, so everything is computed in logs. Nothing is clipped into validity: `hoeffding` may exceed 1, `betting` returns 1.0 where it
proves nothing. Arguments out of range raise SubloraError with the argument's name.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

from sublora.errors import SubloraError

LARGEST_BET = 0.999  # a bet of 1 would lose everything on the first loss of 1
CEILING = 1.0 - 1e-9  # the largest value a betting bound tries
TOLERANCE = 1e-9  # of a bound found by searching; the end returned is always one that was tested and refuted


# -- arguments -------------------------------------------------------------------------------------------------------


def check_delta(delta: float) -> float:
    """`delta` as float; SubloraError unless it is in (0, 1)."""
    if not 0.0 < delta < 1.0:
        raise SubloraError(f"delta: {delta!r} is not in (0, 1); give a failure probability such as 0.05")
    return float(delta)


def check_count(name: str, count: int, least: int = 1) -> int:
    """`count` as int; SubloraError unless it is an integer >= `least`."""
    if isinstance(count, bool) or not math.isfinite(count) or count != int(count) or count < least:
        raise SubloraError(f"{name}: {count!r} is not an integer >= {least}")
    return int(count)


def check_nats(name: str, nats: float) -> float:
    """`nats` as float; SubloraError unless it is finite and >= 0."""
    if not (math.isfinite(nats) and nats >= 0.0):
        raise SubloraError(f"{name}: {nats!r} is not a finite number >= 0")
    return float(nats)


def check_unit(name: str, values: np.ndarray) -> np.ndarray:
    """`values` as one float64 row; SubloraError if it is empty or not all in [0, 1] (NaN is not)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise SubloraError(f"{name}: shape {values.shape}; give one non-empty row of losses scaled to [0, 1]")
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise SubloraError(f"{name}: a value is NaN or outside [0, 1]; scale losses by their range first")
    return values


def check_mean(mean: float) -> float:
    """`mean` as float; SubloraError unless it is in [0, 1]."""
    if not 0.0 <= mean <= 1.0:
        raise SubloraError(f"mean: {mean!r} is not in [0, 1]; scale losses by their range first")
    return float(mean)


def check_bets(bets: np.ndarray) -> np.ndarray:
    """`bets` as one float64 row; SubloraError if it is empty or not all in (0, 0.999]."""
    bets = np.asarray(bets, dtype=np.float64)
    if bets.ndim != 1 or bets.size == 0 or not ((bets > 0.0) & (bets <= LARGEST_BET)).all():
        raise SubloraError(f"bets: not a non-empty row of numbers in (0, {LARGEST_BET}]; use betting_grid")
    return bets


# -- complexity ------------------------------------------------------------------------------------------------------


def complexity_nats(message_bits: float, delta: float) -> float:
    """`B = K ln 2 + ln(1/delta)` in nats: the price of a hypothesis whose message has K = `message_bits` bits.

    Union bound over a prefix-free set of messages, prior `2^-K` (Kraft). Pass a part of delta to spend a part of it.
    For independent units and tokens add `log2 J` to K if J configurations could have been chosen with the data in hand.
    """
    return check_nats("message_bits", message_bits) * math.log(2.0) - math.log(check_delta(delta))


# -- bounds from the mean --------------------------------------------------------------------------------------------


def hoeffding(mean: float, nats: float, m: int) -> float:
    """`mean + sqrt(nats / (2 m))`, with probability >= 1 - delta an upper bound on the expected loss. May exceed 1.

    Hoeffding 1963 with the prior (Lotfi et al. 2024a, Theorem 1), in units of the range. Holds for independent units
    and for a random subset of a finite pool (Hoeffding 1963, Theorem 4).
    `mean`: of all m scaled losses; `nats`: `complexity_nats(K, delta)`.
    """
    return check_mean(mean) + math.sqrt(check_nats("nats", nats) / (2 * check_count("m", m)))


def binary_kl(q: float, r: float) -> float:
    """Relative entropy `kl(q || r)` of Bernoulli(q) to Bernoulli(r) in nats; inf where r excludes what q allows."""
    if q == r:
        return 0.0
    if (r == 0.0 and q > 0.0) or (r == 1.0 and q < 1.0):
        return math.inf

    def term(p: float, change: float, changed: float) -> float:  # p ln(p/changed), changed = p + change
        if p == 0.0:
            return 0.0
        if 2.0 * abs(change) < p:  # the two terms nearly cancel: through the change, which is exact
            return -p * math.log1p(change / p)
        return p * (math.log(p) - math.log(changed))

    return max(term(q, r - q, r) + term(1.0 - q, q - r, 1.0 - r), 0.0)


def kl(mean: float, nats: float, m: int) -> float:
    """`sup { r : m kl(mean || r) <= nats }`, an upper bound on the expected loss; never above `hoeffding`.

    Chernoff's bound with the prior (Langford 2005; Maurer 2004), for losses in [0, 1], independent or a random subset
    of a pool. By bisection to the last float; the upper end is returned. Arguments as for `hoeffding`.
    """
    mean, nats, m = check_mean(mean), check_nats("nats", nats), check_count("m", m)
    return _bisect(lambda r: m * binary_kl(mean, r) > nats, mean, 1.0)


def binomial_tail(errors: int, nats: float, m: int) -> float:
    """`sup { r >= errors/m : P(Bin(m, r) <= errors) >= exp(-nats) }`: the exact bound for 0-1 losses; never above `kl`.

    Langford 2005, Theorem 3.3, with the prior. `errors`: the number of ones among m losses, each 0 or 1, independent.
    (For a subset of a pool the tail is hypergeometric: use `kl`.) Exact in logs for any number of nats.
    """
    m, nats = check_count("m", m), check_nats("nats", nats)
    errors = check_count("errors", errors, least=0)
    if errors > m:
        raise SubloraError(f"errors: {errors} is more than m = {m}")
    if errors == m:
        return 1.0
    return _bisect(lambda r: log_binomial_cdf(errors, m, r) < -nats, errors / m, 1.0)


def log_binomial_cdf(k: int, m: int, r: float) -> float:
    """`ln P(Bin(m, r) <= k)` for `k/m <= r <= 1`, `k < m`, without underflow (scipy's is -inf below -745).

    The sum `P(k) (1 + q_k + q_k q_(k-1) + ...)` with falling ratios `q_j = j (1-r) / ((m-j+1) r) < 1`; after some
    terms the rest is at most geometric and is added as that, so the result errs upwards only (by less than 1e-9).
    """
    if r >= 1.0:
        return -math.inf
    if k == 0:
        return m * math.log1p(-r)
    log_top = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1) + k * math.log(r) + (m - k) * math.log1p(-r)
    terms = min(k, 2000 + int(20 * math.sqrt(m)))
    j = np.arange(k, k - terms, -1, dtype=np.float64)
    ratios = j * ((1.0 - r) / r) / (m - j + 1.0)
    products = np.cumprod(ratios)
    rest = products[-1] * ratios[-1] / (1.0 - ratios[-1]) if terms < k else 0.0
    return float(log_top + math.log1p(products.sum() + rest))


# -- bounds from the values ------------------------------------------------------------------------------------------


def empirical_bernstein(values: np.ndarray, message_bits: float, delta: float) -> float:
    """`mean + sqrt(2 S^2 B'/m) + 7 B'/(3 (m-1))`, `B' = K ln 2 + ln(2/delta)`, S^2 the sample variance. May exceed 1.

    Maurer & Pontil 2009, Theorem 4, with the prior; independent units only (not a pool).
    `values`: losses scaled to [0, 1], shape (m,), m >= 2.
    """
    values = check_unit("values", values)
    m = values.size
    if m < 2:
        raise SubloraError("values: one value has no sample variance; give at least two")
    nats = complexity_nats(message_bits, check_delta(delta) / 2.0)
    return float(values.mean() + math.sqrt(2.0 * values.var(ddof=1) * nats / m) + 7.0 * nats / (3.0 * (m - 1)))


def log_wealth(values: np.ndarray, u: float, bets: np.ndarray) -> np.ndarray:
    """`W_c(u) = sum_i ln(1 + c (u - X_i)/(1 - u))` for each bet c: shape (G,), nats, increasing in u.

    If `u` is the mean of the X_i and they are independent, or drawn without replacement, `E exp W_c <= 1`.
    `values`: shape (m,), in [0, 1]; `u` in [0, 1); `bets`: shape (G,).
    """
    # 1 + c (u - X)/(1 - u) = (1 - c) + c (1 - X)/(1 - u)
    return log_growth((1.0 - values) / (1.0 - u), bets)


def log_growth(gains: np.ndarray, bets: np.ndarray) -> np.ndarray:
    """`sum_i ln((1 - c) + c g_i)` for each bet c: shape (G,), nats. `gains`: shape (m,), >= 0 and at most 1e18."""
    stay, go = (1.0 - bets)[:, None], bets[:, None]
    total = np.zeros(bets.size)
    whole = gains.size - gains.size % 16
    # factors lie in [1e-3, 1e18]: sixteen multiplied stay within float64, and one log replaces sixteen
    sixteens = gains[:whole].reshape(16, -1)
    for start in range(0, sixteens.shape[1], 2048):
        products = np.ones((bets.size, 1))
        for row in sixteens[:, start : start + 2048]:
            products = products * (stay + go * row)
        total += np.log(products).sum(axis=1)
    return total + np.log(stay + go * gains[whole:]).sum(axis=1)


def mixed(log_wealths: np.ndarray) -> float:
    """Log of the mean wealth over the bets, `logsumexp(W) - ln G`, in nats: a uniform mixture."""
    top = float(log_wealths.max())  # scipy's logsumexp takes most of a certificate's time
    return top + math.log(float(np.exp(log_wealths - top).mean()))


def betting(values: np.ndarray, nats: float, bets: np.ndarray) -> float:
    """`inf { u : logsumexp_c W_c(u) - ln G >= nats }`, an upper bound on the expected loss; 1.0 where there is none.

    Betting (Waudby-Smith & Ramdas 2024; Orabona & Jun 2024; the empirical KL_inf), `W` as in `log_wealth`, mixed uniformly over
    the bets. Independent units, or a random subset of a pool (Hoeffding 1963, Theorem 4). Within 2e-9 of the infimum, from above.
    `values`: losses scaled to [0, 1], shape (m,); `nats`: `complexity_nats(K, delta)`; `bets`: `betting_grid`, fixed in advance.
    Raises SubloraError for values outside [0, 1], NaN, an empty array, bets outside (0, 0.999].
    """
    values, nats, bets = check_unit("values", values), check_nats("nats", nats), check_bets(bets)
    step = math.sqrt(nats / (2 * values.size))
    return smallest_refuted(lambda u: mixed(log_wealth(values, u, bets)) - nats, start=float(values.mean()), step=step)


def betting_grid(m: int, nats: float, size: int = 20) -> np.ndarray:
    """`size` rising bets in (0, 0.999], shape (size,), from m and nats alone: fixed before any data is seen.

    The best bet is about `(1 - u) sqrt(2 nats / (m variance))`, at most 1. The grid runs from `0.2 sqrt(nats/m)` to 0.999, evenly
    in `ln c - 0.3 ln(1 - c)`: finer near 1, where the gap depends on 1 - c. With 20 bets the gap of `betting` is within 1% of that
    of 300 (measured: sd .05 around .37, Bernoulli .3 to .9, nats/m from .007 to .2).
    """
    m, size = check_count("m", m), check_count("size", size)
    low = min(0.5, 0.2 * math.sqrt(max(check_nats("nats", nats), 1e-6) / m))
    logits = np.linspace(math.log(low / (1.0 - low)), math.log(LARGEST_BET / (1.0 - LARGEST_BET)), 20_001)
    bets = 1.0 / (1.0 + np.exp(-logits))
    scale = np.log(bets) - 0.3 * np.log1p(-bets)
    places = np.linspace(0.0, 1.0, size) if size > 1 else np.array([0.5])
    return np.minimum(np.interp(scale[0] + places * (scale[-1] - scale[0]), scale, bets), LARGEST_BET)


# -- searching -------------------------------------------------------------------------------------------------------


def smallest_refuted(margin: Callable[[float], float], *, start: float, step: float) -> float:
    """The smallest u in [start, 1 - 1e-9] with `margin(u) >= 0`, up to 2e-9 and from above; 1.0 if there is none.

    `margin` is increasing. The point returned was tested: `margin` there is >= 0. `step`: where to look first.
    """
    if start >= CEILING or margin(CEILING) < 0.0:
        return 1.0
    if margin(start) >= 0.0:
        return start
    step = max(step, TOLERANCE)
    low, high = start, min(start + step, CEILING)
    while high < CEILING and margin(high) < 0.0:
        step *= 2.0
        low, high = high, min(start + step, CEILING)
    end = brentq(margin, low, high, xtol=TOLERANCE, rtol=8.9e-16)
    step = TOLERANCE
    while margin(end) < 0.0:  # brentq may stop on the side that is not refuted
        end, step = min(end + step, CEILING), 2.0 * step
    return end


def _bisect(refuted: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest refuted point of [low, high], to the last float, from above; `refuted` is false, then true."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        if refuted(middle):
            high = middle
        else:
            low = middle
