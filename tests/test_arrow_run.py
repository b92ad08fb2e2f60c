"""Pairs of runs that differ in direction alone, from training to the report's tables."""

import math
import re

import pytest

from sublora import Run
from sublora.comparing import compare
from sublora.data.exact import floor
from sublora.experiment import Exact
from sublora.reporting import arrow
from sublora.reporting.comparisons import kept
from sublora.reporting.runs import KeptRun, load_runs

SETTINGS = {
    "corpus": {"source": "exact", "exact": {"bits": 4, "nonzeros": 3, "documents": 400}, "tokenizer": "bits", "train": 0.5},
    "model": {"layers": 1, "heads": 2, "width": 16, "block": 9, "embedding_std": 0.5, "weight_std": 0.3},
    "subspace": {"parametrization": "full"},
    "training": {"steps": 40, "batch": 16, "learning_rate": 0.01, "validate_every": 10, "validation_documents": 8},
    "compression": {"quantizer": "grid", "entropy_penalty": 0.01},
    "bounds": {"documents": None, "held_out_documents": 100},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two seeds both ways, and a forward run without a partner; their comparisons."""
    folder = tmp_path_factory.mktemp("arrow")
    for seed, direction in ((0, "forward"), (0, "backward"), (1, "forward"), (1, "backward"), (2, "forward")):
        model = {**SETTINGS["model"], "seed": seed, "direction": direction}
        Run({**SETTINGS, "name": f"{direction}-{seed}", "model": model}, folder).certify()
    (folder / "compare").mkdir()
    for seed in (0, 1):
        paths = [folder / f"{direction}-{seed}" / "certificate.json" for direction in ("backward", "forward")]
        compare(paths, corpora=folder / "corpora").save(folder / "compare" / f"{seed}.json")
    return folder


@pytest.fixture
def found(made, monkeypatch):
    monkeypatch.setenv("SUBLORA_RESULTS", str(made))
    return arrow.pairs(load_runs(made)[0], kept()[0])


def test_models_of_two_directions_are_compared_on_the_same_tokens(found):
    """The mean of D is the difference of what the certificates say of the same held-out documents."""
    for pair in found[0]:
        one = pair.found["iid"]
        assert one.mean == pytest.approx(arrow.loss(pair.backward) - arrow.loss(pair.forward), abs=1e-6)
        assert one.lower <= one.mean <= one.upper and one.evaluated == 100 and set(pair.found) == {"iid", "unseen"}


def test_runs_are_paired_by_all_settings_but_direction(found):
    pairs, missing = found
    assert [(pair.forward.name, pair.backward.name) for pair in pairs] == [("forward-0", "backward-0"), ("forward-1", "backward-1")]
    assert len(missing) == 1 and "forward-2" in missing[0]


def test_a_pair_that_is_not_compared_is_named_and_has_no_interval(made):
    pairs, missing = arrow.pairs(load_runs(made)[0], [])
    assert "they are not compared" in missing[0] and arrow.sentences(pairs) == []
    assert "no pair is compared" in arrow.arrows_figure(pairs).axes[0].texts[0].get_text()


def test_the_tables_say_what_the_files_say(found):
    pairs = found[0]
    text, one = str(arrow.arrows_table(pairs)), pairs[0].found["iid"]
    assert f"{arrow.loss(pairs[0].forward):.4f}" in text and text.count("GPT 1 x 16, context 9") == 2
    low, high = map(float, re.search(r"([-+][\d.]+) to ([-+][\d.]+)", arrow.interval(one)).groups())
    assert one.lower - 1e-4 <= low <= one.lower and one.upper <= high <= one.upper + 1e-4
    seeds = str(arrow.seeds_table(pairs))
    assert seeds.count("linear, 4 + 4 bits, 3 nonzeros") == 1 and re.search(r"context 9 *\| *2 \|", seeds)
    nats = arrow.loss(pairs[0].forward) * 9 / 8 * math.log(2)
    exact = str(arrow.exact_table(pairs))
    assert f"{nats:.4f}" in exact and "0.3466" in exact


def test_a_sentence_says_which_direction_is_better_or_that_none_is_proven(found):
    pair = found[0][0]
    for lower, upper, words in (
        (0.01239, 0.5, "forward is better by at least 0.0123 bits per token"),
        (-0.5, -0.01239, "backward is better by at least 0.0123 bits per token"),
        (-0.1, 0.2, "no direction is proven to be better: the interval, -0.1000 to +0.2000, contains 0"),
    ):
        stated = pair.found["iid"].model_copy(update={"lower": lower, "upper": upper})
        (line,) = arrow.sentences([pair._replace(found={"iid": stated})])
        assert words in line and "% above the entropy" in line


def test_the_figures_show_both_ways_the_entropy_and_every_pair(found):
    pairs = found[0]
    figure = arrow.curves(pairs)
    assert len(figure.axes) == 2 and all(len(ax.lines) == 3 for ax in figure.axes)
    assert figure.axes[0].lines[2].get_ydata()[0] == floor(Exact(bits=4, nonzeros=2))
    assert len(arrow.arrows_figure(pairs).axes[0].get_yticks()) == 2


def test_other_text_has_its_corpus_name_and_no_row_among_the_exact(found):
    pair = found[0][0]
    of = pair.of.model_copy(update={"params": {**pair.of.params, "corpus": {"source": "text"}}})
    assert arrow.text_name(of) == of.corpus.name
    plain = pair._replace(forward=KeptRun("x", pair.forward.path, of, None))
    assert str(arrow.exact_table([plain])).count("\n") == 2


@pytest.mark.parametrize("table", ["arrow-linear", "arrow-updates", "arrow-language", "arrow-context", "arrow-size"])
def test_published_values_stand_with_where_they_were_read(table):
    assert "figure" in str(arrow.published_table(table)) or "plot" in str(arrow.published_table(table))
