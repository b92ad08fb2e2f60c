"""The stream's code: a predictor that adapts to all training text so far. It costs no bits, and is no function of a document.

It counts as the document code does, orders 0 to K, but keeps its counts from document to document. One is read after the other.
Contexts do not reach into the document before: before a document stands the end-of-text token, and nothing before that. So what it
predicts of a token depends on the tokens before it in the stream alone: it is predictable, as bounds for tokens demand. Such a
bound is about the average, over the stream, of the predictor as it was at each token, and says nothing of the one at its end.
"""

import numba
import numpy as np

from sublora.models.references.document import _MIX, FLOOR


def stream_log_probabilities(
    tokens: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    *,
    apart: int = 0,
    vocab_size: int,
    eot: int,
    pseudo_counts: tuple[float, ...],
) -> np.ndarray:
    """`ln q(token | all before)` for each token of the documents `tokens[starts : starts + lengths]`: float32 (sum of lengths,).

    pseudo_counts: of the orders 0 to K. apart: so many documents at the end are held-out text. Each is read as if it came right
    behind the stream of the others, and leaves no counts.
    """
    out = np.empty(int(lengths.sum()), np.float32)
    units = np.stack([np.asarray(each, np.int64) for each in (starts, lengths)], axis=1)
    _stream((tokens, vocab_size, eot), units, len(units) - apart, np.asarray(pseudo_counts), out)
    return out


# A node is a string of 2 to K + 1 tokens that has occurred within a document. It is found by a hash table with linear probing, by
# the node of the string without its last token, and that token. `counts` has how often it occurred, `totals` how often something
# followed it. A string of one token has the id of the token, the others come behind these.


@numba.njit(cache=True, nogil=True, inline="always")
def _place(keys, key):
    """Where `key` is in the table, or the free place where it belongs. No key is 0: its string has two tokens, so see `_key`."""
    mask = np.uint64(len(keys) - 1)
    at = (key * _MIX) >> np.uint64(20) & mask
    while keys[at] != 0 and keys[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(cache=True, nogil=True)
def _larger(keys, nodes):
    """The same table with twice as many places."""
    more, places = np.zeros(2 * len(keys), np.uint64), np.zeros(2 * len(keys), np.int32)
    for i in range(len(keys)):
        if keys[i] != 0:
            at = _place(more, keys[i])
            more[at], places[at] = keys[i], nodes[i]
    return more, places


@numba.njit(cache=True, nogil=True)
def _longer(numbers):
    more = np.zeros(2 * len(numbers), np.int32)
    more[: len(numbers)] = numbers
    return more


@numba.njit(cache=True, nogil=True)
def _stream(text, units, kept, costs, out):
    """units: rows of start and length. The first `kept` are the stream; each of the rest is taken back when it has been read."""
    tokens, vocab_size, eot = text
    orders = len(costs) - 1
    keys, nodes = np.zeros(2**16, np.uint64), np.zeros(2**16, np.int32)
    counts, totals = np.zeros(2**16 + vocab_size, np.int32), np.zeros(2**16 + vocab_size, np.int32)
    used = np.int64(vocab_size)
    zero, seen = np.zeros(vocab_size, np.int64), np.int64(0)
    context, following = np.zeros(orders + 1, np.int64), np.zeros(orders + 1, np.int64)
    most = np.int64(1)
    for unit in range(kept, len(units)):
        most = max(most, units[unit, 1])
    undo, goal = np.empty((most, orders, 2), np.int64), 0
    for unit in range(len(units)):
        start, length = units[unit]
        context[0], known = eot, 1  # the nodes of the last 1, 2, ... tokens, and how many there are
        for i in range(length):
            token = np.int64(tokens[start + i])
            p = (zero[token] + costs[0] / vocab_size) / (seen + costs[0])
            following[0] = token
            for k in range(min(known, orders)):
                key = np.uint64(context[k] * vocab_size + token + 1)
                at = _place(keys, key)
                if keys[at] == 0:
                    if 2 * (used - vocab_size) > len(keys):
                        keys, nodes = _larger(keys, nodes)
                        at = _place(keys, key)
                    if used == len(counts):
                        counts, totals = _longer(counts), _longer(totals)
                    keys[at], nodes[at] = key, used
                    used += 1
                node, before = np.int64(nodes[at]), context[k]
                if totals[before] > 0:
                    p = (counts[node] + costs[k + 1] * p) / (totals[before] + costs[k + 1])
                counts[node] += 1
                totals[before] += 1
                following[k + 1] = node
                if unit >= kept:
                    undo[i, k] = node, before
            out[goal + i] = np.log((1.0 - FLOOR) * p + FLOOR / vocab_size)
            zero[token] += 1
            seen += 1
            known = min(known, orders) + 1
            context, following = following, context
        if unit >= kept:
            for i in range(length):
                zero[np.int64(tokens[start + i])] -= 1
                for k in range(min(i + 1, orders)):
                    counts[undo[i, k, 0]] -= 1
                    totals[undo[i, k, 1]] -= 1
            seen -= length
        goal += length
