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
from sublora.bounds.certificate import contents, promised, seal, write_certificate
from sublora.bounds.evaluation import evaluate
from sublora.compression import Message, compress, encode, shortest
from sublora.config import Experiment
from sublora.data import Split, TokenStore, draw_split, prepare
from sublora.errors import SubloraError
from sublora.models import Subspace, build
from sublora.progress import progress_bar
from sublora.training import pretrain, training_seconds

COLUMNS = ("quantizer", "levels", "coder", "message_bits", "alpha", "empirical", "gap", "bound")


def optimize(
    model: Subspace,
    store: TokenStore,
    split: Split,
    experiment: Experiment,
    folder: Path,
    quantizers: Sequence[str],
    levels: Sequence[int],
) -> tuple[Message, Experiment, pd.DataFrame]:
    """Compress the trained `model` in every way and keep the one with the smallest promised bound (`certificate.promised`).

    Each way is `experiment.compression` with another quantizer and number of levels; its fine-tuning, if any, starts from the same
    coordinates, which `model` has again at the end. The message takes the shortest coder by itself. folder: each way keeps its
    checkpoints and scores in a folder of its own, so that an interrupted scan goes on.
    Returns the best message (`certificate.seal` gives it its alpha), the experiment that makes it, and the table of all ways, in
    the order tried: `COLUMNS`; empirical, gap and bound are promises in bits per token, made by pilot units, at the best alpha.
    Raises SubloraError for an unknown quantizer or a number of levels that the message cannot hold.
    """
    trained = model.coordinates.detach().clone()
    ways = [(quantizer, count) for quantizer in quantizers for count in levels]
    rows, best = [], None
    with progress_bar(total=len(ways), desc="optimize", unit="way") as progress:
        for quantizer, count in ways:
            values = experiment.parameters()
            values["compression"] |= {"quantizer": quantizer, "levels": count}
            way = Experiment.from_parameters(values)
            place = folder / f"{quantizer}-{count}"
            message, _ = compress(model, store, split, way, place)
            with torch.no_grad():
                model.coordinates.copy_(trained)
            data = encode(message)
            entry = min(promised(data, store, split, way, place), key=lambda entry: entry["bound"])
            gap = entry["bound"] - entry["empirical"]
            coder, _ = shortest(message.symbols, message.codebook)
            bits = 8 * len(data)
            rows.append((quantizer, count, coder, bits, entry["alpha"], entry["empirical"], gap, entry["bound"]))
            if best is None or entry["bound"] < best[0]:
                best = entry["bound"], message, way
            progress.update()
    return best[1], best[2], pd.DataFrame(rows, columns=list(COLUMNS))


def optimize_run(
    experiment: Experiment, runs: Path, quantizers: Sequence[str], levels: Sequence[int]
) -> tuple[Path, pd.DataFrame]:
    """`optimize` of the run `runs/<name>/`, certified as a run of its own, `runs/<name>-optimized/`, with its `trade-off.csv`.

    Training goes on first where it is not finished. Returns the new run's folder and the table.
    """
    began = time.monotonic()
    if experiment.task:
        raise SubloraError(f"{experiment.name}: optimize tries language models, not a task's classifier; change its params by hand")
    if experiment.pretrained:
        raise SubloraError(f"{experiment.name}: optimize tries trained subspaces; list more pretrained.bits, and run it")
    store = prepare(experiment.corpus, runs / "corpora")
    split = draw_split(len(store), experiment.corpus)
    model = build(experiment.model, experiment.subspace, store.vocab_size)
    trained, folder = runs / experiment.name, runs / f"{experiment.name}-optimized"
    pretrain(model, store, split, experiment, trained)
    folder.mkdir(parents=True, exist_ok=True)
    message, way, table = optimize(model, store, split, experiment, folder / "ways", quantizers, levels)
    searched = time.monotonic() - began
    way = way.model_copy(update={"name": folder.name})
    data = seal(encode(message), store, split, way, folder / "ways" / f"{way.compression.quantizer}-{way.compression.levels}")
    scores = evaluate(data, store, split, way, folder)
    write_text(folder / "trade-off.csv", table.to_csv(index=False))
    write_text(folder / "params.yaml", yaml.safe_dump(way.parameters(), sort_keys=False))
    shutil.copy(trained / "metrics.csv", folder / "metrics.csv")
    seconds = {**training_seconds(trained), "optimize": searched, "score": scores.seconds}
    write_certificate(folder / "certificate.json", contents(data, store, split, way, scores), seconds)
    return folder, table
