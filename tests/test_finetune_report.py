"""A classifier's certificate beside those of language models: words, tables, figures and pages."""

from pathlib import Path

import pytest
from certificates import certificate, changed, classifier_certificate, metrics, restated

from sublora.reporting import display, figures, paper, reading, runs, sentences, tables


@pytest.fixture
def classifier():
    return classifier_certificate()


def test_the_headline_is_chosen_by_a_fixed_order_not_by_size(classifier):
    assert (reading.headline(classifier).assumption, reading.headline(classifier).inequality) == ("unseen", "betting")
    assert reading.statement(classifier, "iid").inequality == "binomial_tail"
    assert reading.main_metric(classifier) == "error"
    assert reading.main_metric(certificate()) == "bpd"


def test_held_out_values_are_those_of_what_is_bounded(classifier):
    of = {assumption: reading.statement(classifier, assumption) for assumption in ("unseen", "iid", "pool")}
    assert reading.held_out_value(classifier, of["unseen"]) == 0.2602
    assert reading.held_out_value(classifier, of["iid"]) == 0.2801
    assert reading.held_out_value(classifier, of["pool"]) is None


def test_sentences_speak_of_examples_and_of_the_commonest_label(classifier):
    first, second = sentences.guarantee(classifier), sentences.guarantee_iid(classifier)
    assert "has a 0-1 error of at most 41.11%" in first
    assert "33,675 examples that it was not trained on" in first
    assert "Always answering the commonest label has 44.21%" in first
    assert second.startswith("Assume that examples are independent draws") and "at most 34.51%" in second
    words = " ".join(part for row in sentences.meanings(classifier) for part in row)
    assert "44.21%: the commonest label" in words and "public base model" in words
    assert "tokens the same probability" not in words and "document" not in words


def test_a_vacuous_error_guarantees_nothing(classifier):
    vacuous = changed(classifier, "bounds", to=[restated(b, bound=0.5).model_dump() for b in classifier.statements])
    assert sentences.guarantee(vacuous).endswith("is 50.00%, which is vacuous: always answering the commonest label gets 44.21%.")


def test_tables_are_in_percent(classifier):
    text = str(tables.bounds_table(classifier))
    assert all(number in text for number in ("34.51", "41.11", "26.02", "28.01", "44.21", "Unseen: examples not trained on"))
    assert "document" not in text
    every = [runs.KeptRun(name, Path(name), values, metrics()) for name, values in (("glue", classifier), ("quick", certificate()))]
    assert "41.11%" in str(tables.sizes_table(every))
    paper = str(tables.paper_table(every))
    assert "36.01%" in paper and "35.55%" in paper
    tightness = str(tables.tightness_table(every[:1]))
    assert "34.5" in tightness and "binomial tail" in tightness


def test_figures_draw_a_classifier(classifier):
    axes = figures.bounds_overview(classifier).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["unseen, hoeffding", "iid, binomial tail", "iid, hoeffding", "iid, kl", "pool, kl"]
    assert axes.get_xlabel() == "0-1 error in percent (lower is better)"
    assert "commonest label, 44.21" in [line.get_label() for line in axes.lines]
    log = metrics().replace("pretrain", "finetune")
    labels = [line.get_label() for line in figures.loss_curve(log).axes[0].lines]
    assert "finetune, training" in labels and "quantize, validation" in labels
    run = runs.KeptRun("glue", Path("glue"), classifier, log)
    figures.every_run([run], figures.draw_loss)
    figures.every_run([run], figures.draw_alpha)
    figures.every_run([run], figures.draw_inequalities([run]))


def test_the_certificate_shows_itself(classifier):
    text = display.certificate(classifier)
    assert "41.11" in text and "bits per" not in text


def test_a_classifier_that_errs_like_the_commonest_label_is_said(classifier):
    bound, units = reading.headline(classifier), reading.headline(classifier).units
    run = runs.KeptRun("good", Path("good"), classifier, metrics())
    assert paper.glue_findings([run]) == []
    as_label = [restated(b, empirical=bound.vacuous_at, bound=0.5).model_dump() for b in classifier.statements]
    (line,) = paper.glue_findings([runs.KeptRun("bad", Path("bad"), changed(classifier, "bounds", to=as_label), metrics())])
    assert line.startswith("bad: Its bound, 50.00%, is vacuous") and f"exactly as many of {units:,} training examples" in line
    near = [restated(b, empirical=bound.vacuous_at - 0.005).model_dump() for b in classifier.statements]
    (line,) = paper.glue_findings([runs.KeptRun("near", Path("near"), changed(classifier, "bounds", to=near), metrics())])
    assert "errs like the commonest label: on " in line and "exactly" not in line and "vacuous" not in line
