"""One forward pass over documents: what every bound needs to know of each token.

The loss of a document is a function of the model and the document alone. A document's context starts with the end-of-text token and
never leaves the document; every one of its tokens, its own end of text included, is predicted. Up to `block` tokens are one window.
A longer document is read by a window that moves `stride` tokens at a time: the first window predicts all of its tokens, each
further one its last `stride` or fewer, given what stands before them in the window (Lotfi et al. 2024a, released code). The rule is
part of the hypothesis and stated in the certificate.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from sublora.atomic import replaced_atomically
from sublora.data import TokenStore
from sublora.errors import SubloraError
from sublora.progress import progress_bar


@dataclass(frozen=True)
class Scores:
    """Of every token of some documents, in their order.

    log_probability: float32 (tokens,), natural log of the model's probability of the token, before smoothing.
    rank: int32 (tokens,), how many other tokens are not less probable (ties and NaN count against the model).
    offsets: int64 (documents + 1,): document i has the tokens offsets[i] to offsets[i+1].
    """

    log_probability: np.ndarray
    rank: np.ndarray
    offsets: np.ndarray

    def save(self, path: str | os.PathLike) -> None:
        """Write as one safetensors file, atomically."""
        with replaced_atomically(path) as temporary:
            save_file(vars(self), temporary)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Scores":
        """Read what `save` wrote. Raises SubloraError naming the file when it is missing or damaged."""
        try:
            return cls(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise SubloraError(f"{Path(path)}: not a file of scores ({error}); score again") from None


@dataclass(frozen=True)
class _Windows:
    """One row a window. first, size: its tokens in the store; skip: how many of them an earlier window has predicted;
    goal: where in the scores its first prediction goes; opening: whether it starts at the document's start."""

    first: np.ndarray
    size: np.ndarray
    skip: np.ndarray
    goal: np.ndarray
    opening: np.ndarray


def score(
    model: nn.Module, store: TokenStore, documents: np.ndarray, block: int, stride: int, batch_tokens: int, label: str
) -> Scores:
    """Run `model` (token ids (batch, time) to logits (batch, time, V)) over `documents` (int64 indices) in float32.

    batch_tokens: the most tokens in a forward pass, padding included; it changes speed and memory, not the scores.
    label: what the progress bar says. Raises SubloraError for logits that are not over the store's V tokens.
    """
    lengths = store.lengths[documents]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    windows = _windows(store.offsets[documents], lengths, offsets[:-1], block, stride)
    log_probability = np.empty(offsets[-1], np.float32)
    rank = np.empty(offsets[-1], np.int32)
    device = next(model.parameters()).device
    model.eval()
    order = np.argsort(-windows.size, kind="stable")  # alike sizes together: little padding; the largest first
    bar = progress_bar(total=int(offsets[-1]), desc=f"score {label}", unit="token", unit_scale=True)
    with torch.inference_mode(), bar as progress:
        at = 0
        while at < len(order):
            size = int(windows.size[order[at]])
            rows = order[at : at + max(1, batch_tokens // size)]
            at += len(rows)
            inputs, targets, predicted, goal = _gather(store, windows, rows, size)
            logits = model(torch.from_numpy(inputs).to(device)).float()
            if logits.shape[-1] != store.vocab_size:
                raise SubloraError(f"{store.path}: the model has {logits.shape[-1]} tokens, the token store {store.vocab_size}")
            chosen = torch.from_numpy(predicted).to(device)
            logits, wanted = logits[chosen], torch.from_numpy(targets[predicted]).to(device)
            right = logits.gather(1, wanted[:, None])
            log_probability[goal] = (right[:, 0] - logits.logsumexp(1)).cpu().numpy()
            # `not <` and not `>=`, so that a NaN counts against the model; the token itself is one of them.
            rank[goal] = ((~(logits < right)).sum(1) - 1).cpu().numpy()
            progress.update(len(goal))
    return Scores(log_probability, rank, offsets)


def _windows(starts: np.ndarray, lengths: np.ndarray, goals: np.ndarray, block: int, stride: int) -> _Windows:
    """The windows of all documents, in order. starts, lengths, goals: int64 (documents,)."""
    further = np.maximum(0, -(-(lengths - block) // stride))
    document = np.repeat(np.arange(len(lengths)), further + 1)
    index = np.arange(len(document)) - np.repeat(np.cumsum(further + 1) - further - 1, further + 1)
    end = np.minimum(block + index * stride, lengths[document])
    predicted_before = np.where(index > 0, block + (index - 1) * stride, 0)
    begin = np.maximum(0, end - block)
    return _Windows(
        first=starts[document] + begin,
        size=end - begin,
        skip=predicted_before - begin,
        goal=goals[document] + predicted_before,
        opening=begin == 0,
    )


def _gather(store: TokenStore, windows: _Windows, rows: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Inputs and targets (rows, size), which of them count (bool), and where in the scores each of those goes."""
    position = np.arange(size)
    inside = position < windows.size[rows, None]
    where = np.where(inside, windows.first[rows, None] + position, windows.first[rows, None])
    targets = store.tokens[where].astype(np.int64)
    inputs = store.tokens[np.maximum(where - 1, 0)].astype(np.int64)
    inputs[windows.opening[rows], 0] = store.eot
    predicted = inside & (position >= windows.skip[rows, None])
    goal = (windows.goal[rows, None] + position - windows.skip[rows, None])[predicted]
    return inputs, targets, predicted, goal
