"""The page that shows how to extend the package: its code runs as it stands, and the places it names are there."""

import re

import pytest
from tiny import HOME

PAGE = (HOME / "report" / "extend.qmd").read_text("utf-8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACES = re.findall(r"^\| `([\w/]+\.py)` \| `([^`]+)` \|", PAGE, re.MULTILINE)


def test_the_blocks_run_from_top_to_bottom(capsys):
    names = {}
    for number, block in enumerate(BLOCK.findall(PAGE), 1):
        exec(compile(block, f"extend.qmd, block {number}", "exec"), names)
    assert callable(names["catoni"]) and callable(names["equal_counts"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["equal counts", "k-means"]


@pytest.mark.parametrize("section", SECTIONS, ids=[section.split(" {")[0] for section in SECTIONS])
def test_each_section_takes_at_most_thirty_lines(section):
    lines = [line for block in BLOCK.findall(section) for line in block.splitlines() if line.strip()]
    assert 5 < len(lines) <= 30


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_what_the_page_names_is_in_the_file(file, name):
    assert name in (HOME / file).read_text("utf-8")


def test_the_page_names_places_in_both_sections():
    assert all(section.count("\n| `") >= 4 for section in SECTIONS) and len(SECTIONS) == 2
