"""Which units a model is scored on: all drawn by rules fixed in advance, none by looking.

Level by level: a *document* is one document; a *sequence* one of the non-overlapping pieces of `block` tokens that documents are
cut into, read on its own; a *token* one token of the training documents, which stand one after the other in the order in which the
split drew them; a *position* the place of one token in the store, with its true context: any of all documents, not the training
documents alone; a *group* all documents that have the same in a column, and its loss the mean of theirs.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sublora.data import Split, TokenStore
from sublora.experiment import ALPHA_GRID, Level, OnText, Pretrained, Zeroshot
from sublora.inequalities.subsampling import subsample
from sublora.message import decode, read_configuration, with_alpha
from sublora.models import base_by_itself, base_sha256
from sublora.models.pretrained import architecture, configuration_sha256
from sublora.models.references import code_of_residual
from sublora.scoring.reference import log_q, of_base
from sublora.scoring.scores import Scores, Windows, pieces, score, sequences, token_windows, unit_windows


class Evaluation(NamedTuple):
    """Scores of the decoded model by level: on the certifying subsample of the training units, on the pilot, and on held-out text.

    `held_out` has documents (their tokens are the token level's, too) and, where that level is certified, sequences; or positions
    or groups alone.
    """

    training: dict[Level, Scores]
    pilot: dict[Level, Scores]
    held_out: dict[Level, Scores]
    seconds: float


def unit_count(level: Level, store: TokenStore, documents: np.ndarray, block: int) -> int:
    """How many units of a level there are in these documents; at position level `documents` are positions. Not for groups."""
    if level in ("document", "position"):
        return len(documents)
    lengths = store.lengths[documents]
    return int(lengths.sum()) if level == "token" else int((-(-lengths // block)).sum())


def training_units(level: Level, store: TokenStore, split: Split, block: int) -> int:
    """m: how many training units of a level there are."""
    return split.drawn[0] if level == "group" else unit_count(level, store, split.train, block)


def evaluated_units(level: Level, experiment: OnText, m: int) -> int:
    """n: how many of the m training units are evaluated."""
    wanted = getattr(experiment.bounds, level + "s")
    return m if wanted is None else min(m, wanted)


def evaluate(
    message: bytes, store: TokenStore, split: Split, experiment: OnText, folder: Path | None = None, *, local_only: bool = False
) -> Evaluation:
    """Decode the message and score what it decodes to.

    The n training units are drawn by `subsample`, seeded with the message and the token store: unknown until the model is fixed.
    A beacon, a public value fixed after the message's hash was published, takes the message's place in that. If all are
    evaluated, they are in the split's order. Held out are the first of the test split, which is in random order.
    Where the base is the reference, it is scored on the very same units: it is one public hypothesis, the draw is
    unknown until the message is fixed. If A messages are compared by their draws, the base's limit pays for A, too.
    folder: where the scores are kept; interrupted scoring continues from there.
    local_only: a pretrained base is not downloaded.
    """
    began = time.monotonic()
    scorer = _Scorer(message, store, split, experiment, folder, local_only=local_only)
    apart: list[Level] = ["document", "sequence"] if "sequence" in experiment.bounds.levels else ["document"]
    if experiment.bounds.levels[0] in ("position", "group"):
        apart = [experiment.bounds.levels[0]]
    training, held_out = scorer.training(), {level: scorer.held_out(level) for level in apart}
    return Evaluation(training, scorer.pilot(), held_out, time.monotonic() - began)


def evaluate_pilot(
    message: bytes, store: TokenStore, split: Split, experiment: OnText, folder: Path | None = None
) -> dict[Level, Scores]:
    """Scores on training units drawn independently of those that will certify; choices may be made on them.

    They are seeded with the message as it is with the first smoothing weight of the grid, so that its own choice does not matter.
    """
    return _Scorer(message, store, split, experiment, folder).pilot()


class Drawn(NamedTuple):
    """Which units two models are scored on together, all of it fixed by settings and by both messages.

    level; held_out: the first n of the test split, else n of the m training units; n; seed: both messages, from which n < m are
    drawn; pilot: units of an independent draw, for the bets; 0 where all units are scored.
    """

    level: Level
    held_out: bool
    n: int
    seed: bytes = b""
    pilot: int = 0


def evaluate_drawn(
    message: bytes, store: TokenStore, split: Split, experiment: OnText, drawn: Drawn, *, local_only: bool = False
) -> tuple[Scores, Scores | None]:
    """(scores of the decoded model on those units, in the split's order; on the pilot, or None). Nothing is kept."""
    scorer, level = _Scorer(message, store, split, experiment, None, local_only=local_only), drawn.level
    if drawn.held_out:
        documents = split.test if level == "group" else split.test[: drawn.n]
        return scorer.score_units(documents, level, np.arange(drawn.n)), None
    m = training_units(level, store, split, experiment.model.block)
    if drawn.n == m:
        return scorer.score_units(split.train, level, np.arange(m)), None
    found = [
        scorer.score_units(split.train, level, scorer.draw(drawn.seed, level, m, n, purpose))
        for n, purpose in ((drawn.n, "compare"), (drawn.pilot, "compare pilot"))
    ]
    return found[0], found[1]


def _windows(
    store: TokenStore, documents: np.ndarray, level: Level, drawn: np.ndarray, *, block: int, stride: int
) -> tuple[Windows, np.ndarray]:
    """The windows and offsets (`score`) of the units `drawn` of those of a level in `documents` (at position level: positions)."""
    if level == "position":  # the whole store is the stream
        return token_windows(store.offsets[:-1], store.lengths, documents[drawn], block, stride), np.arange(len(drawn) + 1)
    starts, lengths = store.offsets[documents], store.lengths[documents]
    if level == "token":
        return token_windows(starts, lengths, drawn, block, stride), np.arange(len(drawn) + 1)
    if level == "sequence":
        starts, lengths = sequences(starts, lengths, block)
    starts, lengths = starts[drawn], lengths[drawn]
    return unit_windows(starts, lengths, block, stride), np.concatenate([[0], np.cumsum(lengths)])


class _Scorer:
    """The decoded model of a message, and what it is scored on."""

    def __init__(
        self, message: bytes, store: TokenStore, split: Split, experiment: OnText, folder: Path | None, *, local_only: bool = False
    ):
        self.message, self.store, self.split, self.experiment, self.folder = message, store, split, experiment, folder
        self.local_only = local_only
        # The smoothing weight plays no part in the scores: models that differ in it alone share them.
        self.draft = with_alpha(message, ALPHA_GRID[0], experiment, store.vocab_size)

    @functools.cached_property
    def model(self) -> nn.Module:
        decoded = decode(self.message, self.experiment, self.store.vocab_size, self.local_only).model
        return decoded.to("cuda" if torch.cuda.is_available() else "cpu")

    @functools.cached_property
    def base(self) -> tuple[nn.Module, str, bool]:
        """(the base model by itself; what its scores are kept under; whether the decoded model is that base).

        Its configuration is its source's. The one that a message states must not change it: its limit pays for no bit.
        """
        model = self.experiment.model
        assert isinstance(model, Pretrained)
        base = base_by_itself(model, self.store.vocab_size, self.local_only)
        own, stated = architecture(base), read_configuration(self.message, self.experiment)[2]
        made_of = json.dumps([base_sha256(base), own], sort_keys=True)
        same = isinstance(self.experiment, Zeroshot) and configuration_sha256(own) == configuration_sha256(stated or {})
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return base.eval().to(device), hashlib.sha256(made_of.encode()).hexdigest(), same

    def training(self) -> dict[Level, Scores]:
        scores: dict[Level, Scores] = {}
        for level, m, n in self._counts():
            beacon = self.experiment.bounds.beacon
            seed = self.message if beacon is None else bytes.fromhex(beacon)
            drawn = np.arange(m) if n == m else self._draw(seed, level, m, n, "certificate")
            scores[level] = self._score(self.split.train, level, drawn, "training")
        return scores

    def pilot(self) -> dict[Level, Scores]:
        scores: dict[Level, Scores] = {}
        for level, m, n in self._counts():
            drawn = self._draw(self.draft, level, m, max(1, round(self.experiment.bounds.pilot * n)), "pilot")
            scores[level] = self._score(self.split.train, level, drawn, "pilot")
        return scores

    def held_out(self, level: Level) -> Scores:
        bounds = self.experiment.bounds
        if self.split.groups is not None:
            return self._score(self.split.test, level, np.arange(min(bounds.held_out_groups, self.split.drawn[2])), "held-out")
        documents = self.split.test[: bounds.held_out_positions if level == "position" else bounds.held_out_documents]
        everything = np.arange(unit_count(level, self.store, documents, self.experiment.model.block))
        return self._score(documents, level, everything, "held-out")

    def _counts(self) -> Iterator[tuple[Level, int, int]]:
        """(level, m, n) of each level."""
        for level in self.experiment.bounds.levels:
            m = training_units(level, self.store, self.split, self.experiment.model.block)
            yield level, m, evaluated_units(level, self.experiment, m)

    def score_units(self, documents: np.ndarray, level: Level, drawn: np.ndarray) -> Scores:
        """Scores of the units `drawn` of those of a level in `documents`."""
        return self._score(documents, level, drawn, "held-out" if documents is not self.split.train else "training")

    def draw(self, seed: bytes, level: Level, m: int, n: int, purpose: str) -> np.ndarray:
        """n of the m units of a level, drawn from the seed for that purpose, ascending."""
        return self._draw(seed, level, m, n, purpose)

    def _draw(self, seed: bytes, level: Level, m: int, n: int, purpose: str) -> np.ndarray:
        purpose = purpose if level == "document" else f"{purpose} {level}"
        return np.sort(subsample(seed, self.store.sha256, m, n, purpose=purpose))

    def _score(self, documents: np.ndarray, level: Level, drawn: np.ndarray, part: str) -> Scores:
        """Scores of the units `drawn` of those of a level in `documents` (at position level: positions)."""
        experiment, chosen, members = self.experiment, drawn, np.zeros(0, np.int64)
        kind: Level = level
        if level == "group":
            assert self.split.groups is not None
            sizes = self.split.groups[2 if part == "held-out" else 0]
            (drawn, members), kind = pieces(np.concatenate([[0], np.cumsum(sizes)]), chosen), "document"
        windows, offsets = _windows(self.store, documents, kind, drawn, block=experiment.model.block, stride=experiment.stride)
        units: tuple[TokenStore, Windows, np.ndarray, np.ndarray] = (self.store, windows, offsets, chosen)

        def scored(model: nn.Module, name: str, what: str, identity: str, **others: Any) -> Scores:
            keep = self.folder / "scores" / f"{name}.safetensors" if self.folder else None
            size = experiment.bounds.batch_tokens
            return score(model, *units, batch_tokens=size, label=what, keep=keep, identity=identity, **others)

        of_model: dict[str, Any] = {"expectations": level == "token", "code": code_of_residual(experiment)}
        name, what = f"{part}-{level}", f"{part} {level}s"
        scores = scored(self.model, name, what, hashlib.sha256(self.draft).hexdigest(), **of_model)
        if kind == "document":
            sizes = scores.sizes if self.store.sizes is None else self.store.sizes[documents[drawn]]
            scores = dataclasses.replace(scores, sizes=sizes, members=members)
        if experiment.reference.name == "uniform":
            return scores
        if experiment.reference.name == "base":
            base, identity, same = self.base
            by_base = scores if same else scored(base, f"{name}-base", f"{what} by the base", identity)
            return dataclasses.replace(scores, reference=of_base(by_base.log_probability))
        behind = self.split.train if part == "held-out" else None
        of_all, first = log_q(self.store, documents, kind, experiment, behind=behind), drawn
        if kind not in ("token", "position"):
            lengths = self.store.lengths[documents]
            first = (np.cumsum(lengths) - lengths)[drawn]
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
        return dataclasses.replace(scores, reference=of_all[np.repeat(first, np.diff(offsets)) + within])
