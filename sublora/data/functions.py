"""A task that needs no file and no network: which of two installed packages does a function come from?"""

import hashlib
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sublora.data.corpora import distinct_functions, python_files
from sublora.data.split import permutation
from sublora.errors import SubloraError

PACKAGES = ("networkx", "sympy")
"""torch needs both, so that they are installed wherever this package is. Their order numbers the classes."""
SEED = 0


def labelled_functions() -> tuple[list[str], np.ndarray]:
    """(the source of every function, which package it is from): as many of each, shuffled, a function of the sources alone.

    A text counts once. One that both packages have answers no question and is left out; of the package with more functions, those
    that come first in a seeded permutation are taken.
    """
    found = [list(distinct_functions(folder, name)) for name, folder in zip(PACKAGES, package_folders(), strict=True)]
    both = set(found[0]) & set(found[1])
    found = [[text for text in texts if text not in both] for texts in found]
    size = min(map(len, found))
    texts = [texts[i] for texts in found for i in permutation(len(texts), SEED)[:size]]
    order = permutation(len(texts), SEED + 1)
    return [texts[i] for i in order], order // size


def packages_identity() -> dict[str, Any]:
    """What the functions depend on, as plain data: each package's version and the SHA-256 of its Python files."""
    return {
        name: {"version": version(name), "sha256": _files_sha256(folder)}
        for name, folder in zip(PACKAGES, package_folders(), strict=True)
    }


def package_folders() -> tuple[Path, ...]:
    """Where the packages are installed; they are not imported. Raises SubloraError for one that is missing."""
    folders = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SubloraError(f"task.name: functions reads the source of {name}, which is not installed; pip install {name}")
        folders.append(Path(spec.origin).parent)
    return tuple(folders)


def _files_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in python_files(folder):
        digest.update(f"{name}\n".encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()
