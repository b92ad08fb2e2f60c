"""An experiment from its params file to its certificate: papermill over its notebooks, finished steps kept."""

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
from sublora.errors import SubloraError
from sublora.experiment import Experiment, load_experiments
from sublora.problems import problem_class
from sublora.progress import PLAIN
from sublora.run import alone, changed_settings, delete_all_but, in_words, read_kept, write_params
from sublora.study import study_folder

STEPS = "steps.json"
"""In a run's folder: for each notebook its fingerprint, whether it finished, and the files that were there when it did."""


def run(
    params: Path, runs: Path, notebooks: Path, force: bool = False, overrides: Iterable[str] = ()
) -> Iterator[Path]:
    """Execute the notebooks of each experiment of a params file in order into `runs/<name>/`; yields each finished folder.

    overrides: `key=value`, for all experiments.
    A notebook that has finished is skipped unless its code, its parameters, the corpus, the package's version or a notebook
    before it has changed, or `force` is set; one that was interrupted goes on from its checkpoints. What a changed one and those
    after it had made is deleted. An executed notebook appears under its name only when it has run to its end.
    Notebooks run in the current folder: a relative path in the params file means the same to them as to `sublora verify`.
    Raises SubloraError for an invalid params file, a notebook that does not exist, and what a notebook says is wrong.
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
    with alone(folder):
        if changed := changed_settings(folder, experiment):
            print(f"{experiment.name}: {in_words(changed)}; replacing the run", flush=True)
        write_params(folder, experiment)
        steps = {} if force else read_kept(folder / STEPS, json.loads)
        kept, before = ["params.yaml", STEPS], ""
        for index, source in enumerate(sources):
            parameters = _declared(source, {**experiment.parameters(), "runs": _seen_from_the_study(runs)})
            before = _fingerprint(source, parameters, corpus, before)
            step = steps.get(source.stem, {})
            if step.get("fingerprint") != before:
                delete_all_but(folder, kept.__contains__)
                steps = {earlier.stem: steps[earlier.stem] for earlier in sources[:index]}
            elif step.get("finished") and (folder / source.name).exists():
                print(f"{source.stem}: finished before, kept (--force runs it again)", flush=True)
                kept = step["files"]
                continue
            steps[source.stem] = {"fingerprint": before, "finished": False}
            write_text(folder / STEPS, json.dumps(steps, indent=1))
            _execute(source, folder, parameters)
            kept = sorted(path.name for path in folder.iterdir())
            steps[source.stem] = {"fingerprint": before, "finished": True, "files": kept}
            write_text(folder / STEPS, json.dumps(steps, indent=1))
    return folder


def _seen_from_the_study(folder: Path) -> str:
    """A path as notebooks see it: relative inside the study, so that executed notebooks do not name this machine's folders."""
    folder, study = folder.resolve(), study_folder().resolve()
    return str(folder.relative_to(study) if folder.is_relative_to(study) else folder)


def _declared(source: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Those of `parameters` that the notebook's cell tagged `parameters` assigns: the others are not its business."""
    names = papermill.inspect_notebook(str(source))
    return {name: value for name, value in parameters.items() if name in names}


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
    """Passes a notebook's output on, and can end a line that a progress bar has left open."""

    def __init__(self, stream: TextIO):
        self.stream, self.flush, self.last = stream, stream.flush, "\n"

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.last = text[-1:] or self.last

    def end_line(self) -> None:
        if self.last != "\n":
            self.write("\n")


def _execute(source: Path, folder: Path, parameters: dict[str, Any]) -> None:
    """Run one notebook with papermill; its output is complete or absent."""
    output, partial, failed = (folder / name for name in (source.name, f".{source.name}", f"{source.stem}.failed.ipynb"))
    for path in (output, failed):
        path.unlink(missing_ok=True)
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    print(f"{source.stem}: running, into {output}", flush=True)
    out, err = _Relay(sys.stdout), _Relay(sys.stderr)
    try:
        papermill.execute_notebook(
            str(source),
            str(partial),
            parameters,
            cwd=os.getcwd(),
            kernel_name="python3",
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
            raise SubloraError(error.evalue) from None
        os.replace(partial, failed)
        reason = " ".join(f"{error.ename}: {error.evalue}".split())
        raise SubloraError(f"{source}: {reason:.300} (see {failed})") from None
    except DeadKernelError:
        advice = "is there enough memory? The same command goes on from the last checkpoint"
        raise SubloraError(f"{source}: its Python process was killed; {advice}") from None
    except OSError as error:
        why = error.strerror or error
        raise SubloraError(f"{error.filename or output}: cannot write ({why}); free space or choose another folder") from error
    finally:
        out.end_line()
        err.end_line()
        partial.unlink(missing_ok=True)


def _fingerprint(source: Path, parameters: dict[str, Any], corpus: dict[str, Any], before: str) -> str:
    """SHA-256 of what a step depends on: the notebook's code, the parameters, the corpus, the version, the step before."""
    cells = [cell.source for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "code"]
    facts = [cells, parameters, corpus, sublora.__version__, before]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
