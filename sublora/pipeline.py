"""An experiment from its params file to its certificate: papermill over its notebooks, finished steps kept."""

import ast
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets import default

import sublora
from sublora.atomic import write_text
from sublora.errors import SubloraError, cannot_write, one_line, printable
from sublora.experiment import Experiment, load_experiments
from sublora.own import claim, delete_all_but, delete_leftovers, forget, note, noted
from sublora.problems import problem_class
from sublora.progress import PLAIN
from sublora.run import alone, changed_settings, in_words, of_training, read_kept, write_params
from sublora.study import study_folder

STEPS = "steps.json"
"""In a run's folder: for each notebook its fingerprint, whether it finished, and the files of the run when it did."""
PARAMETERS = "parameters"
"""The tag of the cell whose assignments papermill replaces."""


def run(
    params: Path, runs: Path, notebooks: Path, force: bool = False, overrides: Iterable[str] = ()
) -> Iterator[Path]:
    """Execute the notebooks of each experiment of a params file in order into `runs/<name>/`; yields each finished folder.

    overrides: `key=value`, for all experiments.
    A notebook that has finished is skipped unless its code, its parameters, the corpus, the package's version or a notebook
    before it has changed, or `force` is set; one that was interrupted goes on from its checkpoints. What a changed one and those
    after it had made is deleted, and nothing else (`sublora.own`). An executed notebook appears under its name only when it has
    run to its end. An experiment that is refused before anything is made leaves no folder.
    Notebooks run in the current folder: a relative path in the params file means the same to them as to `sublora verify`.
    Raises SubloraError for an invalid params file, a notebook that does not exist or does not take the parameters, a folder that
    is not a run's, and what a notebook says is wrong.
    """
    for experiment in load_experiments(params, overrides):
        sources = [notebooks / f"{name}.ipynb" for name in experiment.notebooks]
        for source in sources:
            if not source.is_file():
                there_are = ", ".join(sorted(path.stem for path in notebooks.glob("*.ipynb"))) or "none at all"
                raise SubloraError(f"{params}: key 'notebooks': there is no {source}; there are: {there_are}")
        yield _run(experiment, sources, runs, force)


def _run(experiment: Experiment, sources: list[Path], runs: Path, force: bool) -> Path:
    folder, corpus = runs / experiment.name, problem_class(experiment).identity(experiment)
    new = not folder.exists()
    if new:
        problem_class(experiment).refuse_base(experiment)
    given = {**experiment.parameters(), "runs": _seen_from_the_study(runs)}
    cells = [_code(source) for source in sources]
    taken = [_taken(source, code, given) for source, code in zip(sources, cells, strict=True)]
    with alone(folder):
        claim(folder)
        delete_leftovers(folder)
        if changed := changed_settings(folder, experiment):
            print(printable(f"{experiment.name}: {in_words(changed)}; replacing the run"), flush=True)
        write_params(folder, experiment)
        steps = {} if force else read_kept(folder / STEPS, json.loads)
        trained = bool(changed) and all(key.startswith("bounds.") for key in changed)
        kept, before = ["params.yaml", STEPS, *(name for name in noted(folder) if trained and of_training(name))], ""
        for index, (source, code, parameters) in enumerate(zip(sources, cells, taken, strict=True)):
            before = _fingerprint(code, parameters, corpus, before)
            step = steps.get(source.stem)
            if not isinstance(step, dict) or step.get("fingerprint") != before:
                delete_all_but(folder, kept)
                steps = {earlier.stem: steps[earlier.stem] for earlier in sources[:index]}
            elif isinstance(step.get("files"), list) and (folder / source.name).exists():
                print(f"{source.stem}: finished before, kept (--force runs it again)", flush=True)
                kept = step["files"]
                continue
            steps[source.stem] = {"fingerprint": before, "finished": False}
            write_text(folder / STEPS, json.dumps(steps, indent=1))
            try:
                _execute(source, folder, parameters)
            except _Refused:
                if new and {name for name in noted(folder) if (folder / name).exists()} <= {"params.yaml", STEPS}:
                    forget(folder)
                raise
            kept = noted(folder)
            steps[source.stem] = {"fingerprint": before, "finished": True, "files": kept}
            write_text(folder / STEPS, json.dumps(steps, indent=1))
    return folder


class _Refused(SubloraError):
    """What the package said inside a notebook is wrong."""


def _seen_from_the_study(folder: Path) -> str:
    """A path as notebooks see it: relative inside the study, so that executed notebooks do not name this machine's folders."""
    folder, study = folder.resolve(), study_folder().resolve()
    return str(folder.relative_to(study) if folder.is_relative_to(study) else folder)


def _code(source: Path) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook. Raises SubloraError for a file that is none."""
    try:
        notebook = nbformat.convert(nbformat.reader.reads(source.read_text("utf-8")), 4)
        nbformat.validate(nbformat.validator.normalize(notebook)[1])
        return [cell for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:  # nbformat raises many kinds on what is no notebook
        raise SubloraError(f"{source}: not a notebook ({one_line(error)}); save it in Jupyter again") from None


def _taken(source: Path, code: list[nbformat.NotebookNode], given: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a notebook takes: those that its cell tagged `parameters` assigns.

    They are the run's name and folder, or all that is given: a notebook that left some out would run on its defaults.
    Raises SubloraError naming the notebook and the tag or the parameters.
    """
    cell = next((cell for cell in code if PARAMETERS in cell.metadata.get("tags", [])), None)
    if cell is None:
        raise SubloraError(f"{source}: no code cell has the tag `{PARAMETERS}`; give it to the cell that assigns name and runs")
    try:
        body = ast.parse(cell.source).body
    except SyntaxError as error:
        raise SubloraError(f"{source}: the cell tagged `{PARAMETERS}` is not plain Python ({error.msg})") from None
    assigned = [target for node in body for target in getattr(node, "targets", [getattr(node, "target", None)])]
    names = {target.id for target in assigned if isinstance(target, ast.Name)}
    needed = {"name", "runs"} if names.isdisjoint(given.keys() - {"name", "runs"}) else given.keys() - {"notebooks"}
    if missing := sorted(needed - names):
        why = f"the cell tagged `{PARAMETERS}` does not assign {', '.join(missing)}"
        raise SubloraError(f"{source}: {why}; let it assign all keys of the experiment, or name and runs alone")
    return {name: value for name, value in given.items() if name in names}


class _OwnKernel(AsyncKernelManager):
    """Kernels of this very interpreter: a `python3` that Jupyter knows from elsewhere may lack the package."""

    @default("kernel_spec_manager")
    def _no_other_kernels(self):
        return KernelSpecManager(parent=self, kernel_dirs=[])

    def start_kernel(self, *arguments: Any, **options: Any) -> Any:
        """Progress bars come out here: as wide as the terminal, or rarely if there is none."""
        columns, seconds = (shutil.get_terminal_size().columns - 1, "0.5") if sys.stderr.isatty() else (100, "30")
        bars = {PLAIN: "1", "TQDM_NCOLS": str(columns), "TQDM_MININTERVAL": seconds}
        return super().start_kernel(*arguments, env=os.environ | bars, **options)


class _Relay:
    """Passes a notebook's output on, which must not steer the terminal, and can end a line that a progress bar has left open."""

    def __init__(self, stream: TextIO, keep: str):
        self.stream, self.flush, self.last, self.keep = stream, stream.flush, "\n", keep

    def write(self, text: str) -> None:
        self.stream.write(printable(text, self.keep))
        self.last = text[-1:] or self.last

    def end_line(self) -> None:
        if self.last != "\n":
            self.write("\n")


def _execute(source: Path, folder: Path, parameters: dict[str, Any]) -> None:
    """Run one notebook with papermill; its output is complete or absent."""
    output, partial, failed = (folder / name for name in (source.name, f".{source.name}", f"{source.stem}.failed.ipynb"))
    for path in (output, partial, failed):
        note(path)
        path.unlink(missing_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    print(printable(f"{source.stem}: running, into {output}"), flush=True)
    out, err = _Relay(sys.stdout, "\n\t"), _Relay(sys.stderr, "\n\t\r\x1b")  # bars below bars move up by ESC
    try:
        papermill.execute_notebook(
            _literal(_from_here(source)),
            _literal(_from_here(partial)),
            parameters,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_OwnKernel,
            extra_arguments=["--log-level=CRITICAL"],
            coalesce_streams=True,  # of a bar, the notebook keeps how it stood at the end
            progress_bar=False,
            stdout_file=out,
            stderr_file=err,
        )
        os.replace(partial, output)
    except PapermillExecutionError as error:
        if error.ename in ("SubloraError", "MessageError"):
            raise _Refused(error.evalue) from None
        os.replace(partial, failed)
        reason = one_line(f"{error.ename}: {error.evalue}", 300)
        raise SubloraError(f"{source}: {reason} (see {failed})") from None
    except DeadKernelError:
        advice = "is there enough memory? The same command goes on from the last checkpoint"
        raise SubloraError(f"{source}: its Python process was killed; {advice}") from None
    except OSError as error:
        raise cannot_write(error.filename or output, error) from error
    finally:
        out.end_line()
        err.end_line()
        partial.unlink(missing_ok=True)


def _from_here(path: Path) -> Path:
    """Relative to the current folder, if it is below: papermill writes the path into the notebook, which others may read."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _literal(path: Path) -> str:
    """A path as papermill takes it: braces would be filled in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _fingerprint(code: list[nbformat.NotebookNode], parameters: dict[str, Any], corpus: dict[str, Any], before: str) -> str:
    """SHA-256 of what a step depends on: the notebook's code, the parameters, the corpus, the version, the step before."""
    facts = [[cell.source for cell in code], parameters, corpus, sublora.__version__, before]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
