"""The certificate: what is in it follows from the message; one altered number is noticed."""

import json

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.certificate.build import certify
from sublora.certificate.schema import digest, load_certificate
from sublora.certificate.statements import DETERMINISM, metric, unit_losses
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, as_experiment
from sublora.message import with_alpha
from sublora.problems import TextProblem
from sublora.run import Run
from sublora.sampling import load
from sublora.scoring.text import evaluate_pilot
from sublora.verification import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that has ended, with its `certificate` and the `path` of it."""
    folder = tmp_path_factory.mktemp("certificate")
    run = Run(settings(write_texts(folder / "texts", 500)), folder / "runs")
    run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


def test_a_true_certificate_verifies(made):
    assert verify(made.path, made.corpora) == []
    assert load_certificate(made.path) == made.certificate


def test_every_bound_is_above_what_was_measured(made):
    for b in made.certificate.statements:
        of = metric(b.metric, b.alpha, 257)
        assert b.empirical < b.bound <= of.low + of.width
        if b.inequality == "hoeffding":
            proven = sum(b.parts.model_dump().values()) + DETERMINISM["bits" if b.metric == "bpd" else "errors"]
            assert b.bound == pytest.approx(min(proven, of.low + of.width), abs=1e-12)
            assert b.parts.complexity > 0 and b.parts.subsampling > 0


def test_all_alphas_are_listed_and_only_the_message_s_is_not_charged(made):
    rows = [b for b in made.certificate.statements if b.metric == "bpd" and b.level == "document"]
    assert {b.alpha for b in rows} == set(ALPHA_GRID)
    for b in rows:
        assert b.candidates == (1 if b.alpha == made.certificate.alpha else len(ALPHA_GRID))
    assert all(b.candidates == 1 for b in made.certificate.statements if b.alpha is None)


def test_the_message_has_the_smoothing_weight_that_the_pilot_promises_most_of(made):
    promised = made.problem.promised(made.draft)
    assert [entry.alpha for entry in promised] == list(ALPHA_GRID)
    best = min(promised, key=lambda entry: entry.bound)
    assert made.certificate.alpha == best.alpha
    assert made.message == with_alpha(made.draft, best.alpha, made.experiment, 257)


def test_complexity_is_every_byte_of_the_message(made):
    assert made.certificate.message_bits == 8 * len(made.message)
    assert made.certificate.message_bytes == made.message
    (b,) = [b for b in made.certificate.statements if (b.inequality, b.assumption, b.alpha) == ("hoeffding", "iid", 0.1)]
    m, n = b.units, b.evaluated
    width = np.log2(1 + 0.9 * 257 / 0.1)
    nats = (8 * len(made.message) + 20) * np.log(2) + np.log((n + m) / (n * 0.05))  # with log2 of 2^20 configurations
    assert b.parts.complexity == pytest.approx(width * np.sqrt(nats / (2 * m)), rel=1e-12)


def test_the_scored_model_is_the_decoded_one_and_its_documents_follow_from_the_message(made):
    problem, scores = made.problem, made.evaluation
    again = problem.evaluate(made.message)
    np.testing.assert_array_equal(again.training["document"].log_probability, scores.training["document"].log_probability)
    alpha = next(a for a in ALPHA_GRID if a != made.certificate.alpha)
    elsewhere = problem.evaluate(with_alpha(made.message, alpha, made.experiment, 257))
    one, two = (evaluation.training["document"].offsets for evaluation in (scores, elsewhere))
    assert not np.array_equal(one, two), "another message has another subsample"
    one, two = (evaluation.held_out["document"].log_probability for evaluation in (scores, elsewhere))
    np.testing.assert_array_equal(one, two)
    alone = evaluate_pilot(made.message, problem.store, problem.split, made.experiment)
    for pilot in (alone, elsewhere.pilot):
        np.testing.assert_array_equal(pilot["document"].log_probability, scores.pilot["document"].log_probability)
    assert len(scores.pilot["document"].offsets) - 1 == 50


def test_evaluating_all_documents_has_no_subsampling_term(made):
    values = made.experiment.parameters()
    values["bounds"]["documents"] = None
    problem = TextProblem(as_experiment(values), made.problem.store, made.problem.split)
    data = problem.seal(made.draft)
    certificate = certify(problem, data, problem.evaluate(data), {})
    rows = [b for b in certificate.statements if b.inequality == "hoeffding"]
    assert rows and all(b.evaluated == b.units == len(problem.split.train) and b.parts.subsampling == 0 for b in rows)


def test_document_losses_are_in_the_unit_interval(made):
    for name, alpha in (("bpd", 1e-4), ("bpd", 0.5), ("top10_error", None)):
        of = metric(name, alpha, 257)
        losses = unit_losses(made.evaluation.training["document"], of, 257)
        assert losses.shape == (100,) and 0 <= losses.min() <= losses.max() <= 1 and of.width > 0 and of.low >= 0


def written(values, path):
    """The file of a certificate that is given as data."""
    path.write_text(json.dumps(values, indent=1) + "\n")
    return path


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [("environment", "device", "another"), ("environment", "seconds", {}), ("params", "training", {"learning_rate": 1.0})],
    ids=str,
)
def test_what_nobody_can_compute_again_has_a_digest(made, tmp_path, group, key, value):
    altered = made.certificate.data()
    altered[group][key] = value
    assert verify(written(altered, tmp_path / "certificate.json"), made.corpora)[0] == (
        "certificate_sha256: the file was altered after it was made"
    )


def without(values, *keys):
    """Nested data without one of its keys."""
    target = values
    for key in keys[:-1]:
        target = target[key]
    del target[keys[-1]]
    return values


@pytest.mark.parametrize("keys", [("params", "bounds", "batch_tokens"), ("params", "training", "seed")], ids=str)
def test_what_a_later_version_states_too_is_not_missed(made, tmp_path, monkeypatch, keys):
    """A certificate that was made before a setting with a default was there verifies under the version that has it."""
    monkeypatch.setattr("sublora.__version__", "99.0")
    older = without(made.certificate.data(), *keys)
    older["certificate_sha256"] = digest(older)
    path = written(older, tmp_path / "certificate.json")
    assert verify(path, made.corpora) == []
    assert load_certificate(path).environment.sublora != "99.0"


def test_a_stranger_s_certificate_chooses_neither_files_nor_memory(made, tmp_path):
    with pytest.raises(SubloraError, match="is not prepared in"):
        verify(made.path, tmp_path / "corpora")
    altered = made.certificate.data()
    for layers, width in ((10**9, 16), (10**6, 4), (2, 10**5)):  # the second has few weights, and a million layers of them
        altered["params"]["model"] |= {"layers": layers, "width": width, "heads": 1}
        written(altered, tmp_path / "certificate.json")
        with pytest.raises(SubloraError, match="params.model: would take some .* GiB"):
            verify(tmp_path / "certificate.json", tmp_path / "corpora")
        with pytest.raises(SubloraError, match="params.model: would take some .* GiB"):
            load(tmp_path / "certificate.json")
