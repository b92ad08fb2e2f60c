"""The coverage table that the report shows."""

import runpy
import sys

import pytest
from tiny import HOME

from sublora.errors import SubloraError
from sublora.reporting.coverage import coverage_figure, coverage_table
from sublora.reporting.markdown import escape
from sublora.reporting.results import COVERAGE, TABLES, load_table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small version of `make coverage`."""
    path = tmp_path_factory.mktemp("coverage") / "coverage.csv"
    before, sys.argv = sys.argv, ["violations.py", "--trials", "200", "--out", str(path)]
    try:
        runpy.run_path(str(HOME / "benchmarks" / "violations.py"), run_name="__main__")
    finally:
        sys.argv = before
    return path


def test_no_bound_is_violated_too_often_and_a_twin_of_each_is_caught(made):
    frame = load_table(made, *TABLES["coverage"])
    assert tuple(frame.columns) == COVERAGE
    assert (frame["violations"] <= frame["delta"] + 3 * frame["standard_error"]).all()
    caught = frame.groupby("inequality")["twin_violations"].max()
    assert len(caught) == 12 and (caught > 0.084).all()
    exact = frame[frame["trials"] == 0]
    assert (exact["standard_error"] == 0).all() and len(exact) > 30
    assert frame[frame["inequality"] == "hoeffding"]["gap_ratio"].eq(1).all()


def test_table_and_figure_show_every_row(made):
    frame = load_table(made, *TABLES["coverage"])
    text = str(coverage_table(frame))
    assert all(escape(world) in text for world in frame["world"].unique()) and "exact" in text
    (ax,) = coverage_figure(frame).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert [name for name in names if name] == list(frame["inequality"].str.replace("_", " ")), "in the order of the table"
    headings = [text.get_text() for text in ax.texts]
    worlds = frame["world"][frame["world"] != frame["world"].shift()]
    assert [heading.split(";")[0] for heading in headings] == list(worlds) and len(names) == len(frame) + len(worlds)
    assert "violations" in ax.get_xlabel()


def test_the_kept_table_is_whole():
    frame = load_table(HOME / "results" / "coverage.csv", *TABLES["coverage"])
    assert (frame["violations"] <= frame["delta"] + 3 * frame["standard_error"]).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "column 'level' is missing"),
        (f"{','.join(COVERAGE)}\n{','.join(COVERAGE)}\n", "column 'units' holds text"),
        ("", "not a table"),
        (None, "run `make coverage`"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, text, says):
    path = tmp_path / "coverage.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SubloraError, match=says) as caught:
        load_table(path, *TABLES["coverage"])
    assert str(caught.value).startswith(str(path))
