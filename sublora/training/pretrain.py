"""Training on documents: the coordinates are fitted to the training split, then to their levels."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import nn

from sublora.data import Split, TokenStore
from sublora.experiment import Finetune, Pretrain
from sublora.models.references import code_of_residual
from sublora.training.batches import Sampler
from sublora.training.loop import Penalty, Schedule, train


def phase_schedule(experiment: Pretrain | Finetune, steps: int, learning_rate: float, min_learning_rate: float) -> Schedule:
    """The experiment's schedule with these steps and rates.

    Without settings of its own, warm-up is a tenth of the steps, at most 100, and there are six validations. A warm-up that was set
    is cut to a tenth of a phase that is shorter than the training.
    """
    settings = experiment.training
    warmup = 100 if settings.warmup is None else settings.warmup
    return Schedule.of(
        settings,
        steps=steps,
        learning_rate=learning_rate,
        min_learning_rate=min_learning_rate,
        warmup=min(warmup, steps // 10) if settings.warmup is None or steps < settings.steps else warmup,
        validate_every=settings.validate_every or max(1, steps // 6),
        period=settings.period or max(1, steps // 4),
        cooldown=settings.cooldown or max(1, steps // 5),
    )


def train_phase(
    module: nn.Module,
    store: TokenStore,
    split: Split,
    experiment: Pretrain | Finetune,
    folder: Path,
    *,
    phase: Literal["pretrain", "quantize"],
    penalty: Penalty | None = None,
) -> pd.DataFrame:
    """`train` on the training split; `quantize` is the adaptation to the levels, for the settings' `finetune_steps`.

    The validation loss is that of the first windows of the validation split's first documents; of a residual model, whose document
    code knows least there, that of windows drawn from them; of positions, that of the windows which hold its first positions, at
    all validation positions in them.
    """
    settings, adaptation = experiment.training, experiment.compression
    if phase == "pretrain":
        schedule = phase_schedule(experiment, settings.steps, settings.learning_rate, settings.min_learning_rate)
    else:
        rate = adaptation.finetune_learning_rate
        schedule = replace(phase_schedule(experiment, adaptation.finetune_steps, rate, rate / 50), schedule="cosine")
    windows, code = (experiment.model.block, settings.sampling, settings.seed), code_of_residual(experiment)
    few, stated = split.validation[: settings.validation_documents], facts(store, experiment)
    if split.rule == "positions":
        everything = np.arange(len(store))
        validation = Sampler(store, everything, *windows, code=code, targets=split.validation).windows_of(few)
        batches = Sampler(store, everything, *windows, code=code, targets=split.train).batch
    else:
        sampler = Sampler(store, few, *windows, code=code)
        validation = sampler.first_windows() if code is None else sampler.drawn_windows()
        batches = Sampler(store, split.train, *windows, code=code).batch
    return train(module, batches, validation, schedule, folder, phase=phase, facts=stated, penalty=penalty)


def facts(store: TokenStore, experiment: Pretrain | Finetune) -> dict[str, Any]:
    """What a checkpoint must agree on to be continued or used: data, split and model."""
    groups = experiment.parameters()
    stated = {key: groups[key] for key in ("kind", "corpus", "model", "subspace")} | {"tokens": store.sha256}
    stated["corpus"] = {**groups["corpus"], "prior_documents": experiment.corpus.prior_documents}  # also where there are none
    stated["model"] = {key: value for key, value in groups["model"].items() if key != "public_since"}
    if code_of_residual(experiment):
        named, code = groups["reference"], ("pseudo_counts", "distinct", "start")
        stated["reference"] = {key: named[key] for key in ("name", *code * (named["name"] == "document"))}
    return stated
