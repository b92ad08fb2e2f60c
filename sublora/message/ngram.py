"""A model of n-gram counts as a message.

    bytes      field
    1-5        total length in bytes, as a canonical varint
    1          format, 0x4E
    1          low 3 bits: K - 1, where contexts have at most K tokens, 1 to 5; next 2: index of the base in `experiment.BASES`;
               high 3: index of the smoothing weight in `experiment.ALPHA_GRID`
    the rest   groups of symbols (`coder.encode_groups`): the indices of c_0 to c_K in `models.ngrams.PSEUDO_COUNTS`; the number of
               buckets less 1; then for contexts of 0, 1, ... K tokens
      flags    from 1 token on: for each n-gram of so many tokens whether one goes on behind it, in groups of its bucket
      buckets  for each that goes on and each token that goes on behind it without its first token, of those with that token; 0:
               it was dropped. In groups of the most that it can be, and of what the buckets of the shorter ones let expect

Where contexts of one token and tokens have more than 2^20 pairs, as many of large vocabularies do, only those that occur are coded:
how many they are of each two buckets, the gaps between them, and their buckets.

Bucket b stands for the count base^(b-1), in units of the least kept one: no count matters but in proportion to the others. As in
`message.language`, no message is the beginning of another, every bit counts, what a message says has one form, and there is no
checksum. A message of n bytes codes at most V + 128 n symbols for its buckets, so that a short one cannot take much memory or time.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sublora.compression.coder import GroupDecoder, encode_groups
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, BASES
from sublora.message.frame import MessageError, Reader, alpha_index, only_form, prefixed
from sublora.models.ngrams import PSEUDO_COUNTS, Layer, NGram

FORMAT = 0x4E
MOST_BUCKETS = 64
SYMBOLS_OF_A_BYTE = 128
DENSE = 2**20
"""Up to so many pairs of tokens have a symbol each."""
Coding = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
"""Writes or reads symbols: (group of each, the most that each can be, the symbols or None) to the symbols."""


class NGramMessage(NamedTuple):
    """What the bytes say. base, pseudo_counts: indices in `BASES` and, for each order, in `PSEUDO_COUNTS`; layers with buckets."""

    alpha: float
    base: int
    pseudo_counts: tuple[int, ...]
    layers: list[Layer]

    def counted(self) -> list[Layer]:
        """The layers with the counts that buckets stand for, float64."""
        counts = np.cumprod(np.full(MOST_BUCKETS, float(BASES[self.base]))) / BASES[self.base]
        return [layer._replace(counts=counts[layer.counts - 1]) for layer in self.layers]

    def model(self, vocab_size: int, block: int) -> NGram:
        """The model, in evaluation mode."""
        return NGram(self.counted(), [PSEUDO_COUNTS[index] for index in self.pseudo_counts], vocab_size, block).eval()


def bucketed(layers: Sequence[Layer], least: int, base: int) -> list[Layer]:
    """The layers of counts from `least` on with buckets for counts: b for counts from least·base^(b-1) to below least·base^b."""
    edges = least * np.cumprod(np.full(MOST_BUCKETS, float(base))) / base
    return [layer._replace(counts=np.searchsorted(edges, layer.counts, side="right")) for layer in layers]


def encode_ngrams(message: NGramMessage, vocab_size: int) -> bytes:
    """The bytes of a message. Raises SubloraError for what the format cannot say."""
    orders, groups = len(message.layers) - 1, list[tuple[np.ndarray, int]]()

    def write(group: np.ndarray, most: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
        assert symbols is not None
        groups.extend((symbols[where], levels) for where, levels in _grouped(group, most))
        return symbols

    _code(orders, vocab_size, write, given=message)
    settings = orders - 1 | message.base << 3 | alpha_index(message.alpha) << 5
    data = prefixed(bytes([FORMAT, settings]) + encode_groups(groups))
    if (size := sum(len(symbols) for symbols, _ in groups)) > _limit(data, vocab_size):
        raise SubloraError(f"counting: {size:,} symbols are too many for a message of {len(data):,} bytes; take fewer orders")
    return data


def decode_ngrams(data: bytes, vocab_size: int) -> NGramMessage:
    """The message that `data` is. Time and memory are in proportion to its length.

    Raises MessageError, saying what is wrong, for anything that `encode_ngrams` cannot have made.
    """
    reader = Reader(data, FORMAT)
    settings = reader.byte()
    decoder = GroupDecoder(reader.rest())
    if (orders := 1 + (settings & 7)) > 5:
        raise MessageError(f"the message has contexts of {orders} tokens, not 1 to 5")

    def read(group: np.ndarray, most: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
        found = np.empty(len(group), np.int64)
        for where, levels in _grouped(group, most):
            found[where] = decoder.read(len(where), levels)
        return found

    try:
        pseudo_counts, layers = _code(orders, vocab_size, read, limit=_limit(data, vocab_size))
    except ValueError as error:
        raise MessageError(f"the message cannot be decoded: {error}") from None
    message = NGramMessage(ALPHA_GRID[settings >> 5], settings >> 3 & 3, pseudo_counts, layers)
    only_form(data, lambda: encode_ngrams(message, vocab_size))
    return message


def with_alpha_ngrams(data: bytes, alpha: float) -> bytes:
    """The same model with another smoothing weight of the grid. Raises MessageError if `data` is no message of counts."""
    reader = Reader(data, FORMAT)
    settings = reader.byte()
    return data[: reader.position - 1] + bytes([settings & 31 | alpha_index(alpha) << 5]) + data[reader.position :]


def _code(
    orders: int, vocab_size: int, code: Coding, *, given: NGramMessage | None = None, limit: int | None = None
) -> tuple[tuple[int, ...], list[Layer]]:
    """(indices of the pseudo-counts, layers), all of them passed through `code`: those given, or those that it reads.

    Raises MessageError for more than `limit` symbols.
    """

    def field(count: int, levels: int, values: Sequence[int] | None) -> np.ndarray:
        return code(np.zeros(count, int), np.full(count, levels - 1), None if values is None else np.array(values))

    pseudo_counts = field(orders + 1, len(PSEUDO_COUNTS), given and given.pseudo_counts)
    largest = 1 + int(field(1, MOST_BUCKETS, given and [given.layers[0].counts.max(initial=1) - 1])[0])
    here = Layer(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), np.array([largest]))
    layers: list[Layer] = []
    for order in range(orders + 1):
        actual = given.layers[order] if given else None
        if order == 0:
            parent = suffix = np.zeros(vocab_size, int)
            token, most = np.arange(vocab_size), np.full(vocab_size, largest)
            group = most
        else:
            above, here = here, layers[-1]
            goes_on = None if actual is None else np.isin(np.arange(len(here.counts)), actual.parent).astype(int)
            contexts = np.flatnonzero(code(here.counts, np.ones(len(here.counts), int), goes_on))
            if order == 1 and len(contexts) * len(here.counts) > DENSE:
                layers.append(_sparse(here, contexts, code, actual=actual, limit=limit))
                continue
            first = np.searchsorted(here.parent, np.arange(len(above.counts) + 1))
            begin, sizes = first[here.suffix[contexts]], np.diff(first)[here.suffix[contexts]]
            if limit is not None and (limit := limit - int(sizes.sum())) < 0:
                raise MessageError("the message codes more n-grams than one of its length can")
            parent = np.repeat(contexts, sizes)
            suffix = np.arange(len(parent)) + np.repeat(begin - np.cumsum(sizes) + sizes, sizes)
            token, most = here.token[suffix], np.minimum(here.counts[parent], here.counts[suffix])
            group = np.clip(here.counts[parent] + here.counts[suffix] - above.counts[here.suffix[parent]], 0, most)
            group += most * (MOST_BUCKETS + 1)
        symbols = None
        if actual is not None:
            symbols = np.zeros(len(parent), int)
            symbols[np.searchsorted(parent * vocab_size + token, actual.parent * vocab_size + actual.token)] = actual.counts
        symbols = code(group, most, symbols)
        kept = symbols > 0
        layers.append(Layer(parent[kept], suffix[kept], token[kept], symbols[kept]))
    return tuple(pseudo_counts.tolist()), layers


def _sparse(tokens: Layer, contexts: np.ndarray, code: Coding, *, actual: Layer | None, limit: int | None) -> Layer:
    """The layer of pairs of tokens, where most of them do not occur: passed through `code` as `_code` does.

    Pairs with the same two buckets are numbered, context by context; what is coded is how many of them occur, and the gaps between.
    """
    first, second = (_classes(tokens.counts[each]) for each in (contexts, np.arange(len(tokens.counts))))
    size = np.outer(first.sizes, second.sizes).ravel()
    expected = np.add.outer(first.buckets, second.buckets).ravel()
    cell = place = gaps = occurring = buckets = None
    if actual is not None:
        one, other = np.searchsorted(contexts, actual.parent), actual.suffix
        cell = first.of[one] * len(second.sizes) + second.of[other]
        place = first.rank[one] * second.sizes[second.of[other]] + second.rank[other]
        order = np.lexsort((place, cell))
        cell, place, buckets = cell[order], place[order], actual.counts[order] - 1
        occurring = np.bincount(cell, minlength=len(size))
        gaps = np.diff(place, prepend=-1) - 1
        begins = np.flatnonzero(np.diff(cell, prepend=-1))
        gaps[begins] = place[begins]
    occurring = _numbers(np.zeros(len(size), int), code, occurring)
    if limit is not None and int(occurring.sum()) > limit:
        raise MessageError("the message codes more n-grams than one of its length can")
    cell = np.repeat(np.arange(len(size)), occurring)
    steps = _numbers(expected[cell], code, gaps) + 1
    place = np.cumsum(steps)
    place -= np.repeat((place - steps)[(np.cumsum(occurring) - occurring)[occurring > 0]], occurring[occurring > 0]) + 1
    if ((place < 0) | (place >= size[cell])).any():
        raise MessageError("the message has a pair of tokens that is not there")
    one, other = np.divmod(cell, len(second.sizes))
    row, column = np.divmod(place, second.sizes[other])
    parent, suffix = contexts[first.members[first.begins[one] + row]], second.members[second.begins[other] + column]
    most = np.minimum(first.buckets[one], second.buckets[other])
    found = 1 + code(expected[cell] + (2 * MOST_BUCKETS + 1) * most, most - 1, buckets)
    order = np.lexsort((suffix, parent))
    return Layer(parent[order], suffix[order], tokens.token[suffix[order]], found[order])


class _Classes(NamedTuple):
    """Things by their bucket. buckets, sizes, begins: of each bucket that occurs; members: all things, bucket by bucket; of, rank:
    of each thing, the place of its bucket, and its own there."""

    buckets: np.ndarray
    sizes: np.ndarray
    begins: np.ndarray
    members: np.ndarray
    of: np.ndarray
    rank: np.ndarray


def _classes(buckets: np.ndarray) -> _Classes:
    which, of, sizes = np.unique(buckets, return_inverse=True, return_counts=True)
    begins, members = np.cumsum(sizes) - sizes, np.argsort(buckets, kind="stable")
    rank = np.empty(len(buckets), int)
    rank[members] = np.arange(len(buckets)) - np.repeat(begins, sizes)
    return _Classes(which, sizes, begins, members, of, rank)


def _numbers(group: np.ndarray, code: Coding, values: np.ndarray | None) -> np.ndarray:
    """Whole numbers below 2^32 passed through `code`: how many bits each has, in groups, and these bits, the highest ones first."""
    lengths = code(group, np.full(len(group), 32), None if values is None else np.frexp(values.astype(np.float64))[1].astype(int))
    found = np.where(lengths > 0, 1 << np.maximum(lengths - 1, 0), 0)
    for bit in range(30, -1, -1):
        longer = np.flatnonzero(lengths > bit + 1)
        part = code(np.zeros(len(longer), int), np.ones(len(longer), int), None if values is None else values[longer] >> bit & 1)
        found[longer] |= part << bit
    return found


def _grouped(group: np.ndarray, most: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """For each group, ascending, where it is, and how many levels it has: one more than the most that its first can be."""
    order = np.argsort(group, kind="stable")
    for where in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(where):
            yield where, int(most[where[0]]) + 1


def _limit(data: bytes, vocab_size: int) -> int:
    return vocab_size + SYMBOLS_OF_A_BYTE * len(data)
