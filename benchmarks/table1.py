"""The grid behind `params/table1/`: for each parametrization, which rank, dimension and levels promise the smallest bound.

Each point trains for a part of the steps that its params file says, adapts to its levels, and is judged by pilot documents
(`TextProblem.promised`) by the paper's inequality, for independent documents, at its best smoothing weight. Rank,
dimension, levels and smoothing weight are in the message, so they are paid for; steps and rates are the search, which is free.

    python benchmarks/table1.py [--share 0.5] [--out results/table1-grid.csv]
"""

import argparse
from pathlib import Path

import pandas as pd

import sublora  # noqa: F401
from sublora.atomic import write_text
from sublora.experiment import Experiment, as_experiment, load_experiment
from sublora.problems import TextProblem
from sublora.progress import progress_bar

GRID = {
    "sublora": [{"rank": 4, "dimension": d, "levels": levels} for d in (484, 961, 1936) for levels in (3, 4)],
    "subspace": [{"dimension": d, "levels": levels} for d in (484, 961, 1936) for levels in (3, 4)],
    "lora": [{"rank": rank, "levels": levels} for rank in (1, 4) for levels in (2, 3, 4)],
    "full": [{"levels": levels} for levels in (2, 3, 16)],
}
COLUMNS = ("method", "rank", "dimension", "levels", "coordinates", "message_bits", "alpha", "empirical", "bound", "vacuous_at")


def at(experiment: Experiment, point: dict[str, int], share: float) -> Experiment:
    """The experiment at a point of the grid, with so large a share of its steps."""
    values = experiment.parameters()
    values["subspace"] |= {name: value for name, value in point.items() if name != "levels"}
    values["compression"] |= {"levels": point["levels"], "finetune_steps": round(share * experiment.compression.finetune_steps)}
    values["training"]["steps"] = round(share * experiment.training.steps)
    return as_experiment(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(GRID), help="which, separated by commas")
    parser.add_argument("--share", type=float, default=0.5, help="of the steps in the params files")
    parser.add_argument("--out", default="results/table1-grid.csv")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    wanted = parser.parse_args()
    rows = []
    points = [(method, point) for method in wanted.methods.split(",") for point in GRID[method]]
    for method, point in progress_bar(points, desc="grid", unit="point"):
        experiment = at(load_experiment(f"params/table1/{method}.yaml"), point, wanted.share)
        problem = TextProblem.open(experiment, wanted.runs / "corpora")
        trained = wanted.runs / "table1-grid" / "-".join([method, *(f"{v}" for k, v in point.items() if k != "levels")])
        model, _ = problem.train(trained)  # once for all levels: the second call reads the checkpoint
        folder = trained / f"levels-{point['levels']}"
        message, _ = problem.compress(folder, model)
        entry = min(problem.promised(message, folder, by=("iid", "hoeffding")), key=lambda entry: entry.bound)
        facts = {name: getattr(entry, name) for name in ("alpha", "empirical", "bound", "vacuous_at")}
        coordinates = model.coordinates.numel()
        rows.append({"method": method, **point, "coordinates": coordinates, "message_bits": 8 * len(message), **facts})
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype({"rank": "Int64", "dimension": "Int64"})
    write_text(wanted.out, frame.to_csv(index=False))
    print(frame.to_string(index=False))
    print(f"written: {wanted.out}")


if __name__ == "__main__":
    main()
