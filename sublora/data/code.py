"""The functions of Python source, found by a parser of a fixed version: every Python finds the same."""

# It imports nothing of the package, so that any Python can run it by itself.

import hashlib
import re
from collections.abc import Iterable, Iterator

import tree_sitter
import tree_sitter_python

_PYTHON = tree_sitter.Language(tree_sitter_python.language())
_FUNCTIONS = tree_sitter.Query(_PYTHON, "(function_definition) @function")
_STATEMENT = re.compile("block|.*_(statement|clause|definition)")


def distinct_functions(sources: Iterable[bytes]) -> Iterator[str]:
    """Every distinct function of some Python files, in their order and that of lines. A text that comes again is left out."""
    seen = set()
    for source in sources:
        for text in python_functions(source):
            digest = hashlib.sha256(text.encode("utf-8")).digest()
            if digest not in seen:
                seen.add(digest)
                yield text


def python_functions(source: bytes) -> list[str]:
    """The source lines of every function in a Python file, methods and nested functions too: first decorator to last statement.

    Indentation is kept, line ends become "\\n". A file that is not UTF-8, or not Python to the grammar, has no functions.
    """
    try:
        text = source.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return []
    root = tree_sitter.Parser(_PYTHON).parse(text.encode("utf-8")).root_node
    if root.has_error:
        return []
    spans = []
    for node in tree_sitter.QueryCursor(_FUNCTIONS).captures(root).get("function", []):
        parent = node.parent
        first = parent if parent is not None and parent.type == "decorated_definition" else node
        spans.append((first.start_point.row, _last_row(node)))
    lines = text.split("\n")  # not splitlines: a form feed ends no line in Python's grammar
    return ["\n".join(lines[start : end + 1]) + "\n" for start, end in sorted(spans)]


def _last_row(node: tree_sitter.Node) -> int:
    """The row in which a function's last statement ends: to the grammar, comments below it are still the function's."""
    while True:
        inner = [child for child in node.named_children if child.type != "comment"]
        if not inner or not _STATEMENT.fullmatch(inner[-1].type):
            return node.end_point.row
        node = inner[-1]
