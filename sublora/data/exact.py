"""Languages drawn from a seed, whose entropy is known: what the loss of a perfect model is, in either direction.

linear: bits x, uniform, then y = A x over F2. A = P L Q: two permutations, and L is one on its diagonal and at `nonzeros` places
below it: those next to the diagonal from the top, then any. Each y_i is the sum of few bits of x, and some x_j of many bits of y,
for the inverse of L is full where these places touch. Without them A is a permutation.
updates: the same for a dense random A of which `nonzeros` entries were changed. The seed gives the dense A, so a language with
other `nonzeros` is the same one before or after a sparse update.
primes: two primes p < q below 2^bits, every pair as likely as any other, then their product. Numbers have their lowest bit first.
These are the controls of Papadopoulos, Wenger and Hongler (2024); they publish no rules for drawing A, so ours are our own.
"""

import math
from collections.abc import Iterator

import numpy as np

from sublora.errors import SubloraError
from sublora.experiment import Exact

AT_ONCE = 4096  # documents


def exact_documents(language: Exact) -> Iterator[str]:
    """The documents, independent draws, as text of the characters 0 and 1. Every numpy has the same raw Philox stream."""
    left, draws = language.documents, np.random.Philox(key=[language.seed, 1])
    of_bits = _products if language.language == "primes" else _images
    known = np.array(primes_below(2**language.bits)) if language.language == "primes" else matrix(language)
    while left > 0:
        rows = of_bits(draws, known, language.bits)[:left]
        left -= len(rows)
        text = (rows + ord("0")).astype(np.uint8).tobytes().decode()
        yield from (text[i : i + rows.shape[1]] for i in range(0, len(text), rows.shape[1]))


def document_tokens(language: Exact) -> int:
    """Tokens of each document, without its end of text."""
    return (4 if language.language == "primes" else 2) * language.bits


def entropy(language: Exact) -> float:
    """Of a document, in bits."""
    if language.language != "primes":
        return float(language.bits)
    return math.log2(math.comb(len(primes_below(2**language.bits)), 2))


def floor(language: Exact) -> float:
    """The smallest possible loss in bits per token, the end of text counted, which costs nothing: documents have one length.

    Times (tokens + 1)/tokens it is per token of the language, as the paper counts: ln 2/2 nats for y = A x.
    """
    return entropy(language) / (document_tokens(language) + 1)


def matrix(language: Exact) -> np.ndarray:
    """A of a linear language, or of one of updates: uint8, (bits, bits), invertible. Raises SubloraError for too many updates."""
    n, draws = language.bits, np.random.Philox(key=[language.seed, 0])
    below = np.argwhere(np.tri(n, k=-1))
    if language.language == "linear":
        away = below @ [1, -1] > 1  # than next to the diagonal
        order = below[np.lexsort([np.where(away, draws.random_raw(len(below)), below[:, 0]), away])]
        lower = np.eye(n, dtype=np.uint8)
        lower[tuple(order[: language.nonzeros].T)] = 1
        return lower[np.argsort(draws.random_raw(n))][:, np.argsort(draws.random_raw(n))]
    halves = np.eye(n, dtype=np.uint8), np.eye(n, dtype=np.uint8)
    for half in halves:
        half[tuple(below.T)] = draws.random_raw(len(below)) & np.uint64(1)
    before = halves[0] @ halves[1].T % 2
    after = before.copy()
    for i, j in np.argwhere(np.ones((n, n)))[np.argsort(draws.random_raw(n * n))]:
        if (after != before).sum() == language.nonzeros:
            return after
        after[i, j] ^= 1
        if inverse(after) is None:
            after[i, j] ^= 1
    raise SubloraError(f"corpus.exact.nonzeros: no {language.nonzeros} changes of A were found that keep it invertible; take fewer")


def inverse(square: np.ndarray) -> np.ndarray | None:
    """The inverse over F2, uint8; None for a matrix that has none."""
    n = len(square)
    rows = np.hstack([square.astype(np.uint8), np.eye(n, dtype=np.uint8)])
    for column in range(n):
        found = column + np.flatnonzero(rows[column:, column])
        if not len(found):
            return None
        rows[[column, found[0]]] = rows[[found[0], column]]
        rows[(np.arange(n) != column) & (rows[:, column] == 1)] ^= rows[column]
    return rows[:, n:]


def primes_below(limit: int) -> list[int]:
    """All of them, in order."""
    return [n for n in range(2, limit) if all(n % d for d in range(2, math.isqrt(n) + 1))]


def _bits_of(numbers: np.ndarray, bits: int) -> np.ndarray:
    return (numbers[:, None] >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)


def _images(draws: np.random.Philox, A: np.ndarray, bits: int) -> np.ndarray:
    x = _bits_of(draws.random_raw(AT_ONCE), bits)
    return np.hstack([x, x @ A.T.astype(np.uint64) % 2])


def _products(draws: np.random.Philox, primes: np.ndarray, bits: int) -> np.ndarray:
    p, q = primes[(draws.random_raw(2 * AT_ONCE) % np.uint64(len(primes))).reshape(2, -1)].astype(np.uint64)
    p, q = p[p < q], q[p < q]
    return np.hstack([_bits_of(p, bits), _bits_of(q, bits), _bits_of(p * q, 2 * bits)])
