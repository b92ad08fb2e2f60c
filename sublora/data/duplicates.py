"""Near-duplicates across a split: documents that are kept apart, and stand almost word for word among the training documents.

They break no bound for a pool: that holds for any text. But they weaken what *iid* means, and what a held-out value shows.
Documents are compared by the sets of their shingles, runs of a few tokens, with MinHash (Broder 1997): the share of equal minima of
random hashes estimates the share of shingles that two documents have in common, of all that either has. Everything here is
deterministic.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import pandas as pd

from sublora.data.split import Split
from sublora.data.store import TokenStore
from sublora.progress import notice, progress_bar

COLUMNS = ("part", "documents", "identical", "near")
POOL = "pool"
"""The row of documents of the pool that stand among those that left it: a base made of these has read almost the same."""
ALIKE = 0.8
"""From this estimated share of common shingles on, documents are near-duplicates."""
SHINGLE = {"bytes": 24, "bits": 24}
"""Tokens of a shingle, by tokenizer; of any other `TOKENS`. About four to five words."""
TOKENS = 6
BANDS, ROWS = 12, 4
"""Candidates agree in all minima of a band. Two documents that share .8 of their shingles are missed with probability .0016."""
CANDIDATES = 64
"""So many training documents that agree in a band are compared at most."""
LARGEST = 2**28  # tokens
AT_ONCE = 2**20  # shingles


def near_duplicates(store: TokenStore, split: Split) -> pd.DataFrame:
    """How many documents of the validation and test splits stand among the training documents, by part: `COLUMNS`.

    Where documents left the pool before the split, a last row, `POOL`, counts the pool's documents that stand among those.
    near: an estimated `ALIKE` of all shingles in common with one training document, identical ones included. Without rows where the
    split draws positions, and, with a note, where the corpus has more than `LARGEST` tokens.
    """
    if split.rule == "positions":
        return pd.DataFrame(columns=list(COLUMNS))
    if len(store.tokens) > LARGEST:
        notice(f"{store.name}: near-duplicates are not counted in more than {LARGEST:,} tokens")
        return pd.DataFrame(columns=list(COLUMNS))
    minima = _minima(store)

    def row(part: str, documents: np.ndarray, among: np.ndarray) -> tuple[str, int, int, int]:
        known = {store.document(int(i)).tobytes() for i in among}
        identical = np.array([store.document(int(i)).tobytes() in known for i in documents])
        near = identical | (_likeness(minima[documents], minima[among]) >= ALIKE)
        return part, len(documents), int(identical.sum()), int(near.sum())

    rows = [row(part, documents, split.train) for part, documents in (("validation", split.validation), ("test", split.test))]
    if len(split.prior):
        rows.append(row(POOL, np.concatenate([split.train, split.validation, split.test]), split.prior))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _minima(store: TokenStore) -> np.ndarray:
    """The smallest of each hash over the shingles of each document: uint32 (documents, BANDS ROWS)."""
    size, hashes = SHINGLE.get(store.tokenizer, TOKENS), BANDS * ROWS
    numbers = np.arange(1, hashes + 1, dtype=np.uint64)
    salts, factors = _mixed(numbers), _mixed(numbers << np.uint64(32)) | np.uint64(1)
    lengths = store.lengths - 1  # without the end of text
    counts = np.maximum(1, lengths - size + 1)
    minima = np.empty((len(store), hashes), np.uint32)
    with progress_bar(total=len(store), desc="near-duplicates", unit="document") as bar:
        for first, last in _chunks(counts):
            begin = store.offsets[first]
            rolled = _rolled(np.asarray(store.tokens[begin : store.offsets[last]]), size)
            goals = np.cumsum(counts[first:last]) - counts[first:last]
            at = np.arange(counts[first:last].sum()) + np.repeat(store.offsets[first:last] - begin - goals, counts[first:last])
            shingle = rolled[at]
            for short in np.flatnonzero(lengths[first:last] < size):  # it has one shingle, of what there is
                digest = hashlib.blake2b(store.document(first + int(short)).tobytes(), digest_size=8).digest()
                shingle[goals[short]] = int.from_bytes(digest, "little")
            for number, (salt, factor) in enumerate(zip(salts, factors, strict=True)):
                minima[first:last, number] = np.minimum.reduceat((shingle ^ salt) * factor, goals) >> np.uint64(32)
            bar.update(last - first)
    return minima


def _rolled(tokens: np.ndarray, size: int) -> np.ndarray:
    """A hash of the `size` tokens from each place on, uint64 (tokens,); of the last places, of what there is."""
    powers, found, width = {1: tokens.astype(np.uint64) + np.uint64(1)}, None, 1
    while 2 * width <= size:
        powers[2 * width] = powers[width] * _power(width) + _later(powers[width], width)
        width *= 2
    taken = 0
    for width in sorted(powers, reverse=True):  # size as a sum of powers of two
        if size & width:
            found = powers[width] if found is None else found * _power(width) + _later(powers[width], taken)
            taken += width
    assert found is not None
    return _mixed(found)


def _later(values: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate([values[by:], np.zeros(min(by, len(values)), np.uint64)])


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(0x100000001B3, exponent, 2**64))


def _chunks(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last) of consecutive documents with about `AT_ONCE` shingles in all, one document at least."""
    ends, first = np.cumsum(counts), 0
    while first < len(counts):
        last = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + AT_ONCE, side="right"))
        last = max(last, first + 1)
        yield first, last
        first = last


def _mixed(values: np.ndarray) -> np.ndarray:
    """A permutation of the 64-bit numbers that looks random (Steele, Lea & Flood 2014, SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _likeness(minima: np.ndarray, train: np.ndarray) -> np.ndarray:
    """For each row the largest share of minima that it has in common with a row of `train`, of the candidates: float64 (rows,)."""
    best = np.zeros(len(minima))
    for band in range(BANDS):
        columns = slice(band * ROWS, (band + 1) * ROWS)
        keys, wanted = _band(train[:, columns]), _band(minima[:, columns])
        order = np.argsort(keys, kind="stable")
        first = np.searchsorted(keys[order], wanted, side="left")
        count = np.minimum(np.searchsorted(keys[order], wanted, side="right") - first, CANDIDATES)
        for number in range(int(count.max(initial=0))):
            rows = np.flatnonzero((count > number) & (best < ALIKE))
            alike = (minima[rows] == train[order[first[rows] + number]]).mean(axis=1)
            best[rows] = np.maximum(best[rows], alike)
    return best


def _band(minima: np.ndarray) -> np.ndarray:
    """One number for each row: uint64."""
    key = np.zeros(len(minima), np.uint64)
    for column in minima.T:
        key = _mixed(key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    return key
