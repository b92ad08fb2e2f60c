"""Which documents a model is scored on: all drawn by rules fixed in advance, none by looking."""

import time
from typing import NamedTuple

import numpy as np
import torch

from sublora.bounds.scoring import Scores, score
from sublora.bounds.subsampling import subsample
from sublora.compression import rebuild
from sublora.config import Experiment
from sublora.data import Split, TokenStore


class Evaluation(NamedTuple):
    """Scores of the decoded model on the certifying subsample of the training documents and on held-out documents."""

    training: Scores
    held_out: Scores
    seconds: float


def evaluated_documents(bounds_documents: int | None, m: int) -> int:
    """n: how many of the m training documents are evaluated."""
    return m if bounds_documents is None else min(m, bounds_documents)


def evaluate(message: bytes, store: TokenStore, split: Split, experiment: Experiment) -> Evaluation:
    """Decode the message and score what it decodes to.

    The n training documents are drawn by `subsample`, seeded with the message and the token store: unknown until the model is
    fixed (THEORY 5). The held-out ones are the first of the test split, which is in random order.
    """
    began = time.monotonic()
    n = evaluated_documents(experiment.bounds.documents, len(split.train))
    training = split.train[np.sort(subsample(message, store.sha256, len(split.train), n))]
    held_out = split.test[: experiment.bounds.held_out_documents]
    scores = [_score(message, store, documents, experiment, label) for documents, label in
              ((training, "training documents"), (held_out, "held-out documents"))]  # fmt: skip
    return Evaluation(*scores, time.monotonic() - began)


def evaluate_pilot(message: bytes, store: TokenStore, split: Split, experiment: Experiment) -> Scores:
    """Scores on training documents drawn independently of those that will certify; choices may be made on them."""
    n = min(len(split.train), experiment.bounds.pilot_documents)
    drawn = subsample(message, store.sha256, len(split.train), n, purpose="pilot")
    return _score(message, store, split.train[np.sort(drawn)], experiment, "pilot documents")


def _score(message: bytes, store: TokenStore, documents: np.ndarray, experiment: Experiment, label: str) -> Scores:
    subspace, _ = rebuild(message, experiment.model, store.vocab_size)
    model = subspace.materialized().to("cuda" if torch.cuda.is_available() else "cpu")
    # Certificates are float32 throughout: TF32 and reduced-precision matrix products are off while they are made.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return score(
            model, store, documents, experiment.model.block, experiment.stride, experiment.bounds.batch_tokens, label
        )
    finally:
        torch.set_float32_matmul_precision(before)
