"""The functions of Python files: documents, and a task without file or network: of which installed package is a function?"""

import ast
import hashlib
import importlib.util
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sublora.data.rows import read_bytes
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.progress import progress_bar

PACKAGES = ("networkx", "sympy")
"""torch needs both, so that they are installed wherever this package is. Their order numbers the classes."""
SEED = 0


def distinct_functions(folder: Path, name: str) -> Iterator[str]:
    """Every distinct function of a folder's Python files, in the order of file names and lines. name: what the bar says."""
    seen = set()
    for file in progress_bar(_python_files(folder), desc=name, unit="file"):
        for text in python_functions(read_bytes(folder / file)):
            digest = hashlib.sha256(text.encode("utf-8")).digest()
            if digest not in seen:
                seen.add(digest)
                yield text


def _python_files(folder: Path) -> list[str]:
    """The sorted relative names of a folder's Python files: neither what is installed below it nor what is compiled."""
    others = {"site-packages", "dist-packages", "__pycache__"}
    names = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted(name.as_posix() for name in names if not others & set(name.parts))


def python_functions(source: bytes) -> list[str]:
    """The source lines of every function in a Python file, methods and nested functions too, from the first decorator on.

    Indentation is kept, line ends become "\\n". A file that is not UTF-8 or not this Python's syntax has no functions.
    """
    try:
        text = source.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old test files
            tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):  # ast.parse raises all of these
        return []
    spans, nodes = [], [tree]
    while nodes:  # functions are statements, so only lists of statements are visited: ast.walk takes twice as long
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            spans.append((min([node.lineno] + [d.lineno for d in node.decorator_list]), node.end_lineno))
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):  # a lambda's body is an expression
                nodes.extend(statements)
    lines = text.split("\n")  # not splitlines: a form feed ends no line in Python's grammar
    return ["\n".join(lines[start - 1 : end]) + "\n" for start, end in sorted(spans)]


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
    identity = {}
    for name, folder in zip(PACKAGES, package_folders(), strict=True):
        digest = hashlib.sha256()
        for file in _python_files(folder):
            digest.update(f"{file}\n".encode() + hashlib.sha256(read_bytes(folder / file)).digest())
        identity[name] = {"version": version(name), "sha256": digest.hexdigest()}
    return identity


def package_folders() -> tuple[Path, ...]:
    """Where the packages are installed; they are not imported. Raises SubloraError for one that is missing."""
    folders = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SubloraError(f"task.name: functions reads the source of {name}, which is not installed; pip install {name}")
        folders.append(Path(spec.origin).parent)
    return tuple(folders)
