"""Checking a classifier's certificate: the part of `bounds.verify` that knows tasks."""

from pathlib import Path
from typing import Any

from sublora.config import Experiment
from sublora.errors import SubloraError
from sublora.finetune.certificate import contents, evaluate
from sublora.finetune.tasks import load_task


def again(path: Path, certificate: dict[str, Any], message: bytes, experiment: Experiment) -> dict[str, Any]:
    """What the certificate must say, computed from its message, its settings and the data; no model is downloaded for it.

    Raises SubloraError when the data are not here, or are others than the certificate speaks of.
    """
    pool, validation = load_task(experiment.task)
    if pool.sha256 != certificate["corpus"]["sha256"]:
        file = f"use the file it was made from (task.path {experiment.task.path})"
        cure = file if experiment.task.path else "install the versions of the packages that it was made with"
        stated = certificate["corpus"]["sha256"]
        raise SubloraError(
            f"{path}: the certificate speaks of examples with sha256 {stated:.12}, here it is {pool.sha256:.12}; {cure}"
        )
    evaluation = evaluate(message, pool, validation, experiment, local_only=True)
    return contents(message, pool, validation, experiment, evaluation)
