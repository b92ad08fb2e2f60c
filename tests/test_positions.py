"""Positions as units: the pool is every token of the corpus in its true context, and a seed draws the targets before training."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, hypergeom
from tiny import put, settings, write_texts
from worlds import worst_of

from sublora.certificate.schema import digest
from sublora.certificate.statements import DETERMINISM, metric, unit_losses
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.inequalities.independent import betting_grid, complexity_nats
from sublora.inequalities.martingale import freedman_subsampled
from sublora.inequalities.smoothing import loss_range
from sublora.inequalities.subsampling import INNER_BETS, betting_two_stage, hoeffding_subsampled, split_nats, upper_limit
from sublora.inequalities.unseen import betting_unseen, betting_unseen_blocks, hoeffding_unseen, hoeffding_unseen_subsampled
from sublora.message import decode
from sublora.reporting.figures import bounds_overview
from sublora.reporting.sentences import guarantee
from sublora.run import Run
from sublora.scoring.scores import score, unit_windows
from sublora.training.batches import IGNORED, Sampler
from sublora.verification import _label, verify, verify_arithmetic

BLOCK, V, DELTA = 16, 257, 0.05
BOUNDS = {"levels": ["position"], "positions": 300, "held_out_positions": 200, "pilot": 0.5, "delta": DELTA}
POSITIONS = {"corpus__split": "positions", "training__sampling": "token", "training__validation_documents": 40, "bounds": BOUNDS}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("positions")
    values = settings(write_texts(folder / "texts", 120), model__block=BLOCK, reference={"name": "document"}, **POSITIONS)
    run = Run(values, folder / "runs")
    run.certificate = run.certify()
    return run


# -- split, training, scores -----------------------------------------------------------------------------------------


def test_the_split_draws_from_all_tokens_and_keeps_its_order(made):
    split, M = made.problem.split, len(made.problem.store.tokens)
    drawn = np.concatenate([split.train, split.validation, split.test])
    assert split.rule == "positions" and drawn.tolist() == permutation(M, 0).tolist()
    assert len(split.train) == round(0.6 * M) and len(split.validation) == round(0.02 * M)
    assert f"{M} positions by" in split.description


def test_training_sees_every_context_but_targets_of_its_positions_alone(made):
    store, split = made.problem.store, made.problem.split
    sampler = Sampler(store, np.arange(len(store)), BLOCK, "token", 0, targets=split.train)
    batch = sampler.batch(0, 64)
    real = batch.targets != IGNORED
    assert float(batch.weights[:, None].mul(real).sum()) == pytest.approx(1, abs=1e-5)
    everything = Sampler(store, np.arange(len(store)), BLOCK, "token", 0).batch(0, 64)
    assert bool((batch.inputs == everything.inputs).all()) and 0.5 < real.sum() / (everything.targets != IGNORED).sum() < 0.7
    few = split.validation[:10]
    windows = Sampler(store, np.arange(len(store)), BLOCK, "token", 0, targets=split.validation).windows_of(few)
    document = np.searchsorted(store.offsets, split.validation, side="right") - 1
    window = (split.validation - store.offsets[document]) // BLOCK
    inside = np.isin(document * 1000 + window, (document * 1000 + window)[:10])  # all validation positions of those windows
    targets = windows.targets[windows.targets != IGNORED]
    assert sorted(targets.tolist()) == sorted(store.tokens[split.validation[inside]].tolist())


def test_a_position_is_scored_in_the_window_that_scoring_its_document_gives_it(made):
    store, split, scores = made.problem.store, made.problem.split, made.evaluation.training["position"]
    windows = unit_windows(store.offsets[:-1], store.lengths, BLOCK, BLOCK // 2)
    model = decode(made.message, made.experiment, V).model
    whole = score(model, store, windows, store.offsets, np.arange(len(store)), batch_tokens=4096, label="all")
    assert len(scores.places) == 300 and (np.diff(scores.places) > 0).all()
    expected = whole.log_probability[split.train[scores.places]]
    np.testing.assert_allclose(scores.log_probability, expected, atol=2e-5)
    held_out = made.evaluation.held_out["position"]
    np.testing.assert_allclose(held_out.log_probability, whole.log_probability[split.test[:200]], atol=2e-5)


# -- the certificate -------------------------------------------------------------------------------------------------


def test_a_certificate_speaks_of_the_corpus_unseen_positions_and_verifies(made):
    certificate, store, split = made.certificate, made.problem.store, made.problem.split
    path = made.folder / "certificate.json"
    assert verify(path, made.corpora) == [] and verify_arithmetic(path) == []
    rows = {(b.assumption, b.inequality) for b in certificate.statements}
    assert rows == {(a, i) for a in ("pool", "unseen") for i in ("hoeffding", "kl", "betting")}
    assert {(b.level, b.units, b.pool, b.evaluated) for b in certificate.statements} == {
        ("position", len(split.train), len(store.tokens), 300)
    }
    assert certificate.paper_accounting.bounds == [], "the papers state nothing of positions"
    assert {(h.level, h.n) for h in certificate.held_out} == {("position", 200)}
    beside = {(b.assumption, b.inequality) for b in certificate.statements if b.reference == "document"}
    assert beside == {(a, i) for a in ("pool", "unseen") for i in ("hoeffding", "betting")}
    assert "positions of this corpus that it was not trained on" in guarantee(certificate)
    assert "nothing is said of new documents" in guarantee(certificate)
    rows = [label.get_text() for label in bounds_overview(certificate).axes[0].get_yticklabels()]
    names = [f"position level: {a}, {i}" for a in ("unseen", "pool") for i in ("betting", "hoeffding")]
    assert rows == [f"{name} ({kind})" for kind in ("reference", "uniform") for name in names]


def test_the_headline_stands_on_places_in_the_draws_order(made):
    """In the order of the corpus, which knows nothing of the draw, it would be another number, and no bound."""
    certificate, scores, pilot = made.certificate, made.evaluation.training["position"], made.evaluation.pilot["position"]
    rows = {(b.alpha, b.reference, b.assumption, b.inequality): b.bound for b in certificate.statements}
    stated = rows[certificate.alpha, None, "unseen", "betting"]
    of, m, M = metric("bpd", certificate.alpha, V), len(made.problem.split.train), len(made.problem.store.tokens)

    def found(places):
        values, tried = unit_losses(scores, of, V), (unit_losses(pilot, of, V), pilot.places)
        shared = {"candidates": 1, "M": M, "pilot": tried, "one_inner": True}
        bound = betting_unseen_blocks(values, places, 8.0 * len(made.message), DELTA, m, **shared)
        return of.low + of.width * bound + DETERMINISM["bits"]

    in_corpus_order = np.argsort(np.argsort(made.problem.split.train))[scores.places]
    assert stated == pytest.approx(found(scores.places), abs=1e-12)
    assert abs(stated - found(in_corpus_order)) > 1e-4
    assert loss_range(certificate.alpha, V) == (of.low, of.width)


def test_alterations_are_found(made, tmp_path):
    """All at once, since each check takes its time: every altered place is named."""
    data = made.certificate.data()
    held_out = data["held_out"][0]
    altered = [
        (("corpus", "split"), "permutation"),
        (("corpus", "pool"), data["corpus"]["pool"] + 1),
        (("corpus", "tokens"), data["corpus"]["tokens"] - 1),
        (("bounds", 0, "bound"), data["bounds"][0]["bound"] - 0.01),
        (("bounds", 1, "pool"), data["bounds"][1]["pool"] - 1),
        (("held_out", 0, "n"), held_out["n"] - 1),
        (("held_out", 1, "value"), data["held_out"][1]["value"] - 0.01),
    ]
    for path, to in altered:
        data = put(data, path, to)
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(data | {"certificate_sha256": digest(data)}, indent=1) + "\n")
    lines = verify(file, made.corpora)
    first, second = ([f"{group}[{_label(data[group][i], i)}]" for group in ("bounds", "held_out")] for i in (0, 1))
    places = ["corpus.split", "corpus.pool", "corpus.tokens", f"{first[0]}.bound", f"{second[0]}.pool"]
    for place in [*places, f"{first[1]}.n", f"{second[1]}.value"]:
        assert any(line.startswith(place) for line in lines), place


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"corpus__split": "seeded"}, "go together"),
        ({"bounds": {"levels": ["document"]}}, "go together"),
        ({"bounds": {"levels": ["position", "document"]}}, "goes with no other"),
        ({"bounds": {"levels": ["position"], "held_out_documents": 9}}, "held_out_documents has no effect"),
        ({"bounds": {"levels": ["position"], "configurations": 9}}, "configurations has no effect"),
        ({"training__sampling": "document"}, "training.sampling must be token"),
        ({"reference": {"name": "stream"}}, "stream at level position"),
        ({"reference": {"name": "document", "beta": 0.25}}, "beta has no effect"),
    ],
)
def test_what_does_not_go_with_positions_is_refused(changes, named):
    with pytest.raises(SubloraError, match=named):
        as_experiment(settings("texts", **POSITIONS | changes))


# -- coverage: positions are drawn, whole documents are not ----------------------------------------------------------

CAUGHT = 1.3 * 0.0646  # what a twin must reach
DOCUMENTS, SIZE = 200, 50  # a fair coin decides for each document whether all of its losses are 1
M, HALF = DOCUMENTS * SIZE, DOCUMENTS * SIZE // 2
ONES = np.arange(DOCUMENTS + 1)  # documents whose losses are 1
FAIR = binom.pmf(ONES, DOCUMENTS, 0.5)


def test_a_split_of_documents_is_caught():
    """Share .5, serfling, exact: a violation is a training count so far below that of the rest."""
    gap = hoeffding_unseen(0.0, math.log(1 / DELTA), HALF, M=M)

    def violation(units):
        each = M // units  # positions that a unit of the draw has
        fewest = np.ceil((ONES * SIZE - gap * HALF) / (2 * each)) - 1
        return float(FAIR @ hypergeom.cdf(fewest, units, ONES * SIZE // each, units // 2))

    assert violation(units=M) == pytest.approx(0.0075, abs=0.002)
    assert violation(units=DOCUMENTS) == pytest.approx(0.355, abs=0.03) and violation(units=DOCUMENTS) >= CAUGHT


def test_a_subsample_of_documents_is_caught():
    """The pool's mean from n = 500 of those 5,000, exact; its twin takes what is drawn of 20 whole documents (simulated)."""
    rng, trials, n = np.random.default_rng(2), 2000, 500
    gap = hoeffding_subsampled(0.0, 0, DELTA, HALF, n, candidates=1).bound
    right = float(FAIR @ hypergeom.cdf(np.ceil(n * (ONES / DOCUMENTS - gap)) - 1, M, ONES * SIZE, n))
    ones = rng.binomial(DOCUMENTS, 0.5, trials)
    losses = np.arange(20) < rng.hypergeometric(ones, DOCUMENTS - ones, 20)[:, None]
    weights = rng.multivariate_hypergeometric([SIZE] * 20 + [M - 20 * SIZE], HALF, trials)[:, :20]
    twin = ((losses * weights).sum(1) / weights.sum(1) + gap < ones / DOCUMENTS).mean()
    assert right <= 0.001 and twin == pytest.approx(0.238, abs=0.03) and twin >= CAUGHT


def test_the_running_candidate_in_the_order_of_the_corpus_is_caught():
    """M = 1,000, m = 500, the corpus' first half 0 and the second 1: 0 in the draw's order, .68 in that of the corpus."""
    rng, right, twin, trials = np.random.default_rng(3), 0, 0, 120
    loss, nats = np.repeat([0.0, 1.0], 500), math.log(1 / DELTA)
    bets = betting_grid(500, nats)
    for _ in range(trials):
        order = rng.permutation(1000)
        train, unseen = order[:500], loss[order[500:]].mean()
        right += betting_unseen(loss[train], nats, bets, M=1000) < unseen
        twin += betting_unseen(loss[np.sort(train)], nats, bets, M=1000) < unseen
    assert right / trials <= DELTA and twin / trials == pytest.approx(0.68, abs=0.1)


def test_leaving_the_message_out_is_caught():
    """2^12 random vectors over M = 1,000 positions, half of them drawn; exact, since counts on both halves are independent."""

    def violation(bits):
        gap = 500 * hoeffding_unseen(0.0, complexity_nats(bits, DELTA), 500, M=1000)
        counts = np.arange(501)
        alone = binom.pmf(counts, 500, 0.5) @ binom.sf(np.floor(counts + gap), 500, 0.5)
        return worst_of(2**12, float(alone))

    assert violation(12) == pytest.approx(0.004, abs=0.001) and violation(0) >= 0.999


def test_a_table_of_documents_is_no_bound_on_new_documents():
    """100 documents of 1,000, one constant fair token each, a table of them in 100 bits: it is right at every unseen position of
    these documents, as its bound says, and wrong on every second new one."""
    M, m, n = 100_000, 50_000, 10_000
    bound = hoeffding_unseen_subsampled(0.0, 100, DELTA, m, n, candidates=1, M=M).bound
    assert 0.0 <= bound < 0.1 < 0.5, "the unseen positions' loss is 0, a new document's 1/2"


# -- the inner bet of a subsample is chosen on the pilot -------------------------------------------------------------


def best_on_the_pilot(gains, bets):
    """The bet with the largest wealth, literally."""
    return max(bets, key=lambda bet: np.log1p(bet * (gains - 1)).sum())


def refuted_at(gains, bet, nats):
    """The smallest u at which one bet's wealth reaches `nats`, literally."""
    return brentq(lambda u: np.log1p(bet * (gains(u) - 1)).sum() - nats, 0, 1 - 1e-9, xtol=1e-13)


def test_freedman_with_the_inner_bet_of_the_pilot_is_its_formula_and_pays_for_no_mixture():
    rng, N, bits, s = np.random.default_rng(0), 10**6, 2000, 0.3
    losses, pilot = np.clip(rng.gamma(2, 1, 3000), 0, 12), np.clip(rng.gamma(2, 1, 400), 0, 12)
    zeros, ranges = np.zeros(3000), {"low": 0.0, "width": 12.0, "guess_width": 12.0, "nominal": N, "share": 0.01, "candidates": 1}
    told = {**ranges, "grid": np.array([s]), "pilot": (pilot, zeros[:400])}
    found = freedman_subsampled(losses, zeros, bits, DELTA, N, **told, one_inner=True)
    first, second = split_nats(bits, DELTA, N, 3000, candidates=1, share=0.01)
    high = 12 - 12 * math.log(1 - s) / s - 12

    def w(losses):
        return -12 / s * np.log(1 - s * losses / 12) / high

    bets, as_if = betting_grid(3000, second, INNER_BETS), second * 400 / 3000
    u = upper_limit(w(pilot), as_if)
    bet = best_on_the_pilot((1 - w(pilot)) / (1 - u), bets)
    limit = refuted_at(lambda u: (1 - w(losses)) / (1 - u), bet, second)
    assert found == pytest.approx(12 * first / (s * N) + high * limit, rel=1e-7)
    mixture = freedman_subsampled(losses, zeros, bits, DELTA, N, **told)
    assert found < mixture == pytest.approx(12 * first / (s * N) + high * upper_limit(w(losses), second), rel=1e-9)


def test_betting_with_the_inner_bet_of_the_pilot_is_its_formula():
    rng, m, bits = np.random.default_rng(1), 50_000, 1500
    values, pilot = np.clip(rng.normal(0.3, 0.1, 4000), 0, 1), np.clip(rng.normal(0.3, 0.1, 500), 0, 1)
    first, second = split_nats(bits, DELTA, m, 4000, candidates=1)
    c = np.array([0.4])
    tau, low = first / m, math.log(0.6)

    def gains(values, u):
        return (np.log(0.6 + 0.4 * (1 - values) / (1 - u)) - low) / (tau - low)

    on_pilot = betting_two_stage(pilot, first, second / 8, m, c)  # the mixture, as if the pilot were n units
    bet = best_on_the_pilot(gains(pilot, on_pilot), betting_grid(4000, second, INNER_BETS))
    found = betting_two_stage(values, first, second, m, c, pilot=pilot, one_inner=True)
    assert found == pytest.approx(refuted_at(lambda u: gains(values, u), bet, second), abs=1e-8)
    assert found < betting_two_stage(values, first, second, m, c, pilot=pilot)
    places, tried = rng.permutation(m)[:4000], (pilot, rng.permutation(m)[:500])
    told = {"candidates": 1, "M": 2 * m, "pilot": tried}
    blocks = [betting_unseen_blocks(values, places, bits, DELTA, m, **told, one_inner=one) for one in (False, True)]
    assert values.mean() < blocks[1] < blocks[0]
