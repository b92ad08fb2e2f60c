"""Certificates of tokens and sequences: the same message, other units; and the list of bounds forgets nothing."""

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.certificate.build import certify
from sublora.certificate.statements import DETERMINISM, metric
from sublora.experiment import ALPHA_GRID, TOP_K, as_experiment
from sublora.inequalities.martingale import azuma, azuma_subsampled
from sublora.inequalities.smoothing import loss_range, smoothed_bits
from sublora.inequalities.subsampling import subsample
from sublora.problems import TextProblem
from sublora.run import Run
from sublora.verification import verify

V = 257


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    bounds = {"levels": ["token", "sequence", "document"], "tokens": 600, "sequences": 90, "documents": 80, "pilot": 0.5}
    values = settings(write_texts(folder / "texts", 500), model__block=16, bounds=bounds)
    run = Run(values, folder / "runs")
    run.certificate = run.certify()
    return run


def test_every_level_metric_and_inequality_is_listed_once(made):
    certificate, store, split = made.certificate, made.problem.store, made.problem.split
    found = [(b.level, b.metric, b.alpha, b.assumption, b.inequality) for b in certificate.statements]
    metrics = [("bpd", alpha) for alpha in ALPHA_GRID] + [(f"top{k}_error", None) for k in TOP_K]
    assert len(TOP_K) == 12 and len(metrics) == 20
    pairs = {
        "token": [("martingale", "azuma"), ("martingale", "freedman")],
        "sequence": [("iid", name) for name in ("hoeffding", "kl", "betting")],
        "document": [(a, name) for a in ("iid", "pool", "unseen") for name in ("hoeffding", "kl", "betting")],
    }
    expected = [(level, *of, *pair) for level, listed in pairs.items() for of in metrics for pair in listed]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    units = {b.level: b.units for b in certificate.statements}
    lengths = store.lengths[split.train]
    assert units == {"token": lengths.sum(), "sequence": (-(-lengths // 16)).sum(), "document": len(split.train)}
    assert all(b.candidates == (1 if b.alpha in (None, certificate.alpha) else 8) for b in certificate.statements)


def test_it_verifies_and_scores_are_taken_from_disk_the_second_time(made, monkeypatch):
    assert verify(made.folder / "certificate.json", made.corpora) == []
    kept = sorted(path.name for path in (made.folder / "scores").iterdir())
    assert kept == sorted(
        [f"{part}-{level}.safetensors" for part in ("training", "pilot") for level in ("token", "sequence", "document")]
        + ["held-out-document.safetensors", "held-out-sequence.safetensors"]
    )
    monkeypatch.setattr("sublora.scoring.scores._looked_at", lambda *_: pytest.fail("scored again"))
    again = made.problem.evaluate(made.message, made.folder)
    np.testing.assert_array_equal(again.training["token"].expected_bits, made.evaluation.training["token"].expected_bits)


def test_azuma_is_its_closed_form_on_tokens_drawn_from_the_whole_stream(made):
    store, split, data = made.problem.store, made.problem.split, made.message
    N = int(store.lengths[split.train].sum())
    (b,) = [b for b in made.certificate.statements if b.inequality == "azuma" and b.alpha == 0.1]
    mean = smoothed_bits(made.evaluation.training["token"].log_probability, 0.1, V).mean()
    assert b.empirical == pytest.approx(mean, abs=1e-12) and b.units == N and b.pool is None
    expected = azuma_subsampled(mean, 8 * len(data) + 20, 0.05, N, 600, candidates=b.candidates, width=loss_range(0.1, V)[1]).bound
    assert b.bound == pytest.approx(expected + DETERMINISM["bits"], abs=1e-12)
    drawn = np.sort(subsample(data, store.sha256, N, 600, purpose="certificate token"))
    stream = np.concatenate([store.document(i) for i in split.train])
    assert drawn[-1] < N == len(stream)


def test_with_all_tokens_there_is_no_subsampling_term(made):
    values = made.experiment.parameters()
    values["bounds"] |= {"levels": ["token", "document"], "tokens": None, "documents": None}
    del values["bounds"]["sequences"]
    problem = TextProblem(as_experiment(values), made.problem.store, made.problem.split)
    data = problem.seal(made.draft)
    statements = certify(problem, data, problem.evaluate(data), {}).statements
    rows = [b for b in statements if b.inequality in ("azuma", "hoeffding")]
    assert rows and all(b.parts.subsampling == 0 and b.evaluated == b.units for b in rows)
    (b,) = [b for b in rows if b.inequality == "azuma" and b.metric == "top1_error"]
    nats = (8 * len(data) + 20) * np.log(2) - np.log(0.05)
    assert sum(b.parts.model_dump().values()) == pytest.approx(azuma(b.empirical, nats, b.units, width=1.0), abs=1e-12)
    assert b.bound == 1.0, "no error is larger"
    assert {b.inequality for b in statements if b.assumption == "iid"} == {"hoeffding", "kl", "empirical_bernstein", "betting"}


def test_held_out_tokens_weigh_the_same_and_documents_do_too(made):
    values = {(h.level, h.metric, h.alpha): h for h in made.certificate.held_out}
    documents = made.evaluation.held_out["document"]
    losses = smoothed_bits(documents.log_probability, 0.1, V)
    assert values["token", "bpd", 0.1].value == pytest.approx(losses.mean(), abs=1e-12)
    assert values["token", "bpd", 0.1].n == len(losses)
    means = [losses[a:b].mean() for a, b in zip(documents.offsets[:-1], documents.offsets[1:], strict=True)]
    assert values["document", "bpd", 0.1].value == pytest.approx(np.mean(means), abs=1e-9)
    assert len(values) == 60


def test_vacuous_is_the_uniform_guess():
    assert metric("bpd", 0.1, 1024).vacuous_at == 10.0
    assert metric("top10_error", None, 1000).vacuous_at == 0.99


def test_a_sparse_draw_is_uniform_without_replacement_and_needs_no_memory_for_all_units():
    m, n = 9_035_582_198, 50_000
    drawn = subsample(b"message", "ab" * 32, m, n, purpose="certificate token")
    assert len(np.unique(drawn)) == n and drawn.min() >= 0 and drawn.max() < m
    shares = np.bincount(drawn * 10 // m, minlength=10) / n
    np.testing.assert_allclose(shares, 0.1, atol=6 * np.sqrt(0.09 / n))
    assert not np.array_equal(drawn, np.sort(drawn))
    np.testing.assert_array_equal(drawn[:100], subsample(b"message", "ab" * 32, m, 100, purpose="certificate token"))
    small = subsample(b"message", "ab" * 32, 2**20 + 1, 2**16, purpose="pilot")  # just sparse
    assert len(np.unique(small)) == 2**16 and small.max() <= 2**20
