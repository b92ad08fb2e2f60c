"""Statements beside a public reference: which there are, what they are made of, and that a stranger can compute them again."""

import json
import math

import numpy as np
import pytest
from tiny import put, settings, write_texts

from sublora.certificate import references, statements
from sublora.certificate.build import certify
from sublora.certificate.schema import digest
from sublora.certificate.statements import DETERMINISM
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, as_experiment
from sublora.experiment.groups import STREAM_COUNTS, Reference
from sublora.inequalities.independent import betting_grid, complexity_nats
from sublora.inequalities.martingale import freedman, freedman_subsampled, token_share
from sublora.inequalities.means import bound_mean
from sublora.inequalities.smoothing import smoothed_bits
from sublora.models.references import stream_log_probabilities
from sublora.models.references.document import FLOOR, DocumentCode, log_probabilities
from sublora.problems import TextProblem
from sublora.run import Run
from sublora.verification import verify, verify_arithmetic

V, STEP = 257, DETERMINISM["bits"]
KINDS = [("document", a, i) for a in ("iid", "pool", "unseen") for i in ("hoeffding", "betting")]
KINDS += [("token", "martingale", i) for i in ("azuma", "freedman")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a subsample at each level."""
    folder = tmp_path_factory.mktemp("beside")
    levels = {"levels": ["document", "token"], "documents": 60, "tokens": 400, "pilot": 0.5}
    values = settings(write_texts(folder / "texts", 400), model__block=16, bounds=levels, reference={"name": "document"})
    run = Run(values, folder / "runs")
    run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


def certified(made, **groups):
    """(problem, certificate) of the same message under other settings; all units are evaluated, unless they say otherwise."""
    values = made.experiment.parameters()
    values["bounds"] = {"levels": ["document", "token"], "documents": None, "tokens": None}
    values |= groups
    problem = TextProblem(as_experiment(values), made.problem.store, made.problem.split)
    evaluation = problem.evaluate(made.message)
    return problem, evaluation, certify(problem, made.message, evaluation, {})


@pytest.fixture(scope="module")
def whole(made):
    return certified(made)


def beside(certificate, *by):
    found = [b for b in certificate.statements if b.reference is not None]
    return found if not by else next(b for b in found if (b.level, b.assumption, b.inequality) == by)


def own_bits(problem, level):
    """(Q' of each training unit, its tokens, losses of its tokens by the code), by the formulas."""
    store, train = problem.store, problem.split.train
    nats = log_probabilities(
        store.tokens, store.offsets[train], store.lengths[train], vocab_size=V, eot=store.eot, code=DocumentCode()
    )
    if level == "token":
        return nats
    lengths = store.lengths[train]
    total = np.add.reduceat(nats, np.cumsum(lengths) - lengths)
    return -np.log2(15 / 16 * np.exp(total) + 1 / 16 * np.exp(-lengths * math.log(V))), lengths


def test_there_is_one_of_each_kind_and_the_rows_of_the_uniform_guess_are_as_before(made, whole):
    for certificate in (made.certificate, whole[2]):
        found = beside(certificate)
        assert [(b.level, b.assumption, b.inequality) for b in found] == KINDS
        assert {(b.metric, b.alpha, b.reference) for b in found} == {("bpd", certificate.alpha, "document")}
        assert [b.gain is not None for b in found] == [b.inequality in ("betting", "freedman") for b in found]
        measured = [h for h in certificate.held_out if h.reference]
        assert [h.level for h in measured] == ["document", "token"]
    problem, _, plain = certified(made, reference={"name": "uniform"})
    assert plain.statements == [b for b in whole[2].statements if b.reference is None]
    assert plain.held_out == [h for h in whole[2].held_out if h.reference is None] and plain.public.reference is None
    assert "reference" not in plain.params and problem._populations == {}


@pytest.mark.parametrize("assumption", ["iid", "unseen"])
def test_a_document_s_statement_is_two_parts_at_half_of_delta(whole, assumption):
    """By the formulas of the theory, on losses made here."""
    problem, evaluation, certificate = whole
    (Q, L), scores, beta, c = own_bits(problem, "document"), evaluation.training["document"], 0.5, math.log2(V) / 4
    least = int(problem.store.lengths.min()) if assumption == "unseen" else 2
    assert certificate.public.reference.shortest == problem.store.lengths.min() > 2
    F = math.log2(V) + (4 + 1) / least
    p = np.add.reduceat(smoothed_bits(scores.log_probability, certificate.alpha, V), scores.offsets[:-1])
    T = (Q + 1) / L
    losses = -np.logaddexp(np.log(1 - beta) - p * np.log(2), np.log(beta) - Q * np.log(2)) / np.log(2) / L
    f = np.clip(math.log2(V) / 2, T - c, T)
    J, K, m = 20 if assumption == "iid" else 0, 8 * len(problem.experiment and certificate.message_bytes), len(L)
    by = {"assumption": assumption, "delta": 0.025, "m": m, "pool": len(problem.store), "places": np.arange(m)}
    of_f = F * bound_mean(f / F, inequality="betting", message_bits=J, **by).bound
    for inequality, low in (("betting", -F), ("hoeffding", -1.0)):
        stated = beside(certificate, "document", assumption, inequality)
        D = (np.maximum(losses - f, low) - low) / (c - low)
        of_D = min(low + (c - low) * bound_mean(D, inequality=inequality, message_bits=K + J, **by).bound, c)
        assert stated.empirical == pytest.approx(losses.mean(), abs=1e-6)
        assert stated.reference_empirical == pytest.approx((Q / L).mean(), abs=1e-6)
        assert stated.bound == pytest.approx(min(of_f + of_D + STEP, F), abs=2e-6), inequality
    top = F * bound_mean(np.minimum((losses - T + F) / F, 1.0), inequality="betting", message_bits=K + J, **by).bound - F
    short = bound_mean(least / L, inequality="betting", message_bits=J, **by).bound / least
    assert beside(certificate, "document", assumption, "betting").gain == pytest.approx(-top - short - STEP, abs=2e-6)


@pytest.mark.parametrize("all_tokens", [True, False])
def test_a_token_s_statement_is_two_parts_at_half_of_delta_and_its_gain_has_all_of_it(made, whole, all_tokens):
    problem, evaluation, certificate = whole if all_tokens else (made.problem, made.evaluation, made.certificate)
    nats, scores, alpha = own_bits(problem, "token"), evaluation.training["token"], certificate.alpha
    N, width, top = len(nats), -math.log2(alpha), math.log2(V / FLOOR)
    stated = beside(certificate, "token", "martingale", "freedman")

    def mixed(scores):
        q = np.exp(nats[scores.places])
        return -np.log2((1 - alpha) * np.exp(scores.log_probability.astype(float)) + alpha * q), -np.log2(q)

    (losses, own), tried = mixed(scores), np.subtract(*mixed(evaluation.pilot["token"]))
    bits, ranges = 8 * len(certificate.message_bytes) + 20 + 5, {"low": -top, "width": top + width, "guess_width": width}

    def of_D(delta):
        if all_tokens:
            B = complexity_nats(bits, delta)
            return freedman(losses - own, np.zeros(N), B, **ranges, grid=betting_grid(stated.nominal_tokens, B))
        drawn = {"candidates": 1, "nominal": stated.nominal_tokens, "share": token_share(400, nominal=None)}
        pilot = tried, np.zeros(len(tried))
        drawn |= {"pilot": pilot, "one_inner": True}
        return freedman_subsampled(losses - own, np.zeros(400), bits, delta, N, **ranges, **drawn)

    B = complexity_nats(25, 0.025)
    grid = betting_grid(stated.nominal_tokens, B)
    of_f = freedman(-nats / np.log(2), np.zeros(N), B, low=0.0, width=top, guess_width=top, grid=grid)
    assert stated.empirical == pytest.approx(losses.mean(), abs=1e-6)
    assert stated.reference_empirical == pytest.approx(own.mean(), abs=1e-6)
    assert stated.bound == pytest.approx(of_f + min(of_D(0.025), width) + STEP, abs=5e-6)
    assert stated.gain == pytest.approx(-min(of_D(0.05), width) - STEP, abs=5e-6)


def test_the_losses_that_a_notebook_shows_have_the_stated_means(made, whole):
    """They are the mixture's; those of the model alone have another mean, that of the uniform guess's statement."""
    problem, evaluation, certificate = whole
    level, losses, own = problem.held_out_losses(made.message, evaluation, certificate.alpha)
    stated, alone = (
        next(h for h in certificate.held_out if (h.level, h.alpha, h.reference) == (level, certificate.alpha, name))
        for name in ("document", None)
    )
    assert (level, losses.mean(), own.mean()) == ("document", pytest.approx(stated.value), pytest.approx(stated.reference_value))
    problem = TextProblem(problem.experiment.model_copy(update={"reference": Reference()}), problem.store, problem.split)
    level, plain, nothing = problem.held_out_losses(made.message, evaluation, certificate.alpha)
    assert nothing is None and plain.mean() == pytest.approx(alone.value) and abs(plain.mean() - losses.mean()) > 1e-3


def test_alpha_is_chosen_for_the_statement_beside_the_reference(made):
    promised = made.problem.promised(made.draft)
    assert [(p.alpha, p.reference, p.assumption) for p in promised] == [(a, "document", "unseen") for a in ALPHA_GRID]
    assert made.certificate.alpha == min(promised, key=lambda p: p.bound).alpha
    paper = made.problem.promised(made.draft, by=("iid", "kl"))
    assert {p.reference for p in paper} == {None}, "a statement that there is with the uniform guess alone"


def test_a_stranger_computes_it_again(made, tmp_path):
    assert verify(made.path, made.corpora) == [] and verify_arithmetic(made.path) == []


def test_arithmetic_refuses_what_no_losses_of_the_stated_means_allow(made, whole, tmp_path):
    """Where all units were evaluated. A bound below what is possible, a gain above, a reference that contradicts the settings."""
    path, data = tmp_path / "certificate.json", whole[2].data()

    def wrong(altered):
        path.write_text(json.dumps({**altered, "certificate_sha256": digest(altered)}, indent=1) + "\n", "utf-8")
        return verify_arithmetic(path)

    assert wrong(data) == []
    for index, bound in enumerate(data["bounds"]):
        if "reference" not in bound:
            continue
        low = bound["empirical"] - 1e-6
        assert wrong(put(data, ("bounds", index), {**bound, "bound": low, "nonvacuous": low < bound["vacuous_at"]})), bound
        assert wrong(put(data, ("bounds", index, "reference_empirical"), bound["reference_empirical"] + 1e-6)), bound
        if "gain" in bound:
            most = bound["reference_empirical"] - bound["empirical"]
            assert bound["gain"] < most and wrong(put(data, ("bounds", index, "gain"), most + 1e-6)), bound
    for keys, value in (
        (("public", "reference", "c"), 1.0),
        (("public", "reference", "beta"), 0.4),
        (("params", "reference", "tau"), 2.0),
        (("params", "reference"), {"name": "stream"}),
        (("params", "reference"), KeyError),
        (("public", "reference"), KeyError),
    ):
        try:
            assert wrong(put(data, keys, value)), keys
        except SubloraError as error:
            assert "reference" in str(error)


def test_the_offset_may_be_the_top_and_the_stream_is_for_tokens_alone(made):
    _, _, top = certified(made, reference={"name": "document", "offset": "reference"})
    assert top.public.reference.g is None and top.public.reference.c == 0.0
    for b in beside(top):
        assert b.bound >= b.empirical and (b.level == "token" or b.bound <= b.empirical + 6)
    alone = {"levels": ["token"], "tokens": 300}
    problem, evaluation, stream = certified(made, reference={"name": "stream"}, bounds=alone)
    store, train = problem.store, problem.split.train
    test = problem.split.test
    read = np.concatenate([train, test])
    code = {"vocab_size": V, "eot": store.eot, "pseudo_counts": STREAM_COUNTS, "apart": len(test)}
    nats = stream_log_probabilities(store.tokens, store.offsets[read], store.lengths[read], **code)
    scores, known = evaluation.training["token"], store.lengths[train].sum()
    np.testing.assert_allclose(scores.reference, nats[scores.places], rtol=1e-6)
    assert beside(stream, "token", "martingale", "freedman").reference == "stream"
    held_out = next(h for h in stream.held_out if h.reference)
    assert held_out.level == "token" and held_out.reference_value == pytest.approx(-nats[known:].mean() / np.log(2), rel=1e-5)
    for name in ("document", "base"):
        with pytest.raises(SubloraError, match=f"reference.name {name} at level sequence: pieces of one document are alike"):
            as_experiment({"name": "x", "reference": {"name": name}, "bounds": {"levels": ["document", "sequence"]}})
    with pytest.raises(SubloraError, match=r"reference.name stream at level document depends on the other documents"):
        certified(made, reference={"name": "stream"})
    for group, named in (({"beta": 0.5}, "beta has no effect for reference uniform"), ({"name": "base"}, "reference.name")):
        with pytest.raises(SubloraError, match=named):
            as_experiment({"name": "x", "reference": group})
    for key in ("gamma", "excess"):
        with pytest.raises(SubloraError, match=rf"reference.{key} has no effect for levels \[token\]"):
            as_experiment({"name": "x", "bounds": alone, "reference": {"name": "document", key: 0.1}})


def test_the_offset_s_part_is_computed_once_for_all_smoothing_weights(made):
    references._offset.cache_clear()
    made.problem.promised(made.draft)
    assert (references._offset.cache_info().hits, references._offset.cache_info().misses) == (len(ALPHA_GRID) - 1, 1)


def test_configurations_are_paid_in_both_parts(whole):
    """One bit more is one bit more of each part's complexity; a split mends the choice for unseen alone."""
    problem, evaluation, certificate = whole
    facts = problem._facts(certificate.message_bytes, certificate.alpha)
    scores = {"scores": evaluation.training["document"], "pilot": evaluation.pilot["document"]}

    def bound(assumption, **changes):
        changed = facts._replace(**{"message_bits": K, "configurations": J, **changes})
        return references.bound("document", facts.alpha, assumption, "hoeffding", facts=changed, **scores).bound

    J, K = 2, 8  # so few that no part is cut off at its largest value
    assert bound("iid", configurations=2 * J) > bound("iid", message_bits=K + 1) > bound("iid")
    assert bound("unseen", configurations=2 * J) == bound("unseen") < bound("unseen", split_seeds=2)
    assert bound("iid", split_seeds=2) == bound("iid")
    assert statements.reachable("iid", J, 1) == J
