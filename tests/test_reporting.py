"""Certificates as words, tables and figures."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from certificates import (
    VOCABULARY,
    altered,
    certificate,
    certificate_beside,
    changed,
    classifier_certificate,
    metrics,
    only,
    restated,
    with_bound,
    write_run,
)

from sublora.cli import _print_table
from sublora.errors import SubloraError
from sublora.reporting import display, drawing, figures, markdown, reading, runs, sentences, tables, terminal


@pytest.fixture
def quick():
    return certificate()


def bound_of(values, **wanted):
    return next(b for b in values.statements if all(getattr(b, key) == value for key, value in wanted.items()))


def test_runs_that_cannot_be_read_are_named_and_skipped(tmp_path, quick):
    write_run(tmp_path, quick)
    write_run(tmp_path, altered(certificate("old"), "format", to="sublora-certificate/0"))
    write_run(tmp_path, certificate("logless")).with_name("metrics.csv").unlink()
    write_run(tmp_path, certificate("wronglog")).with_name("metrics.csv").write_text("a,b\n1,2\n")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "params.yaml").write_text("name: unfinished\n")
    (tmp_path / "corpora").mkdir()
    (tmp_path / "notes.txt").write_text("")
    found, skipped = runs.load_runs(tmp_path, tmp_path / "absent")
    assert [run.name for run in found] == ["logless", "quick", "wronglog"]
    assert [run.metrics is None for run in found] == [True, False, True]
    assert len(skipped) == 4 and not any("\n" in line for line in skipped)
    for name in ("old", "unfinished", "logless", "wronglog"):
        assert sum(str(tmp_path / name) in line for line in skipped) == 1
    assert runs.headline_run(found).name == "quick"
    assert runs.headline_run(found[:1]).name == "logless"


def test_no_runs_says_what_to_do(tmp_path):
    with pytest.raises(SubloraError, match="run `sublora run params/quick.yaml` first"):
        runs.some_runs(tmp_path, tmp_path / "results")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.csv").write_text("")
    with pytest.raises(SubloraError, match="1 unreadable; the first: .*broken"):
        runs.some_runs(tmp_path, tmp_path / "results")


def test_kept_runs_stand_in_for_those_that_are_not_there(tmp_path, quick, monkeypatch):
    results = tmp_path / "results"
    write_run(results, changed(quick, "certificate_sha256", to="1"))
    write_run(results / "table1", changed(certificate("sublora"), "certificate_sha256", to="2"))
    monkeypatch.setenv("SUBLORA_RESULTS", str(results))
    monkeypatch.setenv("SUBLORA_RUNS", str(tmp_path / "runs"))
    assert [run.path for run in runs.runs_for_pages()[0]] == [results / "quick"]
    write_run(tmp_path / "runs", quick)
    write_run(tmp_path / "runs", changed(certificate("table1-sublora"), "certificate_sha256", to="2"))
    assert [run.path for run in runs.runs_for_pages()[0]] == [tmp_path / "runs" / "quick"]
    assert [run.name for run in runs.kept_runs("table1")[0]] == ["sublora"]
    assert "run `make figure1`" in runs.kept_runs("figure1")[1][0]


def test_only_statements_about_the_certified_model_are_shown(quick):
    assert {bound.alpha for bound in quick.statements} > {0.1, 0.25}
    assert {bound.alpha for bound in reading.certified(quick)} == {0.1, None}
    other = changed(quick, "alpha", to=0.25)
    assert {bound.alpha for bound in reading.certified(other)} == {0.25, None}
    assert reading.headline(other) != reading.headline(quick)


def test_the_headline_is_fixed_in_advance_not_the_smallest(quick):
    headline = reading.headline(quick)
    assert (headline.assumption, headline.inequality, headline.metric) == ("unseen", "betting", "bpd")
    assert reading.headline(with_bound(quick, headline, 7.9)).bound == 7.9
    assert reading.headline(only(quick, lambda b: b.assumption == "iid")).assumption == "iid"


@pytest.mark.parametrize(
    ("value", "up"),
    [(4.9, 4.9), (4.9000001, 4.91), (4.651, 4.66), (0.0, 0.0), (5.0, 5.0), (1e-9, 0.01), (1e308, 1e308), (math.inf, math.inf)],
)
def test_bounds_are_rounded_up(value, up):
    assert reading.rounded_up(value) == up


def test_the_guarantee_in_words(quick):
    value = math.ceil(100 * reading.headline(quick).bound) / 100
    assert sentences.guarantee(quick) == (
        "With 95% confidence over the random split, the model, stored in 281 bytes (2,248 bits), predicts the 13,845"
        f" Python functions that it was not trained on at {value:.2f} bits per byte or better on average. Guessing"
        " uniformly costs 8.01 bits per byte."
    )
    iid = sentences.guarantee_iid(quick)
    assert iid.startswith("Assume that Python functions are independent draws from one source, as the paper does")
    assert "by itself" in sentences.small_print(quick)


def test_other_corpora_have_documents_and_tokens(quick):
    other = changed(changed(quick, "corpus", "name", to="openwebtext"), "corpus", "unit", to="token")
    other = changed(other, "delta", to=0.01)
    sentence = sentences.guarantee(other)
    assert "With 99% confidence" in sentence and "13,845 documents" in sentence and "bits per token" in sentence


@pytest.mark.parametrize(
    ("delta", "sure"),
    [(0.05, "95%"), (0.1, "90%"), (4e-7, "99.99996%"), (1e-9, "99.999999%"), (5e-324, "99.999999%"), (0.00000049, "99.999951%")],
)
def test_confidence_is_rounded_down(delta, sure):
    """`:g` rounds to the nearest of six digits, which makes 100% of 99.99996%."""
    assert sentences.confidence(delta) == sure and float(sure[:-1]) < 100
    assert f"{100 * (1 - 4e-7):g}" == "100"


def test_what_the_split_must_be_is_said(quick):
    once = sentences.small_print(quick), dict(sentences.meanings(quick))["13,845 Python functions: not trained on"]
    assert all("a split that was drawn once" in text for text in once)
    bounds = [{**bound.model_dump(), "configurations": 8} for bound in quick.statements]
    paid = changed(quick, "bounds", to=bounds)
    others = sentences.small_print(paid), dict(sentences.meanings(paid))["13,845 Python functions: not trained on"]
    assert all("among 8 at most" in text and "drawn once" not in text for text in others)
    proven = next(text for name, text in sentences.meanings(quick) if name.endswith(": the bound"))
    assert "with 95% confidence" in proven and "what is public" in proven


def test_a_vacuous_certificate_guarantees_nothing(quick):
    vacuous = with_bound(quick, reading.headline(quick), 8.5)
    assert sentences.guarantee(vacuous).startswith("This certificate guarantees nothing about the 13,845")
    assert "predicts" not in sentences.guarantee(vacuous)


@pytest.mark.parametrize("assumption", ["iid", "pool", "unseen", "martingale"])
@pytest.mark.parametrize("metric", ["bpd", "top10_error"])
def test_every_assumption_and_metric_has_a_sentence(quick, assumption, metric):
    bound = restated(bound_of(quick, metric=metric, assumption="iid"), assumption=assumption)
    sentence = sentences.sentence(quick, bound)
    assert sentence.endswith(".") and "95%" in sentence
    assert ("top-10 error" in sentence) == (metric == "top10_error")


def on_pretrained(of):
    """The certificate as fine-tuning of pretrained weights has it: they are public, and the message does not hold them."""
    return changed(changed(of, "public", "base", to="transformers"), "public", "condition", to="base_independent")


@pytest.mark.parametrize("assumption", ["iid", "pool", "unseen", "martingale"])
def test_only_iid_and_martingale_are_conditional_on_a_pretrained_base(quick, assumption):
    bound = restated(reading.headline(quick), assumption=assumption)
    condition = "drawn independently of the pretrained base"
    assert (condition in sentences.sentence(on_pretrained(quick), bound)) == (assumption in ("iid", "martingale"))
    assert condition not in sentences.sentence(quick, bound)


def test_the_condition_on_a_pretrained_base_is_shown_wherever_a_certificate_is(quick):
    condition = "Iid and martingale bounds hold if the training documents or examples, their texts and their labels, were drawn"
    everywhere = (sentences.small_print, display.certificate, lambda values: terminal.details(values, Path("c.json")))
    labels = classifier_certificate()
    for show in everywhere:
        assert condition in show(on_pretrained(quick))
        assert "public base, weights or tokenizer" not in show(quick) + show(labels)
        assert condition in show(changed(labels, "public", "condition", to="base_independent"))


def test_no_held_out_value_beside_a_pool_bound(quick):
    frame = tables.bounds_frame(quick)
    assert set(frame["alpha"].dropna()) == {0.1}
    assert frame.loc[frame["assumption"] == "pool", "held_out"].isna().all()
    assert frame.loc[frame["assumption"] != "pool", "held_out"].notna().all()
    assert (frame["assumption"] == "pool").sum() == 8


def test_verdicts(quick):
    bound = bound_of(quick, metric="bpd", assumption="iid", alpha=0.1, inequality="betting")
    assert reading.verdict(bound, 4.3) == "better"
    assert reading.verdict(bound, bound.bound + 0.01) == "contradicted"
    assert reading.verdict(restated(bound, bound=bound.vacuous_at), None) == "vacuous"


def test_tables_show_the_certificates_numbers(quick):
    text = str(tables.bounds_table(quick))
    for bound in reading.certified(quick):
        if bound.metric == "bpd":
            assert f"| **{reading.written(bound)}**" in text
    bits_only = only(quick, lambda b: b.metric == "bpd")
    assert tables.errors_table(bits_only) is None
    assert "bounds no top-k error" in display.errors(bits_only)


def test_tables_of_runs(tmp_path, quick):
    write_run(tmp_path, quick)
    write_run(tmp_path, changed(certificate("other", 700), "environment", "seconds", to={"train": 7.0, "pilot": 5.0}))
    found, _ = runs.load_runs(tmp_path)
    assert "700" in str(tables.sizes_table(found))
    paper = str(tables.paper_table(found))
    assert "not certified" in paper and f"{round(quick.paper_accounting.bits):,}" in paper
    environment = str(tables.environment_table(found))
    assert "Pilot (s)" in environment and " 211 |" in environment and " 274 |" in environment
    assert sentences.cost(quick) == "4.6 minutes on cpu (train 3.6, score 1.1)"


def test_a_certificate_shows_itself_and_escapes_what_it_holds(quick):
    text = changed(quick, "experiment", to="<script>alert(1)</script>")._repr_markdown_()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "13,845 Python functions" in text and "\n| Speaks of" in text
    assert "src=" not in text and "](" not in text
    assert repr(quick) == f"<certificate of quick: {len(quick.statements)} bounds>"
    assert quick.bounds.equals(tables.bounds_frame(quick)) and quick.bounds.iloc[0]["assumption"] == "unseen"
    assert "<b>" not in display.skipped(["<b>"]) and "Every certificate and log" in display.skipped([])


def test_a_table_without_rows_shows_its_columns():
    empty = markdown.Table([], left=("Run",), groups=("Group",), columns=("Group", "Run", "n"))
    assert str(empty) == "| Group | Run | n |\n| ----- | --- | --: |\n"


def test_markdown_shows_exactly_the_characters_it_was_given():
    assert markdown.escape("a*b_c|d`e[f](g)<h>\x1b[0m\n$x$") == (
        r"a\*b\_c\|d\`e\[f\](g)&lt;h&gt;" + "\ufffd" + r"\[0m" + "\ufffd" + r"\$x\$"
    )
    assert markdown.escape(markdown.Markdown("*a*")) == "*a*"
    table = markdown.Table([{"Run": "a", "n": 1}, {"Run": "a", "n": 2}, {"Run": "b|", "n": 3}], groups=("Run",))
    assert str(table).splitlines() == ["| Run | n |", "| ------- | --: |", "| **a** | 1 |", "|  | 2 |", r"| **b\|** | 3 |"]


def test_no_figure_draws_a_bound_above_the_largest_loss(quick):
    for bound in [b for b in quick.statements if (b.assumption, b.metric, b.alpha) == ("unseen", "bpd", 0.5)]:
        quick = with_bound(quick, bound, 30.0)
    (ax,) = figures.bound_against_alpha(quick).axes
    largest = {alpha: math.log2(VOCABULARY / alpha) for alpha in quick.public.alpha_grid}
    drawn = [float(line.get_ydata()[-1]) for line in ax.lines if len(line.get_ydata()) == len(largest)]
    assert len(drawn) == 2 and drawn == pytest.approx(2 * [largest[0.5]])
    for bar, alpha in zip(ax.patches, 3 * sorted(largest), strict=False):
        assert bar.get_y() + bar.get_height() <= largest[alpha] + 1e-9


def test_a_bound_that_no_loss_can_exceed_is_called_vacuous_everywhere(quick):
    bound = reading.headline(quick)
    largest = math.log2(VOCABULARY) - math.log2(bound.alpha)
    assert reading.largest_loss(bound) == pytest.approx(largest)
    below, above = (restated(bound, bound=value) for value in (largest - 0.02, largest))
    assert reading.written(below) == reading.number(largest - 0.02) and reading.written(above) == "vacuous"
    assert reading.written(restated(bound, metric="top1_error", bound=1.05)) == "vacuous"
    values = with_bound(quick, bound, 2 * largest)
    found = [runs.KeptRun("quick", Path("quick"), values, metrics())]
    shown = [str(make(found)) for make in (tables.sizes_table, tables.tightness_table)]
    shown += [str(tables.bounds_table(values)), sentences.guarantee(values), terminal.details(values, Path("c.json"))]
    shown += [" ".join(text.get_text() for text in figures.bounds_overview(values).axes[0].texts)]
    assert tables.bounds_frame(values)["bound"].max() <= largest
    for text in shown:
        assert re.search("vacuous", text, re.IGNORECASE) and f"{2 * largest:.2f}" not in text
    assert figures.bounds_overview(values).axes[0].get_xlim()[1] < 2 * largest


def test_what_a_public_base_must_not_depend_on_is_said_everywhere(quick):
    classifier = classifier_certificate()
    for of in (quick, classifier):
        said = "hold even if it has read the whole pool"
        assert said not in terminal.details(of, Path("c.json"))
        on_a_base = of.model_copy(update={"public": of.public.model_copy(update={"condition": "base_independent"})})
        for text in (terminal.details(on_a_base, Path("c.json")), display.small_print(on_a_base), display.certificate(on_a_base)):
            assert said in text and "drawn independently of it" in text


def test_the_terminal_says_how_the_split_was_drawn_and_what_a_unit_is(quick):
    classifier = classifier_certificate()
    assert "41,536 of 55,381 to train on, by a random permutation from split seed 0" in terminal.details(quick, Path("c.json"))
    text = terminal.details(classifier, Path("c.json"))
    assert "33,674 of 67,349 to train on" in text and "example: the 0-1 error" in text
    everything = classifier.corpus.model_copy(update={"split": "all", "documents": 67_349})
    assert "all 67,349 to train on" in terminal.details(classifier.model_copy(update={"corpus": everything}), Path("c.json"))
    paper = quick.model_copy(update={"corpus": quick.corpus.model_copy(update={"split": "paper"})})
    assert "by the paper's split of openwebtext" in terminal.details(paper, Path("c.json"))


def test_the_terminal_shows_the_headline_and_no_control_characters(quick):
    text = terminal.summary(quick, Path("runs/quick/certificate.json"))
    names = [line.split()[0] for line in text.splitlines()]
    assert names == ["bound", "guess", "held", "message", "certificate", "next"]
    assert "`sublora report runs/quick` shows it" in text and "`sublora report` shows it" in terminal.summary(quick, Path("c.json"))
    bound = reading.headline(quick)
    assert f"{reading.written(bound)} bits per byte" in text and "8.01" in text and "281 bytes" in text
    hostile = changed(quick, "experiment", to="\x1b[2Jverified\r")
    assert "\x1b" not in terminal.details(hostile, Path("c.json")) and "\r" not in terminal.details(hostile, Path("c.json"))
    vacuous = terminal.summary(with_bound(quick, bound, 8.5), Path("c.json"))
    assert "8.50 bits per byte, VACUOUS" in vacuous and "smaller message" in vacuous


def test_the_main_figure_draws_what_the_table_says(quick):
    ax = figures.bounds_overview(quick).axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:2] == ["unseen, betting", "unseen, hoeffding"]
    shown = {text.get_text() for text in ax.texts}
    assert shown == {reading.written(b) for b in reading.certified(quick) if b.metric == "bpd"}
    diamonds = [line for line in ax.lines if line.get_marker() == "D"]
    assert {labels[int(line.get_ydata()[0])].split(",")[0] for line in diamonds} == {"unseen", "iid"}


def test_the_parts_are_stacked_up_to_the_bound(quick):
    ax = figures.bound_against_alpha(quick).axes[0]
    tops = {}
    for bar in ax.patches:
        column = round(bar.get_x() + bar.get_width() / 2)
        tops[column] = max(tops.get(column, 0), bar.get_y() + bar.get_height())
    wanted = ("bpd", "unseen", "betting")  # the headline's, not another one
    expected = [b.bound for b in quick.statements if (b.metric, b.assumption, b.inequality) == wanted]
    assert [tops[column] for column in sorted(tops)] == pytest.approx(expected)
    names = ax.get_legend_handles_labels()[1]
    assert {"training value", "price: what the inequality adds", "bound by betting", "bound by hoeffding"} < set(names)
    only = [b for b in quick.statements if b.inequality == "hoeffding"]
    papers = figures.bound_against_alpha(changed(quick, "bounds", to=[b.model_dump() for b in only])).axes[0]
    assert "complexity" in papers.get_legend_handles_labels()[1], "where a bound states its parts, they are shown"
    (words,) = figures.bound_against_alpha(classifier_certificate()).axes[0].texts
    assert words.get_text().startswith("no bound in bits by")


def test_small_multiples_have_one_legend_and_equal_axes(tmp_path, quick):
    for name, size, loss in (("a", 281, 4.2), ("b", 90_000, 3.1)):
        write_run(tmp_path, certificate(name, size, loss))
    found, _ = runs.load_runs(tmp_path)
    for draw in (figures.draw_alpha, figures.draw_loss, figures.draw_inequalities(found)):
        figure = figures.every_run(found, draw)
        one, other = figure.axes
        (legend,) = figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert one.get_legend() is None and other.get_legend() is None and len(names) == len(set(names)) > 2
        assert one.get_xlim() == other.get_xlim()
        assert draw == figures.draw_inequalities or one.get_ylim() == other.get_ylim()
        assert "bits per byte" in one.get_xlabel() + one.get_ylabel()


def test_which_number_to_look_at_first_is_the_headline(quick):
    lines = sentences.reading_order(quick)
    headline = reading.headline(quick)
    assert lines[0].startswith(f"First the headline: {reading.written(headline)} bits per byte, by betting (unseen).")
    assert "better than the uniform guess" in lines[0] and reading.shown(quick, headline).held_out in lines[1]
    assert "hoeffding" in lines[-1] and lines[-1].endswith("The smallest of several bounds is not a bound at 95%.")
    vacuous = sentences.reading_order(with_bound(quick, headline, 8.5))
    assert "It says nothing: it is not below the uniform guess" in vacuous[0]
    assert any("certified gain over the public reference: 0.25" in line for line in sentences.reading_order(certificate_beside()))


def test_a_row_with_several_bounds_says_which_are_vacuous(quick):
    first, second = (reading.statement(quick, "unseen", "bpd", name) for name in ("betting", "hoeffding"))
    assert reading.verdicts(quick, {"betting": first, "hoeffding": second}) == "better"
    loose = restated(second, bound=8.5)
    assert reading.verdicts(quick, {"betting": first, "hoeffding": loose}) == "betting: better, hoeffding: vacuous"
    assert reading.verdicts(quick, {"betting": None}) == "–"


def test_a_phase_that_counts_from_one_is_shown_after_the_first():
    ax = figures.loss_curve(metrics(), uniform=8.0).axes[0]
    lines = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert min(lines["quantize, training"]) > max(lines["pretrain, training"]) == 1_500
    assert figures.loss_curve(None).axes[0].texts[0].get_text() == "no training log"


def test_histograms_mark_levels_mean_and_bound():
    generator = np.random.default_rng(0)
    ax = figures.coordinates_histogram(generator.normal(size=(31, 31)), np.linspace(-2, 2, 7)).axes[0]
    assert len(ax.lines) == 7 and sum(bar.get_height() for bar in ax.patches) == 961
    losses = generator.normal(4, 1, size=500)
    bound = restated(reading.headline(certificate()), bound=4.501)
    ax = figures.document_losses_histogram(losses, bound, unit="bits per byte").axes[0]
    names = [line.get_label() for line in ax.lines]
    assert names == [f"mean, {reading.number(losses.mean())}", "bound on the mean, 4.51", "uniform guess, 8.01"]
    assert "bits per byte" in ax.get_xlabel()
    beside = reading.headline(certificate_beside())
    names = [line.get_label() for line in figures.document_losses_histogram(losses, beside, reference=losses + 1).axes[0].lines]
    assert names[1:3] == [
        f"mean of the reference by itself, {reading.number(losses.mean() + 1)}", "bound on the mean, 3.70, gain 0.25",
    ]  # fmt: skip


def test_figures_leave_pyplot_as_it_was(tmp_path, quick):
    write_run(tmp_path, quick)
    found, _ = runs.load_runs(tmp_path)
    before = plt.rcParams["font.size"]
    figure = figures.every_run(found, figures.draw_alpha)
    figures.every_run(found, figures.draw_loss).savefig(tmp_path / "figure.svg")
    assert plt.get_fignums() == [] and plt.rcParams["font.size"] == before
    assert len(figure.axes) == 1 and "<svg" in (tmp_path / "figure.svg").read_text()


def test_reporting_knows_nothing_of_torch():
    code = (
        "import sys; from sublora.reporting import terminal; from sublora.certificate.schema import load_certificate;"
        "assert not {'torch', 'pandas'} & sys.modules.keys();"
        "from sublora.reporting import display, figures, render, runs, sentences, tables;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_meanings_name_every_number_of_the_headline(quick):
    names = json.dumps([name for name, _ in sentences.meanings(quick)])
    for number in ("2,248 bits", "41,536 Python functions", "13,845 Python functions", "8.01 bits per byte"):
        assert number in names
    pooled = only(quick, lambda b: b.assumption == "pool")
    assert "held-out" not in json.dumps([name for name, _ in sentences.meanings(pooled)])


def test_no_line_shows_the_sum_without_the_reference(tmp_path):
    """The headline speaks of the reference's statement; wherever its bound stands, the reference's own value and the gain do."""
    values = certificate_beside()
    bound = reading.headline(values)
    assert (bound.reference, bound.assumption, bound.inequality) == ("document", "unseen", "betting")
    assert reading.statement(values, "unseen").reference is None, "figures without a place for it show the uniform guess"
    assert reading.held_out_value(values, bound) == pytest.approx(3.62)
    write_run(tmp_path, values)
    found, _ = runs.load_runs(tmp_path)
    page = display.certificate(values)
    for text in (
        sentences.guarantee(values),
        terminal.summary(values, Path("c.json")),
        str(tables.bounds_table(values)),
        str(tables.sizes_table(found)),
        str(tables.headline_table(values)),
        " ".join(drawn.get_text() for drawn in drawing.method_drawing(values).axes[0].texts),
        page,
    ):
        assert "3.70" in text and "3.95" in text and "0.25" in text, text
    named = {"3.95 bits per byte: the public reference", "0.25 bits per byte: the certified gain"}
    assert dict(sentences.meanings(values)).keys() > named
    assert sentences.guarantee_iid(values).count("0.25") == 1, "the second sentence speaks of the same model"
    main = figures.bounds_overview(values).axes[0]
    assert sum("gain 0.25" in text.get_text() for text in main.texts) == 3
    assert {float(line.get_xdata()[0]) for line in main.lines if line.get_marker() == "X"} == {3.95}
    table = str(tables.headline_table(values))
    assert "| 3.98 |" in table and "the paper's own form: iid, hoeffding, uniform guess" in table
    assert {"reference_empirical", "gain"} <= set(tables.bounds_frame(values).columns)
    assert "reference" not in terminal.summary(certificate(), Path("c.json"))


def test_a_gain_is_about_what_is_bounded_and_over_the_reference_as_it_is_mixed():
    """The reference's value is of training text. That value minus the gain is no limit for other text, so no sentence says so."""
    values = certificate_beside()
    guarantee, fresh = sentences.guarantee(values), sentences.guarantee_iid(values)
    code = "The public document reference, mixed with 1/16 of the uniform guess, costs no bits and is mixed with the model."
    assert f"{code} It gets 3.95 bits per byte on training text by itself; on the 13,845" in guarantee
    better = "the mixture is proven to be better than the reference by 0.25 bits per byte or more on average."
    assert f"that the model was not trained on, {better}" in guarantee and f"; on a fresh Python function, {better}" in fresh
    meanings = dict(sentences.meanings(values))
    assert "mixed with 1/16 of the uniform guess" in meanings["0.25 bits per byte: the certified gain"]
    assert "mixed with 1/16 of the uniform guess" in meanings["3.95 bits per byte: the public reference"]
    other = changed(values, "public", "reference", "gamma", to=0.3)
    assert "mixed with 3/10 of" in sentences.guarantee(other) or "mixed with 0.3 of" in sentences.guarantee(other)
    tokens = reading.headline(values).model_copy(update={"level": "token", "assumption": "martingale"})
    assert reading.mixed_in(values, tokens) == "", "the code of single tokens is as it is"
    for text in (guarantee, fresh):
        assert "improve on that" not in text


def test_a_gain_is_rounded_down_and_none_is_said():
    assert reading.gain(reading.headline(certificate_beside(gap=0.1049))) == "0.24"
    worse = certificate_beside(gap=0.36)
    assert reading.headline(worse).gain < 0 and reading.gain(reading.headline(worse)) == "none"
    assert "zero bits are better" in terminal.summary(worse, Path("c.json"))
    assert "not proven to add anything" in sentences.guarantee(worse)
    shown = " ".join(text.get_text() for text in figures.bounds_overview(worse).axes[0].texts)
    for text in (shown, sentences.guarantee(worse), str(sentences.meanings(worse)).lower()):
        assert "zero bits are better" in text


def test_a_table_in_the_terminal_rounds_gains_down_and_bounds_up(capsys):
    _print_table(pd.DataFrame({"gain": [0.12349, None], "bound": [1.00001, 2.0]}))
    printed = capsys.readouterr().out
    assert "0.1234 " in printed and "1.0001" in printed and "0.1235" not in printed
