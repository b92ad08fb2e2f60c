"""The direction of flow: a room of the package imports only from rooms before it. Imports within functions count too."""

import ast
from pathlib import Path

from tiny import HOME

ROOMS = (
    "",  # the package itself: its version
    "errors",
    "own",
    "atomic",
    "progress",
    "study",
    "limits",
    "processes",
    "experiment",
    "data",
    "models",
    "training",
    "compression",
    "message",
    "inequalities",
    "scoring",
    "certificate",
    "budget",
    "plan",
    "problems",
    "verification",
    "comparing",
    "sampling",
    "reporting",
    "run",
    "search",
    "pipeline",
    "jobs",
    "cli",
    "__main__",
)
"""Folders and modules directly in `sublora/`, in order. ARCHITECTURE.md has the same order and says what each is for."""

BACKWARDS = {"certificate/schema.py imports reporting"}
"""The one exception: a certificate shows itself in Jupyter. Add none."""

PACKAGE = HOME / "sublora"


MOST_POSITIONAL = 5
"""The most parameters of a function that a call may give without their names."""

INEQUALITIES = ("independent", "subsampling", "unseen", "martingale", "smoothing")
"""Modules of `sublora/inequalities/` whose functions name the same things by keyword alone."""


def room_of(path):
    """The room of a module, by its path in the package."""
    first = path.parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported_rooms(source, package):
    """The rooms that a module's text imports from. `package`: the dotted name that a relative import starts from."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")
            start = ".".join(start[: len(start) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            # `from sublora import experiment` names a room; `from sublora import __version__` names the package.
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "sublora" else {module}
    parts = [name.split(".") for name in names if name.split(".")[0] == "sublora"]
    return {part[1] if len(part) > 1 and is_module(part[1]) else "" for part in parts}


def is_module(name):
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def test_every_room_is_in_the_table_and_there():
    there = {room_of(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    assert sorted(there) == sorted(ROOMS)


def test_a_room_imports_only_from_rooms_before_it():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        here = room_of(inside)
        package = ".".join(["sublora", *inside.parent.parts])
        later = {room for room in imported_rooms(path.read_text("utf-8"), package) if ROOMS.index(room) > ROOMS.index(here)}
        found |= {f"{inside.as_posix()} imports {room}" for room in later}
    assert found == BACKWARDS


def test_the_map_has_the_rooms_in_this_order():
    rows = [line for line in (HOME / "ARCHITECTURE.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    named = [Path(name.strip("` ")).stem for row in rows for name in row.split("|")[1].split(",")]
    assert named == [room for room in ROOMS if room]


def test_every_way_to_import_is_seen():
    source = """
import torch, sublora.data.store as store
from sublora import __version__, experiment
def late():
    from ..certificate import schema
    from . import quantizers
class Inner:
    import sublora
"""
    assert imported_rooms(source, "sublora.compression") == {"data", "", "experiment", "certificate", "compression"}


def functions_of(path):
    """(function, its positional parameters, its keyword-only parameters) of a module, without `self` and `cls`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
            yield node, names[1:] if names[:1] in (["self"], ["cls"]) else names, [each.arg for each in node.args.kwonlyargs]


def test_no_function_takes_more_than_five_positional_arguments():
    found = [
        f"{path.relative_to(HOME)}: {function.name}({', '.join(positional)})"
        for folder in (PACKAGE, HOME / "benchmarks", HOME / "fuzz")
        for path in folder.rglob("*.py")
        for function, positional, _ in functions_of(path)
        if len(positional) > MOST_POSITIONAL
    ]
    assert found == []


def test_inequalities_take_the_same_arguments_by_keyword():
    positional, by_keyword = {}, {}
    for module in INEQUALITIES:
        for function, places, keywords in functions_of(PACKAGE / "inequalities" / f"{module}.py"):
            if not function.name.startswith("_"):
                positional |= dict.fromkeys(places, function.name)
                by_keyword |= dict.fromkeys(keywords, function.name)
    assert {"candidates", "pilot", "M"} <= by_keyword.keys()
    assert {name: (positional[name], by_keyword[name]) for name in positional.keys() & by_keyword.keys()} == {}
