"""What the page says of scores on other machines, and the benchmark that measures it."""

import runpy
import sys

import pandas as pd
from tiny import HOME, settings, write_texts

from sublora.reporting import determinism
from sublora.reporting.results import DETERMINISM, TABLES, load_table
from sublora.run import Run


def test_the_benchmark_scores_one_message_under_each_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(settings(write_texts(tmp_path / "texts")), tmp_path / "runs")
    run.certify()
    out = tmp_path / "determinism.csv"
    certificate = str(run.folder / "certificate.json")
    monkeypatch.setattr(sys, "argv", ["determinism.py", certificate, "--units", "5", "--out", str(out)])
    runpy.run_path(str(HOME / "benchmarks" / "determinism.py"), run_name="__main__")
    frame = load_table(out, *TABLES["determinism"])
    assert tuple(frame.columns) == DETERMINISM and set(frame["metric"]) == {"bits", "errors"} and frame["units"].eq(5).all()
    assert frame["change"].nunique() == 4 and frame["largest"].between(0, 1e-4).all()


def test_the_page_names_the_largest_change():
    rows = [("quick", "bits", "one thread", 1e-7, 1e-8, 9), ("quick", "bits", "no AVX", 3e-6, 2e-7, 9)]
    rows += [("q", "errors", "no AVX", 0.0, 0.0, 9)]
    text = determinism.determinism(pd.DataFrame(rows, columns=list(DETERMINISM)), [])
    assert "at most 3e-06 bits per token (change: no AVX; model: quick), a mean by 2e-07" in text and "2 kept models" in text
    assert "at most 0 in the share of errors, a mean by 0" in text and "one thread, no AVX" in text


def test_without_a_table_the_page_says_why():
    nothing = pd.DataFrame(columns=list(DETERMINISM))
    assert determinism.determinism(nothing, ["determinism.csv: no such table"]) == "determinism.csv: no such table"
