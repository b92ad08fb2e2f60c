"""How often a bound is violated, exactly: small worlds of 0-1 losses in which the truth is known.

A bound grows with the count of ones, so it is violated up to some count, and the worst of H independent hypotheses is violated with
probability `1 - (1 - P)^H`: no hypothesis needs to be simulated.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import binom, hypergeom

Counted = Callable[[int], float]
"""A bound as a function of the count of ones among the units that it sees; it grows with the count."""


def zeros_and_ones(ones: int, m: int) -> np.ndarray:
    """m losses, so many of them 1: float64 (m,)."""
    return np.r_[np.ones(ones), np.zeros(m - ones)]


def violated_below(bound: Counted, truth: float, m: int) -> int:
    """The smallest count of ones at which `bound` covers `truth`; m + 1 if none does."""
    low, high = -1, m + 1
    while high - low > 1:
        middle = (low + high) // 2
        if bound(middle) >= truth:
            high = middle
        else:
            low = middle
    return high


def worst_of(hypotheses: float, probability: float) -> float:
    """Probability that any of `hypotheses` independent events of this probability happens."""
    return 1.0 if probability >= 1.0 else -math.expm1(hypotheses * math.log1p(-probability))


def violation(bound: Counted, m: int, mu: float, *, hypotheses: float) -> float:
    """Exact probability that, for the worst of the hypotheses, the bound from m losses Bernoulli(mu) is below mu."""
    return worst_of(hypotheses, binom.cdf(violated_below(bound, mu, m) - 1, m, mu))


def fewest_of(cdf: np.ndarray, hypotheses: float) -> np.ndarray:
    """Law of the smallest of independent counts with this distribution function (over 0, 1, ...)."""
    law = np.diff(-np.expm1(hypotheses * np.log1p(-np.minimum(cdf, 1 - 1e-16))), prepend=0.0)
    return law / law.sum()


def best_then_subsampled(bound: Counted, m: int, n: int, mu: float, *, hypotheses: float) -> float:
    """The same for the hypothesis with the fewest errors on m training units, judged from n of them."""
    counts = np.arange(m + 1)
    law = fewest_of(binom.cdf(counts, m, mu), hypotheses)
    return float(law @ hypergeom.cdf(violated_below(bound, mu, n) - 1, m, counts, n))


def memorizers(M: int, ones: int, m: int, *, hypotheses: float) -> tuple[np.ndarray, np.ndarray]:
    """(counts, law) of the fewest ones among m training losses, over independent hypotheses with `ones` ones in a pool of M."""
    counts = np.arange(m + 1)
    return counts, fewest_of(hypergeom.cdf(counts, M, ones, m), hypotheses)


def unseen_violation(bound: Counted, M: int, ones: int, m: int, n: int, *, hypotheses: float) -> float:
    """Exact probability that `bound`, from n of m training units, is below the unseen mean of the best memorizer."""
    counts, law = memorizers(M, ones, m, hypotheses=hypotheses)
    total = 0.0
    for count in counts[law > 1e-9]:
        truth = (ones - count) / (M - m)
        total += law[count] * hypergeom.cdf(violated_below(bound, truth, n) - 1, m, count, n)
    return total
