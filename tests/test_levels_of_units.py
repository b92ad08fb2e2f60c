"""Certificates of tokens and sequences: the same message, other units; and the list of bounds forgets nothing."""

import json

import numpy as np
import pytest
from tiny import put, settings, write_texts

from sublora.certificate.build import certify
from sublora.certificate.schema import certificate_of, digest
from sublora.certificate.statements import (
    DETERMINISM,
    Facts,
    _token_bound,
    assumptions,
    expected_losses,
    held_out_assumptions,
    metric,
    token_losses,
)
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, as_experiment
from sublora.inequalities.independent import betting_grid, complexity_nats
from sublora.inequalities.martingale import azuma, azuma_subsampled, entropy_guess_width, freedman
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
    # the nominal number is chosen afterwards: 5 more bits, and a share of delta that does not follow the choice; log2 J are 20 bits
    drawn = {"candidates": b.candidates, "nominal": 8192, "share": 600 / (600 + 2**31)}
    expected = azuma_subsampled(mean, 8 * len(data) + 25, 0.05, N, 600, width=loss_range(0.1, V)[1], **drawn).bound
    assert b.bound == pytest.approx(expected + DETERMINISM["bits"], abs=1e-12) and b.nominal_tokens == 8192
    (paper,) = [b for b in made.certificate.paper_accounting.bounds if b.level == "token" and b.alpha == 0.1]
    drawn = {"candidates": b.candidates, "nominal": N, "share": 600 / (600 + N)}  # as published: N is taken as fixed
    bits = made.certificate.paper_accounting.bits
    assert paper.bound == pytest.approx(azuma_subsampled(mean, bits, 0.05, N, 600, width=loss_range(0.1, V)[1], **drawn).bound)
    drawn = np.sort(subsample(data, store.sha256, N, 600, purpose="certificate token"))
    stream = np.concatenate([store.document(i) for i in split.train])
    assert drawn[-1] < N == len(stream)


def test_the_nominal_number_is_that_of_the_settings_and_is_verified(made, tmp_path):
    values = made.experiment.parameters()
    values["bounds"] |= {"levels": ["token"], "nominal_tokens": 5000}
    for level in ("sequences", "documents"):
        del values["bounds"][level]
    problem = TextProblem(as_experiment(values), made.problem.store, made.problem.split)
    certificate = certify(problem, made.message, problem.evaluate(made.message), {})
    assert {b.nominal_tokens for b in certificate.statements} == {5000}
    (b,) = [b for b in certificate.statements if b.inequality == "azuma" and b.metric == "top1_error"]
    drawn = {"candidates": 1, "nominal": 5000, "share": 600 / 5600}
    expected = azuma_subsampled(b.empirical, 8 * len(made.message) + 20, 0.05, b.units, 600, width=1.0, **drawn).bound
    assert sum(b.parts.model_dump().values()) == pytest.approx(expected, abs=1e-12)
    path = tmp_path / "certificate.json"
    certificate.save(path)
    assert verify(path, made.corpora) == []
    data = certificate.data()
    data["params"]["bounds"]["nominal_tokens"] = 6000
    path.write_text(json.dumps(data | {"certificate_sha256": digest(data)}))
    assert any("nominal_tokens" in line for line in verify(path, made.corpora))


@pytest.mark.parametrize("bits", [100, 10**6])
@pytest.mark.parametrize("tokens", [600, None])
def test_freedman_is_the_better_of_itself_and_azuma_each_at_half_delta(made, bits, tokens):
    """With a long message no bet is large enough for freedman, and azuma is the better one."""
    N, scores = 600 if tokens is None else 100_000, made.evaluation.training["token"]
    azumas, freedmans = [], []
    for of in (metric("bpd", 0.1, V), metric("top1_error", None, V)):

        def stated(inequality, delta, of=of):
            facts = Facts(bits, 0.1, V, delta, {"token": N}, 10, 1, 1, tokens=tokens, nominal_tokens=50_000)
            candidates = facts.compared(of.alpha, tokens is None)  # not cut off at the largest loss, as statements are
            return _token_bound(of, inequality, scores, made.evaluation.pilot["token"], facts, candidates=candidates).bound

        azumas.append(stated("azuma", 0.025))
        freedmans.append(stated("freedman", 0.05))
        assert azumas[-1] > stated("azuma", 0.05)
        losses, guesses = token_losses(scores, of, V), expected_losses(scores, of)
        ranges = {"low": of.low, "width": of.width, "guess_width": of.width if of.alpha is None else entropy_guess_width(0.1, V)}
        if tokens is None:
            nats = complexity_nats(bits, 0.025)
            alone = freedman(losses, guesses, nats, grid=betting_grid(50_000, nats), **ranges)
            assert freedmans[-1] == min(alone, azumas[-1])
    assert all(b <= a for a, b in zip(azumas, freedmans, strict=True))
    assert (freedmans == azumas) == (bits == 10**6)


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
    nats = (8 * len(data) + 25) * np.log(2) - np.log(0.05)
    expected = azuma(b.empirical, nats, b.units, width=1.0, nominal=8192)
    assert sum(b.parts.model_dump().values()) == pytest.approx(expected, abs=1e-12)
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


def test_held_out_documents_prove_something_and_their_pieces_do_not(made):
    """Pieces of one document are alike, and a test-set bound pays for no message that would leave room for that."""
    stated = {level: [h for h in made.certificate.held_out if h.level == level] for level in ("document", "sequence", "token")}
    proven = {level: [h for h in values if h.test_bound is not None] for level, values in stated.items()}
    assert proven["document"] and stated["sequence"] and not proven["sequence"] + proven["token"]
    assert held_out_assumptions("sequence", None) == () != assumptions("sequence", None)
    bound = {"population": None, "iid": 3.0, "unseen": None}
    data = made.certificate.data()
    index = next(i for i, h in enumerate(data["held_out"]) if h["level"] == "sequence" and h["alpha"] in (None, data["alpha"]))
    with pytest.raises(SubloraError, match="test_bound is not stated of all held-out values of the model"):
        certificate_of(put(data, ("held_out", index, "test_bound"), bound), "old")


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
