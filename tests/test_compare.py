"""Comparisons of certified models: what they are made of, what they refuse, and that a stranger can compute them again."""

import base64
import functools
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from certificates import certificate, changed, classifier_certificate
from test_glue_run import settings as task_settings
from test_glue_run import write_sst2
from tiny import complaint, put, settings, write_texts

from sublora import comparing
from sublora.certificate import statements
from sublora.certificate.comparison import load_comparison, sealed
from sublora.certificate.paired import Losses, Measured, Terms, decisions, paired_statements
from sublora.certificate.schema import certificate_of, digest, load_certificate
from sublora.comparing import base_of, compare, differs, verify_comparison
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.inequalities.paired import from_held_out, from_training, held_out_limit, mixed_with, mixture_from_training
from sublora.inequalities.subsampling import subsample
from sublora.message import configured
from sublora.reporting import comparisons
from sublora.run import Run

DELTA, STEP = 0.05, 2 * statements.DETERMINISM["bits"]
J = 2**40


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs on one split: good and poor evaluate all units; few has a reference and a subsample."""
    folder = tmp_path_factory.mktemp("compared")
    texts, runs = write_texts(folder / "texts", 400), {}
    for name, changes in (
        ("good", {"bounds__documents": None, "training__steps": 60}),
        ("poor", {"bounds__documents": None}),
        ("few", {"reference": {"name": "document"}, "bounds__candidates": 3}),
    ):
        runs[name] = Run({**settings(texts, **changes), "name": name}, folder / "runs")
        runs[name].certify()
        runs[name].path = runs[name].folder / "certificate.json"
    return runs


@pytest.fixture(scope="module")
def held_out(made):
    return compared(made, "good", "poor", "few")


def compared(made, *names, set_of="held-out"):
    return compare([made[name].path for name in names], set_of, made["good"].corpora)


def only(comparison, form, assumption, pair=0):
    return next(s for s in comparison.pairs[pair].statements if (s.form, s.assumption) == (form, assumption))


def losses(run, part, scores=None):
    """Bits per byte of the decoded model's units with its own smoothing."""
    problem, found = run.problem, scores or getattr(run.evaluation, part)["document"]
    of = statements.metric("bpd", load_certificate(run.path).alpha, problem.store.vocab_size)
    return of, of.low + of.width * statements.unit_losses(found, of, problem.store.vocab_size)


# -- what the numbers are ----------------------------------------------------------------------------------------------


def test_limits_from_held_out_units_by_hand(made, held_out):
    (one, good), (two, poor) = (losses(made[name], "held_out") for name in ("good", "poor"))
    D, population = good - poor, len(made["good"].problem.split.test)
    of = {"low": one.low - two.low - two.width, "high": one.low + one.width - two.low, "delta": DELTA, "comparisons": 2}
    unseen, fresh = only(held_out, "interval", "unseen"), only(held_out, "interval", "iid")
    expected = from_held_out(D, **of, population=population)
    assert (unseen.lower, unseen.upper) == pytest.approx((expected.lower - STEP, expected.upper + STEP), abs=1e-12)
    assert unseen.mean == pytest.approx(D.mean()) and (unseen.population, unseen.evaluated) == (population, 50)
    expected = from_held_out(D, **of, bits=40)
    assert (fresh.lower, fresh.upper) == pytest.approx((expected.lower - STEP, expected.upper + STEP), abs=1e-12)
    assert (fresh.configurations, fresh.message_bits, fresh.units) == (J, 0.0, None)
    assert unseen.upper < fresh.upper and unseen.lower > fresh.lower
    mixture = only(held_out, "mixture", "unseen")
    assert mixture.upper < 0 and mixture.upper < unseen.upper and mixture.decided
    assert {s.assumption for pair in held_out.pairs for s in pair.statements} == {"iid", "unseen"}, "never the pool"


def test_limits_from_training_units_by_hand(made):
    found = compared(made, "good", "poor", set_of="training")
    (one, good), (two, poor) = (losses(made[name], "training") for name in ("good", "poor"))
    problem, bits = made["good"].problem, 8 * len(made["good"].message + made["poor"].message)
    m, M, lengths = len(good), len(problem.store), problem.store.lengths[problem.split.train]
    of = {"low": one.low - two.low - two.width, "high": one.low + one.width - two.low}
    drawn = {"delta": DELTA, "m": m, "pool": M, "places": np.arange(m)}
    for assumption, charged in (("iid", 40), ("pool", 0), ("unseen", 0)):
        expected = from_training(good - poor, **of, **drawn, assumption=assumption, message_bits=bits + charged)
        said = only(found, "interval", assumption)
        assert said.lower == pytest.approx(max(expected.lower - STEP, of["low"]), abs=1e-12)
        assert said.upper == pytest.approx(min(expected.upper + STEP, of["high"]), abs=1e-12)
        assert (said.message_bits, said.units, said.evaluated, said.log_e) == (bits, m, m, None)
        shortest = 2 if assumption == "iid" else int(problem.store.lengths.min())
        mixture = mixed_with(good, poor, lengths, high=two.low + two.width, shortest=shortest)
        by = {"assumption": assumption, "message_bits": bits + charged, "shortest": shortest, "charged": charged, **drawn}
        assert only(found, "mixture", assumption).upper == pytest.approx(
            min(mixture_from_training(mixture, lengths, **by) + STEP, 1 / shortest), abs=1e-12
        )
    assert only(found, "mixture", "pool").upper < 0, "proven from training units alone"


def test_a_subsample_is_drawn_from_both_messages_and_counts_pairs(made, monkeypatch):
    seen = []
    monkeypatch.setattr(comparing, "paired_statements", lambda *given: seen.append(given) or paired_statements(*given))
    found = compared(made, "good", "few", set_of="training")
    one, two, terms, _ = seen[0]
    store, m = made["good"].problem.store, len(made["good"].problem.split.train)
    seed = made["good"].message + made["few"].message
    drawn = np.sort(subsample(seed, store.sha256, m, 100, purpose="compare"))
    assert np.array_equal(one.losses.places, drawn) and np.array_equal(two.losses.places, drawn)
    pilot = np.sort(subsample(seed, store.sha256, m, 50, purpose="compare pilot"))
    assert np.array_equal(one.pilot.places, pilot) and np.array_equal(two.pilot.places, pilot)
    of, all_units = losses(made["good"], "training")
    assert one.losses.values == pytest.approx(all_units[drawn], abs=1e-6), "the units' losses in the right places"
    assert terms.candidates == 3 and {s.candidates for s in found.pairs[0].statements} == {3}
    assert two.ranges["iid"][1] > two.ranges["unseen"][1], "the shortest document is 2 tokens, or the pool's"
    more = list(paired_statements(one, two, terms._replace(candidates=300), 1.0))
    assert all(b.upper > a.upper or b.upper == a.upper > 0 for a, b in zip(found.pairs[0].statements, more, strict=True))


def test_one_test_split_s_mean_is_exact_and_only_rounding_is_added():
    random, names = np.random.default_rng(0), ("iid", "unseen")
    lengths, places = np.full(80, 9), np.arange(80)

    def model(shift):
        values = Losses(random.uniform(2, 4, 80) + shift, lengths, places)
        ranges, shortest = dict.fromkeys(names, (0.1, 9.0)), dict.fromkeys(names, 2)
        return Measured(values, None, ranges, shortest, np.ones(200), {"unseen": 80})

    one, two = model(0), model(0.5)
    terms = Terms(True, DELTA, 300.0, {"iid": 4, "unseen": 1}, 1, 1, 280)
    found = {(s.form, s.assumption): s for s in paired_statements(one, two, terms)}
    exact, mean = found["interval", "unseen"], float((one.losses.values - two.losses.values).mean())
    assert (exact.lower, exact.upper) == pytest.approx((mean - STEP, mean + STEP)) and exact.log_e is None is exact.decided
    assert found["mixture", "unseen"].upper == pytest.approx(found["mixture", "unseen"].mean + STEP)
    assert found["interval", "iid"].log_e is not None
    bare = {(s.form, s.assumption): s for s in paired_statements(one, two, terms, 0.0)}
    assert bare["interval", "iid"].upper == pytest.approx(found["interval", "iid"].upper - STEP)
    assert bare["interval", "iid"].log_e > found["interval", "iid"].log_e, "e-values pay for rounding, too"
    assert [s.decided for s in decisions([list(found.values())], DELTA)[0]] == [False, True, None, None]


def test_the_public_base_of_the_other_model_pays_for_its_smoothing_weight_alone():
    def of(kind, name, body, **public):
        values, message = certificate(name).data(), configured({"model_type": "x", "size": 3}, body)
        values |= {"message": base64.b64encode(message).decode(), "message_bits": 8 * len(message)}
        values |= {"message_sha256": hashlib.sha256(message).hexdigest()}
        values["params"] = {**values["params"], "kind": kind}
        values["public"] = {**values["public"], **public}
        return certificate_of(values, name)

    base, tuned = of("zeroshot", "base", b"\x03\x5a\x01"), of("finetune", "tuned", b"\x04\x53\x01\x02")
    assert base_of(base, tuned) and not base_of(tuned, base)
    assert not base_of(base, of("finetune", "tuned", b"\x04\x53\x01\x02", base_weights_sha256="1" * 64))
    assert not base_of(base, of("finetune", "tuned", b"\x04\x53\x01\x02", windows={"block": 64, "stride": 32}))
    usual = as_experiment({"name": "x"})
    pays = functools.partial(comparing._charged, one=usual, two=usual, names=("iid", "unseen"))
    assert pays(tuned, base) == pays(base, tuned) == (tuned.message_bits + 3, {"iid": 2**20, "unseen": 1})
    assert pays(tuned, certificate()) == (tuned.message_bits + certificate().message_bits, {"iid": J, "unseen": 1})


def test_a_test_set_bound_by_hand(made):
    """Complexity ln(1/delta) for unseen ones, log2 of 2^20 configurations more for fresh ones; no message counts."""
    problem, held = made["few"].problem, load_certificate(made["few"].path).held_out
    population, (own, reference) = len(problem.split.test), [v for v in held if v.test_bound and v.metric == "bpd"]
    of, values = losses(made["few"], "held_out")
    by = {"low": of.low, "high": of.low + of.width}
    nats = math.log(1 / DELTA)
    assert own.test_bound.population == reference.test_bound.population == population > own.n == 50
    assert own.test_bound.unseen == pytest.approx(held_out_limit(values, **by, nats=nats, population=population) + STEP / 2)
    assert own.test_bound.iid == pytest.approx(held_out_limit(values, **by, nats=nats + 20 * math.log(2)) + STEP / 2)
    _, mixture, _ = problem.held_out_losses(made["few"].message, made["few"].evaluation, own.alpha)
    shortest = int(problem.store.lengths.min())
    for name, fewest, more in (("unseen", shortest, 0), ("iid", 2, 20)):
        top = 8.00563 + (4 + 1) / fewest  # log2 of 257 tokens; gamma and beta
        by = {"nats": nats + more * math.log(2), "population": None if more else population}
        limit = held_out_limit(mixture, low=0, high=top, **by)
        assert getattr(reference.test_bound, name) == pytest.approx(limit + STEP / 2, abs=1e-5)


def test_classifiers_are_compared_by_their_errors(tmp_path):
    paths, task = [], write_sst2(tmp_path / "task")
    for name, epochs in (("long", 4), ("short", 1)):
        run = Run({**task_settings(task, task__train=0.5, training__epochs=epochs), "name": name}, tmp_path)
        run.certify()
        paths.append(run.folder / "certificate.json")
    found = compare(paths, corpus=tmp_path / "task")
    problem = run.problem
    errors = [problem.evaluate(load_certificate(path).message_bytes).unseen != problem.unseen.labels for path in paths]
    exact = only(found, "interval", "unseen")
    assert exact.mean == pytest.approx(errors[0].mean() - errors[1].mean()) and exact.population == len(problem.unseen)
    assert (found.metric, found.level, {s.form for s in found.pairs[0].statements}) == ("error", "example", {"interval"})
    assert exact.upper - exact.lower <= 4 * statements.DETERMINISM["errors"] + 1e-9
    trained = only(compare(paths, "training", corpus=tmp_path / "task"), "interval", "pool")
    assert trained.units == len(problem.training) and trained.lower <= trained.mean <= trained.upper
    assert "percentage points of error" in comparisons.summary(found)
    for value in load_certificate(paths[0]).held_out:
        exactly = value.split == "unseen"
        assert (value.test_bound.unseen is not None) == exactly and value.test_bound.iid > value.value
        assert not exactly or value.test_bound.unseen == pytest.approx(value.value + statements.DETERMINISM["errors"])


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("corpus", "sha256"), "1" * 64, "corpus.sha256 is '000000000000' in one and '111111111111' in the other"),
        (("params", "corpus", "split_seed"), 7, "corpus.split_seed is 0 in one and 7 in the other"),
        (("params", "corpus", "train"), 0.5, "corpus.train is 0.75"),
        (("corpus", "documents"), 41_000, "corpus.documents"),
        (("delta",), 0.1, "bounds.delta is 0.05 in one and 0.1 in the other"),
        (("public", "tokenizer"), "gpt2", "bits per token of different tokenizers, 'bytes' and 'gpt2', are not comparable"),
        (("corpus", "vocab_size"), 300, "bits per token of different tokenizers"),
    ],
)
def test_what_differs_is_said_in_one_line(path, value, words):
    one, other = certificate("one"), changed(certificate("two", message_bytes=283), *path, to=value)
    assert words in differs(one, other)
    assert differs(one, certificate("two", message_bytes=283)) is None
    assert differs(one, one) == "they hold the same message"


def test_pieces_are_not_compared():
    one = certificate("one")
    other = one.model_copy(update={"statements": [b.model_copy(update={"level": "sequence"}) for b in one.statements]})
    words = r"no common unit but tokens or sequences \(a: sequence; b: sequence\); certify both with"
    with pytest.raises(SubloraError, match=words):
        comparing._level([other, other], ["a", "b"])
    assert comparing._level([one, one], ["a", "b"]) == "document"


def test_the_command_says_what_differs_and_what_is_proven(made, tmp_path, sublora):
    good, poor, few = (str(made[name].path) for name in ("good", "poor", "few"))
    runs = ["--runs", str(made["good"].folder.parent)]
    out = tmp_path / "compare.json"
    status, printed, _ = sublora("compare", good, poor, *runs, "--out", str(out))
    assert status in (0, None), printed
    assert "good is better than poor on unseen documents, the 152 of the test split, by at least 0." in printed
    assert "bits per byte (95% confidence, from 50 held-out documents)." in printed
    assert sublora("compare", poor, good, *runs)[1].count("good is better than poor on unseen documents") == 1
    status, printed, _ = sublora("compare", good, poor, *runs, "--verify", str(out))
    assert status in (0, None) and f"{out}: verified" in printed
    assert "the comparison lists other certificates" in sublora("compare", good, few, *runs, "--verify", str(out))[2]
    assert "one certificate" in complaint(sublora("compare", good, *runs))
    assert "--set-of: 'test' is none of training, held-out" in complaint(sublora("compare", good, poor, "--set-of", "test"))
    for file, why in ((tmp_path / "notes.md", "name one"), (good, "is no comparison"), (tmp_path / "x.json", "is no comparison")):
        Path(file).touch()
        before = Path(file).read_bytes()
        assert why in complaint(sublora("compare", good, poor, *runs, "--out", str(file))) and Path(file).read_bytes() == before
    assert "--out: nothing is written" in complaint(sublora("compare", good, poor, "--out", "x", "--verify", "y"))


def rewritten(made, folder, *by):
    """The paths of good and poor with a key of theirs replaced: (path, value) each."""
    paths = []
    for name in ("good", "poor"):
        data = load_certificate(made[name].path).data()
        for keys, value in by:
            data = put(data, keys, value)
        paths.append(folder / f"{name}.json")
        certificate_of({**data, "certificate_sha256": digest(data)}, name).save(paths[-1])
    return paths


def test_what_iid_assumes_of_a_base_and_of_classes_is_stated_and_said(made, tmp_path):
    corpora, path = made["good"].corpora, tmp_path / "compare.json"
    paths = rewritten(made, tmp_path, (("public", "condition"), "base_independent"))
    found = compare(paths, "held-out", corpora)
    assert found.condition == "base_independent" and "classes_from" not in found.data()
    assert "if they are independent of each other and of the public base" in comparisons.summary(found)
    found.save(path)
    assert verify_comparison(path, paths, corpora) == []
    data = {key: value for key, value in found.data().items() if key != "comparison_sha256"}
    sealed({key: value for key, value in data.items() if key != "condition"}).save(path)
    assert [line.split(":")[0] for line in verify_comparison(path, paths, corpora)] == ["condition"]
    plain = compared(made, "good", "poor")
    assert "condition" not in plain.data() and "of the public base" not in comparisons.summary(plain)
    statement = only(plain, "interval", "iid")
    of_examples = plain.model_copy(update={"classes_from": "examples"})
    said = comparisons.speaks_of(of_examples, statement)
    assert said.endswith("if they are independent, and if the source has no other labels than the examples have")
    labelled = classifier_certificate()
    of_examples = labelled.model_copy(update={"public": labelled.public.model_copy(update={"classes_from": "examples"})})
    assert comparing._conditions([labelled, of_examples]) == {"classes_from": "examples"} and not comparing._conditions([labelled])


def test_the_pool_is_that_of_the_split_and_not_what_a_certificate_says(made, tmp_path):
    right = compared(made, "good", "poor", set_of="training")
    paths = rewritten(made, tmp_path, (("corpus", "pool"), 10**6))
    assert [p.statements for p in compare(paths, "training", made["good"].corpora).pairs] == [p.statements for p in right.pairs]


def test_every_altered_number_is_refused(made, held_out, tmp_path, monkeypatch):
    data, paths, corpora = held_out.data(), [made[name].path for name in ("good", "poor", "few")], made["good"].corpora
    computed = {}
    found = comparing._found

    def once(paths, set_of, *others, **by):
        key = (set_of, by["slacks"])
        if key not in computed:
            computed[key] = found(paths, set_of, *others, **by)
        return computed[key]

    monkeypatch.setattr(comparing, "_found", once)
    path = tmp_path / "compare.json"

    def refused(altered):
        try:
            sealed(altered).save(path)
            return bool(verify_comparison(path, paths, corpora))
        except (SubloraError, ValueError):
            return True

    assert not refused(data), "the comparison itself"
    for key, value in data.items():
        if key not in ("pairs", "comparison_sha256", "first"):
            assert refused({**data, key: value + (1 if isinstance(value, int | float) else "x")}), key
    for key, value in data["first"].items():
        other = "1" * 64 if key.endswith("sha256") else value + 8 if isinstance(value, int) else value + "x"
        assert refused(put(data, ("first", key), other)) and refused(put(data, ("pairs", 1, "other", key), other)), key
    for index in (0, 3):
        place = ("pairs", 0, "statements", index)
        for key, value in data["pairs"][0]["statements"][index].items():
            others = [None, "x", 0.25, 10**30] if value is not None else [0.5]
            others += [value + by for by in (1, -1, 1e-3, -1e-3)] if isinstance(value, int | float) and value is not True else []
            for other in others:
                assert other == value or refused(put(data, (*place, key), other)), (index, key, other)
    upper = data["pairs"][0]["statements"][0]["upper"]
    assert refused(put(data, ("pairs", 0, "statements", 0, "upper"), upper - 1.1 * STEP))
    assert not refused(put(data, ("pairs", 0, "statements", 0, "upper"), upper + 0.9 * STEP))
    flipped = not data["pairs"][0]["statements"][1]["decided"]
    assert refused(put(data, ("pairs", 0, "statements", 1, "decided"), flipped))
    assert refused({**data, "pairs": data["pairs"][:1], "comparisons": 1}), "a comparison that was listed is left out"
    assert refused(put(data, ("pairs", 0, "statements"), data["pairs"][0]["statements"][:-1]))


def test_a_file_that_is_none_is_refused_in_one_line(held_out, tmp_path):
    path, data = tmp_path / "x.json", held_out.data()
    altered = {**data, "delta": 0.01}
    for text, words in (
        ("[]", "not a comparison"),
        ("{", "not valid JSON"),
        ('{"format": "sublora-certificate/3"}', "'sublora-comparison/1'"),
        (json.dumps({**data, "pairs": []}), "'pairs'"),
        (json.dumps({**data, "more": 1}), "'more' is unknown"),
        (json.dumps(altered), "was altered"),
        (json.dumps({**altered, "comparison_sha256": digest(altered, "comparison_sha256")}), None),
    ):
        path.write_text(text)
        if words is None:
            assert load_comparison(path).delta == 0.01
        else:
            with pytest.raises(SubloraError, match=words) as raised:
                load_comparison(path)
            assert "\n" not in str(raised.value)
    with pytest.raises(SubloraError, match="no comparison; make it with"):
        load_comparison(tmp_path / "none.json")


# -- words -------------------------------------------------------------------------------------------------------------


def restated(comparison, **values):
    data = comparison.data()
    entry = {**data["pairs"][0]["statements"][0], **values}
    return sealed(put(data, ("pairs", 0, "statements", 0), entry))


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        (-0.5, -0.01239, "good is better than poor on fresh documents, if they are independent, by at least 0.0123 bits per byte"),
        (-0.5, -0.0000129, "by at least 0.000012 bits per byte"),
        (0.0219, 0.3, "poor is better than good on fresh documents, if they are independent, by at least 0.0219 bits"),
        (-0.01231, 0.02211, "Neither good nor poor is proven to be better on fresh documents, if they are independent: the "
         "interval, -0.0124 to 0.0222 bits per byte, contains 0"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_its_limits_say(held_out, lower, upper, words):
    comparison = restated(held_out, lower=lower, upper=upper)
    pair = comparison.pairs[0]
    assert words in comparisons.sentence(comparison, pair, pair.statements[0])
    assert "all 2 listed comparisons at once" in comparisons.sentence(comparison, pair, pair.statements[0])


def test_the_page_shows_what_is_kept_and_says_what_is_not(held_out, tmp_path, monkeypatch):
    monkeypatch.setenv("SUBLORA_RESULTS", str(tmp_path))
    found, missing = comparisons.kept()
    assert found == [] and "no comparisons" in missing[0]
    assert str(comparisons.comparisons_table(found)).count("\n") == 2
    (tmp_path / "compare").mkdir()
    held_out.save(tmp_path / "compare" / "tiny.json")
    (tmp_path / "compare" / "broken.json").write_text("{}")
    found, missing = comparisons.kept()
    assert [name for name, _ in found] == ["tiny"] and "broken.json" in missing[0]
    table = str(comparisons.comparisons_table(found))
    assert "good and poor, held-out" in table and "mixture" in table
    assert held_out.first.certificate_sha256[:12] in str(comparisons.sources_table(found))


def test_more_choices_than_a_comparison_can_state_are_refused(made, monkeypatch):
    monkeypatch.setattr(comparing, "MOST", 2)
    with pytest.raises(SubloraError, match="together there would be more than 2 configurations or candidates"):
        compared(made, "good", "few", set_of="training")
