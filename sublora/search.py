"""Which quantization of one trained model has the smallest bound: a scan over levels and quantizers, paid for by the message."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from sublora.atomic import write_text
from sublora.certificate.build import certify
from sublora.errors import SubloraError
from sublora.experiment import Experiment, Finetune, Pretrain, as_experiment
from sublora.experiment.params import as_yaml
from sublora.models import Subspace
from sublora.own import claim
from sublora.problems import TextProblem
from sublora.problems.text import smallest_promise
from sublora.run import alone
from sublora.training.precision import kept_precision


def search(
    problem: TextProblem, model: Subspace, folder: Path, quantizers: Sequence[str], levels: Sequence[int]
) -> tuple[bytes, TextProblem, pd.DataFrame]:
    """Compress the trained `model` in every way and keep the one with the smallest promised bound (`smallest_promise`).

    Each way is the experiment's compression with another quantizer and number of levels. Its fine-tuning, if any, starts from the
    same coordinates, which `model` has again at the end. folder: each way keeps its checkpoints and scores in a folder of its own,
    so an interrupted scan continues.
    Returns the best message (`seal` gives it its alpha), the problem with the experiment that makes it, and the table.
    Raises SubloraError for an unknown quantizer or a number of levels that the message cannot hold.
    """
    trained = model.coordinates.detach().clone()

    def compressed(place: Path, quantizer: str, count: int) -> tuple[bytes, TextProblem]:
        values = problem.experiment.parameters()
        values["compression"] |= {"quantizer": quantizer, "levels": count}
        for key in ("scale", *["entropy_penalty"] * (quantizer != "ecsq")):  # a setting without effect is refused
            values["compression"].pop(key, None)
        changed = as_experiment(values)
        assert isinstance(changed, Pretrain | Finetune)
        way = replace(problem, experiment=changed)
        message, _ = way.compress(place, model)
        with torch.no_grad():
            model.coordinates.copy_(trained)
        return message, way

    ways, columns = list(itertools.product(quantizers, levels)), ("quantizer", "levels")
    message, way, table = smallest_promise(ways, compressed, folder, columns=columns, what="optimize")
    return message, way, table.drop(columns="seconds")


def search_run(
    experiment: Experiment, runs: Path, quantizers: Sequence[str], levels: Sequence[int]
) -> tuple[Path, pd.DataFrame]:
    """`search` of the run `runs/<name>/`, certified as a run of its own, `runs/<name>-optimized/`, with its `trade-off.csv`.

    An unfinished training is finished first. Returns the new run's folder and the table.
    """
    began = time.monotonic()
    if not isinstance(experiment, Pretrain | Finetune):
        raise SubloraError(f"{experiment.name}: optimize tries language models in a subspace, not kind {experiment.kind!r}")
    problem = TextProblem.open(experiment, runs / "corpora")
    trained, folder = runs / experiment.name, runs / f"{experiment.name}-optimized"
    if (folder / "steps.json").exists():
        raise SubloraError(f"{folder}: a run of that name is there; move it away")
    with alone(trained):
        claim(trained)
        model, _ = problem.train(trained)
    claim(folder)
    draft, way, table = search(problem, model, folder / "ways", quantizers, levels)
    searched = time.monotonic() - began
    way = replace(way, experiment=way.experiment.model_copy(update={"name": folder.name}))
    message = way.seal(draft, folder)
    evaluation = way.evaluate(message, folder)
    write_text(folder / "trade-off.csv", table.to_csv(index=False))
    write_text(folder / "params.yaml", as_yaml(way.experiment.parameters()))
    write_text(folder / "metrics.csv", (trained / "metrics.csv").read_text("utf-8"))
    seconds = {**problem.seconds(trained), "optimize": searched, "score": evaluation.seconds}
    certify(way, message, evaluation, seconds, kept_precision(trained)).save(folder / "certificate.json")
    way.measure_beside(folder)
    return folder, table
