"""The API page: every function of the modules it names, with the signature and the docstring it has now."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
from tiny import HOME

from sublora.reporting.api import public, reference

NAMED = re.findall(r'^reference\("(.*)"\)$', (HOME / "report" / "api.qmd").read_text("utf-8"), re.MULTILINE)


@pytest.fixture
def module(monkeypatch):
    """A module that defines three names, two of them public, and imports another."""
    made = ModuleType("made_for_this_test")
    source = '''
from math import prod
from pathlib import Path
from numpy import ndarray

class Thing:
    """Has one method, which is not shown."""
    def __init__(self, size: int) -> None:
        pass

class Wrong(ValueError):
    """Has no signature."""

def shown(values: ndarray, path: Path = Path("a.b"), *, share: float = 0.5) -> dict[str, ndarray]:
    """The `values` of <x> | y,
    on one line.

    first     laid out
      second  as it stands
    """

def _hidden():
    """Not for others."""
'''
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(source, made.__dict__)
    return made


def test_a_reference_has_the_public_names_with_their_signatures_and_docstrings(module):
    text = reference(module.__name__)
    assert re.findall(r"^(?:class )?(\w+)\(", text, re.MULTILINE) == ["Thing", "shown"]
    assert "class Thing(size: int)\n" in text and "class Wrong\n" in text
    assert "shown(values: ndarray, path: Path = PosixPath('a.b'), *, share: float = 0.5) -> dict[str, ndarray]" in text
    assert "The `values` of &lt;x&gt; \\| y, on one line." in text
    assert "```text\nfirst     laid out\n  second  as it stands\n```" in text


def test_what_a_module_exports_is_what_is_shown(module):
    module.__all__ = ["shown"]
    assert public(module.__name__) == [module.shown]


def test_a_function_without_docstring_is_an_error(module):
    module.shown.__doc__ = None
    with pytest.raises(ValueError, match="shown has no docstring"):
        reference(module.__name__)


@pytest.mark.parametrize("name", NAMED)
def test_every_module_of_the_page_has_a_reference_that_fits_the_page(name):
    lines = reference(name).splitlines()
    assert len(public(name)) >= 1
    code = np.cumsum([line.startswith("```") for line in lines]) % 2 == 1
    assert max(len(line) for line, inside in zip(lines, code, strict=True) if inside) <= 132
    assert not any(":::" in line or "{{<" in line for line in lines)


def test_pages_hold_no_addresses_and_no_insides_of_pydantic():
    """A page with an address in memory would differ in every render."""
    for name in NAMED:
        assert not re.search(r" at 0x|FieldInfo|BeforeValidator|<function", str(reference(name))), name
