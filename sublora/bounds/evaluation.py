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

from sublora.bounds.scoring import Scores, Windows, score, sequences, token_windows, unit_windows
from sublora.bounds.subsampling import subsample
from sublora.compression import decode_model, with_alpha
from sublora.config import ALPHA_GRID, Experiment
from sublora.data import Split, TokenStore


class Evaluation(NamedTuple):
    """Scores of the decoded model by level: on the certifying subsample of the training units, on the pilot, and on held-out text.

    `held_out` has documents (their tokens are the token level's, too) and, where that level is certified, sequences.
    """

    training: dict[str, Scores]
    pilot: dict[str, Scores]
    held_out: dict[str, Scores]
    seconds: float


def unit_count(level: str, store: TokenStore, documents: np.ndarray, block: int) -> int:
    """m: how many units of a level there are in these documents."""
    if level == "document":
        return len(documents)
    lengths = store.lengths[documents]
    return int(lengths.sum()) if level == "token" else int((-(-lengths // block)).sum())


def evaluated_units(level: str, experiment: Experiment, m: int) -> int:
    """n: how many of the m training units are evaluated."""
    wanted = {"document": experiment.bounds.documents, "sequence": experiment.bounds.sequences, "token": experiment.bounds.tokens}
    return m if wanted[level] is None else min(m, wanted[level])


def evaluate(message: bytes, store: TokenStore, split: Split, experiment: Experiment, folder: Path | None = None) -> Evaluation:
    """Decode the message and score what it decodes to.

    The n training units are drawn by `subsample`, seeded with the message and the token store: unknown until the model is fixed
    (THEORY 5); if all are evaluated, they are in the split's order. The held-out documents are the first of the test split, which
    is in random order. folder: where the scores are kept; interrupted scoring goes on from there.
    """
    began = time.monotonic()
    levels, block, training = experiment.bounds.levels, experiment.model.block, {}
    for level in levels:
        m = unit_count(level, store, split.train, block)
        n = evaluated_units(level, experiment, m)
        drawn = np.arange(m) if n == m else np.sort(subsample(message, store.sha256, m, n, purpose=_purpose(level)))
        training[level] = _score(message, store, split.train, level, drawn, experiment, "training", folder)
    held_out = {}
    documents = split.test[: experiment.bounds.held_out_documents]
    for level in ("document", "sequence") if "sequence" in levels else ("document",):
        everything = np.arange(unit_count(level, store, documents, block))
        held_out[level] = _score(message, store, documents, level, everything, experiment, "held-out", folder)
    pilot = evaluate_pilot(message, store, split, experiment, folder)
    return Evaluation(training, pilot, held_out, time.monotonic() - began)


def evaluate_pilot(
    message: bytes, store: TokenStore, split: Split, experiment: Experiment, folder: Path | None = None
) -> dict[str, Scores]:
    """Scores on training units drawn independently of those that will certify; choices may be made on them.

    They are seeded with the message as it is with the first smoothing weight of the grid, so that its own choice does not matter.
    """
    scores, draft = {}, with_alpha(message, ALPHA_GRID[0], experiment, store.vocab_size)
    for level in experiment.bounds.levels:
        m = unit_count(level, store, split.train, experiment.model.block)
        n = max(1, round(experiment.bounds.pilot * evaluated_units(level, experiment, m)))
        drawn = np.sort(subsample(draft, store.sha256, m, n, purpose=_purpose(level, "pilot")))
        scores[level] = _score(message, store, split.train, level, drawn, experiment, "pilot", folder)
    return scores


def _purpose(level: str, purpose: str = "certificate") -> str:
    return purpose if level == "document" else f"{purpose} {level}"


def _windows(
    store: TokenStore, documents: np.ndarray, level: str, drawn: np.ndarray, block: int, stride: int
) -> tuple[Windows, np.ndarray]:
    """The windows and offsets (`score`) of the units `drawn` of those of a level in `documents`."""
    starts, lengths = store.offsets[documents], store.lengths[documents]
    if level == "token":
        return token_windows(starts, lengths, drawn, block, stride), np.arange(len(drawn) + 1)
    if level == "sequence":
        starts, lengths = sequences(starts, lengths, block)
    starts, lengths = starts[drawn], lengths[drawn]
    return unit_windows(starts, lengths, block, stride), np.concatenate([[0], np.cumsum(lengths)])


def _score(
    message: bytes,
    store: TokenStore,
    documents: np.ndarray,
    level: str,
    drawn: np.ndarray,
    experiment: Experiment,
    part: str,
    folder: Path | None,
) -> Scores:
    model = decode_model(message, experiment, store.vocab_size).model.to("cuda" if torch.cuda.is_available() else "cpu")
    windows, offsets = _windows(store, documents, level, drawn, experiment.model.block, experiment.stride)
    # The smoothing weight plays no part in the scores: models that differ in it alone share them.
    identity = hashlib.sha256(with_alpha(message, ALPHA_GRID[0], experiment, store.vocab_size)).hexdigest()
    options = {"expectations": level == "token", "identity": identity}
    options["keep"] = folder / "scores" / f"{part}-{level}.safetensors" if folder else None
    # Certificates are float32 throughout: TF32 and reduced-precision matrix products are off while they are made.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return score(model, store, windows, offsets, drawn, experiment.bounds.batch_tokens, f"{part} {level}s", **options)
    finally:
        torch.set_float32_matmul_precision(before)
