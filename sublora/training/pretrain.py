"""The first phase: fit a model's coordinates to the training split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from sublora.data import Split, TokenStore
from sublora.experiment import Finetune, Pretrain
from sublora.models import Subspace
from sublora.training.batches import Sampler
from sublora.training.loop import Schedule, train


def pretrain(model: Subspace, store: TokenStore, split: Split, experiment: Pretrain | Finetune, folder: Path) -> pd.DataFrame:
    """Train `model` as the experiment says; resumable. Returns the metrics (`metrics.COLUMNS`, losses in bits per token)."""
    settings = experiment.training
    schedule = phase_schedule(experiment, settings.steps, settings.learning_rate, settings.min_learning_rate)
    return train_phase(model, store, split, experiment, folder, phase="pretrain", schedule=schedule)


def phase_schedule(experiment: Pretrain | Finetune, steps: int, learning_rate: float, min_learning_rate: float) -> Schedule:
    """The experiment's schedule with these steps and rates.

    Without settings of its own, warm-up is a tenth of the steps, at most 100, and there are six validations. A warm-up that was set
    is cut to a tenth of a phase that is shorter than the training.
    """
    settings = experiment.training
    fields = {name: getattr(settings, name) for name in Schedule.__dataclass_fields__}
    fields |= {"steps": steps, "learning_rate": learning_rate, "min_learning_rate": min_learning_rate}
    if settings.warmup is None or steps < settings.steps:
        fields["warmup"] = min(100 if settings.warmup is None else settings.warmup, steps // 10)
    fields["validate_every"] = settings.validate_every or max(1, steps // 6)
    return Schedule(**fields)


def train_phase(
    module: nn.Module,
    store: TokenStore,
    split: Split,
    experiment: Pretrain | Finetune,
    folder: Path,
    *,
    phase: str,
    schedule: Schedule,
    penalty: Callable[[], torch.Tensor] | None = None,
) -> pd.DataFrame:
    """`train` on the training split, validated on the first windows of the validation split's first documents."""
    block, sampling = experiment.model.block, experiment.training.sampling
    sampler = Sampler(store, split.train, block, sampling, schedule.seed)
    watched = split.validation[: experiment.training.validation_documents]
    validation = Sampler(store, watched, block, sampling, schedule.seed).first_windows()
    return train(module, sampler, validation, schedule, folder, phase=phase, facts=facts(store, experiment), penalty=penalty)


def facts(store: TokenStore, experiment: Pretrain | Finetune) -> dict[str, Any]:
    """What a checkpoint must agree on to be continued or used: data, split and model."""
    groups = experiment.parameters()
    return {key: groups[key] for key in ("kind", "corpus", "model", "subspace")} | {"tokens": store.sha256}
