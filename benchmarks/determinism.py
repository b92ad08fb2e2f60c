"""By how much scores of one model move between machines: threads, batches, kernels of the processor, versions of torch.

Each certificate's model is decoded and scored on some hundred training units, drawn as `verify` draws them, once as this machine
does it and once for each change. A row of the table is a model, a kind of loss and a change: the largest difference of a unit's
loss (in bits per token over all smoothing weights, or as an error), and that of the mean over the units, which bounds hold.

    python benchmarks/determinism.py [CERTIFICATE ...] [--python ANOTHER/bin/python] [--units 300] [--out results/determinism.csv]

Without certificates: those in results/ whose data are here. --python: an interpreter with another version of torch.
"""

# ruff: noqa: I001  (sublora comes before torch: it sets how threads wait)
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import sublora  # noqa: F401
import torch
from sublora.certificate.schema import load_certificate
from sublora.certificate.statements import expected_losses, metrics, token_losses
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.inequalities.smoothing import document_means
from sublora.problems import LabelProblem, problem_class
from sublora.progress import progress_bar
from sublora.reporting.results import DETERMINISM

KEPT = ("quick", "quick-tokens", "table1/*", "glue/*", "pretrained/*", "structured/*")
TOKENS_FOR_A_UNIT = 4
"""At token level so many tokens stand for a unit: each is read in a window of its own."""
TWO = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def kernels(torch_name: str, mkl: str, onednn: str) -> dict[str, str]:
    """The environment that keeps torch and its libraries to the instructions of an older processor."""
    return {"ATEN_CPU_CAPABILITY": torch_name, "MKL_ENABLE_INSTRUCTIONS": mkl, "ONEDNN_MAX_CPU_ISA": onednn}


AVX2, PLAIN = kernels("avx2", "AVX2", "AVX2"), kernels("default", "SSE4_2", "SSE41")
CHANGES = {"one thread": ONE, "small batches": {**TWO, "BATCH": "512"}, "AVX2": {**TWO, **AVX2}, "no AVX": {**TWO, **PLAIN}}


def losses(path: Path, units: int, batch: int | None) -> dict[str, np.ndarray]:
    """The losses of the first certificate's units by the name of a metric: float64 (units,)."""
    experiment = as_experiment(load_certificate(path).params, str(path))
    problem = problem_class(experiment).open(experiment, Path("runs/corpora"))
    message = load_certificate(path).message_bytes
    if isinstance(problem, LabelProblem):
        return {"error": (problem.evaluate(message).training != problem.training.labels).astype(float)}
    few = {"documents": units, "sequences": units, "tokens": TOKENS_FOR_A_UNIT * units, "pilot": 1e-9, "held_out_documents": 1}
    bounds = problem.experiment.bounds
    few["batch_tokens"] = batch or bounds.batch_tokens
    problem.experiment = problem.experiment.model_copy(update={"bounds": bounds.model_copy(update=few)})
    found = {}
    for level, scores in problem.evaluate(message).training.items():
        for of in metrics(problem.store.vocab_size):
            name = f"{level} {of.name} {of.alpha}"
            found[name] = document_means(token_losses(scores, of, problem.store.vocab_size), scores.offsets)
            if level == "token":
                found[f"expected {name}"] = expected_losses(scores, of)
    return found


def scored(paths: list[Path], units: int, python: str, environment: dict[str, str]) -> tuple[str, list[dict[str, np.ndarray]]]:
    """(version of torch, `losses` of each certificate), computed by a process of its own."""
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    if python != sys.executable:  # its own packages come first
        settings["PYTHONPATH"] = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        command = [python, __file__, *map(str, paths), "--units", str(units), "--out", folder, "--worker"]
        version = subprocess.run(command, env=settings, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
        found = []
        for index in range(len(paths)):
            with np.load(Path(folder) / f"{index}.npz") as arrays:
                found.append(dict(arrays))
    return version, found


def differences(model: str, change: str, here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> list[tuple]:
    """Rows of the table: one for losses in bits, one for errors, where the model has them."""
    rows = []
    for kind, names in (("bits", [n for n in here if "bpd" in n]), ("errors", [n for n in here if "error" in n])):
        if names:
            moved = [np.abs(here[name] - there[name]).max() for name in names]
            means = [abs(here[name].mean() - there[name].mean()) for name in names]
            rows.append((model, kind, change, max(moved), max(means), len(here[names[0]])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("certificates", nargs="*", type=Path)
    parser.add_argument("--python", help="an interpreter with another version of torch")
    parser.add_argument("--units", type=int, default=300)
    parser.add_argument("--out", default="results/determinism.csv")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.worker:
        batch = int(os.environ["BATCH"]) if "BATCH" in os.environ else None
        for index, path in enumerate(wanted.certificates):
            np.savez(Path(wanted.out) / f"{index}.npz", **losses(path, wanted.units, batch))
        print(torch.__version__)
        return
    paths = wanted.certificates or [path for name in KEPT for path in sorted(Path("results").glob(f"{name}/certificate.json"))]
    there = []
    for path in paths:
        try:
            experiment = as_experiment(load_certificate(path).params, str(path))
            problem_class(experiment).identity(experiment)
            there.append(path)
        except SubloraError as error:
            print(f"left out: {error}")
    jobs = [("here", sys.executable, TWO), *((name, sys.executable, each) for name, each in CHANGES.items())]
    if wanted.python:
        jobs += [("torch", wanted.python, TWO), ("torch, one thread, no AVX", wanted.python, {**ONE, **PLAIN})]
    rows, base = [], []
    for name, python, environment in progress_bar(jobs, desc="determinism", unit="change"):
        version, found = scored(there, wanted.units, python, environment)
        if name == "here":
            base = found
            continue
        change = name.replace("torch", f"torch {version.split('+')[0]}", 1)
        for path, one, other in zip(there, base, found, strict=True):
            rows += differences(path.parent.as_posix().removeprefix("results/"), change, one, other)
    frame = pd.DataFrame(rows, columns=list(DETERMINISM))
    frame.to_csv(wanted.out, index=False, float_format="%.3g")
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
