"""What bounds pay for beside the message: configurations or split seeds (J), compared certificates (A), each once, and where."""

import json
import math

import numpy as np
import pytest
from scipy.stats import hypergeom
from tiny import put, settings, write_texts
from worlds import worst_of, zeros_and_ones

from sublora.certificate import statements
from sublora.certificate.build import certify
from sublora.certificate.schema import digest
from sublora.certificate.statements import CHARGED, Facts, charged_bits, metric, reachable
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, as_experiment
from sublora.inequalities.independent import complexity_nats, hoeffding
from sublora.inequalities.means import bound_mean
from sublora.problems import TextProblem
from sublora.run import Run
from sublora.scoring.scores import Scores
from sublora.verification import verify, verify_arithmetic

V, K = 257, 60
J = 2**20
J_SPLITS = 2000


def test_one_bit_of_feedback_for_each_of_101_coins_is_101_bits_and_not_the_logarithm_of_their_number():
    """101 predictors of fair labels by coin flips, each turned around if it is wrong more often than not, and their majority.

    2^101 majorities could have been reached; that 102 things were looked at is the broken price. The expected error is 1/2.
    """
    m, trials, random = 1000, 400, np.random.default_rng(0)
    violated = {2**101: 0, 102: 0}
    for _ in range(trials):
        wrong = random.random((101, m)) < 0.5
        wrong ^= (wrong.mean(axis=1) > 0.5)[:, None]
        mean = float((wrong.sum(axis=0) > 50).mean())
        for reached in violated:
            violated[reached] += hoeffding(mean, complexity_nats(charged_bits(0, reached), 0.05), m) < 0.5
    assert violated[2**101] == 0 and violated[102] > 0.99 * trials


def test_the_best_of_many_splits_pays_for_all_of_them():
    """A model that is right of half the pool, on the luckiest of 2,000 splits: without log2 J both bounds are false."""
    m, M, trials, random = 200, 2000, 200, np.random.default_rng(0)
    luckiest = random.hypergeometric(M // 2, M // 2, m, (trials, J_SPLITS)).min(axis=1) / m
    violated = {"pool": {1: 0, J_SPLITS: 0}, "unseen": {1: 0, J_SPLITS: 0}}
    for mean in luckiest:
        truth = {"pool": 0.5, "unseen": (M / 2 - m * mean) / (M - m)}
        for assumption, found in violated.items():
            for seeds in found:
                bits = charged_bits(0, reachable(assumption, J, seeds))
                bound = bound_mean(
                    np.repeat([1.0, 0.0], [round(m * mean), m - round(m * mean)]),
                    inequality="hoeffding",
                    assumption=assumption,
                    message_bits=bits,
                    delta=0.05,
                    m=m,
                    pool=M,
                    candidates=1,
                    places=np.arange(m),
                )
                found[seeds] += bound.bound < truth[assumption]
    for found in violated.values():
        assert found[J_SPLITS] <= 0.05 * trials and found[1] > 0.9 * trials


def test_the_luckiest_of_64_splits_of_400_pays_for_64():
    """Half of M = 400 units are ones, m = 200, serfling: the luckiest of 64 split seeds, exact. The twin pays for one."""
    M, m, seeds = 400, 200, 64
    counts = np.arange(m + 1)
    chance = hypergeom.pmf(counts, M, M // 2, m)

    def violated(paid):
        by = {"inequality": "hoeffding", "assumption": "unseen", "delta": 0.05, "m": m, "pool": M}
        bits = charged_bits(0, reachable("unseen", J, paid))
        bounds = [bound_mean(zeros_and_ones(k, m), message_bits=bits, **by).bound for k in counts]
        return worst_of(seeds, chance[bounds < (M // 2 - counts) / (M - m)].sum())

    assert violated(seeds) == pytest.approx(0.0066, abs=1e-4)
    assert violated(1) == pytest.approx(0.327, abs=1e-3) and violated(1) > 1.3 * 0.0646


def scores(units, seed, tokens=False):
    random = np.random.default_rng(seed)
    lengths = np.ones(units, int) if tokens else random.integers(2, 30, units)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    count = int(offsets[-1])
    logs, rank = -random.gamma(2.0, 0.7, count).astype(np.float32), random.integers(0, 12, count).astype(np.int32)
    expected = random.random((count, len(ALPHA_GRID))).astype(np.float32), random.random((count, len(TOP_K))).astype(np.float32)
    return Scores(logs, rank, offsets, *expected, np.arange(units))


def facts(units, configurations=1, candidates=1, bits=K, split_seeds=1):
    levels = dict.fromkeys(("document", "sequence", "token"), units)
    tokens = N if units > N else None
    return Facts(bits, 0.1, V, 0.05, levels, 2 * units, configurations, candidates, tokens, split_seeds=split_seeds)


N = 1500
EVERY = [
    (m, level, assumption, inequality)
    for m in (N, 2 * N)
    for level in ("document", "sequence", "token")
    for of, assumption, inequality in statements.listed(level, facts(m), m == N)
    if of.name == "top1_error"
]


@pytest.mark.parametrize(("m", "level", "assumption", "inequality"), EVERY)
def test_configurations_are_charged_once_or_split_seeds_where_a_split_mends_the_choice(m, level, assumption, inequality):
    evaluated, pilot = scores(N, 0, level == "token"), scores(N // 10, 1, level == "token")

    def bound(of, **changes):
        return statements.bound(level, of, assumption, inequality, scores=evaluated, pilot=pilot, facts=facts(m, **changes))

    for of in (metric("bpd", 0.1, V), metric("top10_error", None, V)):
        own, other = ("configurations", "split_seeds")[:: 1 if assumption in CHARGED else -1]
        charged, free = bound(of, **{own: J}), bound(of)
        assert bound(of, **{other: J}) == free and free.configurations == 1, "what the assumption does not pay for"
        assert charged.bound <= of.low + of.width
        assert charged.bound == bound(of, bits=K + 20).bound and charged.configurations == J
        assert free.bound < charged.bound < bound(of, bits=K + 40).bound, "neither left out nor charged twice"


@pytest.mark.parametrize("assumption", statements.FOR_EXAMPLES)
def test_classifiers_pay_for_configurations_too(assumption):
    errors = (np.random.default_rng(0).random(5000) < 0.2).astype(float)

    def bounds(J, bits):
        known = {"delta": 0.05, "pool": 10_000, "guess": 0.5}
        return [b.bound for b in statements.example_bounds(errors, assumption, message_bits=bits, configurations=J, **known)]

    assert bounds(reachable(assumption, J, 1), K) == bounds(1, K + 20 * (assumption == "iid"))
    assert bounds(reachable(assumption, 1, J), K) == bounds(1, K + 20 * (assumption != "iid"))
    assert bounds(J, K) > bounds(1, K)


def test_no_bound_is_above_the_largest_loss():
    evaluated, pilot = scores(600, 0), scores(60, 1)
    for of in (metric("bpd", 0.1, V), metric("top10_error", None, V)):
        found = statements.bound("document", of, "iid", "hoeffding", scores=evaluated, pilot=pilot, facts=facts(600, bits=10**6))
        assert found.bound == of.low + of.width < found.empirical + found.parts.complexity and not found.nonvacuous


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of all levels, all of whose documents and sequences are evaluated, and 400 tokens."""
    folder = tmp_path_factory.mktemp("charges")
    levels = {"levels": ["document", "sequence", "token"], "documents": None, "sequences": None, "tokens": 400}
    values = settings(write_texts(folder / "texts"))
    run = Run({**values, "bounds": {"pilot": 0.5, "held_out_documents": 50, **levels}}, folder / "runs")
    run.certificate = run.certify()
    return run


def test_candidates_enter_the_subsample_s_term_and_stand_in_its_bounds(made):
    values = made.experiment.parameters()
    values["bounds"]["candidates"] = 5
    problem = TextProblem(as_experiment(values), made.problem.store, made.problem.split)
    compared, alone = certify(problem, made.message, made.evaluation, {}), made.certificate
    for after, before in zip(compared.statements, alone.statements, strict=True):
        own = after.alpha in (None, compared.alpha)
        if after.level != "token":
            assert after == before and after.candidates == 1, "all units are evaluated"
            continue
        assert (before.candidates, after.candidates) == ((1, 5) if own else (8, 40))
        of = metric(after.metric, after.alpha, V)
        assert after.bound > before.bound or after.bound == before.bound == of.low + of.width
        if after.inequality == "azuma":
            n, nominal = after.evaluated, 2**31  # since N0 was not fixed before the corpus was read
            nats = math.log(after.candidates * (n + nominal) / (nominal * 0.05))
            assert after.parts.subsampling == pytest.approx(of.width * math.sqrt(nats / (2 * n)))
            assert after.parts.complexity == before.parts.complexity
    assert compared.paper_accounting == alone.paper_accounting, "published bounds are as published"


def test_candidates_without_a_subsample_have_no_effect():
    with pytest.raises(SubloraError, match=r"candidates has no effect for levels whose units are all evaluated"):
        as_experiment({"name": "tiny", "bounds": {"documents": None, "candidates": 2}})
    with pytest.raises(SubloraError, match=r"split_seeds has no effect for levels \[token\]"):
        as_experiment({"name": "tiny", "bounds": {"levels": ["token"], "split_seeds": 2}})
    with pytest.raises(SubloraError, match=r"split_seeds has no effect for task.train 1"):
        as_experiment({"kind": "classify", "name": "tiny", "bounds": {"split_seeds": 2}})
    for key in ("candidates", "configurations", "split_seeds"):
        for value in (0, -1, 1.5, True, None):
            with pytest.raises(SubloraError, match=key):
                as_experiment({"name": "tiny", "bounds": {key: value}})


def test_arithmetic_needs_no_corpus_and_finds_what_settings_and_losses_contradict(made, tmp_path):
    path, data = tmp_path / "certificate.json", made.certificate.data()

    def wrong(altered):
        path.write_text(statements_file(altered), "utf-8")
        return verify_arithmetic(path)

    assert wrong(data) == [] and verify(path, made.corpora) == []
    with pytest.raises(SubloraError, match="is not prepared"):
        verify(path, tmp_path / "none")
    for index, bound in enumerate(data["bounds"]):
        of = metric(bound["metric"], bound["alpha"], V)
        if bound["bound"] == of.low + of.width:
            continue  # no lower one is far from the mean
        assert wrong(put(data, ("bounds", index), restated(bound, bound["empirical"] + 1e-7))), bound
        exact = bound["inequality"] in ("hoeffding", "azuma") or (bound["inequality"] == "kl" and bound["level"] != "token")
        assert bool(wrong(put(data, ("bounds", index), restated(bound, bound["bound"] - 1e-8)))) == exact, bound
    assert "bounds: the certificate has" in wrong({**data, "bounds": data["bounds"][:-1]})[0]
    for keys, value in (
        (("bounds", 3, "empirical"), data["bounds"][3]["empirical"] - 1e-7),
        (("bounds", 3, "units"), 7),
        (("public", "pilot"), 0.4),
        (("params", "subspace", "seed"), 1),
        (("params", "bounds", "configurations"), 1),
        (("params", "bounds", "split_seeds"), 2),
        (("paper_accounting", "bits"), data["paper_accounting"]["bits"] + 1),
        (("held_out", 0, "level"), "sequence"),
    ):
        assert wrong(put(data, keys, value)), keys
    with pytest.raises(SubloraError, match="test_bound is not stated of all held-out values of the model"):
        wrong(put(data, ("alpha",), next(alpha for alpha in ALPHA_GRID if alpha != data["alpha"])))


def restated(bound, value):
    return {**bound, "bound": value, "nonvacuous": value < bound["vacuous_at"]}


def statements_file(data):
    """The file of a certificate that is given as data, sealed anew."""
    return json.dumps({**data, "certificate_sha256": digest(data)}, indent=1) + "\n"


@pytest.mark.parametrize("key", ["configurations", "split_seeds", "candidates", "nominal_tokens"])
def test_a_count_that_no_certificate_can_state_is_refused(key):
    values = settings("texts", bounds__levels=["token"])
    values["bounds"] |= {"tokens": 10, key: 2**54}
    with pytest.raises(SubloraError, match=f"bounds.{key}.*less than or equal to"):
        as_experiment(values)
