"""Every alteration of a certificate is refused, also when the altered file got a fresh digest and layout."""

import functools
import json
from pathlib import Path

import pytest
from certificates import REFERENCE
from test_bytes import save_tokenizer
from test_glue_run import settings as task_settings
from test_glue_run import write_sst2
from test_groups import rows as authors
from test_groups import write as grouped
from test_own_task import LABEL, MORE, TEXT, write_rows
from test_own_task import rows as labelled_rows
from test_own_task import settings as task_of
from tiny import put, settings, write_texts

from sublora import verification
from sublora.certificate.build import facts
from sublora.certificate.schema import SEARCH, Certificate, certificate_of, digest, load_certificate
from sublora.certificate.statements import DETERMINISM, metrics, tolerance
from sublora.data import prepare
from sublora.errors import SubloraError
from sublora.experiment import Corpus, as_experiment
from sublora.models.tiny import make_pretrained
from sublora.problems import LabelProblem, TextProblem
from sublora.reporting.keys import keys_table
from sublora.run import Run

UNVERIFIED = {("environment",), ("certificate_sha256",)}
FREE = {("params", *key.split(".")) for key in SEARCH}
"""How the model was found: free, and nothing that a certificate promises depends on it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(data, corpora folder) of a tiny certificate with n < m at document and token level, and a public reference."""
    folder = tmp_path_factory.mktemp("made")
    groups = {"bounds__levels": ["document", "token"], "bounds__tokens": 200, "bounds__documents": 60}
    groups["reference"] = {"name": "document"}
    run = Run(settings(write_texts(folder / "texts"), **groups), folder / "runs")
    return run.certify().data(), run.corpora


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The same of a classifier, with unseen examples; it reads too little to be right."""
    folder = tmp_path_factory.mktemp("labelled")
    run = Run(task_settings(write_sst2(folder / "task"), task__train=0.5, task__max_length=4), folder / "runs")
    return run.certify().data(), run.corpora


@pytest.fixture
def refused(made, tmp_path, monkeypatch):
    """A function: does `verify` refuse this data? What it computes again is computed once for each message and params."""
    evaluations, known = {}, {}
    ways = {problem: problem.evaluate for problem in (TextProblem, LabelProblem)}

    def key(problem, message):
        return json.dumps(problem.experiment.parameters()), message

    def evaluated(problem, message, folder=None):
        found = key(problem, message)
        if found not in evaluations:
            evaluations[found] = ways[type(problem)](problem, message, folder)
        return evaluations[found]

    def computed(problem, message, evaluation, tolerant):
        found = key(problem, message)
        if found not in known:
            known[found] = facts(problem, message, evaluation, tolerant)
        return known[found]

    monkeypatch.chdir(tmp_path.parent)  # no place that a certificate names is followed out of the current folder
    for problem in ways:
        monkeypatch.setattr(problem, "evaluate", evaluated)
    monkeypatch.setattr(verification, "facts", computed)

    def check(data, quick=True, corpora=None):
        """quick: what `verify_arithmetic` refuses is not scored, because `verify` checks the same and more."""
        path, sealed = tmp_path / "certificate.json", {**data, "certificate_sha256": digest(data)}
        try:
            certificate_of(json.loads(json.dumps(sealed)), path)
            path.write_text(json.dumps(sealed, indent=1) + "\n", "utf-8")
            return bool(quick and verification.verify_arithmetic(path)) or bool(verification.verify(path, corpora or made[1]))
        except SubloraError as error:
            assert "\n" not in str(error)
            return True

    return check


def places(data, here=()):
    """The path of every key and of the first and last entry of every list, `UNVERIFIED` and `FREE` left out."""
    items = data.items() if isinstance(data, dict) else [(i, data[i]) for i in {0, len(data) - 1}] if data else []
    for key, value in items:
        path = (*here, key)
        if path in UNVERIFIED | FREE:
            continue
        yield path
        if isinstance(value, dict | list):
            yield from places(value, path)


def at(data, path):
    return functools.reduce(lambda value, key: value[key], path, data)


def alterations(value):
    """Other values for one place: of another type, a little off, extreme, empty."""
    others = [None, "x", {}, [], True, -1, 10**30, 1e-12, 1e308]
    if isinstance(value, str):
        others += [value + " ", value.upper(), "", "\x1b[1m" + value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        others += [value * 0.9, -value, float(value) if isinstance(value, int) else int(value), str(value), [value], value + 1]
    if isinstance(value, list) and value:
        others += [value[:-1], value[1:], [*value, value[-1]], value[::-1]]
    if isinstance(value, dict):
        others += [{**value, "unknown": 1}, {**value, "unknown": None}]
    return [other for other in others if json.dumps(other) != json.dumps(value)]


OPTIONAL = ("corpus.groups", "corpus.prior", "public.bytes", "public.classes_from", "public.base_configuration_sha256")
"""Keys that only certificates of some settings have."""


@pytest.fixture(scope="module")
def optional(tmp_path_factory):
    """(data, corpora folder) of tiny certificates that together have the keys `OPTIONAL`: groups of documents under a tokenizer of
    pairs of bytes; documents removed before the split; an own task; a base as the reference."""
    folder, bounds = tmp_path_factory.mktemp("optional"), {"groups": None, "held_out_groups": 20, "pilot": 0.5}
    texts = grouped(folder / "texts.jsonl", authors())
    texts |= {"tokenizer": save_tokenizer(folder / "pairs"), "tokenizer_from": "elsewhere"}
    by_group = settings(folder, corpus=texts, model__block=16, bounds={"levels": ["group"], **bounds})
    prior = settings(write_texts(folder / "texts"), name="prior", corpus__prior_documents=60, bounds__documents=50)
    task = {"source": str(write_rows(folder / "mine.csv", labelled_rows(200))), "text": [TEXT, MORE], "label": LABEL}
    own = task_of(training__epochs=1, task=task)
    store = prepare(Corpus(**prior["corpus"]), folder / "stores")
    source = make_pretrained(folder / "base", store, width=16, block=32, steps=1, batch=4)
    base = {key: value for key, value in prior.items() if key not in ("subspace", "training", "compression")}
    base |= {"kind": "zeroshot", "name": "base", "model": {"source": str(source), "block": 32}, "reference": {"name": "base"}}
    base["corpus"] = {key: value for key, value in prior["corpus"].items() if key != "prior_documents"}
    runs = [Run(values, folder / "runs") for values in (by_group, prior, own, base)]
    return [(run.certify().data(), run.corpora) for run in runs]


def test_every_optional_key_altered_or_removed_is_refused(optional, refused):
    seen = set()
    for data, corpora in optional:
        assert not refused(data, quick=False, corpora=corpora)
        for path in places(data):
            if named(path).startswith(OPTIONAL):
                seen.add(named(path))
                for other in [KeyError, *alterations(at(data, path))]:
                    assert refused(put(data, path, other), corpora=corpora), (path, other)
    rows = {row["Key"].replace("`", "").split(" (")[0] for row in keys_table().rows}
    rows |= {f"public.bytes.ratio.{name}" for name in ("iid", "pool", "unseen")}  # one row of the table
    assert seen == {key for key in rows if key.startswith(OPTIONAL)}


def says_the_same(data, path):
    """Whether a group of `params` without keys says what the certificate says."""
    try:
        return as_experiment(put(data, path, {})["params"]).parameters() == data["params"]
    except SubloraError:
        return False


def named(path):
    """A path as the table of keys has it."""
    return "".join("[i]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


@pytest.mark.parametrize("kind", ["made", "labelled"])
def test_the_certificate_itself_is_accepted(kind, refused, request):
    assert not refused(request.getfixturevalue(kind)[0])


def means_the_same(data, path, other):
    """A corpus's path is a hint: its last name is what is claimed. A maximum that the pool does not reach is none."""
    if path == ("params", "corpus", "path"):
        return Path(other).name == Path(at(data, path)).name
    return path == ("params", "corpus", "max_documents") and other >= data["corpus"]["pool"]


@pytest.mark.parametrize(("kind", "least"), [("made", 900), ("labelled", 700)])
def test_every_key_altered_or_removed_is_refused(kind, least, refused, request):
    data, accepted, tried, seen = request.getfixturevalue(kind)[0], [], 0, set()
    for path in places(data):
        value = at(data, path)
        seen.add(named(path))
        for other in [KeyError, *alterations(value)]:
            if other is KeyError and path[0] == "params" and len(path) > 1:
                continue  # a key with a default may be left out, if the default is what it said
            if other is not KeyError and type(value) is float and type(other) in (int, float) and other == value:
                continue  # 32 for 32.0
            if other == {} and path[0] == "params" and says_the_same(data, path):
                continue  # a group of defaults
            tried += 1
            if not refused(put(data, path, other)):
                accepted.append((path, other))
    said = [entry for entry in accepted if not means_the_same(data, *entry)]
    assert said == [] and tried > least, (said, tried)
    of = "language model" if kind == "made" else "classifier"
    keys = [row["Key"].replace("`", "").replace(f" ({of})", "") for row in keys_table().rows]
    free = ("environment", "certificate_sha256")
    beside = {f"bounds[i].{key}" for key in ("reference", "reference_empirical", "gain")}
    beside |= {"held_out[i].reference", "held_out[i].reference_value"} | {f"public.reference.{key}" for key in REFERENCE}
    assert (beside <= seen) == (kind == "made")
    proven = {f"held_out[i].test_bound{key}" for key in ("", ".population", ".iid", ".unseen")}
    assert proven <= seen or kind == "made", "no row of tokens has one: see below"
    optional = {key for key in keys if key.startswith(OPTIONAL)}  # see below
    assert {key for key in keys if "(" not in key and not key.startswith(free)} - beside - proven - optional <= seen


def test_a_test_set_bound_is_computed_again_and_stated_of_all_held_out_values_or_none(made, refused):
    data = made[0]
    indices = [i for i, value in enumerate(data["held_out"]) if "test_bound" in value]
    of_model = [v for v in data["held_out"] if v["level"] == "document" and v["alpha"] in (None, data["alpha"])]
    assert len(indices) == len(of_model) > 9
    for index in (indices[0], indices[-1]):
        path, step = ("held_out", index, "test_bound"), DETERMINISM["bits"]
        stated = at(data, path)
        assert stated["population"] > data["held_out"][index]["n"]
        assert data["held_out"][index]["value"] < stated["unseen"] <= stated["iid"]
        for key, value in stated.items():
            for other in (KeyError, *alterations(value)):
                if other is KeyError or other != value:
                    assert refused(put(data, (*path, key), other)), (key, other)
        if stated["unseen"] < stated["iid"]:
            assert refused(put(data, (*path, "unseen"), stated["unseen"] - 1.01 * step))
            assert not refused(put(data, (*path, "unseen"), stated["unseen"] + 0.9 * step))
        assert refused(put(data, path, KeyError)) and refused(put(data, path, None))
    without = [{key: value for key, value in entry.items() if key != "test_bound"} for entry in data["held_out"]]
    assert not refused({**data, "held_out": without}), "a certificate of before there were test-set bounds"


@pytest.mark.parametrize("kind", ["made", "labelled"])
def test_a_key_that_is_there_twice_is_refused(kind, request, tmp_path):
    data, path = request.getfixturevalue(kind)[0], tmp_path / "certificate.json"
    for place in places(data):
        if isinstance(place[-1], str):
            group = at(data, place[:-1])
            twice = put(data, place[:-1], {"twice": 1, **group}) if place[:-1] else {"twice": 1, **group}
            text = json.dumps(twice, indent=1).replace('"twice": 1', f"{json.dumps(place[-1])}: 1")
            path.write_text(text + "\n", "utf-8")
            assert digest(json.loads(text)) == digest(data), "the last one counts for most readers"
            with pytest.raises(SubloraError, match=f"the key '{place[-1]}' is there twice"):
                load_certificate(path)


def moved(data, by, *keys):
    """The certificate with these keys of every bound moved by a share of what another machine may measure otherwise."""
    bounds = [dict(bound) for bound in data["bounds"]]
    for bound in bounds:
        step = by * DETERMINISM["bits" if bound["metric"] == "bpd" else "errors"]
        for key in keys:
            bound[key] += step
        if "empirical" in keys and bound["parts"]:
            bound["parts"] = {**bound["parts"], "empirical": bound["parts"]["empirical"] + step}
        bound["nonvacuous"] = bound["bound"] < bound["vacuous_at"]
    return {**data, "bounds": bounds}


def test_measured_values_differ_within_the_tolerance_and_not_from_each_other(made, refused):
    """Each of these passed when all numbers were compared within 1e-4."""
    data = made[0]
    for path, value in (
        (("delta",), 1e-12),
        (("delta",), data["delta"] - 9e-5),
        (("params", "bounds", "delta"), data["delta"] - 9e-5),
        (("alpha",), data["alpha"] - 9e-5),
        (("public", "determinism", "bits"), 0.0),
        (("public", "alpha_grid", 0), 1e-12),
        (("paper_accounting", "bits"), data["paper_accounting"]["bits"] - 9e-5),
        (("bounds", 0, "vacuous_at"), data["bounds"][0]["vacuous_at"] + 9e-5),
        (("bounds", 0, "parts", "complexity"), data["bounds"][0]["parts"]["complexity"] - 9e-7),
    ):
        assert refused(put(data, path, value)), path
    restated = [{**bound, "alpha": 1e-12 if bound["alpha"] == 0.0001 else bound["alpha"]} for bound in data["bounds"]]
    assert refused({**data, "bounds": restated})
    assert refused(moved(data, -20, "bound")), "9.9e-5 lower, in bits"
    assert refused(moved(data, -0.01, "bound")), "hoeffding follows from the mean"
    for index, bound in enumerate(data["bounds"]):
        step = DETERMINISM["bits" if bound["metric"] == "bpd" else "errors"]
        lower = moved({**data, "bounds": [bound]}, -1.01, "bound")["bounds"][0]
        assert bound["bound"] - step > bound["empirical"], "what is proven here is the bound without the tolerance"
        assert refused(put(data, ("bounds", index), lower)), bound
        if bound.get("gain") is not None:
            assert refused(put(data, ("bounds", index, "gain"), bound["gain"] + 1.01 * step)), bound


def test_where_nothing_is_proven_the_largest_loss_is_stated_and_nothing_below_it(made, refused):
    """`min(bound + tolerance, largest)` less the tolerance, the broken rule, is below the largest loss where nothing is proven."""
    data, broken = made[0], []
    vocabulary = data["corpus"]["vocab_size"]
    tops = {(of.name, of.alpha): of.low + of.width for of in metrics(vocabulary)}
    for index, bound in enumerate(data["bounds"]):
        largest = tops[bound["metric"], bound["alpha"]]
        if bound["bound"] < largest or bound["parts"] and sum(bound["parts"].values()) < largest:
            continue
        lower = largest - 0.98 * DETERMINISM["bits" if bound["metric"] == "bpd" else "errors"]
        restated = {**bound, "bound": lower, "nonvacuous": lower < bound["vacuous_at"]}
        assert refused(put(data, ("bounds", index), restated), quick=False), bound
        broken.append(abs(largest - lower) <= tolerance(bound["metric"]))
    assert all(broken) and len(broken) > 40


def test_a_bound_may_be_stated_between_what_is_proven_here_and_twice_the_tolerance_above():
    def wrong(stated, proven):
        entry = {"metric": "top1_error", "bound": stated}
        return list(verification._differences({"bounds": [entry]}, {"bounds": [{**entry, "bound": proven}]}, ""))

    step = DETERMINISM["errors"]
    for stated, proven in ((0.5, 0.5), (0.5 + 2 * step, 0.5), (1.0, 1.0), (1.0, 1 - 0.5 * step)):
        assert wrong(stated, proven) == []
    for stated, proven in ((0.5 - 1e-8, 0.5), (0.5 + 2.1 * step, 0.5), (1 - 0.98 * step, 1.0), (1.0, 1 - 2.1 * step)):
        assert len(wrong(stated, proven)) == 1


def leaves_that_are_whole(data):
    return [path for path in places(data) if type(at(data, path)) is float and path[0] != "params"]


def test_no_setting_may_be_a_little_off(made, refused):
    """Every number but the measured ones, by a share of 1e-6; the measured ones are off from what follows from them."""
    data = made[0]
    held_out = [path for path in leaves_that_are_whole(data) if path[0] == "held_out"]
    for path in leaves_that_are_whole(data):
        if path not in held_out and path[-1] not in ("bound", "gain"):
            assert refused(put(data, path, at(data, path) * (1 + 1e-6) or 1e-6)), path
    for path in held_out:
        if path[-1] == "value":
            assert refused(put(data, path, at(data, path) + 1e-4)) and not refused(put(data, path, at(data, path) + 1e-6)), path


def leaves(data, here=()):
    """The path and the value of every setting."""
    for key, value in data.items():
        yield from leaves(value, (*here, key)) if isinstance(value, dict) else [((*here, key), value)]


def test_a_setting_may_be_left_out_only_if_it_has_its_default(made, refused):
    data, params = made[0], made[0]["params"]
    plain = {"name": "tiny", "subspace": {"dimension": 961}, "reference": {"name": "document"}}
    default = dict(leaves(as_experiment(plain).parameters()))
    skipped = FREE | {("params", "name"), ("params", "corpus"), ("params", "reference", "name")}
    for path, value in leaves(params):
        if not {("params", *path[:1]), ("params", *path)} & skipped:
            assert refused(put(data, ("params", *path), KeyError)) == (value != default[path]), path
    for group in ("model", "subspace", "bounds", "reference"):
        assert refused(put(data, ("params", group), KeyError)), group
    assert refused({**data, "params": {"name": "tiny", "corpus": params["corpus"]}})


@pytest.mark.parametrize("key", ["training.steps", "subspace.lora_dropout"])
def test_how_the_model_was_searched_for_is_free_and_marked(made, refused, key):
    group, name = key.split(".")
    value = made[0]["params"][group][name]
    assert not refused(put(made[0], ("params", group, name), 0.5 if name == "lora_dropout" else 2 * value))
    assert {key, group} & set(SEARCH) and all(free in Certificate.model_fields["params"].description for free in SEARCH)


def test_what_nobody_can_verify_is_said_to_be_so(made, refused):
    altered = put(made[0], ("environment", "python"), "2.7")
    assert not refused(altered)
    assert "nobody can verify" in Certificate.model_fields["environment"].description


SAID = {
    ("subspace", "dimension"): 41,
    ("subspace", "rank"): 5,
    ("subspace", "lora_alpha"): 16.0,
    ("subspace", "seed"): 1,
    ("subspace", "targets"): ["q"],
    ("subspace", "projector"): "dense",
    ("compression", "levels"): 7,
}


def test_params_that_contradict_the_message_are_named(made, tmp_path):
    """What the message says is read from the message: one mechanism, whatever the setting. One line names each key."""
    altered = made[0]
    for place, value in SAID.items():
        altered = put(altered, ("params", *place), value)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps({**altered, "certificate_sha256": digest(altered)}, indent=1) + "\n", "utf-8")
    keys = [line.split(":")[0] for line in verification.verify(path, made[1])]
    assert sorted(keys) == sorted(f"params.{'.'.join(place)}" for place in SAID)
