"""Groups of documents: the split draws them, the unit of a bound is one of them, and what their documents share breaks nothing."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom
from test_coverage import CAUGHT, LIMIT
from tiny import put, settings

from sublora.certificate import references, statements
from sublora.certificate.paired import Losses, Measured, Terms, paired_statements
from sublora.certificate.schema import digest
from sublora.certificate.statements import unit_losses
from sublora.comparing import compare, verify_comparison
from sublora.data import prepare, split_of
from sublora.data.store import groups_sha256
from sublora.errors import SubloraError
from sublora.experiment import Corpus, as_experiment
from sublora.inequalities.independent import complexity_nats, hoeffding
from sublora.inequalities.means import bound_mean
from sublora.inequalities.paired import ALONE
from sublora.inequalities.smoothing import document_means, smoothed_bits
from sublora.models.references.document import DocumentCode, log_probabilities
from sublora.run import Run
from sublora.scoring.scores import Scores
from sublora.scoring.text import Drawn
from sublora.verification import verify, verify_arithmetic

STEP = statements.DETERMINISM["bits"]


def rows(groups=90):
    """Documents of authors, of whom one has written one to five; they do not follow each other."""
    random = np.random.default_rng(0)
    found = []
    for author in range(groups):
        word = random.choice(["one", "two", "three"])
        for number in range(1 + author % 5):
            text = " ".join([str(number), *[word] * int(random.integers(1, 6))])
            found.append({"text": text, "author": f"a{author}"})
    return [found[i] for i in random.permutation(len(found))]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return {"source": "file", "path": str(path), "group": "author", "train": 0.6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("groups")


def values(folder, **changes):
    bounds = {"levels": ["group"], "groups": None, "held_out_groups": 20, "pilot": 0.5}
    return settings(folder, **{"corpus": write(folder / "texts.jsonl", rows()), "bounds": bounds, **changes})


@pytest.fixture(scope="module")
def made(folder):
    run = Run(values(folder, reference={"name": "document"}), folder / "runs")
    run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


def test_a_split_draws_whole_groups(folder, tmp_path):
    corpus = Corpus(**write(folder / "texts.jsonl", rows()))
    store = prepare(corpus, tmp_path)
    authors = [record["author"] for record in rows()]
    assert store.groups.tolist() == [list(dict.fromkeys(authors)).index(author) for author in authors]
    split = split_of(store, corpus)
    parts = (split.train, split.validation, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(store))) and split.drawn == (54, 2, 34)
    seen = [{authors[i] for i in part} for part in parts]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    for part, sizes in zip(parts, split.groups, strict=True):
        runs = np.split(store.groups[part], np.cumsum(sizes)[:-1])
        assert all(len(set(run.tolist())) == 1 for run in runs) and len({run[0] for run in runs}) == len(runs)


def test_the_unit_is_a_group_and_its_loss_the_mean_of_its_documents(made):
    store, split, certificate = made.problem.store, made.problem.split, made.certificate
    scores, alpha = made.evaluation.training["group"], certificate.alpha
    m, pool = split.drawn[0], sum(split.drawn)
    assert certificate.corpus.groups.training == m == scores.units == 54 and certificate.corpus.pool == pool == 90
    assert certificate.corpus.groups.sha256 == groups_sha256(store.groups) and certificate.corpus.documents == len(split.train)
    of_document = document_means(smoothed_bits(scores.log_probability, alpha, 257), scores.offsets)
    assert len(of_document) == len(split.train)
    losses = np.array([each.mean() for each in np.split(of_document, np.cumsum(split.groups[0])[:-1])])
    stated = [b for b in certificate.statements if (b.metric, b.alpha, b.reference) == ("bpd", alpha, None)]
    assert {(b.level, b.units, b.evaluated) for b in stated} == {("group", m, m)}
    assert {b.assumption for b in stated} == {"iid", "pool", "unseen"}
    low, width = statements.metric("bpd", alpha, 257)[2:4]
    by = {"delta": 0.05, "m": m, "pool": pool, "places": np.arange(m)}
    for bound in stated:
        K = certificate.message_bits + 20 * (bound.assumption == "iid")
        again = bound_mean(
            (losses - low) / width, inequality=bound.inequality, assumption=bound.assumption, message_bits=K, **by
        ).unscaled(low, width)
        assert bound.empirical == pytest.approx(losses.mean(), abs=1e-9)
        assert bound.bound == pytest.approx(min(again.bound + STEP, low + width), abs=1e-9)


def test_the_reference_of_a_group_is_the_mean_over_its_documents(made):
    store, split, certificate = made.problem.store, made.problem.split, made.certificate
    sizes = split.groups[2][:20]
    test = split.test[: sizes.sum()]
    L = store.lengths[test]
    by = {"vocab_size": 257, "eot": store.eot, "code": DocumentCode()}
    total = np.add.reduceat(log_probabilities(store.tokens, store.offsets[test], L, **by), np.cumsum(L) - L)
    Q = -np.log2(15 / 16 * np.exp(total) + 1 / 16 * np.exp(-L * math.log(257)))
    held = made.evaluation.held_out["group"]
    p = np.add.reduceat(smoothed_bits(held.log_probability, certificate.alpha, 257), held.offsets[:-1])
    mixed = -np.log2(0.5 * 2.0**-p + 0.5 * 2.0**-Q) / L
    apart = next(h for h in certificate.held_out if h.reference)
    members = np.concatenate([[0], np.cumsum(sizes)])
    assert apart.level == "group" and apart.n == 20
    assert apart.value == pytest.approx(document_means(mixed, members).mean(), abs=1e-6)
    assert apart.reference_value == pytest.approx(document_means(Q / L, members).mean(), abs=1e-6)
    assert {b.inequality for b in certificate.statements if b.reference} == {"hoeffding", "betting"}


@pytest.fixture(scope="module")
def other(folder):
    run = Run({**values(folder, training__seed=5), "name": "other"}, folder / "runs")
    run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


@pytest.mark.parametrize("set_of", ["held-out", "training"])
def test_two_models_are_compared_by_groups(made, other, tmp_path, set_of):
    """The mixture is of whole documents, and a group's difference the mean of its documents'."""
    found = compare([made.path, other.path], set_of, made.corpora)
    store, split = made.problem.store, made.problem.split
    part, sizes, n = (split.test, split.groups[2], 20) if set_of == "held-out" else (split.train, split.groups[0], 54)
    members = np.concatenate([[0], np.cumsum(sizes[:n])])
    L = store.lengths[part[: members[-1]]]
    name = set_of.replace("-", "_")
    facts = made.problem._facts(made.message, made.certificate.alpha)
    one = references.unit_losses(getattr(made.evaluation, name)["group"], "group", facts)[0]
    scores = getattr(other.evaluation, name)["group"]
    bits = np.add.reduceat(smoothed_bits(scores.log_probability, other.certificate.alpha, 257), scores.offsets[:-1])
    two = document_means(bits / L, members)
    said = {(s.form, s.assumption): s for s in found.pairs[0].statements}
    assert found.level == "group" and found.tau == 1.0
    assert said["interval", "unseen"].mean == pytest.approx((one - two).mean(), abs=1e-6)
    assert {(s.evaluated, s.units) for s in said.values()} == {(n, None if set_of == "held-out" else 54)}
    assert said["interval", "unseen"].population == (split.drawn[2] if set_of == "held-out" else 36)
    alone = made.problem.measured(made.message, Drawn("group", set_of == "held-out", n))[0].losses
    mixed = -np.log2(0.5 * 2.0 ** (-alone.values * L) + 0.5 * 2.0**-bits) / L
    assert said["mixture", "unseen"].mean == pytest.approx(document_means(mixed - bits / L, members).mean(), abs=1e-6)
    found.save(tmp_path / "compared.json")
    assert verify_comparison(tmp_path / "compared.json", [made.path, other.path], made.corpora) == []


def test_pairs_of_dependent_documents_are_caught():
    """Groups of 40 alike documents, on which the models differ by +1 or -1. The twin takes each document for a unit."""
    random, violated, count, each = np.random.default_rng(0), {"groups": 0, "documents": 0}, 60, 40
    members = np.arange(count + 1) * each
    for _ in range(200):
        signs = np.repeat(random.choice([-1.0, 1.0], count), each)
        for name, of in (("groups", members), ("documents", ALONE)):
            one, two = (Losses(2.0 + by, np.full(signs.size, 9), np.arange(count), of) for by in (signs, 0.0 * signs))
            bounds = {"losses": one, "pilot": None, "ranges": {"iid": (1.0, 3.0)}, "shortest": {"iid": 2}}
            first = Measured(**bounds, all_lengths=np.full(count, 9), populations={})
            second = first._replace(losses=two)
            terms = Terms(True, 0.05, 0.0, {"iid": 1}, 1, 1, count)
            interval, _ = paired_statements(first, second, terms, 0.0)
            violated[name] += not interval.lower <= 0.0 <= interval.upper
    assert violated["groups"] <= 200 * LIMIT and violated["documents"] >= 200 * CAUGHT


def test_a_stranger_computes_them_again(made, tmp_path):
    assert verify(made.path, made.corpora) == [] and verify_arithmetic(made.path) == []
    data = json.loads(made.path.read_text())
    changed = put(data, ("corpus", "groups", "training"), data["corpus"]["groups"]["training"] + 1)
    altered = tmp_path / "certificate.json"
    altered.write_text(json.dumps({**changed, "certificate_sha256": digest(changed)}, indent=1) + "\n")
    assert verify(altered, made.corpora)
    changed = put(data, ("corpus", "groups", "sha256"), "0" * 64)
    altered.write_text(json.dumps({**changed, "certificate_sha256": digest(changed)}, indent=1) + "\n")
    with pytest.raises(SubloraError, match="is not prepared"):
        verify(altered, made.corpora)


def test_a_subsample_draws_groups(folder, tmp_path):
    bounds = {"levels": ["group"], "groups": 30, "held_out_groups": 20, "pilot": 0.5}
    run = Run(values(folder, bounds=bounds), tmp_path)
    certificate = run.certify()
    scores, split = run.evaluation.training["group"], run.problem.split
    assert scores.units == 30 < split.drawn[0] and np.array_equal(np.diff(scores.members), split.groups[0][scores.places])
    assert {(b.units, b.evaluated) for b in certificate.statements} == {(54, 30)}
    again = scores.repeated(54, 54)
    assert again.units == 54 and np.array_equal(np.diff(again.members)[:30], np.diff(scores.members))
    assert verify(run.folder / "certificate.json", run.corpora) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bounds": {"levels": ["document"]}}, "go together"),
        ({"bounds": {"levels": ["group", "document"]}}, "goes with no other"),
        ({"corpus": {"group": "author"}}, "no effect for source python-packages"),
    ],
)
def test_settings_that_contradict_are_refused(folder, changes, says):
    with pytest.raises(SubloraError, match=says):
        as_experiment(values(folder, **changes))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"text": "x"}, "line 2: corpus.group: there is no field 'author'; there are: text"),
        ({"text": "x", "author": None}, "line 2: field 'author' holds nothing"),
        ({"text": "x", "author": [1]}, "line 2: field 'author' holds list"),
    ],
)
def test_a_row_without_a_group_is_named(tmp_path, record, says):
    corpus = Corpus(**write(tmp_path / "texts.jsonl", [{"text": "a", "author": 1}, record]))
    with pytest.raises(SubloraError, match=says):
        prepare(corpus, tmp_path / "corpora")


def test_documents_of_one_group_are_no_independent_units():
    """50 groups of 20 documents each, alike within a group, of loss 0 or 1 with equal probability (exact)."""
    groups, each, nats, wins = 50, 20, complexity_nats(0.0, 0.05), np.arange(51)
    chance = binom.pmf(wins, groups, 0.5)
    right = chance[[hoeffding(k / groups, nats, groups) < 0.5 for k in wins]].sum()
    twin = chance[[hoeffding(k / groups, nats, groups * each) < 0.5 for k in wins]].sum()
    assert right < 0.05 and twin > 0.3


def test_the_bounded_mean_is_over_groups_and_not_over_documents():
    """Half of the groups have one document of loss 0, half 99 of loss 1. The twin takes one mean for the other."""
    random, groups, trials = np.random.default_rng(0), 400, 300
    nothing, violated = np.zeros((0, 0), np.float32), {"groups": 0, "documents": 0}
    of = statements.Metric("top1_error", None, 0.0, 1.0, 1.0, 1)
    for _ in range(trials):
        large = random.random(groups) < 0.5
        members = np.concatenate([[0], np.cumsum(np.where(large, 99, 1))])
        rank = np.repeat(large, np.diff(members)).astype(np.int32)
        places = np.arange(len(rank) + 1)
        scores = Scores(nothing, rank, places, nothing, nothing, np.arange(groups), members=members)
        bound = hoeffding(float(unit_losses(scores, of, 2).mean()), complexity_nats(0.0, 0.05), groups)
        violated["groups"] += bound < 0.5
        violated["documents"] += bound < 99 / 100
    assert violated["groups"] <= 0.05 * trials and violated["documents"] == trials
