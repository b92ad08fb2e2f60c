"""Which files in a run's folder are the run's own: those that it noted before it made them. It touches no others."""

import contextlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from sublora.errors import SubloraError, cannot_write

NOTED = "made-by-sublora.txt"
"""In a run's folder, the names of what was made there, each on a line of its own as JSON. A line that was cut off is none."""
TEMPORARY = ".part"
"""A temporary file is called `.NAME.????????.part`. A killed process leaves it behind, and it is as much the run's as NAME."""
_HEAD = "# What sublora made in this folder. A run changes and deletes nothing else here."


def claim(folder: Path) -> None:
    """Make `folder` a run's, if it is not there or empty.

    Raises SubloraError for what holds anything else, and for a link: the folder, or what stands where the run made something.
    """
    if folder.is_symlink():
        raise SubloraError(f"{folder}: a symbolic link, which a run does not follow; remove it or choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In this order, as another process of the same run may do the same now.
        if any(folder.iterdir()) and not _is_a_runs(folder):
            raise SubloraError(f"{folder}: holds files that no run made; move it away or choose another name")
        with contextlib.suppress(FileExistsError), open(folder / NOTED, "x", encoding="utf-8") as file:
            file.write(_HEAD)
        for name in noted(folder):
            _refuse_links(folder, folder / name)
    except OSError as error:
        raise cannot_write(folder, error) from None


def note(path: Path) -> None:
    """Note that `path` is about to be made, if a folder above is a run's.

    Raises SubloraError, and nothing is noted, where a link would be followed and where a file stands that the run did not make.
    """
    folder = next(filter(_is_a_runs, path.parents), None)
    if folder is None:
        return
    _refuse_links(folder, path)
    entry = path.relative_to(folder).as_posix()
    there = path.exists()  # asked first: what another process of the run makes, it has noted before
    if entry in noted(folder):
        return
    if there:
        raise SubloraError(f"{path}: a run would replace this file and did not make it; move it away")
    try:
        with open(folder / NOTED, "a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}")
    except OSError as error:
        raise cannot_write(folder / NOTED, error) from None


def noted(folder: Path) -> list[str]:
    """The names that `note` noted, in that order."""
    found = []
    for line in (folder / NOTED).read_text("utf-8", "replace").splitlines():
        try:
            entry = PurePosixPath(json.loads(line))
        except (ValueError, TypeError, RecursionError):  # the head, and a line that was cut off
            continue
        if entry.parts and not entry.is_absolute() and ".." not in entry.parts:
            found.append(str(entry))
    return found


def delete_all_but(folder: Path, kept: Collection[str]) -> None:
    """Delete what was noted, but what `kept` names, and the folders that this leaves empty. Follows no link."""
    names = noted(folder)
    for path in (path for name in names if name not in kept for path in _files(folder, name)):
        path.unlink()
        for above in reversed(_below(folder, path.parent)):
            if not any(above.iterdir()):
                above.rmdir()
    new = folder / f".{NOTED}{TEMPORARY}"
    new.write_text("\n".join([_HEAD, *(json.dumps(name) for name in names if name in kept)]), "utf-8")
    os.replace(new, folder / NOTED)


def forget(folder: Path) -> None:
    """Delete all that was noted, and the folder, unless it holds anything else."""
    delete_all_but(folder, [])
    (folder / NOTED).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def delete_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed run left. Nobody else may be at work in the folder."""
    for path in (path for name in noted(folder) for path in _files(folder, name) if path.name.endswith(TEMPORARY)):
        path.unlink()


def _is_a_runs(folder: Path) -> bool:
    return (folder / NOTED).is_file() and not (folder / NOTED).is_symlink()


def _refuse_links(folder: Path, path: Path) -> None:
    for part in _below(folder, path):
        if part.is_symlink():
            raise SubloraError(f"{part}: a symbolic link, which a run does not follow; remove it")


def _below(folder: Path, path: Path) -> list[Path]:
    """The path and the folders between it and `folder`, the outermost first."""
    parts = path.relative_to(folder).parts
    return [folder.joinpath(*parts[: count + 1]) for count in range(len(parts))]


def _files(folder: Path, name: str) -> list[Path]:
    """The file of that name and its temporary ones, and none behind a link. No character of a name is a wildcard."""
    path = folder / name
    temporary = re.compile(rf"\.{re.escape(path.name)}\.[^/]{{8}}{re.escape(TEMPORARY)}", re.DOTALL)
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    found = [each for each in beside if each.name == path.name or temporary.fullmatch(each.name)]
    return [each for each in found if each.is_file() and not any(part.is_symlink() for part in _below(folder, each))]
