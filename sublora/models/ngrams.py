"""n-gram models: the counts of a text's n-grams as a trie, and the module that predicts with them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

PSEUDO_COUNTS = tuple(2.0**k for k in range(-4, 12))
"""What each of a context's tokens adds to the weight of the shorter context, in least kept counts. A message names one an order."""

TABLE = 2**25
"""Up to so many codes are counted in a table; more are sorted."""


class Layer(NamedTuple):
    """The n-grams of one length, sorted by parent, then by token. All int64 (n,).

    parent, suffix: places in the layer above of the n-gram without its last token, and without its first; token: its last token;
    counts: how often it occurs, or, in a message, its bucket.
    """

    parent: np.ndarray
    suffix: np.ndarray
    token: np.ndarray
    counts: np.ndarray


def count_ngrams(tokens: np.ndarray, eot: int, vocab_size: int, longest: int, least: int) -> list[Layer]:
    """The layers of all n-grams of 1 to `longest` tokens that occur `least` times or more; none goes over a document's end.

    tokens: the documents one behind the other, each with `eot` at its end. Before the first, too, stands `eot`.
    """
    stream = np.concatenate([[eot], tokens]).astype(np.int64)
    nodes, layers = np.zeros(len(stream), np.int64), []  # where in its layer the n-gram is that ends here; -1: it is not kept
    for size in range(1, longest + 1):
        inside = (nodes[:-1] >= 0) & (nodes[1:] >= 0)
        if size > 2:  # one that only begins with the end of a text is that of the text before
            inside &= stream[:-1] != eot
        where = np.flatnonzero(inside) + 1
        keys, counts, places = _tally(nodes[where - 1] * vocab_size + stream[where], least)
        suffix = np.zeros(len(keys), np.int64)
        kept = places >= 0
        suffix[places[kept]] = nodes[where[kept]]
        layers.append(Layer(keys // vocab_size, suffix, keys % vocab_size, counts))
        nodes = np.full(len(stream), -1)
        nodes[where] = places
        if size == 1:
            nodes[0] = np.append(np.flatnonzero(keys == eot), -1)[0]
    return layers


def _tally(codes: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes that occur `least` times or more, ascending; how often; the place of each of `codes` among them, or -1)."""
    if len(codes) and codes.max() < TABLE:
        counts = np.bincount(codes)
        keys = np.flatnonzero(counts >= least)
        places = np.full(len(counts), -1)
        places[keys] = np.arange(len(keys))
        return keys, counts[keys], places[codes]
    keys, which, counts = np.unique(codes, return_inverse=True, return_counts=True)
    kept = counts >= least
    return keys[kept], counts[kept], np.where(kept, np.cumsum(kept) - 1, -1)[which]


def pruned(layers: Sequence[Layer], least: int) -> list[Layer]:
    """The n-grams of these that occur `least` times or more."""
    found, place = [], np.zeros(1, np.int64)
    for parent, suffix, token, count in layers:
        kept = count >= least
        found.append(Layer(place[parent[kept]], place[suffix[kept]], token[kept], count[kept]))
        place = np.cumsum(kept) - 1
    return found


class NGram(nn.Module):
    """Token ids (batch, time) to log-probabilities (batch, time, vocab_size) of the next token.

    P_k = (n_k + w_k P_(k-1)) / (N_k + w_k): n_k are the counts behind the last k tokens, N_k is their sum, and w_k is c_k times how
    many tokens have one (Witten & Bell 1991 have c_k = 1). P_-1 is uniform. A context that is not in the window, or behind which
    nothing was kept, changes nothing.
    layers: with counts float64 (n,), for n-grams of 1 to K + 1 tokens; pseudo_counts: c_0 to c_K.
    """

    def __init__(self, layers: Sequence[Layer], pseudo_counts: Sequence[float], vocab_size: int, block: int):
        super().__init__()
        self.block_size, self.vocab_size = block, vocab_size
        self.counts, above = nn.ParameterList(), 1
        for order, (layer, pseudo_count) in enumerate(zip(layers, pseudo_counts, strict=True)):
            first = np.searchsorted(layer.parent, np.arange(above + 1))
            total = np.bincount(layer.parent, layer.counts, minlength=above)
            self.counts.append(nn.Parameter(torch.from_numpy(layer.counts.astype(np.float64)), requires_grad=False))
            buffers = {"keys": layer.parent * vocab_size + layer.token, "tokens": layer.token, "first": first}
            for name, values in {**buffers, "total": total, "weight": pseudo_count * np.diff(first)}.items():
                self.register_buffer(f"{name}{order}", torch.from_numpy(values), persistent=False)
            above = len(layer.parent)

    def contexts(self, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each order k the place of the last k tokens in their layer, int64 (batch, time); -1 where nothing is behind them."""
        nodes = torch.zeros_like(tokens)
        for order in range(len(self.counts)):
            sizes = getattr(self, f"first{order}").diff()
            yield torch.where(sizes[nodes] > 0, nodes, -1) if len(sizes) else torch.full_like(nodes, -1)
            before = nodes if order == 0 else nn.functional.pad(nodes, (1, -1), value=-1)
            nodes = self.child(order, before, tokens)

    def child(self, order: int, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Where in the layer of `order` the contexts `nodes` go on with `tokens`; -1: nowhere."""
        keys, wanted = getattr(self, f"keys{order}"), nodes * self.vocab_size + tokens
        if not len(keys):
            return torch.full_like(wanted, -1)
        place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return torch.where((keys[place] == wanted) & (nodes >= 0), place, -1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        probability = torch.full((tokens.numel(), self.vocab_size), 1 / self.vocab_size, device=tokens.device)
        for order, contexts in enumerate(self.contexts(tokens)):
            rows = torch.nonzero(contexts.flatten() >= 0)[:, 0]
            nodes = contexts.flatten()[rows]
            first, total, weight = (getattr(self, f"{name}{order}") for name in ("first", "total", "weight"))
            whole, begin = total[nodes] + weight[nodes], first[nodes]
            sizes = first[nodes + 1] - begin
            probability[rows] *= (weight[nodes] / whole).float()[:, None]
            of = torch.repeat_interleave(sizes)  # the row of each count
            entry = torch.arange(len(of), device=tokens.device) + (begin + sizes - sizes.cumsum(0))[of]
            goal = rows[of] * self.vocab_size + getattr(self, f"tokens{order}")[entry]
            probability.view(-1)[goal] += (self.counts[order][entry] / whole[of]).float()
        return probability.log_().view(*tokens.shape, self.vocab_size)


def fitted(layers: Sequence[Layer], tokens: np.ndarray, eot: int, vocab_size: int) -> tuple[int, ...]:
    """Indices of the pseudo-counts with which documents, each with `eot` at its end, are most probable, searched order by order."""
    model = NGram(layers, [1.0] * len(layers), vocab_size, 1)
    stream = torch.from_numpy(np.concatenate([[eot], tokens]).astype(np.int64))
    found = []
    for order, (contexts, layer) in enumerate(zip(model.contexts(stream[None, :-1]), layers, strict=True)):
        known = contexts[0].numpy() >= 0
        nodes, child = contexts[0].numpy()[known], model.child(order, contexts[0], stream[1:]).numpy()[known]
        counts = np.where(child >= 0, np.append(layer.counts, 0.0)[child], 0.0)
        total, types = (getattr(model, f"{name}{order}").numpy()[nodes] for name in ("total", "weight"))
        found.append((known, counts, total, types))

    def loss(indices: Sequence[int]) -> float:
        probability = np.full(len(tokens), 1 / vocab_size)
        for (known, counts, total, types), index in zip(found, indices, strict=True):
            weight = PSEUDO_COUNTS[index] * types
            probability[known] = (counts + weight * probability[known]) / (total + weight)
        return -float(np.log(probability).mean())

    best = [len(PSEUDO_COUNTS) // 2] * len(layers)
    for order in [*range(len(layers)), *range(len(layers))]:
        best[order] = min(range(len(PSEUDO_COUNTS)), key=lambda index: loss([*best[:order], index, *best[order + 1 :]]))  # noqa: B023
    return tuple(best)
