"""A check has a budget: what costs too much is refused before it is built, and what is not foreseen ends with its own process."""

import base64
import hashlib
import json
import os
import shutil
import time

import numpy as np
import pytest
import torch
from tiny import HOME, complaint, put, settings, write_texts

from sublora import budget
from sublora.certificate.schema import digest, load_certificate
from sublora.errors import SubloraError
from sublora.experiment import PROJECTORS, Subspace, as_experiment
from sublora.limits import MOST, Limits, limited
from sublora.message import Coded
from sublora.message.language import Message, encode
from sublora.models import make_projector
from sublora.run import Run
from sublora.sampling import load
from sublora.verification import verify, verify_arithmetic


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that ended, in a folder of its own."""
    home = tmp_path_factory.mktemp("made")
    run = Run(settings(write_texts(home / "texts")), home / "runs")
    run.home, run.data = home, run.certify().data()
    return run


def sealed(data, path):
    """The file of altered data, with a fresh digest and layout."""
    path.write_text(json.dumps({**data, "certificate_sha256": digest(data)}, indent=1) + "\n", "utf-8")
    return path


def with_message(data, dimension, projector, **model):
    """A certificate whose message asks for so many coordinates."""
    subspace = Subspace(parametrization="subspace", dimension=dimension, projector=projector)
    message = encode(Message(subspace, 0.1, Coded(np.array([-1, 0, 1], np.float16), np.ones(dimension, int))))
    params = data["params"] | {"subspace": subspace.model_dump(mode="json"), "model": data["params"]["model"] | model}
    coded = {"message": base64.b64encode(message).decode(), "message_bits": 8 * len(message)}
    return data | coded | {"params": params, "message_sha256": hashlib.sha256(message).hexdigest()}


COSTLY = {
    "block": (lambda data: put(data, ("params", "model", "block"), 30_000_000), "GiB"),
    "layers": (lambda data: put(data, ("params", "model"), data["params"]["model"] | {"layers": 10**6, "width": 4}), "GiB"),
    "dense_qr": (lambda data: with_message(data, 20_000, "dense_qr", width=64), "GiB"),
    "dense": (lambda data: with_message(data, 4_000, "dense", width=256), "GiB"),
    "qr": (lambda data: with_message(data, 9_000, "dense_qr", width=32), "GiB"),
    "tokens": (lambda data: put(data, ("corpus", "tokens"), 10**13), "GiB"),
    "minutes": (
        lambda data: put(put(data, ("params", "model"), {"layers": 200, "heads": 2}), ("corpus", "tokens"), 2 * 10**7),
        "minutes",
    ),
    "digits": (lambda data: put(data, ("params", "model", "width"), 10**400), "less than or equal to"),
    "vocabulary": (lambda data: put(data, ("corpus", "vocab_size"), 10**10), "GiB"),
}


@pytest.mark.parametrize("value", ["inf", "nan", "1e300", "1e9"])
@pytest.mark.parametrize("option", ["--limit-minutes", "--limit-memory"])
def test_a_limit_that_no_timer_holds_is_refused(sublora, tmp_path, option, value):
    status, _, err = sublora("verify", tmp_path / "a.json", option, value)
    assert status in (1, 2) and option in err and "Overflow" not in err
    limits = Limits(**{option.removeprefix("--limit-"): float(value)})
    with pytest.raises(SubloraError, match=f"x: {option} is .*; give a number above 0 and at most"):
        limited("test_limits:careful", 3, what="x", limits=limits)


def test_the_largest_limits_are_held():
    with pytest.warns(UserWarning, match="take care"):
        assert limited("test_limits:careful", 3, what="x", limits=MOST) == (4, MOST)


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_too_much_is_refused_before_it_is_built(made, tmp_path, name):
    change, says = COSTLY[name]
    data = change(made.data)
    began = time.process_time()
    with pytest.raises(SubloraError, match=f"certificate.json: .*{says}") as caught:
        verify(sealed(data, tmp_path / "certificate.json"), made.corpora)
    assert "\n" not in str(caught.value) and time.process_time() - began < 5


def test_the_person_may_allow_more_and_less(made, tmp_path):
    path = made.folder / "certificate.json"
    assert verify(path, made.corpora, limits=Limits(4, 30)) == []
    for limits, says in ((Limits(0.01, 30), "GiB; .*--limit-memory"), (Limits(4, 1e-5), "minutes; .*--limit-minutes")):
        with pytest.raises(SubloraError, match=says):
            verify(path, made.corpora, limits=limits)
    assert verify_arithmetic(path, limits=Limits(4, 1e-5)) == [], "nothing is scored, so that takes no time"
    with pytest.raises(SubloraError, match="--limit-memory"):
        load(path, Limits(0.00001, 30))
    assert load(path).module.block_size == 32


def test_each_certificate_is_checked_whatever_the_others_are(made, sublora, tmp_path):
    spoilt = [
        sealed(COSTLY[name][0](made.data), tmp_path / f"{name}.json") for name in ("block", "layers", "dense_qr", "dense")
    ]
    spoilt.append(sealed(put(made.data, ("params", "model", "seed"), 2**64), tmp_path / "seed.json"))
    for place in ("/", "~nouser/x", "~/x", "../x", "./", "/etc/../", "a/" * 2500):
        spoilt.append(sealed(put(made.data, ("params", "corpus", "tokenizer"), place), tmp_path / f"tokenizer{len(spoilt)}.json"))
    whole = made.folder / "certificate.json"
    status, out, err = sublora("verify", *spoilt, whole, "--runs", made.home / "runs")
    assert status == 1 and [line for line in out.splitlines() if "erified" in line] == [
        *(f"{path}: NOT verified" for path in spoilt),
        f"{whole}: verified: the model and every bound agree",
    ]
    assert len(err.splitlines()) == len(spoilt) and all(str(p) in line for p, line in zip(spoilt, err.splitlines(), strict=True))


# --- the process


def test_a_process_returns_what_its_function_returns_and_warns_here():
    with pytest.warns(UserWarning, match="take care"):
        assert limited("test_limits:careful", 3, what="x", limits=Limits(1, 1)) == (4, Limits(1, 1))


def careful(number, limits):
    import warnings

    warnings.warn("take care", stacklevel=1)
    return number + 1, limits


def greedy(limits):
    return len([np.ones(2**22) for _ in range(2**10)])


def greedy_torch(limits):
    return torch.ones(2**32).sum()


def endless(limits):
    while True:
        time.sleep(0.1)


def killed(limits):
    os.kill(os.getpid(), 6)


def wrong(limits):
    raise KeyError("two\nlines")


def refused(limits):
    raise SubloraError("file: as it says")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("greedy", "x: needs more than 0.5 GiB; if you trust it, raise --limit-memory"),
        ("greedy_torch", "x: needs more than 0.5 GiB; if you trust it, raise --limit-memory"),
        ("endless", "x: takes more than 0.05 minutes; if you trust it, raise --limit-minutes"),
        ("killed", "x: cannot be checked (the process ended with SIGABRT: it wants too much memory, or there is too little; "),
        ("wrong", "x: cannot be checked (KeyError: 'two\\nlines')"),
        ("refused", "file: as it says"),
    ],
)
def test_what_ends_a_process_is_one_line(name, says):
    with pytest.raises(SubloraError) as caught:
        limited(f"test_limits:{name}", what="x", limits=Limits(0.5, 0.05 if name == "endless" else 1))
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)


def test_the_processor_s_time_ends_what_nobody_waits_for():
    """The twin: the same loop without the limit is still there when the test stops waiting."""
    with pytest.raises(SubloraError, match="SIGXCPU"):
        limited("test_limits:spinning", True, what="x", limits=Limits(1, 1))
    with pytest.raises(SubloraError, match="takes more than"):
        limited("test_limits:spinning", False, what="x", limits=Limits(1, 0.1))


def spinning(soon, limits):
    import resource

    if soon:  # as `_limit` sets it, but within seconds
        resource.setrlimit(resource.RLIMIT_CPU, (int(sum(os.times()[:2])) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    else:
        assert resource.getrlimit(resource.RLIMIT_CPU)[0] <= 0.1 * 60 * (os.cpu_count() or 1) + 20
    while True:
        pass


# --- the estimates


@pytest.mark.parametrize("name", [name for name in PROJECTORS if name != "film"])
def test_a_projector_takes_no_more_than_estimated(name):
    layout = [("norm", 100), ("weight", 10_000)]
    projector = make_projector(name, layout, 300, 0)
    kept = sum(buffer.numel() * buffer.element_size() for buffer in projector.buffers())
    assert kept <= budget.projector(name, 10_100, 300).bytes <= 100 * kept + 10**6


@pytest.mark.parametrize("path", sorted(HOME.glob("results/*/certificate.json")), ids=lambda path: path.parent.name)
def test_kept_certificates_are_far_below_the_limits(path):
    certificate = load_certificate(path)
    experiment = as_experiment(certificate.params)
    cost = budget.scoring(experiment, certificate)
    assert cost.bytes < 4 * 2**30 and cost.operations / budget.SPEED["cpu"] < 15 * 60
    measured = certificate.environment.seconds["score"]
    assert cost.operations / budget.SPEED["cpu"] > measured / 2, "an estimate that is far too low refuses nothing"


# --- where the data are


def test_the_person_says_where_the_data_are(made, tmp_path, monkeypatch):
    """The twin: without --corpus the same certificate is refused on a machine where its corpus was not prepared."""
    moved = tmp_path / "elsewhere" / "other-name"
    write_texts(moved)
    with pytest.raises(SubloraError, match="is not prepared in .*say where the data is with --corpus"):
        verify(made.folder / "certificate.json", tmp_path / "corpora")
    assert verify(made.folder / "certificate.json", tmp_path / "corpora", moved) == []
    moved.rename(moved.with_name("texts"))
    assert verify(made.folder / "certificate.json", tmp_path / "corpora", tmp_path / "elsewhere") == []
    shutil.rmtree(tmp_path / "corpora")
    (moved.with_name("texts") / "000.txt").write_text("changed", "utf-8")
    with pytest.raises(SubloraError, match="speaks of a corpus with sha256"):
        verify(made.folder / "certificate.json", tmp_path / "corpora", tmp_path / "elsewhere")
    with pytest.raises(SubloraError, match="not there"):
        verify(made.folder / "certificate.json", tmp_path / "corpora", tmp_path / "nothing")


def test_a_hint_says_what_the_certificate_says(made, tmp_path):
    """Where the data are here is no part of the claim; a name that contradicts the hint is."""
    for path in (("corpus", "name"), ("public", "tokenizer")):
        altered = sealed(put(made.data, path, "another"), tmp_path / "certificate.json")
        assert [line.split(":")[0] for line in verify(altered, tmp_path / "corpora", made.home / "texts")] == [".".join(path)]


@pytest.mark.parametrize(
    "arguments",
    [("text", "--path", "/"), ("python-stdlib", "--tokenizer", "/", "--tokenizer-from", "elsewhere")],
    ids=str,
)
def test_a_disk_is_no_corpus(sublora, tmp_path, arguments):
    began = time.process_time()
    line = complaint(sublora("data", *arguments, "--runs", tmp_path / "runs"))
    assert "/: the root of a disk; name the folder that is meant" in line and time.process_time() - began < 5
