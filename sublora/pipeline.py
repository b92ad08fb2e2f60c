"""An experiment from its params file to its certificate: papermill over its notebooks, finished steps kept."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

import sublora
from sublora.atomic import write_text
from sublora.config import Experiment
from sublora.data.corpora import corpus_identity
from sublora.errors import SubloraError
from sublora.progress import PLAIN

STEPS = "steps.json"
"""In a run's folder: for each notebook its fingerprint, whether it finished, and the files that were there when it did."""


def run(params: Path, runs: Path, notebooks: Path, force: bool = False) -> Path:
    """Execute an experiment's notebooks in order into `runs/<name>/`, and return that folder.

    A notebook that has finished is skipped unless its source, its parameters, the corpus, the package's version or a notebook
    before it has changed, or `force` is set; one that was interrupted goes on from its checkpoints. What a changed one and those
    after it had made is deleted. An executed notebook appears under its name only when it has run to its end.
    Raises SubloraError for an invalid params file, a notebook that does not exist, and what a notebook says is wrong.
    """
    experiment = Experiment.from_file(params)
    sources = [notebooks / f"{name}.ipynb" for name in experiment.notebooks]
    for source in sources:
        if not source.is_file():
            raise SubloraError(f"{params}: key 'notebooks': there is no {source}; name notebooks of that folder")
    folder = runs / experiment.name
    write_text(folder / "params.yaml", yaml.safe_dump(experiment.parameters(), sort_keys=False))
    steps = {} if force else _steps(folder)
    kept, before = ["params.yaml", STEPS], ""
    for source in sources:
        parameters = _declared(source, {**experiment.parameters(), "runs": str(runs.resolve())})
        before = _fingerprint(source, parameters, experiment, before)
        step = steps.get(source.stem, {})
        if step.get("fingerprint") != before:
            _delete_all_but(folder, kept)
            steps = {name: value for name, value in steps.items() if value.get("finished") and name in _before(sources, source)}
        elif step.get("finished") and (folder / source.name).exists():
            print(f"{source.stem}: finished before, kept (--force runs it again)")
            kept = step["files"]
            continue
        steps[source.stem] = {"fingerprint": before, "finished": False}
        write_text(folder / STEPS, json.dumps(steps, indent=1))
        _execute(source, folder, parameters)
        kept = sorted(path.name for path in folder.iterdir())
        steps[source.stem] = {"fingerprint": before, "finished": True, "files": kept}
        write_text(folder / STEPS, json.dumps(steps, indent=1))
    return folder


def _before(sources: list[Path], source: Path) -> list[str]:
    return [earlier.stem for earlier in sources[: sources.index(source)]]


def _declared(source: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Those of `parameters` that the notebook's cell tagged `parameters` assigns: the others are not its business."""
    names = papermill.inspect_notebook(str(source))
    return {name: value for name, value in parameters.items() if name in names}


def _delete_all_but(folder: Path, names: list[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _execute(source: Path, folder: Path, parameters: dict[str, Any]) -> None:
    """Run one notebook with papermill; its output is complete or absent."""
    output, partial = folder / source.name, folder / f".{source.stem}.running.ipynb"
    output.unlink(missing_ok=True)
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    print(f"{source.stem}: running, into {output}")
    with _environment({PLAIN: "1"}):
        try:
            papermill.execute_notebook(
                str(source),
                str(partial),
                parameters,
                cwd=str(source.parent),
                kernel_name="python3",
                progress_bar=False,
                log_output=True,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
            _keep_last_lines(partial)
            os.replace(partial, output)
        except PapermillExecutionError as error:
            if error.ename in ("SubloraError", "MessageError"):
                raise SubloraError(error.evalue) from None
            failed = folder / f"{source.stem}.failed.ipynb"
            os.replace(partial, failed)
            raise SubloraError(f"{source}: {error.ename}: {error.evalue.splitlines()[0]:.200} (see {failed})") from error
        except OSError as error:
            why = error.strerror or error
            raise SubloraError(f"{output}: cannot write ({why}); free space or choose another folder") from error
        finally:
            partial.unlink(missing_ok=True)


def _keep_last_lines(path: Path) -> None:
    """Of every progress bar in a notebook's outputs, keep only how it stood at the end."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
    nbformat.write(notebook, path)


def _fingerprint(source: Path, parameters: dict[str, Any], experiment: Experiment, before: str) -> str:
    """SHA-256 of what a step depends on: the notebook's code, the parameters, the corpus, the version, the step before."""
    cells = [cell.source for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "code"]
    facts = [cells, parameters, corpus_identity(experiment.corpus), sublora.__version__, before]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _steps(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        steps = json.loads((folder / STEPS).read_text("utf-8"))
        return steps if isinstance(steps, dict) else {}
    except (OSError, ValueError):  # nothing was begun here yet, or nothing that can be relied on
        return {}


@contextlib.contextmanager
def _environment(values: dict[str, str]):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
