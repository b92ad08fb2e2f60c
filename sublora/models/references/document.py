"""The document code: a predictor that adapts within one unit of text. Nothing is trained, nothing is transmitted.

It counts, for each context of 0 to K tokens, which tokens have followed it so far. Order k predicts the token x by

    P_k(x) = (n_k(x) + c P_(k-1)(x)) / (N_k + c),   c = c_k + d u_k for k > 0, c = c_0 for k = 0,

with n_k the counts behind the last k tokens, N_k their sum, u_k how many different tokens there were, c_k the order's pseudo-count,
and d a constant (for d = 1 and c_k = 0 it is the rule of Witten and Bell 1991). P_(-1) is the start: 1/V, or for bytes what is
known of text in ASCII. The code is `(1 - FLOOR) P_K + FLOOR/V`, so no token is impossible. It reads a unit (a document, a sequence)
from its first token on; before that stands the end-of-text token. It knows neither the unit's length nor any other text, so the
products of its predictions are a probability for each unit.
"""

import os
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from sublora.experiment.groups import DOCUMENT_COUNTS

FLOOR = 0.001
"""The share of the uniform guess."""


CHARACTERS = (
    (" ", 0.15),
    ("\n", 0.04),
    (string.ascii_lowercase, 0.5),
    (string.ascii_uppercase, 0.07),
    (string.digits, 0.05),
    (string.punctuation, 0.165),
)
"""Shares of classes of characters in ASCII text, in round numbers that no corpus was counted for. Other bytes share the rest."""


class DocumentCode(NamedTuple):
    """pseudo_counts: c_k of the orders 0 to K, each above 0. distinct: d. start: uniform, or characters for bytes."""

    pseudo_counts: tuple[float, ...] = DOCUMENT_COUNTS
    distinct: float = 0.0
    start: str = "uniform"


def starting(start: str, vocab_size: int) -> np.ndarray:
    """P_(-1): float64 (V,), positive, of sum 1."""
    if start == "uniform":
        return np.full(vocab_size, 1 / vocab_size)
    shares = np.zeros(vocab_size)
    for characters, share in CHARACTERS:
        shares[[ord(character) for character in characters]] = share / len(characters)
    rest = shares == 0
    shares[rest] = (1 - shares.sum()) / rest.sum()
    return shares


def log_probabilities(
    tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, *, vocab_size: int, eot: int, code: DocumentCode
) -> np.ndarray:
    """`ln q(token | past of its unit)` for each token of the units `tokens[starts : starts + lengths]`, one unit after the other.

    tokens: ids below vocab_size, of any integer type. Returns float64 (sum of lengths,), in nats.
    """
    goals = np.cumsum(lengths) - lengths
    units = np.stack([np.asarray(each, np.int64) for each in (starts, lengths, goals)], axis=1)
    out = np.empty(int(lengths.sum()))
    text, rule = (tokens, vocab_size, eot), _rule(code, vocab_size)
    _in_threads(lambda part: _probabilities(text, units[part], rule, out), goals, len(out))
    return out


def log_distributions(
    tokens: np.ndarray,
    starts: np.ndarray,
    firsts: np.ndarray,
    sizes: np.ndarray,
    skips: np.ndarray,
    *,
    width: int,
    vocab_size: int,
    eot: int,
    code: DocumentCode,
) -> np.ndarray:
    """`ln q(. | past of the unit)` at the tokens of some windows: float32 (windows, width, vocab_size), in nats.

    starts: where each window's unit begins in `tokens`; firsts, sizes: the window is `tokens[firsts : firsts + sizes]`. The first
    `skips` positions of a window, and those behind its size, are 0: nobody asks for them. Windows of a unit that follow one another
    are read in one go.
    """
    out = np.zeros((len(starts), width, vocab_size), np.float32)
    windows = np.stack([np.asarray(each, np.int64) for each in (starts, firsts, sizes, skips)], axis=1)
    text, rule = (tokens, vocab_size, eot), _rule(code, vocab_size)
    _in_threads(lambda part: _distributions(text, windows[part], rule, out[part]), np.arange(len(windows)), len(windows))
    return out


def _rule(code: DocumentCode, vocab_size: int) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """(pseudo-counts, d, the different values of P_(-1), which of them each token has)."""
    values, which = np.unique(starting(code.start, vocab_size), return_inverse=True)
    return np.asarray(code.pseudo_counts), float(code.distinct), values, which.astype(np.int64)


def _in_threads(part: Callable[[slice], None], goals: np.ndarray, total: int) -> None:
    """Calls `part` with slices of about the same number of tokens, on all cores."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    edges = np.searchsorted(goals, np.arange(1, count) * total // count)
    edges = np.unique(np.concatenate([[0], edges, [len(goals)]]))
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(part, [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]))


# The contexts of a unit are the nodes of a tree: the root is the empty one, and the child of a node by token y is its context with
# y in front. Children are found by a hash table with linear probing. A node's counts are a linked list, the root's an array.
# `text` is (tokens, vocabulary size, end of text), `tables` what `_tables` returns, `rule` what `_rule` does.

_MIX = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(keys, nodes, key):
    """Where `key` is in the table, or the free place where it belongs."""
    mask = np.uint64(len(keys) - 1)
    at = (key * _MIX) >> np.uint64(20) & mask
    while nodes[at] >= 0 and keys[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(cache=True, nogil=True)
def _tables(most, orders, vocab_size):
    """Empty tables for units of up to `most` tokens."""
    size = 16
    while size < 2 * orders * most + 2:
        size *= 2
    entries = orders * most + 1
    return (
        np.zeros(size, np.uint64),  # keys
        np.full(size, -1, np.int64),  # nodes
        np.zeros(entries, np.int64),  # filled slots, to be emptied again
        np.zeros(entries, np.int64),  # heads: first entry of each node
        np.zeros(entries, np.int64),  # totals of each node
        np.zeros(entries, np.int64),  # different tokens of each node
        np.zeros(entries, np.int64),  # tokens of the entries
        np.zeros(entries, np.int64),  # counts of the entries
        np.zeros(entries, np.int64),  # next entries
        np.zeros(vocab_size, np.int64),  # counts of node 0
        np.zeros(vocab_size, np.int64),  # tokens seen
        np.zeros(3, np.int64),  # nodes, entries, tokens seen
    )


@numba.njit(cache=True, nogil=True)
def _empty(tables):
    keys, nodes, filled, heads, totals, kinds, names, counts, following, zero, seen, used = tables
    for i in range(used[0]):
        nodes[filled[i]] = -1
    for i in range(used[2]):
        zero[seen[i]] = 0
    used[:] = 0


@numba.njit(cache=True, nogil=True, inline="always")
def _before(text, start, at):
    """The token before place `at` of a unit that begins at `start`."""
    tokens, _, eot = text
    return np.uint64(tokens[at - 1]) if at > start else np.uint64(eot)


@numba.njit(cache=True, nogil=True)
def _find(tables, text, start, at, path):
    """Write the known contexts of place `at`, orders 1 and up, to `path`; returns how many there are."""
    keys, nodes, filled, heads, totals, kinds, names, counts, following, zero, seen, used = tables
    _, vocab_size, _ = text
    parent = np.uint64(0)
    for k in range(len(path)):
        if at - k < start:
            return k
        slot = _slot(keys, nodes, parent * np.uint64(vocab_size) + _before(text, start, at - k))
        if nodes[slot] < 0:
            return k
        path[k] = nodes[slot]
        parent = np.uint64(nodes[slot] + 1)
    return len(path)


@numba.njit(cache=True, nogil=True)
def _count(tables, text, start, at, orders):
    """Count the token at place `at` behind each of its contexts."""
    keys, nodes, filled, heads, totals, kinds, names, counts, following, zero, seen, used = tables
    tokens, vocab_size, _ = text
    token = np.int64(tokens[at])
    if zero[token] == 0:
        seen[used[2]] = token
        used[2] += 1
    zero[token] += 1
    parent = np.uint64(0)
    for k in range(orders):
        if at - k < start:
            break
        key = parent * np.uint64(vocab_size) + _before(text, start, at - k)
        slot = _slot(keys, nodes, key)
        if nodes[slot] < 0:
            keys[slot] = key
            nodes[slot] = used[0]
            filled[used[0]] = slot
            heads[used[0]] = -1
            totals[used[0]] = 0
            kinds[used[0]] = 0
            used[0] += 1
        node = nodes[slot]
        totals[node] += 1
        entry = heads[node]
        while entry >= 0 and names[entry] != token:
            entry = following[entry]
        if entry < 0:
            entry = used[1]
            used[1] += 1
            names[entry] = token
            counts[entry] = 0
            kinds[node] += 1
            following[entry] = heads[node]
            heads[node] = entry
        counts[entry] += 1
        parent = np.uint64(node + 1)


@numba.njit(cache=True, nogil=True)
def _probabilities(text, units, rule, out):
    """units: rows of start, length, and where in `out` (tokens,) the unit's first value goes."""
    tokens, vocab_size, _ = text
    costs, distinct, values, which = rule
    orders = len(costs) - 1
    tables = _tables(units[:, 1].max(), orders, vocab_size)
    keys, nodes, filled, heads, totals, kinds, names, counts, following, zero, seen, used = tables
    path = np.zeros(orders, np.int64)
    for start, length, goal in units:
        for i in range(length):
            at = start + i
            token = np.int64(tokens[at])
            p = (zero[token] + costs[0] * values[which[token]]) / (i + costs[0])
            for k in range(_find(tables, text, start, at, path)):
                node = path[k]
                entry = heads[node]
                while entry >= 0 and names[entry] != token:
                    entry = following[entry]
                n = counts[entry] if entry >= 0 else 0
                cost = costs[k + 1] + distinct * kinds[node]
                p = (n + cost * p) / (totals[node] + cost)
            out[goal + i] = np.log((1.0 - FLOOR) * p + FLOOR / vocab_size)
            _count(tables, text, start, at, orders)
        _empty(tables)


@numba.njit(cache=True, nogil=True)
def _distributions(text, windows, rule, out):
    """windows: rows of its unit's start, first place, size, and how many places are left out. out: (windows, width, V)."""
    tokens, vocab_size, _ = text
    costs, distinct, values, which = rule
    orders = len(costs) - 1
    tables = _tables((windows[:, 1] + windows[:, 2] - windows[:, 0]).max(), orders, vocab_size)
    keys, nodes, filled, heads, totals, kinds, names, counts, following, zero, seen, used = tables
    path = np.zeros(orders, np.int64)
    weights, least, logs = np.zeros(vocab_size), np.zeros(len(values)), np.zeros(len(values))
    reached, unit = np.int64(0), np.int64(-1)
    for row in range(len(windows)):
        start, first, size, skip = windows[row]
        begin, end = first + skip, first + size
        if start != unit or begin < reached:
            _empty(tables)
            reached, unit = start, start
        for at in range(reached, begin):
            _count(tables, text, start, at, orders)
        for at in range(begin, end):
            rest = 1.0 - FLOOR  # what the orders above leave to this one
            for j in range(_find(tables, text, start, at, path) - 1, -1, -1):
                node = path[j]
                cost = costs[j + 1] + distinct * kinds[node]
                share = rest / (totals[node] + cost)
                entry = heads[node]
                while entry >= 0:
                    weights[names[entry]] += share * counts[entry]
                    entry = following[entry]
                rest = share * cost
            share = rest / (at - start + costs[0])
            for i in range(len(values)):
                least[i] = share * costs[0] * values[i] + FLOOR / vocab_size
                logs[i] = np.log(least[i])
            target = out[row, at - first]
            for token in range(vocab_size):
                target[token] = logs[which[token]]
            for i in range(used[2]):
                token = seen[i]
                target[token] = np.log(least[which[token]] + share * zero[token] + weights[token])
                weights[token] = 0.0
            _count(tables, text, start, at, orders)
        reached = max(begin, end)
