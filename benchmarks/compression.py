"""Rate, distortion and promised bound of every combination of quantizer, levels and coder on one trained model.

The coordinates are those of a small run on the embedded corpus, trained once into --runs; nothing is fine-tuned, so that the ways
are compared on the same numbers. The bound is what pilot documents promise (`TextProblem.promised`), at the best alpha.
Columns of the csv: those of `compression.comparison.rate_distortion`, and for each message its bits, alpha, loss on the pilot,
and bound (the same for all coders of a way, since a message takes the shortest).

    python benchmarks/compression.py [--out results/compression.csv]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

import sublora  # noqa: F401
from sublora.atomic import write_text
from sublora.compression import QUANTIZERS
from sublora.compression.comparison import LEVELS, rate_distortion
from sublora.experiment import as_experiment
from sublora.problems import TextProblem
from sublora.progress import progress_bar

SETTINGS = {
    "name": "compression-benchmark",
    "corpus": {"source": "python-packages", "train": 0.7, "split_seed": 3},
    "model": {"layers": 2, "heads": 4, "width": 128, "block": 128},
    "subspace": {"dimension": 961, "rank": 4, "lora_dropout": 0.0},
    "training": {"steps": 600, "batch": 32, "learning_rate": 0.04, "min_learning_rate": 0.004},
    "bounds": {"documents": 6000, "pilot": 0.05},
}
PENALTY = 0.05  # of entropy, for ecsq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="results/compression.csv")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    wanted = parser.parse_args()
    experiment = as_experiment(SETTINGS)
    problem, folder = TextProblem.open(experiment, wanted.runs / "corpora"), wanted.runs / experiment.name
    model, _ = problem.train(folder)
    values = model.coordinates.detach().cpu().numpy()
    parts = []
    ways = [(quantizer, levels) for quantizer in QUANTIZERS for levels in LEVELS]
    for quantizer, levels in progress_bar(ways, desc="ways", unit="way"):
        changed = experiment.parameters()
        changed["compression"] = {"quantizer": quantizer, "levels": levels}
        if quantizer == "ecsq":
            changed["compression"]["entropy_penalty"] = PENALTY
        way = replace(problem, experiment=as_experiment(changed))
        message, _ = way.compress(folder, model)
        entry = min(way.promised(message, folder / f"{quantizer}-{levels}"), key=lambda entry: entry.bound)
        table = rate_distortion(values, (quantizer,), (levels,), PENALTY)
        facts = {name: getattr(entry, name) for name in ("alpha", "empirical", "bound")}
        parts.append(table.assign(message_bits=8 * len(message), **facts))
    frame = pd.concat(parts).drop_duplicates(["quantizer", "levels", "coder"])
    write_text(wanted.out, frame.to_csv(index=False))
    print(frame.sort_values("bound").head(12).to_string(index=False))
    print(f"written: {wanted.out}")


if __name__ == "__main__":
    main()
