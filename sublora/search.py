"""Which quantization of one trained model has the smallest bound: a scan over levels and quantizers, paid for by the message alone.

Everything scanned is in the message (the levels, the symbols, how they are coded, the smoothing weight), and it is judged by pilot
units that are drawn independently of those that certify the winner. So the scan may be as wide as one likes.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import yaml

from sublora.atomic import write_text
from sublora.certificate.build import certify
from sublora.errors import SubloraError
from sublora.experiment import Experiment, Finetune, Pretrain, as_experiment
from sublora.models import Subspace
from sublora.problems import TextProblem
from sublora.progress import progress_bar

COLUMNS = ("quantizer", "levels", "message_bits", "alpha", "empirical", "gap", "bound")


def search(
    problem: TextProblem, model: Subspace, folder: Path, quantizers: Sequence[str], levels: Sequence[int]
) -> tuple[bytes, TextProblem, pd.DataFrame]:
    """Compress the trained `model` in every way and keep the one with the smallest promised bound.

    Each way is the experiment's compression with another quantizer and number of levels. Its fine-tuning, if any, starts from the
    same coordinates, which `model` has again at the end. folder: each way keeps its checkpoints and scores in a folder of its own,
    so an interrupted scan continues.
    Returns the best message (`seal` gives it its alpha), the problem with the experiment that makes it, and the table of all ways
    in the order tried: `COLUMNS`; empirical, gap and bound are promises in bits per token, made by pilot units, at the best alpha.
    Raises SubloraError for an unknown quantizer or a number of levels that the message cannot hold.
    """
    trained = model.coordinates.detach().clone()
    ways = [(quantizer, count) for quantizer in quantizers for count in levels]
    rows: list[tuple] = []
    best: tuple[float, bytes, TextProblem] | None = None
    with progress_bar(total=len(ways), desc="optimize", unit="way") as progress:
        for quantizer, count in ways:
            values = problem.experiment.parameters()
            values["compression"] |= {"quantizer": quantizer, "levels": count}
            changed = as_experiment(values)
            assert isinstance(changed, Pretrain | Finetune)
            way = TextProblem(changed, problem.store, problem.split)
            place = folder / f"{quantizer}-{count}"
            data, _ = way.compress(place, model)
            with torch.no_grad():
                model.coordinates.copy_(trained)
            entry = min(way.promised(data, place), key=lambda entry: entry.bound)
            gap = entry.bound - entry.empirical
            rows.append((quantizer, count, 8 * len(data), entry.alpha, entry.empirical, gap, entry.bound))
            if best is None or entry.bound < best[0]:
                best = entry.bound, data, way
            progress.update()
    assert best is not None
    return best[1], best[2], pd.DataFrame(rows, columns=list(COLUMNS))


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
    model, _ = problem.train(trained)
    folder.mkdir(parents=True, exist_ok=True)
    message, way, table = search(problem, model, folder / "ways", quantizers, levels)
    searched = time.monotonic() - began
    way, compression = way.renamed(folder.name), way.experiment.compression
    message = way.seal(message, folder / "ways" / f"{compression.quantizer}-{compression.levels}")
    evaluation = way.evaluate(message, folder)
    write_text(folder / "trade-off.csv", table.to_csv(index=False))
    write_text(folder / "params.yaml", yaml.safe_dump(way.experiment.parameters(), sort_keys=False))
    shutil.copy(trained / "metrics.csv", folder / "metrics.csv")
    seconds = {**problem.seconds(trained), "optimize": searched, "score": evaluation.seconds}
    certify(way, message, evaluation, seconds).save(folder / "certificate.json")
    return folder, table
