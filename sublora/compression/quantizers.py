"""Codebook quantization: every coordinate becomes one of L levels; the levels are 16-bit floats."""

import statistics
from collections.abc import Sequence

import numpy as np

from sublora.compression.grid import STEPS

QUANTIZERS = ("uniform", "kmeans", "normal_float", "ecsq")

EXACT_SIZE, GROUPS = 2**16, 2**14  # k-means takes up to so many values as they are; more become this many groups


def quantize(values: np.ndarray, name: str, levels: int, penalty: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(codebook float16 (L',) strictly ascending, symbols int64 (d,)) for `values` (d,) with at most `levels` levels.

    name: one of `QUANTIZERS`; penalty: variances of the values that a bit per coordinate is worth, for ecsq. There are fewer
    levels than asked for where there are fewer distinct 16-bit values, and where ecsq finds levels not worth their bits.
    Raises ValueError for an unknown name, no values, and values that are not finite 16-bit floats.
    """
    if name not in QUANTIZERS:
        raise ValueError(f"quantizer {name!r} is none of {', '.join(QUANTIZERS)}")
    if name == "ecsq":
        codebook, shares = ecsq_codebook(values, levels, penalty)
        return codebook, ecsq_assign(values, codebook, shares, penalty)
    codebook = _CODEBOOKS[name](values, levels)
    return codebook, nearest(values, codebook)


def uniform_codebook(values: np.ndarray, levels: int) -> np.ndarray:
    """Levels of L equal bins of ±max|v| over `values` v (d,): float16 (L',), strictly ascending.

    Each is the mean of its bin, or the lower end of an empty one: the paper's quantizer (Lotfi et al. 2024a, released code).
    """
    values = _finite(values, levels)
    largest = abs(values).max() + 1e-6
    edges = np.linspace(-largest, largest, levels + 1)
    bins = np.searchsorted(edges, values, side="right") - 1
    counts = np.bincount(bins, minlength=levels)
    sums = np.bincount(bins, weights=values, minlength=levels)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), edges[:-1])
    return np.unique(means.astype(np.float16))


def kmeans_codebook(values: np.ndarray, levels: int) -> np.ndarray:
    """The L levels with the least mean squared error on `values` (d,). Returns float16 (L',), strictly ascending.

    Exact, before the levels are rounded to 16 bits: dynamic programming over the sorted values (Wu 1991) by divide and conquer
    (Grønlund et al. 2017, arXiv:1701.07204, section 2.2), O(L·d·log d). Above 65,536 values it is exact for 16,384 groups of
    equally many neighbours, each at its mean.
    """
    values = np.sort(_finite(values, levels))
    if len(values) > EXACT_SIZE:
        starts = np.linspace(0, len(values), GROUPS, endpoint=False).astype(np.int64)
        weights = np.diff(starts, append=len(values)).astype(np.float64)
        points = np.add.reduceat(values, starts) / weights
    else:
        points, counts = np.unique(values, return_counts=True)
        weights = counts.astype(np.float64)
    begins = _optimal_cells(points, weights, min(levels, len(points)))
    means = np.add.reduceat(points * weights, begins) / np.add.reduceat(weights, begins)
    return np.unique(means.astype(np.float16))


def normal_float_codebook(values: np.ndarray, levels: int) -> np.ndarray:
    """mean + deviation·t, with t the public `normal_levels`: only two numbers, both float16, depend on `values` (d,).

    Levels that are used equally often if the values are normal (Dettmers et al. 2023, arXiv:2305.14314, section 3, here symmetric
    for any L). Returns float16 (L',), strictly ascending.
    """
    values = _finite(values, levels)
    codebook = np.unique(line(np.float16(values.mean()), np.float16(values.std()), normal_levels(levels)))
    if not np.isfinite(codebook).all():
        raise ValueError("the coordinates are too large for levels that are 16-bit floats: has training diverged?")
    return codebook


def line(offset: np.float16, slope: np.float16, places: np.ndarray) -> np.ndarray:
    """float16(offset + slope·places) (L,), the same on every machine: only the last step rounds. Too large ones are infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (np.float64(offset) + np.float64(slope) * places).astype(np.float16)


def normal_levels(levels: int) -> np.ndarray:
    """t (L,): the normal quantiles of (i + 1/2)/L to multiples of 2^-10, symmetric, with 0 in the middle where L is odd.

    No quantile of any L up to 255 is so near the middle between two multiples that a machine's last digit could matter.
    """
    upper = [statistics.NormalDist().inv_cdf((i + 0.5) / levels) for i in range((levels + 1) // 2, levels)]
    positive = np.rint(np.array(upper) * 1024) / 1024
    return np.concatenate([-positive[::-1], np.zeros(levels % 2), positive])


def ecsq_codebook(values: np.ndarray, levels: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Entropy-constrained scalar quantization (Chou, Lookabaugh & Gray 1989): (codebook float16 (L',), shares float64 (L',)).

    A local minimum, from the k-means levels, of the mean squared error in variances of `values` (d,) plus `penalty` times the
    entropy of the symbols in bits per coordinate. `shares` are the levels' frequencies; levels that nothing is worth vanish.
    The symbols are `ecsq_assign`'s.
    """
    codebook, values = kmeans_codebook(values, levels), _finite(values, levels)
    if penalty < 0:
        raise ValueError(f"the penalty must not be negative, but is {penalty}")
    symbols, best = nearest(values, codebook), np.inf
    for _ in range(1000):
        counts = np.bincount(symbols, minlength=len(codebook))
        used = counts > 0
        means = (np.bincount(symbols, weights=values, minlength=len(codebook))[used] / counts[used]).astype(np.float16)
        codebook, cells = np.unique(means, return_inverse=True)
        shares = np.bincount(cells, weights=counts[used]) / len(values)
        symbols = ecsq_assign(values, codebook, shares, penalty)
        error = np.mean((values - codebook.astype(np.float64)[symbols]) ** 2) / max(values.var(), 1e-300)
        cost = error - penalty * np.log2(shares[symbols]).mean()
        if not cost < best - 1e-9 and len(np.unique(symbols)) == len(codebook):
            break
        best = cost
    return codebook, shares


def ecsq_assign(values: np.ndarray, codebook: np.ndarray, shares: np.ndarray, penalty: float) -> np.ndarray:
    """For each of `values` (d,) the level with the least squared error in variances plus `penalty`·log2(1/share): int64 (d,)."""
    values, levels = np.asarray(values, np.float64), codebook.astype(np.float64)
    # Less v², the costs are lines in v with slopes -2·level; which line is lowest changes at ascending v, along their envelope.
    heights = levels**2 - penalty * values.var() * np.log2(shares)
    envelope: list[int] = [0]
    changes: list[float] = []
    for new in range(1, len(levels)):
        while True:
            old = envelope[-1]
            change = (heights[new] - heights[old]) / (2 * (levels[new] - levels[old]))
            if not changes or change > changes[-1]:
                break
            envelope.pop()
            changes.pop()
        envelope.append(new)
        changes.append(change)
    return np.array(envelope)[np.searchsorted(changes, values, side="left")]


def grid_steps(values: np.ndarray, sizes: Sequence[int], penalty: float, otherwise: float) -> np.ndarray:
    """The step of each group of `values` (d,), groups one after the other: float64 (G,), of `STEPS`.

    That with the least mean squared error in mean squares of the group, plus `penalty` times the entropy of the rounded multiples
    in bits. otherwise: the step of a group of zeros, to the nearest.
    """
    values, found = _finite(values, 1), []
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        square = np.mean(part**2)
        near = STEPS[(np.sqrt(square) / 16 <= STEPS) & (np.sqrt(square) * 16 >= STEPS)]
        if not square or not len(near):
            found.append(STEPS[abs(np.log(STEPS / otherwise)).argmin()])
            continue
        costs = []
        for step in near:
            multiples = np.rint(part / step)
            shares = np.unique(multiples, return_counts=True)[1] / len(part)
            costs.append(np.mean((part - step * multiples) ** 2) / square - penalty * (shares * np.log2(shares)).sum())
        found.append(near[int(np.argmin(costs))])
    return np.array(found)


_CODEBOOKS = {"uniform": uniform_codebook, "kmeans": kmeans_codebook, "normal_float": normal_float_codebook}


def nearest(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the nearest level for each of `values` (d,), int64; `codebook` ascending, ties to the lower level."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1].astype(np.float64)) / 2
    return np.searchsorted(middles, values, side="left")


def _finite(values: np.ndarray, levels: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if levels < 1:
        raise ValueError(f"levels must be at least 1, not {levels}")
    if not len(values) or not (abs(values) <= 65504).all():
        raise ValueError("the coordinates to quantize must be at least one, and finite 16-bit floats: has training diverged?")
    return values


def _optimal_cells(points: np.ndarray, weights: np.ndarray, cells: int) -> np.ndarray:
    """First index of each of the `cells` intervals of ascending `points` (d,) with the least weighted squared error, int64."""
    points = points - np.average(points, weights=weights)  # less cancellation in the sums below
    mass, first, second = (np.concatenate([[0], np.cumsum(weights * points**k)]) for k in range(3))

    def error(begin, end):
        return second[end] - second[begin] - (first[end] - first[begin]) ** 2 / (mass[end] - mass[begin])

    size = len(points)
    least = np.concatenate([[np.inf], error(0, np.arange(1, size + 1))])  # of the first j points, with one cell so far
    choices = []
    for cell in range(1, cells):
        least, choice = _add_cell(least, error, size, cell)
        choices.append(choice)
    begins = [size]
    for choice in reversed(choices):
        begins.append(int(choice[begins[-1]]))
    return np.array([0, *begins[:0:-1]])


def _add_cell(least, error, size: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """(error, begin of the last cell) with one more cell, (d + 1,) each.

    The best begin ascends with the end, so the best begins of two ends enclose those between: all ends half-way between solved
    ones are solved at once, log2(d) times.
    """
    improved, choice = np.full(size + 1, np.inf), np.zeros(size + 1, np.int64)
    ranges = np.array([[cell + 1], [size], [cell], [size - 1]])  # of ends still to solve: from, to, their least and most begin
    while ranges.size:
        low, high, first, last = ranges
        end = (low + high) // 2
        widths = np.minimum(last, end - 1) - first + 1
        starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
        begins = np.arange(widths.sum()) + np.repeat(first - starts, widths)
        errors = least[begins] + error(begins, np.repeat(end, widths))
        improved[end] = np.minimum.reduceat(errors, starts)
        hits = np.flatnonzero(errors == np.repeat(improved[end], widths))
        choice[end] = begins[hits[np.searchsorted(hits, starts)]]
        ranges = np.hstack([[low, end - 1, first, choice[end]], [end + 1, high, choice[end], last]])
        ranges = ranges[:, ranges[0] <= ranges[1]]
    return improved, choice
