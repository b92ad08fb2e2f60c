"""Which units a model is scored on: all drawn by rules fixed in advance, none by looking.

Level by level: a *document* is one document; a *sequence* one of the non-overlapping pieces of `block` tokens that documents are
cut into, read on its own; a *token* one token of the training documents, which stand one after the other in the order in which the
split drew them.
"""

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sublora.data import Split, TokenStore
from sublora.experiment import ALPHA_GRID, Level, OnText
from sublora.inequalities.subsampling import subsample
from sublora.message import decode, with_alpha
from sublora.scoring.scores import Scores, Windows, score, sequences, token_windows, unit_windows


class Evaluation(NamedTuple):
    """Scores of the decoded model by level: on the certifying subsample of the training units, on the pilot, and on held-out text.

    `held_out` has documents (their tokens are the token level's, too) and, where that level is certified, sequences.
    """

    training: dict[Level, Scores]
    pilot: dict[Level, Scores]
    held_out: dict[Level, Scores]
    seconds: float


def unit_count(level: Level, store: TokenStore, documents: np.ndarray, block: int) -> int:
    """m: how many units of a level there are in these documents."""
    if level == "document":
        return len(documents)
    lengths = store.lengths[documents]
    return int(lengths.sum()) if level == "token" else int((-(-lengths // block)).sum())


def evaluated_units(level: Level, experiment: OnText, m: int) -> int:
    """n: how many of the m training units are evaluated."""
    bounds = experiment.bounds
    wanted = {"document": bounds.documents, "sequence": bounds.sequences, "token": bounds.tokens}[level]
    return m if wanted is None else min(m, wanted)


def evaluate(
    message: bytes,
    store: TokenStore,
    split: Split,
    experiment: OnText,
    folder: Path | None = None,
    *,
    local_only: bool = False,
) -> Evaluation:
    """Decode the message and score what it decodes to.

    The n training units are drawn by `subsample`, seeded with the message and the token store: unknown until the model is fixed
    (THEORY 5). If all are evaluated, they are in the split's order. The held-out documents are the first of the test split, which
    is in random order. folder: where the scores are kept; interrupted scoring continues from there.
    local_only: a pretrained base is not downloaded.
    """
    began = time.monotonic()
    scorer = _Scorer(message, store, experiment, folder, local_only)
    levels, block = experiment.bounds.levels, experiment.model.block
    training: dict[Level, Scores] = {}
    for level in levels:
        m = unit_count(level, store, split.train, block)
        n = evaluated_units(level, experiment, m)
        drawn = np.arange(m) if n == m else np.sort(subsample(message, store.sha256, m, n, purpose=_purpose(level)))
        training[level] = scorer.score(split.train, level, drawn, "training")
    held_out: dict[Level, Scores] = {}
    documents = split.test[: experiment.bounds.held_out_documents]
    apart: tuple[Level, ...] = ("document", "sequence") if "sequence" in levels else ("document",)
    for level in apart:
        everything = np.arange(unit_count(level, store, documents, block))
        held_out[level] = scorer.score(documents, level, everything, "held-out")
    return Evaluation(training, _pilot(scorer, store, split, experiment), held_out, time.monotonic() - began)


def evaluate_pilot(
    message: bytes, store: TokenStore, split: Split, experiment: OnText, folder: Path | None = None
) -> dict[Level, Scores]:
    """Scores on training units drawn independently of those that will certify; choices may be made on them.

    They are seeded with the message as it is with the first smoothing weight of the grid, so that its own choice does not matter.
    """
    return _pilot(_Scorer(message, store, experiment, folder), store, split, experiment)


def _pilot(scorer: "_Scorer", store: TokenStore, split: Split, experiment: OnText) -> dict[Level, Scores]:
    scores: dict[Level, Scores] = {}
    for level in experiment.bounds.levels:
        m = unit_count(level, store, split.train, experiment.model.block)
        n = max(1, round(experiment.bounds.pilot * evaluated_units(level, experiment, m)))
        drawn = np.sort(subsample(scorer.draft, store.sha256, m, n, purpose=_purpose(level, "pilot")))
        scores[level] = scorer.score(split.train, level, drawn, "pilot")
    return scores


def _purpose(level: Level, purpose: str = "certificate") -> str:
    return purpose if level == "document" else f"{purpose} {level}"


def _windows(
    store: TokenStore, documents: np.ndarray, level: Level, drawn: np.ndarray, *, block: int, stride: int
) -> tuple[Windows, np.ndarray]:
    """The windows and offsets (`score`) of the units `drawn` of those of a level in `documents`."""
    starts, lengths = store.offsets[documents], store.lengths[documents]
    if level == "token":
        return token_windows(starts, lengths, drawn, block, stride), np.arange(len(drawn) + 1)
    if level == "sequence":
        starts, lengths = sequences(starts, lengths, block)
    starts, lengths = starts[drawn], lengths[drawn]
    return unit_windows(starts, lengths, block, stride), np.concatenate([[0], np.cumsum(lengths)])


class _Scorer:
    """The decoded model of a message, which scores units; decoded once, and only if scores are not kept already."""

    def __init__(
        self, message: bytes, store: TokenStore, experiment: OnText, folder: Path | None, local_only: bool = False
    ):
        self.message, self.store, self.experiment, self.folder = message, store, experiment, folder
        self.local_only = local_only
        # The smoothing weight plays no part in the scores: models that differ in it alone share them.
        self.draft = with_alpha(message, ALPHA_GRID[0], experiment, store.vocab_size)
        self._model: nn.Module | None = None

    def score(self, documents: np.ndarray, level: Level, drawn: np.ndarray, part: str) -> Scores:
        """Scores of the units `drawn` of those of a level in `documents`."""
        experiment = self.experiment
        windows, offsets = _windows(self.store, documents, level, drawn, block=experiment.model.block, stride=experiment.stride)
        if self._model is None:
            decoded = decode(self.message, experiment, self.store.vocab_size, self.local_only).model
            self._model = decoded.to("cuda" if torch.cuda.is_available() else "cpu")
        # Certificates are float32 throughout: TF32 and reduced-precision matrix products are off while they are made.
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            return score(
                self._model,
                self.store,
                windows,
                offsets,
                drawn,
                batch_tokens=experiment.bounds.batch_tokens,
                label=f"{part} {level}s",
                expectations=level == "token",
                keep=self.folder / "scores" / f"{part}-{level}.safetensors" if self.folder else None,
                identity=hashlib.sha256(self.draft).hexdigest(),
            )
        finally:
            torch.set_float32_matmul_precision(before)
