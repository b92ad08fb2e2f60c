"""Batches as a function of (seed, step): nothing to save, nothing to restore."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sublora.data import TokenStore
from sublora.models.references import DocumentCode, log_distributions

IGNORED = -100
"""Target of the positions behind a document's end; `torch.nn.functional.cross_entropy` skips it."""
WIDTH = 32
"""What the number of tokens read of a sequence is a multiple of, or else it is the block: few shapes, and little padding."""
VALIDATION = 2**63 - 1
"""The step whose draw is for validation; no training has as many."""


@dataclass(frozen=True, eq=False)
class Unread:
    """The document code's ln q(. | past) at the tokens of some windows, which takes V times their memory: not computed yet.

    windows: int64 (sequences, 3), rows of its document's start, its first token, and its size.
    """

    store: TokenStore
    code: DocumentCode
    block: int
    windows: np.ndarray

    def __getitem__(self, piece: slice | np.ndarray) -> "Unread":
        return replace(self, windows=self.windows[piece])

    def read(self) -> torch.Tensor:
        """float32 (sequences, block, V)."""
        vocabulary = {"vocab_size": self.store.vocab_size, "eot": self.store.eot}
        starts, firsts, sizes = self.windows.T
        found = log_distributions(
            self.store.tokens, starts, firsts, sizes, np.zeros_like(sizes), width=self.block, code=self.code, **vocabulary
        )
        return torch.from_numpy(found)


@dataclass(frozen=True)
class Batch:
    """inputs, targets: int64 (sequences, time); weights: float32 (sequences,), what one token's loss counts; they sum, over the
    real tokens of the batch, to one. log_q: float32 (sequences, time, V) for a residual model."""

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    log_q: torch.Tensor | Unread | None = None

    def part(self, index: int, parts: int) -> "Batch":
        """The index-th of `parts` interleaved pieces, as wide as its longest sequence, to the next multiple of `WIDTH`.

        A model that reads thousands of tokens would else read as many of padding behind every document.
        """
        return self._taken(slice(index, None, parts))

    def pieces(self, sequences: int, tokens: float, call: float) -> list["Batch"]:
        """The batch in pieces for one forward pass each, sequences of alike lengths together: little padding is read.

        sequences, tokens: the most in a piece, tokens with their padding, and one sequence at least. call: how many tokens of
        padding a forward pass more is worth. The sum of the pieces' losses is the batch's loss, but for rounding. One piece has
        the batch's own order.
        """
        if self.inputs.shape != self.targets.shape:  # labelled examples, which are cut when they are drawn
            parts = -(-len(self.inputs) // sequences)
            return [self.part(index, parts) for index in range(parts)]
        if not len(self.inputs):  # as may be left for one of many processes
            return [self]
        used = _used(self.targets)
        order = np.argsort(-used, kind="stable")
        groups = _groups(used[order], sequences, tokens, call)
        return [self._taken(order[group] if len(groups) > 1 else slice(None)) for group in groups]

    def _taken(self, piece: slice | np.ndarray) -> "Batch":
        log_q = None if self.log_q is None else self.log_q[piece]
        inputs, targets = self.inputs[piece], self.targets[piece]
        if inputs.shape == targets.shape and (used := int(_used(targets).max(initial=1))) < inputs.shape[1]:
            inputs, targets = inputs[:, :used], targets[:, :used]
            if isinstance(log_q, Unread):
                log_q = replace(log_q, block=used, windows=np.minimum(log_q.windows, [2**62, 2**62, used]))
            elif log_q is not None:
                log_q = log_q[:, :used]
        return Batch(inputs, targets, self.weights[piece], log_q)

    def past(self) -> torch.Tensor | None:
        """Its `log_q`, computed."""
        return self.log_q.read() if isinstance(self.log_q, Unread) else self.log_q

    def read(self) -> "Batch":
        """The same with its `log_q` computed."""
        return replace(self, log_q=self.past())


def _used(targets: torch.Tensor) -> np.ndarray:
    """Of each sequence up to which place it holds targets, rounded up to a multiple of `WIDTH`; at most all: int64 (sequences,)."""
    longest = targets.shape[1]
    places = ((targets != IGNORED) * torch.arange(1, longest + 1)).amax(1).clamp_min(1).numpy()
    return np.minimum(longest, -(-places // WIDTH) * WIDTH)


def _groups(widths: np.ndarray, sequences: int, tokens: float, call: float) -> list[slice]:
    """Which sequences of descending widths to read together, so that padding and calls cost the least (`Batch.pieces`)."""
    ends = [*(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(widths)]  # alike ones are parted by the limits alone
    best: list[tuple[float, list[slice]]] = [(0.0, [])]
    for last, end in enumerate(ends):
        found = []
        for begin, (cost, groups) in zip([0, *ends[:last]], best, strict=True):
            width = int(widths[begin])
            step = max(1, min(sequences, int(min(tokens, 2**62) // width)))
            cut = [slice(at, min(at + step, end)) for at in range(begin, end, step)]
            found.append((cost + (end - begin) * width + len(cut) * call, [*groups, *cut]))
        best.append(min(found, key=lambda each: each[0]))
    return best[-1][1]


class Sampler:
    """Draws windows of `block` tokens, or what is left of a document behind the last whole one, from the given documents.

    Windows begin at multiples of `block`, wherever the document ends: as scored, a context does not tell where that is.
    documents: int64 indices into the store.
    sampling: "document" draws a document uniformly, one of its tokens, and that token's window, and weighs every window equally,
    which is the document-level loss; "token" draws windows in proportion to their number and weighs every token equally.
    code: the document code that a residual model adds to. It has read the whole of the document before the window.
    targets: indices of the tokens in the store that may be targets; None: all.
    """

    def __init__(
        self,
        store: TokenStore,
        documents: np.ndarray,
        block: int,
        sampling: str,
        seed: int,
        *,
        code: DocumentCode | None = None,
        targets: np.ndarray | None = None,
    ):
        self.store, self.block, self.sampling, self.seed, self.code = store, block, sampling, seed, code
        self.wanted = None
        if targets is not None:
            self.wanted = np.zeros(len(store.tokens), bool)
            self.wanted[targets] = True
        self.starts = store.offsets[documents]
        self.lengths = store.offsets[documents + 1] - self.starts
        self.windows = -(-self.lengths // block)
        self.last_window = np.cumsum(self.windows)

    def batch(self, step: int, sequences: int) -> Batch:
        """The batch of `step`: the same for every process and every run."""
        return self._cut(*self._drawn(step, sequences))

    def windows_of(self, tokens: np.ndarray) -> Batch:
        """The windows that hold these tokens of the store, each once. The sampler's documents must be all, in the store's order."""
        document = np.searchsorted(self.starts, tokens, side="right") - 1
        return self._cut(*np.unique([document, (tokens - self.starts[document]) // self.block], axis=1))

    def drawn_windows(self) -> Batch:
        """As many windows as documents, for validation: drawn as in training, and with sampling "document" one of each document."""
        return self._cut(*self._drawn(VALIDATION, len(self.starts), np.arange(len(self.starts))))

    def first_windows(self) -> Batch:
        """The first window of every document, for validation."""
        return self._cut(np.arange(len(self.starts)), np.zeros(len(self.starts), np.int64))

    def _drawn(self, step: int, sequences: int, documents: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(document, window) of each sequence. documents: which they are, where the sampling is by document."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        if self.sampling == "token":
            drawn = random.integers(0, self.last_window[-1], sequences)
            document = np.searchsorted(self.last_window, drawn, side="right")
            return document, drawn - (self.last_window[document] - self.windows[document])
        document = random.integers(0, len(self.starts), sequences) if documents is None else documents
        return document, (random.random(sequences) * self.lengths[document]).astype(np.int64) // self.block

    def _cut(self, document: np.ndarray, window: np.ndarray) -> Batch:
        start, length = self.starts[document], self.lengths[document]
        position = (window * self.block)[:, None] + np.arange(self.block)
        inside = position < length[:, None]
        where = np.where(inside, start[:, None] + position, 0)
        real = inside if self.wanted is None else inside & self.wanted[where]
        targets = np.where(real, self.store.tokens[where].astype(np.int64), IGNORED)
        inputs = np.where(position > 0, self.store.tokens[np.maximum(where - 1, 0)].astype(np.int64), self.store.eot)
        inputs[~inside] = self.store.eot
        tokens = real.sum(1)
        weights = 1 / (tokens * len(tokens)) if self.sampling == "document" else np.full(len(tokens), 1 / max(1, tokens.sum()))
        windows = np.stack([start, start + window * self.block, inside.sum(1)], axis=1)
        log_q = None if self.code is None else Unread(self.store, self.code, self.block, windows)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(weights.astype(np.float32)), log_q)
