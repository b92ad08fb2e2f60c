"""`sublora plan`: bounds on stand-in losses, and the experiment it suggests."""

import math

import numpy as np
import pytest

from sublora import plan
from sublora.errors import SubloraError
from sublora.experiment import load_experiment
from sublora.inequalities.independent import binomial_tail, complexity_nats
from sublora.plan import Corpus, checked, suggest, table


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer sizes and positions: seconds."""
    monkeypatch.setattr(plan, "SIZES", (20, 50, 200, 1000))
    monkeypatch.setattr(plan, "EVALUATED", 1000)


def test_stand_ins_have_their_mean_and_deviation():
    found = plan.stand_ins(10_000, 3.0, 0.5)
    assert found.mean() == pytest.approx(3.0, abs=1e-9) and found.std() == pytest.approx(0.5, rel=1e-2)
    assert not (np.diff(found) > 0).all(), "in the order of size they would not be exchangeable"


def test_a_classifiers_iid_bound_is_the_binomial_tail():
    corpus = Corpus(1000, 5000, 257, 4)
    m, M = corpus.units("example")
    assert (m, M) == (450, 900)
    by_hand = binomial_tail(math.ceil(0.2 * m), complexity_nats(8 * 50 + 20, 0.05), m)
    assert plan.bound(corpus, "example", 50, 0.2, assumption="iid") == by_hand


def test_bounds_grow_with_the_message_and_stand_above_the_loss():
    rows = table(Corpus(1000, 100_000, 257), (2.0,))
    for level in ("document", "position"):
        values = [row.bounds[0] for row in rows if row.level == level]
        assert all(unseen > 2.0 and (iid is None or iid > 2.0) for unseen, iid in values)
        assert values == sorted(values, key=lambda pair: pair[0]) and len(values) > 2
    assert all(row.bounds[0][1] is None for row in rows if row.level == "position")


def test_more_documents_and_a_reference_help():
    few, many = (plan.bound(Corpus(n, 100 * n, 257), "document", 200, 2.0, assumption="unseen") for n in (1000, 2000))
    beside = plan.bound(Corpus(1000, 100_000, 257), "document", 200, 2.0, assumption="unseen", reference=2.5)
    assert 2.0 < many < few and 2.0 < beside < few


def suggested(corpus, losses, tmp_path, reference=None, **data):
    from sublora.reporting.plans import as_text, params_file, places

    rows = table(corpus, losses, reference)
    given = {"data": None, "tokenizer": None, **data}
    known = places(corpus.vocab_size, corpus.classes is not None, reference is not None, **given)
    found = suggest(corpus, rows, losses, reference, minutes=5, data=known)
    text = as_text(corpus, rows, losses, reference, found)
    if found is None:
        return None, text
    path = tmp_path / "plan.yaml"
    path.write_text(params_file(found), "utf-8")
    assert load_experiment(path) == found.experiment
    return found, text


def test_a_language_models_params_file_is_an_experiment(tmp_path):
    found, text = suggested(Corpus(30_000, 3_000_000, 257), (2.0,), tmp_path, data=tmp_path / "mine.jsonl")
    assert found.level == "document" and found.experiment.corpus.path == str(tmp_path / "mine.jsonl")
    assert found.coordinates == found.experiment.subspace.dimension and 0 < found.minutes < 10
    assert "level document" in text and "suggested" in text
    beside, text = suggested(Corpus(30_000, 3_000_000, 257), (2.0,), tmp_path, reference=2.5)
    assert beside.experiment.reference.name == "document" and "the public reference has 2.500" in text
    none, _ = suggested(Corpus(3000, 300_000, 257), (2.0,), tmp_path, reference=2.5)
    assert none is None, "no message of 50 bytes is below the reference"


def test_few_long_documents_lead_to_positions(tmp_path):
    found, _ = suggested(Corpus(60, 300_000, 257), (2.0,), tmp_path)
    assert found.level == "position" and found.experiment.bounds.levels == ("position",)


def test_few_examples_lead_to_iid(tmp_path):
    found, text = suggested(Corpus(3000, 60_000, 257, 4), (0.2, 0.375), tmp_path)
    assert (found.assumption, found.experiment.task.train) == ("iid", 1.0) and found.coordinates == 3 * (found.coordinates // 3)
    many, _ = suggested(Corpus(300_000, 6_000_000, 257, 4), (0.2, 0.375), tmp_path)
    assert (many.assumption, many.experiment.task.train) == ("unseen", 0.5) and many.bytes > found.bytes
    none, text = suggested(Corpus(40, 800, 257, 4), (0.5,), tmp_path)
    assert none is None and "No message of 50 bytes or more" in text and "[" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--documents", 3, "--tokens", 90], "--documents 3: give a number from 4"),
        (["--documents", 300, "--tokens", 90], "--tokens 90: fewer than --documents 300"),
        (["--documents", 300, "--tokens", 9000, "--loss", 9], "--loss 9: must be from 0 to below 8.006"),
        (["--documents", 300, "--tokens", 9000, "--classes", 3, "--reference", 2], "--reference: has no effect for --classes"),
        (["--documents", 300, "--tokens", 9000, "--classes", 30000], "--classes 30000: give a number from 2 to 10,000"),
        (["--documents", 300, "--tokens", 9000, "--vocab", 32000], "name the tokenizer with --tokenizer"),
        (["--documents", 40, "--tokens", 800, "--classes", 4, "-o", "x.yaml"], "x.yaml: not written, since nothing can be"),
    ],
)
def test_the_command_says_what_is_wrong(sublora, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = sublora("plan", *arguments)
    assert status == 1 and says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_command_prints_a_table_and_writes_a_file(sublora, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = sublora("plan", "--documents", 3000, "--tokens", 60000, "--classes", 4, "-o", "mine.yaml")
    assert status == 0, err
    assert "suggested" in out and "written: mine.yaml; next: sublora run mine.yaml" in out
    assert load_experiment("mine.yaml").task.source == "examples.csv"
    status, _, err = sublora("plan", "--documents", 3000, "--tokens", 60000, "--classes", 4, "-o", "mine.yaml")
    assert status == 1 and "mine.yaml: exists; choose another name" in err


def test_sizes_are_checked():
    assert checked(10, 100, 257) == Corpus(10, 100, 257)
    with pytest.raises(SubloraError, match="--classes 1"):
        checked(10, 100, 257, 1)
