"""Runs as the report sees them: a certificate that has been checked, and the training log beside it."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sublora.certificate.schema import Certificate, load_certificate
from sublora.errors import SubloraError
from sublora.reporting.published import METHODS
from sublora.reporting.results import load_metrics, results_folder

RUN_FILES = ("certificate.json", "params.yaml", "metrics.csv")  # a folder with any of these is a run, if unfinished
GROUPS = ("table1", "figure1", "glue", "structured", "pretrained", "finetune", "ngram", "tokens", "tasks", "ablation", "arrow",
          "paper", "experiments")  # fmt: skip
"""The folders of kept certificates in results/."""
CHOSEN = "SUBLORA_CHOSEN"
"""The variable that names the folders of the runs that the report is about, as a list in JSON, if it is not about all."""
NOTEBOOKS = ("pretrain", "bounds", "glue", "pretrained")  # in the order of a run; the last one there made the certificate


@dataclass(frozen=True)
class KeptRun:
    """One finished run: its folder, its checked certificate, and its training log (None where there is none)."""

    name: str
    path: Path
    certificate: Certificate
    metrics: pd.DataFrame | None

    @property
    def label(self) -> str:
        """The name, after that of the group it is kept in, if any: `table1/sublora`."""
        parent = self.path.resolve().parent
        grouped = parent.name in GROUPS and parent.parent == results_folder().resolve()
        return f"{parent.name}/{self.name}" if grouped else self.name

    @property
    def notebooks(self) -> list[Path]:
        """The executed notebooks that lie in the folder, in the order in which they ran."""
        return [path for path in (self.path / f"{name}.ipynb" for name in NOTEBOOKS) if path.is_file()]

    @property
    def pages(self) -> list[str]:
        """The report's page of each notebook, such as `notebooks/table1-sublora-bounds.qmd`; no two runs share one."""
        group, _, name = self.label.rpartition("/")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):  # it would mean something in a link
            name = hashlib.sha256(name.encode()).hexdigest()[:12]
        if not group and name.split("-")[0] in (*GROUPS, "run"):  # it might be the name of a run in that group
            group = "run"
        return [f"notebooks/{group}{'-' * bool(group)}{name}-{path.stem}.qmd" for path in self.notebooks]

    @property
    def page(self) -> str | None:
        """The page of the notebook that made the certificate, or None where it was not kept."""
        return self.pages[-1] if self.notebooks else None


def load_runs(*folders: str | os.PathLike) -> tuple[list[KeptRun], list[str]]:
    """Every run in `folders` (`<folder>/<name>/certificate.json`), by name, and one line for each thing left out.

    Nothing here raises: a certificate that cannot be read is skipped, and the second list says which and why.
    """
    runs: list[KeptRun] = []
    skipped: list[str] = []
    for path in sorted(child for folder in folders if Path(folder).is_dir() for child in Path(folder).iterdir()):
        if not any((path / name).exists() for name in RUN_FILES):
            continue  # prepared corpora lie in the same folder
        try:
            runs.append(_run(path, skipped))
        except SubloraError as error:
            skipped.append(str(error))
    return runs, skipped


def _run(path: Path, skipped: list[str]) -> KeptRun:
    """The run in a folder. What its log lacks goes to `skipped`. Raises SubloraError for a certificate that cannot be read."""
    certificate, metrics = load_certificate(path / "certificate.json"), None
    try:
        if "training" in certificate.params:
            metrics = load_metrics(path / "metrics.csv")
    except SubloraError as error:
        skipped.append(str(error))
    return KeptRun(path.name, path, certificate, metrics)


def these_runs(folders: Sequence[str | os.PathLike]) -> tuple[list[KeptRun], list[str]]:
    """The runs in these folders, in this order, and one line for each log that cannot be read.

    Raises SubloraError for a folder without a certificate that can be read, and for two runs with one name.
    """
    runs: list[KeptRun] = []
    skipped: list[str] = []
    for given in folders:
        folder = Path(given).resolve()
        if not (folder / "certificate.json").is_file():
            raise SubloraError(f"{given}: holds no certificate.json; give the folder of a finished run, such as runs/quick")
        run = _run(folder, skipped)
        if same := [other for other in runs if other.label == run.label]:
            raise SubloraError(f"{given}: has the name of {same[0].path}, and a report tells runs by name; rename one")
        runs.append(run)
    return runs, skipped


def chosen() -> list[str]:
    """The folders that `CHOSEN` names; none where the report is about all runs."""
    return json.loads(os.environ.get(CHOSEN, "[]"))


def runs_for_pages() -> tuple[list[KeptRun], list[str]]:
    """`these_runs` that `CHOSEN` names. Where it names none, `some_runs` of the folder that SUBLORA_RUNS names, or `../runs` beside
    the report's project, and of what is kept in results.

    Runs that are kept in one of the `GROUPS` are then left to the pages that show those.
    """
    if folders := chosen():
        return these_runs(folders)
    runs, skipped = some_runs(os.environ.get("SUBLORA_RUNS", "../runs"), results_folder())
    kept = {run.certificate.certificate_sha256 for group in GROUPS for run in load_runs(results_folder() / group)[0]} - {""}
    return [run for run in runs if run.certificate.certificate_sha256 not in kept] or runs, skipped


def some_runs(folder: str | os.PathLike, results: str | os.PathLike) -> tuple[list[KeptRun], list[str]]:
    """`load_runs` of a folder of runs, and those kept in `results` that are not in it by that name.

    Raises SubloraError when there is no readable run at all.
    """
    runs, skipped = load_runs(folder)
    kept, skipped_kept = load_runs(results)
    names, skipped = {run.name for run in runs}, skipped + skipped_kept
    runs = sorted([*runs, *(run for run in kept if run.name not in names)], key=lambda run: run.name)
    if not runs:
        reasons = f" ({len(skipped)} unreadable; the first: {skipped[0]})" if skipped else ""
        raise SubloraError(f"{folder}: no finished run{reasons}; run `sublora run params/quick.yaml` first")
    return runs, skipped


def headline_run(runs: list[KeptRun]) -> KeptRun:
    """The run the report opens with: the first that was chosen; where none was, `quick` if it is there, else the first."""
    return runs[0] if chosen() else next((run for run in runs if run.name == "quick"), runs[0])


def kept_runs(group: str) -> tuple[list[KeptRun], list[str]]:
    """The certificates and logs kept in `results/<group>/<name>/`, as runs, and one line for each thing left out or missing.

    By name, but those named as the paper's methods in its order.
    """
    runs, skipped = load_runs(results_folder() / group)
    if not runs and not skipped:
        target = "paper" if group == "experiments" else group
        skipped = [f"{results_folder() / group}: no certificates; run `make {target}`"]
    return sorted(runs, key=lambda run: list(METHODS).index(run.name) if run.name in METHODS else 0), skipped
