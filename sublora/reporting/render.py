"""The report: Quarto's project folder to a website, by Quarto where it is installed, else by pandoc."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sublora.errors import SubloraError, cannot_write
from sublora.reporting.chosen import leave_out
from sublora.reporting.loads import external_loads
from sublora.reporting.pandoc import write_site
from sublora.reporting.runs import CHOSEN, some_runs, these_runs

BY_QUARTO = "Quarto"
BY_PANDOC = "pandoc"


def render_report(
    project: str | os.PathLike, runs: str | os.PathLike, quarto: str | None = "quarto", chosen: Sequence[str | os.PathLike] = ()
) -> tuple[Path, str]:
    """Render the project folder (`report/`) over the runs folder to `<project>/_site`, which is replaced as a whole.

    chosen: folders of runs that the site is about, in place of all runs; the pages about the paper are left out then (`leave_out`).
    `quarto` is the program's name or path; it is used where it can be found, on PATH or beside the interpreter, and None never
    uses it. Returns the path of `index.html` and the way taken, `BY_QUARTO` or `BY_PANDOC`; both give the same pages.

    Raises SubloraError when there is no run or no certificate in a chosen folder, when a cell fails, when a reference does not
    resolve, when a page would load something from the network, or when the folder cannot be written; the site is then as it was.
    """
    project, runs = Path(project).resolve(), Path(runs).resolve()
    if not (project / "_quarto.yml").is_file():
        raise SubloraError(f"{project}: not the report's folder (no _quarto.yml); `sublora init FOLDER` makes a study that has one")
    results = project.parent / "results"
    if chosen:
        these_runs(chosen)
    else:
        some_runs(runs, results)
    program = find_quarto(quarto) if quarto else None
    environment = {
        **os.environ,
        "SUBLORA_RUNS": str(runs),
        "SUBLORA_RESULTS": str(results),
        CHOSEN: json.dumps([str(Path(folder).resolve()) for folder in chosen]),
        "QUARTO_PYTHON": sys.executable,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    with tempfile.TemporaryDirectory(prefix="sublora-report-") as temporary:
        copy = Path(temporary) / "report"
        made = shutil.ignore_patterns("_site", ".*", "*_files", "*.quarto_ipynb", "notebooks")
        shutil.copytree(project, copy, ignore=made)
        if chosen:
            leave_out(copy)
        if program:
            _render_by_quarto(copy, program, {**environment, "IPYTHONDIR": str(_quiet_kernels(Path(temporary)))})
        else:
            write_site(copy, environment)
        loads = external_loads(copy / "_site")
        if loads:
            raise SubloraError(f"{project}: a page would load from the network: {loads[0]}; embed it or leave it out")
        _replace_folder(copy / "_site", project / "_site")
    return project / "_site" / "index.html", BY_QUARTO if program else BY_PANDOC


def _quiet_kernels(folder: Path) -> Path:
    """A folder of settings for IPython, with which kernels log errors alone: they warn at every start that they speak over TCP."""
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n", "utf-8")
    return profile.parent


def find_quarto(name: str = "quarto") -> str | None:
    """The program on PATH, or where `pip install quarto-cli` puts it; None where there is none."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _render_by_quarto(project: Path, program: str, environment: Mapping[str, str]) -> None:
    lines = []
    with subprocess.Popen(
        [program, "render", str(project)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            sys.stderr.write(line)
            lines.append(line.strip())
    complaints = [line for line in lines if re.search(r"Unable to resolve|[Cc]itation .*not found|^ERROR|Error:", line)]
    if process.returncode or complaints:
        reason = (complaints or [line for line in lines if line] or ["no message"])[-1]
        raise SubloraError(f"{program} render: {reason} (exit {process.returncode}); see its messages above")
    if not (project / "_site" / "index.html").is_file():
        raise SubloraError(f"{program} render: made no _site/index.html; check output-dir in _quarto.yml")


def _replace_folder(new: Path, old: Path) -> None:
    """Put a copy of `new` in the place of `old`; on failure `old` is as it was."""
    arriving, leaving = old.with_name(f".{old.name}.arriving"), old.with_name(f".{old.name}.leaving")
    try:
        for path in (arriving, leaving):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(new, arriving)
        if old.exists():
            old.rename(leaving)
        arriving.rename(old)
    except OSError as error:
        if leaving.exists() and not old.exists():
            leaving.rename(old)
        raise cannot_write(old, error) from error
    finally:
        for path in (arriving, leaving):
            shutil.rmtree(path, ignore_errors=True)
