"""The page of what a bit buys: points, crossings, ablations."""

from pathlib import Path

import pytest
from certificates import certificate, certificate_beside, changed, metrics, write_run

from sublora.reporting import bits, reading
from sublora.reporting.runs import KeptRun


def run(name, of, **params):
    values = changed(of, "params", to={**of.params, **params})
    return KeptRun(name, Path(name), values, metrics())


def points(*runs):
    return [point for each in runs for point in bits._points(each)]


def test_a_point_beside_a_reference_shows_the_references_value_and_the_gain():
    plain, beside = run("plain", certificate("plain", 700)), run("beside", certificate_beside())
    worse = run("worse", certificate_beside("worse", gap=0.36))
    table = str(bits.study_table(points(plain, beside, worse)))
    row, none = (next(line for line in table.splitlines() if f"| {name} |" in line) for name in ("beside", "worse"))
    assert [cell in row for cell in ("| 3.95 |", "| 0.25 |", "| 3.70 |")] == [True] * 3
    assert "| 3.95 |" in none and "| none |" in none and "| 3.96 |" in none
    ax, paper = bits.study_figure(points(plain, beside, worse)).axes
    texts = {text.get_text() for text in ax.texts}
    assert texts == {"1", "2", "3", "gain 0.25", "no gain"}, "a number leads to the row, a bound has its gain"
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [list(line.get_ydata()) for line in crosses] == [[3.95, 3.95]]
    assert paper.get_title().startswith("published") and len(paper.lines) == 2
    assert len(bits.study_figure([]).axes) == 1, "without certificates the paper's curve stands alone"


def test_lines_cross_where_their_interpolation_in_log_bits_does():
    kinds = {"n-grams": {"kind": "ngram"}, "random subspace": {"subspace": {"parametrization": "subspace"}}}
    losses = {"n-grams": (5.0, 4.0), "random subspace": (4.0, 5.0)}
    runs = [
        run(f"{kind}-{size}", certificate(f"{kind}-{size}", size, loss), **kinds[kind])
        for kind, both in losses.items()
        for size, loss in zip((128, 512), both, strict=True)
    ]
    shown = points(*runs)
    assert [point.family for point in shown] == ["n-grams"] * 2 + ["random subspace"] * 2
    (line,) = bits.crossings(shown)
    assert line.startswith("document level, python-packages, bits per byte: ") and "n-grams and random subspace cross" in line
    gaps = [shown[index].plain.bound - shown[2 + index].plain.bound for index in (0, 1)]
    share = gaps[0] / (gaps[0] - gaps[1])
    expected, linear = round(2 ** (10 + 2 * share)), round(1024 + 3072 * share)
    assert f"at about {expected:,} bits" in line and f"{linear:,}" not in line
    (alone,) = bits.crossings(shown[:1])
    assert "no two lines cross" in alone


def test_the_gain_vanishes_where_the_message_is_too_long():
    runs = [run(f"beside-{gap}", certificate_beside(f"beside-{gap}", gap=gap)) for gap in (0.15, 0.55)]
    first, second = points(*runs)
    second = second._replace(bits=4 * first.bits)
    (line,) = bits.crossings([first, second])
    assert first.beside.gain == pytest.approx(-second.beside.gain)
    assert f"the gain of SubLoRA with the reference is zero at about {2 * first.bits:,} bits" in line


def test_missing_groups_are_named_and_an_empty_ablation_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBLORA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SUBLORA_RESULTS", str(tmp_path / "results"))
    write_run(tmp_path / "results", certificate())
    write_run(tmp_path / "results" / "ngram", changed(certificate("order2", 900), "params", "kind", to="ngram"))
    found, missing = bits.studied()
    assert [point.family for point in found] == ["SubLoRA", "n-grams"]
    for group in ("table1", "figure1", "structured", "pretrained"):
        assert any(f"run `make {group}`" in line for line in missing)
    assert not any("ngram" in line for line in missing)
    assert str(bits.ablation_table([])) == "No ablation is kept yet."
    table = str(bits.ablation_table([run("kmeans", certificate_beside("kmeans")), run("whole", certificate_beside("whole"))]))
    rows = table.splitlines()[2:]
    assert rows[0].startswith("| nothing") and "codebook by k-means" in rows[1]
    assert reading.headline(certificate_beside()).gain and all(row.count(" 0.25 |") == 2 for row in rows)
