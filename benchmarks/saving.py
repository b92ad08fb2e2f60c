"""How much smaller a run's message is than quantization after training: uniform levels and static counts, at equal validation loss.

The run's trained coordinates (read from its checkpoint) are quantized to more and more uniform levels, and nothing adapts; each
message is measured beside the run's own. Columns of the csv: way, levels, message_bits, validation_loss (bits per token).

    python benchmarks/saving.py [params/quick.yaml] [--out results/saving.csv]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import sublora  # noqa: F401  before torch: it sets the threading

import torch  # isort: skip

from sublora.atomic import write_text
from sublora.compression import encode_symbols, quantize, shortest
from sublora.experiment import ALPHA_GRID, load_experiment
from sublora.message import Coded
from sublora.message.language import Message, decode, encode
from sublora.problems import TextProblem
from sublora.progress import progress_bar
from sublora.training import Sampler
from sublora.training.loop import validation_loss

LEVELS = (3, 4, 5, 7, 9, 11, 13, 15, 19, 23, 31, 47, 63)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("params", nargs="?", default="params/quick.yaml")
    parser.add_argument("--out", default="results/saving.csv")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    wanted = parser.parse_args()
    experiment = load_experiment(wanted.params)
    problem, folder = TextProblem.open(experiment, wanted.runs / "corpora"), wanted.runs / experiment.name
    model, _ = problem.train(folder)
    trained = model.coordinates.detach().cpu().numpy().copy()
    data, _ = problem.compress(folder, model)
    coded = decode(data, len(trained), shapes=lambda _: model.groups).coded

    watched = problem.split.validation[: experiment.training.validation_documents]
    batch = Sampler(problem.store, watched, experiment.model.block, experiment.training.sampling, 0).first_windows()
    device = model.coordinates.device
    exactly = torch.autocast(device.type, enabled=False)

    def loss(coordinates: np.ndarray) -> float:
        with torch.no_grad():
            model.coordinates.copy_(torch.from_numpy(coordinates))
        return validation_loss(exactly, model, batch, experiment.training.batch)

    own = 8 * len(data), loss(coded.coordinates)
    rows = [("the run's message", len(coded.codebook), *own), ("not quantized", 0, 32 * len(trained), loss(trained))]
    for levels in progress_bar(LEVELS, desc="levels", unit="way"):
        codebook, symbols = after = Coded(*quantize(trained, "uniform", levels, 0.0))
        size = len(encode(Message(experiment.subspace, ALPHA_GRID[0], after)))
        static = len(encode_symbols(symbols, len(codebook), "static", codebook)) - len(shortest(symbols, codebook)[1])
        rows.append(("uniform after training", levels, 8 * (size + static), loss(after.coordinates)))
    frame = pd.DataFrame(rows, columns=["way", "levels", "message_bits", "validation_loss"])
    write_text(wanted.out, frame.to_csv(index=False))
    print(frame.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    good = frame[(frame["way"] == "uniform after training") & (frame["validation_loss"] <= own[1] + 0.01)]
    if good.empty:
        print("no number of uniform levels reaches the run's loss")
    else:
        least = good["message_bits"].min()
        saved = f"{100 * (1 - own[0] / least):.0f}% smaller"
        print(f"{saved} than the smallest of these that comes within 0.01 bits of its loss ({least:,} bits)")


if __name__ == "__main__":
    main()
