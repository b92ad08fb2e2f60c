"""The reference of a module's public functions and classes, as Markdown made from their docstrings."""

import functools
import importlib
import inspect
import operator
import re
import textwrap
import types
import typing
from typing import Any

from sublora.reporting.markdown import Markdown, escape

_WIDTH = 100  # characters of a signature's line
_MODULES = re.compile(r"(?<![\w.'/])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
"""`numpy.` in `numpy.ndarray`: where a type comes from, which a reader can do without; not what stands in quotes."""
_CODE = re.compile(r"(`[^`]+`)")
_LAID_OUT = re.compile(r"^(?: {2,}|>>> )", re.MULTILINE)
"""A line that is indented or a doctest: its paragraph is shown as it stands."""


def reference(name: str) -> Markdown:
    """The module's functions and classes, in the order of its source: for each its signature and its docstring."""
    return Markdown("\n".join(f"{_signature(thing)}\n\n{_text(thing)}\n" for thing in public(name)))


def public(name: str) -> list[Any]:
    """The functions and classes that `__all__` names; without it, those with a public name that the module or package defines."""
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    own = [key for key, value in vars(module).items() if f"{getattr(value, '__module__', '')}.".startswith(f"{name}.")]
    names = exported or [key for key in own if key[0] != "_"]
    things = [vars(module)[key] for key in names]
    return [thing for thing in things if inspect.isfunction(thing) or inspect.isclass(thing)]


def _signature(thing: Any) -> str:
    line = f"class {thing.__name__}" if inspect.isclass(thing) else thing.__name__
    if not (inspect.isclass(thing) and issubclass(thing, BaseException)):  # Python keeps no signature of these
        signature = inspect.signature(thing)
        parameters = [each.replace(annotation=_bare(each.annotation)) for each in signature.parameters.values()]
        line += _MODULES.sub("", str(signature.replace(parameters=parameters)))
    if inspect.isclass(thing):
        line = line.removesuffix(" -> None")  # what `__init__` returns says nothing of the class
    wrapped = textwrap.fill(line, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return f"```python\n{wrapped}\n```"


def _bare(annotation: Any) -> Any:
    """A type without what `Annotated` adds to it: validators print as addresses in memory."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _bare(inner[0])
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_bare, inner))
    return origin[tuple(map(_bare, inner))] if origin in (tuple, list, dict) else annotation


def _text(thing: Any) -> str:
    """The docstring. Raises ValueError where there is none: a page without it would say nothing."""
    if not thing.__doc__:
        raise ValueError(f"{thing.__module__}.{thing.__qualname__} has no docstring")
    return "\n\n".join(map(_paragraph, inspect.cleandoc(thing.__doc__).split("\n\n")))


def _paragraph(text: str) -> str:
    if _LAID_OUT.search(text):
        return f"```text\n{text}\n```"
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(piece if index % 2 else escape(piece) for index, piece in enumerate(pieces))
