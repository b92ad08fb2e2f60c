"""How often a bound is violated: small worlds of 0-1 losses in which the truth is known, exactly unless they say otherwise.

A bound grows with the count of ones, so it is violated up to some count, and the worst of H independent hypotheses is violated with
probability `1 - (1 - P)^H`: no hypothesis needs to be simulated.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import binom, hypergeom

from sublora.scoring.scores import Windows, unit_windows

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


def worst_stop(bound: Callable[[int, int], float], first: int, last: int) -> float:
    """Exact probability that `bound(ones, N)` of fair bits is below 1/2, at the worst stopping time N from `first` to `last`."""

    def violated(N: int) -> np.ndarray:
        return np.arange(N + 1) < violated_below(lambda ones: bound(ones, N), 0.5, N)

    worst = violated(last).astype(float)  # by the count of ones: if one stops here, or goes on as well as one can
    for N in range(last - 1, first - 1, -1):
        worst = np.maximum(violated(N), (worst[:-1] + worst[1:]) / 2)
    return float(binom.pmf(np.arange(first + 1), first, 0.5) @ worst)


def moved_back(starts: np.ndarray, lengths: np.ndarray, block: int, stride: int) -> Windows:
    """The broken twin of `unit_windows`: the last window begins earlier, so that it ends with its document."""
    right = unit_windows(starts, lengths, block, stride)
    ends = np.repeat(starts + lengths, 1 + np.maximum(0, -(-(lengths - block) // stride)))
    last = (right.first > right.start) & (right.first + right.size == ends)
    earlier = np.where(last, block - right.size, 0)
    place = right.place + np.repeat(earlier, np.diff(right.ends)).astype(np.int32)
    return Windows(right.first - earlier, right.size + earlier, right.start, right.ends, place, right.goal)


def cue_in_the_stream(rule, documents: int, block: int, random) -> tuple[np.ndarray, np.ndarray]:
    """(losses, their conditional means) of a stream of documents of block + 1 to 2 block tokens, read with stride = block.

    A loss is 1/2 in a first window; in a second one 1 where its first token has an odd place, which the token says, else 0.
    """
    more = random.integers(1, block + 1, documents)
    windows = rule(np.zeros(documents, np.int64), block + more, block, block)  # where a window begins in its document
    second = (windows.first[windows.first > windows.start] % 2).astype(float)
    place = np.arange(2 * block)
    inside = place < (block + more)[:, None]
    losses = np.where(place < block, 0.5, second[:, None])
    # Of the lengths that are still possible at a place all are equally likely.
    possible = rule(np.zeros(block, np.int64), block + np.arange(1, block + 1), block, block)
    odd = (possible.first[possible.first > possible.start] % 2).astype(float)
    expected = np.cumsum(odd[::-1])[::-1] / np.arange(block, 0, -1)
    means = np.concatenate([np.full(block, 0.5), expected])
    return losses[inside], np.broadcast_to(means, inside.shape)[inside]
