"""The published values, the tables and figures that show them beside measured ones, and the README's numbers."""

import re
from pathlib import Path

import pytest
from certificates import certificate, changed, classifier_certificate, metrics

from sublora.certificate.schema import load_certificate
from sublora.reporting import compression, drawing, experiments, paper, reading, terminal, tradeoff
from sublora.reporting.published import METHODS, points, published, published_value
from sublora.reporting.runs import KeptRun

ARROW = tuple(f"arrow-{name}" for name in ("linear", "updates", "language", "context", "size"))
HOME = Path(__file__).parent.parent


def run(name, *sizes, make=certificate):
    return KeptRun(name, Path(name), make(name, *sizes), metrics())


def test_every_published_value_says_where_it_was_read():
    for table in ("table1", "figure1-bound", "figure1-risk", "figure1-pareto", "glue", "settings", *ARROW):
        rows = published(table)
        assert all(len(words) > 10 for words in rows["provenance"])
        assert all(rows["value"].ne("") | rows["provenance"].eq("not found in public sources"))
        assert not rows.duplicated(["metric", "method", "value"] if "pareto" in table else ["metric", "method"]).any()
    with pytest.raises(KeyError, match="table2"):
        published("table2")
    with pytest.raises(KeyError, match="0 values"):
        published_value("table1", "bpd", "nobody")


def test_the_digitised_figure_agrees_with_the_table():
    smallest = points("figure1-bound")["y"].min()
    assert smallest == float(published_value("table1", "bpd", "sublora")[0])
    pareto = points("figure1-pareto")
    for method in METHODS:
        rows = pareto[pareto["method"] == method]
        if len(rows):  # the original model's point lies outside of the figure
            best = (rows["x"] + rows["y"]).min()
            assert best == pytest.approx(float(published_value("table1", "bpd", method)[0]), abs=0.25)


def test_the_measured_order_is_by_hoeffding_and_says_what_is_vacuous():
    lines = paper.ranking([run("sublora", 281, 4.2), run("subspace", 281, 4.0), run("full", 90_000, 3.1), run("other", 10, 1.0)])
    assert re.search("^Measured.*Subspace only .*SubLoRA .*Original model", lines[1]) and "other" not in " ".join(lines)
    assert [line for line in lines if line.endswith("vacuous.")] == [lines[4]]
    assert lines[4].startswith("Original model: 720,000 bits")


def test_an_order_of_methods_is_stated_only_where_the_ranges_of_seeds_are_apart():
    assert experiments.ordered({"b": [2.0, 2.1], "a": [1.0, 1.2], "c": [3.0]}) == "a, then b, then c."
    text = experiments.ordered({"a": [1.0, 2.0], "b": [1.9, 2.2], "c": [2.1, 2.15], "d": [5.0]})
    assert text == "a and b and c, then d. The ranges of a and b and c overlap, so they have no order."
    assert experiments.ordered({"a": [1.0, 2.0], "b": [1.5, 1.6]}).endswith("overlap, so no order is stated.")
    seeds = [run(f"seeds-{name}-{k}", 281, loss + k / 100) for name, loss in (("lora", 3.0), ("sublora", 4.0)) for k in (1, 2)]
    assert experiments.order_of_methods(seeds, "hoeffding") == "By hoeffding: LoRA only, then SubLoRA."
    assert "no order" in experiments.order_of_methods(seeds[:1], "betting")
    assert sum("LoRA only, then SubLoRA" in line for line in paper.ranking([], seeds)) == 2


def test_a_study_has_the_run_that_it_changes_then_its_own_by_value():
    kept = [run(name, size, 4.0) for name, size in (("rank-16", 400), ("rank-2", 200), ("base", 300), ("ranking-1", 9))]
    text = str(experiments.study(kept, "rank"))
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("|")][2:]
    assert [[cell.strip() for cell in row] for row in rows] == [["4 (base)", "300"], ["2", "200"], ["16", "400"]]
    assert "Ranks 1 and 4" in text and "`sublora run params/experiments/rank.yaml`" in text
    assert "No run of this study is kept." in experiments.study([], "rank")
    assert "(" in str(experiments.seeds_table([run("seeds-lora-1", 281, 3.0)])) and "not run" in str(experiments.seeds_table([]))


def test_bounds_over_tokens_stand_side_by_side():
    path = HOME / "results" / "pretrained" / "stories260K" / "certificate.json"
    values = load_certificate(path)
    bounds = {(b.metric, b.inequality): b for b in reading.certified(values)}
    text = str(compression.tokens_table([KeptRun("stories", path.parent, values, None), run("documents-only")]))
    assert "documents-only" not in text and " 9.00 |" in text
    for metric in ("bpd", "top100_error"):
        for inequality in ("freedman", "azuma"):
            assert f" {reading.written(bounds[metric, inequality])} |" in text


def test_of_several_glue_runs_the_best_is_shown():
    table = paper.glue_table([run("glue-qqp-random-1000", 0.05, make=classifier_certificate),
                              run("glue-qqp-random-5000", 0.02, make=classifier_certificate)])  # fmt: skip
    text = str(table)
    assert " 38.01 |" in text and " 41.01 |" not in text and text.count(" not run |") == 3
    commands = [row["Command"].strip("`").split() for row in table.rows]
    assert all((HOME / command[-1]).is_file() for command in commands)


def test_figures_hold_the_runs_and_the_published_points():
    runs = [run(f"d{size}", size, loss) for size, loss in ((60, 5.1), (281, 4.2), (4000, 3.7))]
    above, below = tradeoff.size_figure(runs).axes
    lines = {line.get_label(): line for line in below.lines}
    assert list(lines["training value"].get_xdata()) == [0.06, 0.281, 4.0]
    bounds = [reading.statement(one.certificate, "iid", "bpd", "hoeffding").bound for one in runs]
    assert list(lines["bound by hoeffding"].get_ydata()) == bounds
    assert below.texts[0].get_text() == reading.number(min(bounds)) and above.texts[0].get_text() == "12.12"
    made = {method: changed(certificate(method), "params", "subspace", "parametrization", to=method) for method in METHODS}
    named = [KeptRun(method, Path(method), of, None) for method, of in made.items()]
    above, below = tradeoff.pareto_figure(named).axes
    assert {line.get_label() for line in below.lines} >= set(METHODS.values())
    assert "Original model" not in {line.get_label() for line in above.lines}
    for empty in (tradeoff.size_figure([]), tradeoff.pareto_figure([])):
        assert "no certificates" in empty.axes[1].texts[0].get_text()


def test_the_drawing_has_the_certificates_numbers():
    words = " ".join(text.get_text() for text in drawing.method_drawing(certificate()).axes[0].texts)
    bound = reading.rounded_up(reading.headline(certificate()).bound)
    assert "281 bytes" in words and "2,248 bits" in words and f"at most {bound:.2f} bits per byte" in words
    words = " ".join(text.get_text() for text in drawing.method_drawing(classifier_certificate()).axes[0].texts)
    assert "at most 41.11%" in words


def test_the_readme_states_the_kept_certificates_numbers():
    text = (HOME / "README.md").read_text("utf-8")
    path = HOME / "results" / "quick" / "certificate.json"
    quick = load_certificate(path)
    for line in terminal.summary(quick, path).splitlines()[:-2]:  # the last two say where the file is, and what to do next
        name, _, value = line.strip().partition("  ")
        assert re.search(rf"^{name} +{re.escape(value.strip())}$", text, re.MULTILINE), line
    fresh, papers = reading.first(quick, "iid"), reading.statement(quick, "iid", "bpd", "hoeffding")
    proven = f"at most {reading.written(fresh)} bits per byte{reading.gain_in_words(fresh)}"
    words = " ".join(text.split())
    assert f"{proven}." in words and f"Hoeffding's inequality, uniform guess) gives {reading.written(papers)}," in words
    assert len(text.splitlines()) <= 120
