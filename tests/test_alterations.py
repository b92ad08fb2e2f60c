"""Every alteration of a certificate is refused, also when the altered file got a fresh digest and layout."""

import json

import pytest
from tiny import put, settings, write_texts

from sublora import verification
from sublora.certificate.build import facts
from sublora.certificate.schema import SEARCH, Certificate, digest
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.problems import TextProblem
from sublora.run import Run

UNVERIFIED = {("environment",), ("certificate_sha256",)}
FREE = {("params", *key.split(".")) for key in SEARCH}
"""How the model was found: free, and nothing that a certificate promises depends on it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(data, corpora folder) of a tiny certificate with n < m at document and token level."""
    folder = tmp_path_factory.mktemp("made")
    groups = {"bounds__levels": ["document", "token"], "bounds__tokens": 200, "bounds__documents": 60}
    run = Run(settings(write_texts(folder / "texts"), **groups), folder / "runs")
    return run.certify().data(), run.corpora


@pytest.fixture
def refused(made, tmp_path, monkeypatch):
    """A function: does `verify` refuse this data? What it computes again is computed once for each message and params."""
    evaluations, known = {}, {}
    evaluate = TextProblem.evaluate

    def key(problem, message):
        return json.dumps(problem.experiment.parameters()), message

    def evaluated(problem, message, folder=None):
        found = key(problem, message)
        if found not in evaluations:
            evaluations[found] = evaluate(problem, message, folder)
        return evaluations[found]

    def computed(problem, message, evaluation):
        found = key(problem, message)
        if found not in known:
            known[found] = facts(problem, message, evaluation)
        return known[found]

    monkeypatch.setattr(TextProblem, "evaluate", evaluated)
    monkeypatch.setattr(verification, "facts", computed)

    def check(data):
        path = tmp_path / "certificate.json"
        path.write_text(json.dumps({**data, "certificate_sha256": digest(data)}, indent=1) + "\n", "utf-8")
        try:
            return bool(verification.verify(path, made[1]))
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


def alterations(value):
    """Other values for one place: of another type, a little off, extreme, empty."""
    others = [None, "x", {}, True, -1, 10**30, 1e-12]
    if isinstance(value, str):
        others += [value + " ", value.upper(), ""]
    if isinstance(value, int | float) and not isinstance(value, bool):
        others += [value + 1, value * 0.9, -value, float(value) if isinstance(value, int) else int(value)]
    if isinstance(value, list) and value:
        others += [value[:-1], value[1:], [*value, value[-1]], value[::-1]]
    if isinstance(value, dict):
        others += [{**value, "unknown": 1}]
    return [other for other in others if json.dumps(other) != json.dumps(value)]


def test_the_certificate_itself_is_accepted(made, refused):
    assert not refused(made[0])


def test_every_key_altered_removed_or_doubled_is_refused(made, refused):
    data, accepted = made[0], []
    tried = 0
    for path in places(data):
        value = data
        for key in path:
            value = value[key]
        # A changed parameter takes a second, because everything is computed again: one change of each suffices.
        others = alterations(value)[-1 if path[0] == "params" and len(path) > 2 else 0 :]
        for other in [KeyError, *others]:
            if other is KeyError and path[0] == "params" and len(path) > 1:
                continue  # a key with a default may be left out, if the default is what it said
            if other is not KeyError and type(value) is float and other == value:
                continue  # 32 for 32.0
            tried += 1
            if not refused(put(data, path, other)):
                accepted.append((path, other))
    assert accepted == [] and tried > 400


def leaves(data, here=()):
    """The path and the value of every setting."""
    for key, value in data.items():
        yield from leaves(value, (*here, key)) if isinstance(value, dict) else [((*here, key), value)]


def test_a_setting_may_be_left_out_only_if_it_has_its_default(made, refused):
    data, params = made[0], made[0]["params"]
    default = dict(leaves(as_experiment({"name": "tiny", "subspace": {"dimension": 961}}).parameters()))
    skipped = FREE | {("params", "name"), ("params", "corpus")}
    for path, value in leaves(params):
        if not {("params", *path[:1]), ("params", *path)} & skipped:
            assert refused(put(data, ("params", *path), KeyError)) == (value != default[path]), path
    for group in ("model", "subspace", "bounds"):
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
