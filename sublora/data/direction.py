"""The order in which a model reads a document: as it stands, from its end, or with the tokens of each block permuted.

The end of text stays the last token in any order, so all orders predict the same tokens, behind one boundary token. An order maps
the documents of each length one to one to documents of that length, so what is a probability of documents in one order is one in
any other. A bound over tokens speaks of each token given those read before it, so in another order of other conditional losses: of
two directions, only the sums over documents are of one quantity.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from sublora.data.store import CHUNK, TokenStore

Direction = Literal["forward", "backward", "permutation"]


def block_permutation(block: int, seed: int) -> np.ndarray:
    """The order in which the places 0..block-1 of a block are read: int64 (block,), a function of both."""
    return np.random.Generator(np.random.Philox(key=[seed, block])).permutation(block)


def places(lengths: np.ndarray, permutation: np.ndarray | None) -> np.ndarray:
    """Which token of its document is read at each place: int64 (sum of lengths,), one document after the other.

    lengths: tokens of each document, its end of text included. permutation: the order of the places in a block; the last block of
    a document, if it is shorter, has its places in the same order. None: backward.
    """
    ends = np.repeat(lengths - 1, lengths)
    place = np.arange(len(ends)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    if permutation is None:
        return np.where(place < ends, ends - 1 - place, place)
    block = len(permutation)
    first = place // block * block
    size = np.minimum(block, ends - first)
    orders = np.zeros((block + 1, block), np.int64)
    for each in np.unique(size[size > 0]):
        orders[each, :each] = permutation[permutation < each]
    return np.where(place < ends, first + orders[size, place - first], place)


def in_direction(store: TokenStore, direction: Direction, block: int, seed: int) -> TokenStore:
    """The store with each document's tokens in the order in which they are read. It is the store itself for forward.

    Any other order is kept in memory, and takes as much as the store's tokens do on disk.
    """
    if direction == "forward":
        return store
    permutation = block_permutation(block, seed) if direction == "permutation" else None
    return replace(store, tokens=reordered(store.tokens, store.offsets, permutation))


def reordered(tokens: np.ndarray, offsets: np.ndarray, permutation: np.ndarray | None) -> np.ndarray:
    """The tokens of documents `tokens[offsets[i]:offsets[i+1]]`, each in the order of `places`."""
    found, begin = np.empty(len(tokens), tokens.dtype), 0
    while begin < len(offsets) - 1:
        end = max(begin + 1, int(np.searchsorted(offsets, offsets[begin] + CHUNK, side="right")) - 1)
        lengths = np.diff(offsets[begin : end + 1])
        part = slice(int(offsets[begin]), int(offsets[end]))
        starts = np.repeat(offsets[begin:end] - offsets[begin], lengths)
        found[part] = tokens[part][starts + places(lengths, permutation)]
        begin = end
    return found
