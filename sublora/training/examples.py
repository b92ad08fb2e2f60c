"""Fine-tuning: the coordinates are fitted to labelled examples by the same loop as in pretraining, then to their levels."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from sublora.data.labelled import Examples
from sublora.experiment import Classify
from sublora.models.classifiers import Encoded
from sublora.training.batches import Batch
from sublora.training.loop import Penalty, Schedule, train

WIDTH_STEP = 16
"""Batches are cut to their longest example, rounded up to a multiple of this: a compiled model meets few shapes."""


@dataclass(frozen=True)
class LinearDecay(Schedule):
    """A linear warm-up, then a straight line down to zero behind the last step."""

    def rate(self, step: int) -> float:
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        return self.learning_rate * (self.steps - step) / max(1, self.steps - self.warmup)


class EpochSampler:
    """Batches of examples as a function of (seed, step): every epoch has each example once, in an order of its own."""

    def __init__(self, encoded: Encoded, labels: np.ndarray, seed: int):
        self.encoded, self.labels, self.seed = encoded, labels, seed
        self._order = functools.lru_cache(2)(self._draw)

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.labels))

    def batch(self, step: int, examples: int) -> Batch:
        """The batch of `step`; one that reaches beyond its epoch's end goes on with the next."""
        places = step * examples + np.arange(examples)
        epochs, within = np.divmod(places, len(self.labels))
        return examples_batch(self.encoded, self.labels, np.array([self._order(e)[i] for e, i in zip(epochs, within, strict=True)]))


def examples_batch(encoded: Encoded, labels: np.ndarray, which: np.ndarray) -> Batch:
    """The examples `which` (indices) as a batch: inputs (n, channels, time), targets (n, 1), equal weights that sum to one."""
    longest = int(encoded.lengths[which].max(initial=1))
    ids = encoded.ids[which, :, : -(-longest // WIDTH_STEP) * WIDTH_STEP].astype(np.int64)
    weights = torch.full((len(which),), 1 / len(which))
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels[which, None]), weights)


def train_examples_phase(
    module: nn.Module,
    encoded: Encoded,
    examples: Examples,
    experiment: Classify,
    folder: Path,
    *,
    phase: str,
    facts: dict[str, Any],
    penalty: Penalty | None = None,
) -> pd.DataFrame:
    """`train` on labelled examples: the phase `finetune` for the settings' epochs, `quantize` for their `finetune_steps`.

    encoded: the examples' texts as the model reads them. facts: what a checkpoint must agree on. The watched loss is that of some
    training examples: choosing by them is as free as training on them.
    """
    settings, adaptation = experiment.training, experiment.compression
    sampler = EpochSampler(encoded, examples.labels, settings.seed)
    order = np.random.Generator(np.random.Philox(key=[settings.seed, 2**63])).permutation(len(examples))
    watched = examples_batch(encoded, examples.labels, order[: settings.watched_examples])
    steps, rate, warmup = settings.epochs * -(-len(examples) // settings.batch), settings.learning_rate, settings.warmup
    if phase == "quantize":  # often a shorter phase than the one that the warm-up was set for
        steps, rate = adaptation.finetune_steps, adaptation.finetune_learning_rate
        warmup = min(warmup, steps // 10)
    changes = {"learning_rate": rate, "warmup": warmup, "validate_every": settings.validate_every or max(1, steps // 6)}
    schedule = LinearDecay.of(settings, steps=steps, min_learning_rate=0.0, **changes)
    return train(module, sampler.batch, watched, schedule, folder, phase=phase, facts=facts, penalty=penalty, unit="example")
