"""A study: one folder with notebooks, params files and report pages. Relative paths lead there."""

import ast
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sublora.errors import SubloraError

PARTS = ("notebooks", "params", "report")
"""The folders of a study that the package has copies of."""

_MADE = shutil.ignore_patterns(".*", "__pycache__", "_site", "notebooks")
"""What work in the repository leaves in these folders (`report/notebooks` holds pages)."""


def study_folder() -> Path:
    """The current folder, or the folder above if the current one is the folder `notebooks` beside a folder `params`."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "params").is_dir() else here


def enter_study() -> None:
    """Move to `study_folder`.

    Jupyter starts a notebook in its own folder, papermill and `sublora run` start it in the folder of the command. From here on,
    relative paths mean the same to all of them.
    """
    os.chdir(study_folder())


def given(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that papermill put into a notebook, `runs` left out; empty in Jupyter, where the notebook's own settings count.

    variables: the notebook's `globals()`. What papermill was not given has then the default of the experiment's kind, and a name
    that is no setting is an error, as with `sublora run`.
    """
    injected = [source for source in variables["In"] if source.startswith("# Parameters\n")]
    lines = ast.parse(injected[-1]).body if injected else []
    names = [target.id for line in lines if isinstance(line, ast.Assign) for target in line.targets if isinstance(target, ast.Name)]
    return {name: variables[name] for name in names if name != "runs"}


def packaged(part: str) -> Path:
    """The package's own copy of one of the `PARTS`: within an installed package, beside the code in the repository."""
    package = Path(__file__).resolve().parent
    installed = package / "_study"  # pyproject.toml puts it into the wheel
    return (installed if installed.is_dir() else package.parent) / part


def new_study(folder: Path) -> None:
    """Copy the `PARTS` to `folder`, which is made. Raises SubloraError if anything is there; a failed copy leaves nothing."""
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise SubloraError(f"{folder}: a file is there; give a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise SubloraError(f"{folder}: not empty; give a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for part in PARTS:
            shutil.copytree(packaged(part), folder / part, ignore=_MADE)
    except BaseException:
        for part in PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)
        raise
