"""The first phase: fit a model's coordinates to the training split."""

from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from sublora.config import Experiment
from sublora.data import Split, TokenStore
from sublora.models import Subspace
from sublora.training.batches import Sampler
from sublora.training.loop import Schedule, train


def pretrain(model: Subspace, store: TokenStore, split: Split, experiment: Experiment, folder: Path) -> pd.DataFrame:
    """Train `model` as the experiment says; resumable. Returns the metrics (`metrics.COLUMNS`, losses in bits per token)."""
    settings = experiment.training
    schedule = phase_schedule(experiment, settings.steps, settings.learning_rate, settings.min_learning_rate)
    return train_phase(model, store, split, experiment, folder, "pretrain", schedule)


def phase_schedule(experiment: Experiment, steps: int, learning_rate: float, min_learning_rate: float) -> Schedule:
    """The experiment's schedule with these steps and rates; a warm-up longer than a tenth of the steps is cut to that."""
    fields = {name: getattr(experiment.training, name) for name in Schedule.__dataclass_fields__}
    fields |= {"steps": steps, "learning_rate": learning_rate, "min_learning_rate": min_learning_rate}
    return Schedule(**{**fields, "warmup": min(fields["warmup"], steps // 10)})


def train_phase(
    module: nn.Module,
    store: TokenStore,
    split: Split,
    experiment: Experiment,
    folder: Path,
    phase: str,
    schedule: Schedule,
    **penalty,
) -> pd.DataFrame:
    """`train` on the training split, validated on the first windows of the validation split's first documents."""
    block, sampling = experiment.model.block, experiment.training.sampling
    sampler = Sampler(store, split.train, block, sampling, schedule.seed)
    watched = split.validation[: experiment.training.validation_documents]
    validation = Sampler(store, watched, block, sampling, schedule.seed).first_windows()
    return train(module, sampler, validation, schedule, folder, phase, facts(store, experiment), **penalty)


def facts(store: TokenStore, experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint must agree on to be continued or used: data, split and model."""
    groups = experiment.parameters()
    return {"corpus": groups["corpus"], "model": groups["model"], "subspace": groups["subspace"], "tokens": store.sha256}
