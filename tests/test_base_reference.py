"""A pretrained base as the public reference: from params to a verified certificate that says what fine-tuning adds to it."""

import json
import math
import random
import shutil

import numpy as np
import pytest
from tiny import put, settings

from sublora.certificate.build import certify
from sublora.certificate.schema import Certificate, digest
from sublora.certificate.statements import DETERMINISM, charged_bits
from sublora.data import prepare
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, Corpus, as_experiment
from sublora.inequalities.independent import complexity_nats
from sublora.inequalities.martingale import freedman_subsampled, token_share
from sublora.inequalities.means import bound_mean
from sublora.inequalities.smoothing import smoothed_bits
from sublora.message import MessageError, configured, decode, read_configuration, unwrapped, with_alpha
from sublora.message.unchanged import encode_unchanged
from sublora.models import base_model, base_sha256
from sublora.models.pretrained import configuration_sha256, stated_form
from sublora.models.references.document import FLOOR
from sublora.models.tiny import make_pretrained
from sublora.problems import ZeroshotProblem, problem_class
from sublora.reporting import sentences, terminal
from sublora.run import Run
from sublora.scoring.reference import of_base, with_floor
from sublora.scoring.scores import score
from sublora.scoring.text import Drawn, _windows, evaluate_drawn
from sublora.verification import verify, verify_arithmetic

V, STEP, DAY = 257, DETERMINISM["bits"], "2024-02-29"
EVERY = {"levels": ["document", "token"], "documents": 60, "tokens": 300}
SUBSAMPLED = {**EVERY, "pilot": 0.5, "held_out_documents": 30, "candidates": 3}


@pytest.fixture(autouse=True)
def in_their_folder(home, monkeypatch):
    """A certificate's places lead into the current folder, or are not followed."""
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Texts, other texts of other words, and a model that has learnt these."""
    home, draw = tmp_path_factory.mktemp("home"), random.Random(0)
    for name, words, count in (("texts", "one two three four", 5000), ("others", "five six seven eight", 100)):
        rows = ({"text": f"{i}: {' '.join(draw.choices(words.split(), k=draw.randint(1, 4)))}\n"} for i in range(count))
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    others = prepare(Corpus(source="file", path=str(home / "others.jsonl")), home / "others")
    make_pretrained(home / "base", others, width=16, block=32, steps=40, batch=16, learning_rate=2e-2)
    return home


def values(kind="finetune", **groups):
    """An experiment on these texts beside the base."""
    found = settings("", kind=kind, name=kind, model={"source": "base", "block": 32, "public_since": DAY}, **groups)
    found |= {"corpus": {"source": "file", "path": "texts.jsonl", "train": 0.6, **groups.get("corpus", {})}}
    found |= {"reference": {"name": "base", **groups.get("reference", {})}}
    found |= {"subspace": {"parametrization": "subspace", "dimension": 100}, "compression": {"levels": 5}}
    found["training"] |= {"steps": 60, "batch": 32}
    found["bounds"] = {"documents": None, "pilot": 0.02, "held_out_documents": 60, **groups.get("bounds", {})}
    return found if kind == "finetune" else {k: v for k, v in found.items() if k not in ("subspace", "compression", "training")}


@pytest.fixture(scope="module")
def made(home):
    """The run that fine-tunes, all units evaluated."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        run = Run(values(), "runs")
        run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


@pytest.fixture(scope="module")
def drawn(made, home):
    """(problem, evaluation, certificate) of the same message with subsamples at three levels."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        return certified(made, bounds=SUBSAMPLED)


def certified(made, **groups):
    """(problem, evaluation, certificate) of a run's message under other settings."""
    problem = type(made.problem)(as_experiment(made.experiment.parameters() | groups), made.problem.store, made.problem.split)
    evaluation = problem.evaluate(made.message)
    return problem, evaluation, certify(problem, made.message, evaluation, {})


def beside(certificate, *by):
    found = [b for b in certificate.statements if b.reference is not None]
    return found if not by else next(b for b in found if (b.level, b.assumption, b.inequality) == by)


def base_scores(problem, level, places):
    """What the base itself predicts of training units, by another way than the run's."""
    base, block = base_model(problem.experiment.model, V), problem.experiment.model.block
    windows, offsets = _windows(problem.store, problem.split.train, level, places, block=block, stride=problem.experiment.stride)
    return score(base, problem.store, windows, offsets, places, batch_tokens=64, label="test").log_probability, offsets


def top_and_loss(problem, scores, alpha):
    """(T, mixture's loss, L, the base's own loss) of whole units by the formulas of the theory: beta = 1/2, gamma = 1/16."""
    nats, offsets = base_scores(problem, "document", scores.places)
    L = np.diff(offsets)
    q = np.add.reduceat(nats.astype(np.float64), offsets[:-1])
    Q = -np.logaddexp(np.log(15 / 16) + q, np.log(1 / 16) - L * math.log(V)) / math.log(2)
    p = np.add.reduceat(smoothed_bits(scores.log_probability, alpha, V), offsets[:-1])
    losses = -np.logaddexp(np.log(0.5) - p * np.log(2), np.log(0.5) - Q * np.log(2)) / np.log(2) / L
    return (Q + 1) / L, losses, L, -q / math.log(2) / L


# -- from a params file to a page ----------------------------------------------------------------------------------------


def test_fine_tuning_is_proven_to_improve_on_its_base(made):
    """Unseen documents: no assumption at all."""
    found = beside(made.certificate)
    by = [(b.level, b.assumption, b.inequality) for b in found]
    assert by == [("document", a, i) for a in ("iid", "pool", "unseen") for i in ("hoeffding", "betting")]
    for assumption in ("iid", "unseen"):
        best = beside(made.certificate, "document", assumption, "betting")
        assert 0.02 < best.gain < best.reference_empirical - best.empirical, assumption
    held_out = next(h for h in made.certificate.held_out if h.reference)
    assert held_out.reference == "base" and held_out.value < held_out.reference_value - 0.5
    assert verify(made.path, made.corpora) == [] and verify_arithmetic(made.path) == []


def test_the_certificate_and_its_page_name_the_base(made):
    certificate = made.certificate
    public, said = certificate.public, certificate.params["model"]
    assert (said["source"], said["public_since"], public.condition) == ("base", DAY, "base_independent")
    assert public.base_weights_sha256 == base_sha256(base_model(made.experiment.model, V))
    assert public.reference.model_dump() == {
        "name": "base", "floor": FLOOR, "tau": 1.0, "beta": 0.5, "gamma": 0.0625, "g": None, "c": 0.0,
        "shortest": int(made.problem.store.lengths.min()),
    }  # fmt: skip
    page, best = certificate._repr_markdown_(), beside(certificate, "document", "unseen", "betting")
    for shown in (page, terminal.details(certificate, made.path)):
        assert public.base_weights_sha256 in shown
        assert f"The maker says that it is public since {DAY}, which nobody can verify." in shown
        assert "The base model costs no bits and is mixed with the model. It gets" in shown
    head = page.split("\n")[2]
    assert "that the model was not trained on, the mixture is proven to be better than the base model by" in head
    assert "uniform guess" not in head, "the gain is over the base itself"
    gain, own, total = (math.floor(100 * best.gain), math.ceil(100 * best.reference_empirical), math.ceil(100 * best.bound))
    for number in (gain, own, total):
        assert f"{number / 100:.2f} bits per byte" in head
    meanings = dict(sentences.meanings(certificate))
    assert any(text.startswith("What the base model loses by itself") for text in meanings.values())


def test_another_base_is_refused(made, home, tmp_path, monkeypatch):
    others = prepare(Corpus(source="file", path=str(home / "others.jsonl")), home / "others")
    make_pretrained(tmp_path / "base", others, width=16, block=32, steps=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SubloraError, match="its base model has the sha256"):
        verify(home / made.path, home / made.corpora)
    wrong = verify_arithmetic(home / made.path)
    assert [line.split(":")[0] for line in wrong] == ["public.base_weights_sha256"]


def other_configuration(made, key, value):
    """The run's message, its configuration with another value at a key."""
    configuration, message = unwrapped(made.message)
    found = put(configuration, key.split("."), value) if "." in key else {**configuration, key: value}
    return configured(stated_form(found), message)


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "gelu"), ("rms_norm_eps", 1.0), ("rope_parameters.rope_theta", 10.0)])
def test_no_configuration_that_a_message_states_changes_what_the_base_predicts(made, key, value):
    """q is public: its limit pays for no bit. The broken form is the base with the message's configuration."""
    message, problem = other_configuration(made, key, value), made.problem
    units = problem.store, problem.split, problem.experiment, Drawn("document", True, 40)
    (first, _), (other, _) = (evaluate_drawn(each, *units) for each in (made.message, message))
    assert (first.reference == other.reference).all() and (first.log_probability != other.log_probability).any()
    stated = read_configuration(message, problem.experiment)[0].model
    windows, offsets = _windows(problem.store, problem.split.test[:40], "document", np.arange(40), block=32, stride=16)
    shared = {"batch_tokens": 64, "label": "test"}
    broken = score(base_model(stated, V), problem.store, windows, offsets, np.arange(40), **shared).log_probability
    assert abs(broken - first.reference).max() > 0.01


def test_a_base_as_it_is_under_another_configuration_is_not_the_reference(as_it_is, tmp_path):
    """Its message may state another one. Then the base is scored by itself, and the certificate verifies."""
    problem, message = as_it_is.problem, other_configuration(as_it_is, "rms_norm_eps", 1.0)
    evaluation = problem.evaluate(message)
    certificate, public = certify(problem, message, evaluation, {}), as_it_is.certificate.public
    scores, same = evaluation.training["document"], as_it_is.evaluation.training["document"]
    assert certificate.params["model"]["architecture"]["rms_norm_eps"] == 1
    assert (of_base(scores.log_probability) != scores.reference).any()
    assert (of_base(same.log_probability) == same.reference).all(), "the twin: nothing is scored twice"
    assert certificate.public.base_configuration_sha256 == public.base_configuration_sha256
    certificate.save(tmp_path / "certificate.json")
    assert verify(tmp_path / "certificate.json", as_it_is.corpora) == [] == verify_arithmetic(tmp_path / "certificate.json")


def test_the_certificate_states_the_bases_own_configuration_and_another_is_refused(made, home, tmp_path, monkeypatch):
    data, path, own = made.certificate.data(), tmp_path / "certificate.json", made.experiment.model.architecture
    assert data["public"]["base_configuration_sha256"] == configuration_sha256(own)

    def seal(altered):
        path.write_text(json.dumps({**altered, "certificate_sha256": digest(altered)}, indent=1) + "\n", "utf-8")

    seal(put(data, ("public", "base_configuration_sha256"), configuration_sha256({**own, "rms_norm_eps": 1})))
    with pytest.raises(SubloraError, match="its base model has a configuration with the sha256"):
        verify(path, made.corpora)
    assert [line.split(":")[0] for line in verify_arithmetic(path)] == ["public.base_configuration_sha256"]
    seal(put(data, ("public", "base_configuration_sha256"), KeyError))
    with pytest.raises(SubloraError, match="base_configuration_sha256 and a reference base belong together"):
        verify(path, made.corpora)
    seal(data)
    assert verify(path, made.corpora) == []
    shutil.copytree(home / "base", tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text("utf-8"))
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1.0}), "utf-8")
    monkeypatch.chdir(tmp_path)  # the same weights, and another configuration of the source
    with pytest.raises(SubloraError, match="its base model has a configuration with the sha256"):
        verify(path, home / made.corpora)
    assert [line.split(":")[0] for line in verify_arithmetic(path)] == ["public.base_configuration_sha256"]


def test_the_day_is_only_said(made, home):
    """It is no part of a checkpoint, and another one leaves the training as it is."""
    before = {p.name: p.stat().st_mtime_ns for p in made.folder.glob("*.safetensors")}
    without = values()
    del without["model"]["public_since"]
    run = Run(without, "runs")
    assert before and run.draft == made.draft
    assert {p.name: p.stat().st_mtime_ns for p in made.folder.glob("*.safetensors")} == before
    assert "public_since" not in run.experiment.parameters()["model"]
    unsaid = put(made.certificate.data(), ("params", "model", "public_since"), KeyError)
    assert "The maker says" not in sentences.small_print(Certificate.model_validate(unsaid))
    Run(values(), "runs").draft  # noqa: B018
    made.certificate.save(made.path)
    for day in ("2024-02-30", "yesterday", "2024-2-1"):
        with pytest.raises(SubloraError, match="model.public_since.*a day, as YYYY-MM-DD"):
            as_experiment(put(values(), ("model", "public_since"), day))


# -- what the numbers are made of ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assumption", ["iid", "unseen"])
@pytest.mark.parametrize("all_units", [True, False])
def test_a_document_s_statement_is_two_parts_at_half_of_delta(made, drawn, all_units, assumption):
    """f = T, c = 0. Both parts are of the evaluated units; the base's pays for A, for J under iid, and for no bit of K."""
    problem, evaluation, certificate = (made.problem, made.evaluation, made.certificate) if all_units else drawn
    scores, pilot = evaluation.training["document"], evaluation.pilot["document"]
    T, losses, L, own = top_and_loss(problem, scores, certificate.alpha)
    tried, of_tried, _, _ = top_and_loss(problem, pilot, certificate.alpha)
    m, K, J = len(problem.split.train), certificate.message_bits, 20 if assumption == "iid" else 0
    assert (len(T) == m) == all_units
    least = 2 if assumption == "iid" else int(problem.store.lengths.min())
    F = math.log2(V) + 5 / least
    by = {"inequality": "betting", "assumption": assumption, "delta": 0.025, "m": m, "pool": len(problem.store)}
    by |= {"places": scores.places, "candidates": 1 if all_units else 3, "one_inner": True}

    def limit(values, on_pilot, low, width, bits):
        pilots = None if all_units else ((on_pilot - low) / width, pilot.places)
        return bound_mean((values - low) / width, message_bits=bits, pilot=pilots, **by).unscaled(low, width).bound

    low = -F if all_units else -1.0
    of_D = min(limit(np.maximum(losses - T, low), np.maximum(of_tried - tried, low), low, -low, K + J), 0.0)
    lengths = problem.store.lengths[problem.split.train]
    of_m = {**by, "places": np.arange(m), "candidates": 1}
    price = bound_mean(least / lengths, message_bits=J, **of_m).bound / least
    stated = beside(certificate, "document", assumption, "betting")
    assert stated.empirical == pytest.approx(losses.mean(), abs=1e-5)
    assert stated.reference_empirical == pytest.approx(own.mean(), abs=1e-5) != pytest.approx((T - 1 / L).mean(), abs=1e-5)
    assert stated.bound == pytest.approx(min(limit(T, tried, 0.0, F, J) + of_D + STEP, F), abs=1e-4)
    price *= math.log2(2 / (1 - 1 / 16))  # over the base by itself; 1 is the price over the base with a sixteenth of a guess
    assert stated.gain == pytest.approx(-of_D - price - STEP, abs=1e-4)


def test_a_token_s_statement_is_two_parts_from_the_same_tokens(drawn):
    """The base's prediction has a thousandth of the uniform guess; both limits are freedman's with the guess 0."""
    problem, evaluation, certificate = drawn
    stated, alpha = beside(certificate, "token", "martingale", "freedman"), certificate.alpha
    N, width, top = int(problem.store.lengths[problem.split.train].sum()), -math.log2(alpha), math.log2(V / FLOOR)

    def read(scores):
        nats, _ = base_scores(problem, "token", scores.places)
        p = np.exp(nats.astype(np.float64))
        q = 0.999 * p + 0.001 / V
        return -np.log2(p), -np.log2(q), -np.log2((1 - alpha) * np.exp(scores.log_probability.astype(float)) + alpha * q)

    (alone, own, losses), (_, tried, of_tried) = read(evaluation.training["token"]), read(evaluation.pilot["token"])
    shared = {"candidates": 3, "nominal": stated.nominal_tokens, "share": token_share(300, nominal=None), "one_inner": True}

    def limit(values, on_pilot, bits, low, width, guess, delta=0.025):
        ranges, zeros = {"low": low, "width": width, "guess_width": guess}, (np.zeros(len(values)), np.zeros(len(on_pilot)))
        return freedman_subsampled(values, zeros[0], bits, delta, N, pilot=(on_pilot, zeros[1]), **ranges, **shared)

    bits = 20 + 5
    of_f = min(limit(own, tried, bits, 0.0, top, top), top)
    of_D = min(limit(losses - own, of_tried - tried, certificate.message_bits + bits, -top, top + width, width), width)
    assert stated.reference_empirical == pytest.approx(alone.mean(), abs=1e-5)
    K = certificate.message_bits + bits
    all_of_delta = limit(losses - own, of_tried - tried, K, -top, top + width, width, 0.05)
    assert stated.gain == pytest.approx(-min(all_of_delta, width) + math.log2(0.999) - STEP, abs=1e-3)
    assert stated.bound == pytest.approx(min(of_f + of_D + STEP, top + width), abs=1e-3)


def test_there_are_statements_at_every_level_and_a_stranger_computes_them_again(made, drawn, tmp_path, home):
    found = [(b.level, b.assumption, b.inequality) for b in beside(drawn[2])]
    assert found[6:] == [("token", "martingale", "azuma"), ("token", "martingale", "freedman")]
    assert {b.candidates for b in beside(drawn[2])} == {3}
    drawn[2].save(tmp_path / "certificate.json")
    assert verify(tmp_path / "certificate.json", made.corpora) == [] and verify_arithmetic(tmp_path / "certificate.json") == []


def test_positions_may_stand_beside_the_base(made):
    """Both parts by betting, of the evaluated positions."""
    corpus = {**made.experiment.parameters()["corpus"], "split": "positions"}
    values = made.experiment.parameters() | {"corpus": corpus, "bounds": {"levels": ["position"], "positions": 200, "pilot": 0.5}}
    values["bounds"] |= {"held_out_positions": 50}
    values["training"] |= {"sampling": "token"}
    values["reference"] = {"name": "base"}
    problem = problem_class(as_experiment(values)).open(as_experiment(values), made.corpora)
    evaluation = problem.evaluate(made.message)
    certificate = certify(problem, made.message, evaluation, {})
    stated = beside(certificate, "position", "unseen", "betting")
    nats = evaluation.training["position"].reference.astype(np.float64)
    assert stated.reference_empirical == pytest.approx(-nats.mean() / math.log(2), abs=1e-6)
    assert stated.reference_empirical < stated.bound <= math.log2(V / FLOOR) - math.log2(certificate.alpha)


def test_what_the_base_cannot_predict_counts_as_nothing():
    odd = np.array([np.nan, -np.inf, np.inf, -1.0, 0.5], np.float32)
    with np.errstate(invalid="ignore"):
        assert of_base(odd).tolist() == [-np.inf, -np.inf, -np.inf, -1.0, 0.0]
        assert with_floor(of_base(odd), V)[:3] == pytest.approx(math.log(FLOOR / V), rel=1e-6)


def test_arithmetic_refuses_what_no_losses_of_the_stated_means_allow(drawn, tmp_path):
    path, data = tmp_path / "certificate.json", drawn[2].data()

    def wrong(altered):
        path.write_text(json.dumps({**altered, "certificate_sha256": digest(altered)}, indent=1) + "\n", "utf-8")
        return verify_arithmetic(path)

    for index, bound in enumerate(data["bounds"]):
        if bound.get("reference") and bound["level"] == "document":
            low = bound["empirical"] - 1e-6
            assert wrong(put(data, ("bounds", index), {**bound, "bound": low, "nonvacuous": low < bound["vacuous_at"]})), bound
    assert wrong(put(data, ("public", "reference", "c"), 1.0))
    with pytest.raises(SubloraError, match="pseudo_counts"):
        wrong(put(data, ("public", "reference", "pseudo_counts"), [1.0]))


# -- settings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"reference": {"name": "base", "offset": "reference"}}, "reference.*offset has no effect for reference base"),
        ({"reference": {"name": "base", "excess": 1.0}}, "reference.*excess has no effect for reference base"),
        ({"reference": {"name": "base", "pseudo_counts": [3.0]}}, "reference.*pseudo_counts has no effect for reference base"),
        ({"reference": {"name": "base", "start": "uniform"}}, "reference.*start has no effect for reference base"),
        (
            {"reference": {"name": "base", "beta": 0.25}, "bounds": {"levels": ["token"]}},
            r"reference.beta has no effect for levels \[token\]",
        ),
    ],
    ids=str,
)
def test_keys_without_effect_are_refused(groups, says):
    with pytest.raises(SubloraError, match=says):
        as_experiment(values() | groups)


def test_only_a_pretrained_model_is_a_base():
    for kind in ("pretrain", "ngram"):
        with pytest.raises(SubloraError, match="reference.name base is the pretrained model of kinds finetune, zeroshot and round"):
            as_experiment({"kind": kind, "name": "x", "reference": {"name": "base"}})
    assert as_experiment(values()).parameters()["reference"] == {"name": "base", "beta": 0.5, "gamma": 0.0625, "tau": 1.0}


# -- zero coordinates ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def as_it_is(home):
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        run = Run(values("zeroshot", bounds={"documents": 80, "pilot": 0.5, "held_out_documents": 30}), "runs")
        run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


def test_the_base_as_it_is_has_its_own_level_and_no_gain(as_it_is):
    """The message is paid for in the difference alone, which is never above zero: the level is the base's own limit, without K."""
    certificate, problem, evaluation = as_it_is.certificate, as_it_is.problem, as_it_is.evaluation
    scores, pilot = evaluation.training["document"], evaluation.pilot["document"]
    T, losses, _, _ = top_and_loss(problem, scores, certificate.alpha)
    tried, _, _, _ = top_and_loss(problem, pilot, certificate.alpha)
    F, m = math.log2(V) + 5 / 2, len(problem.split.train)
    of_f = {"inequality": "betting", "assumption": "iid", "message_bits": charged_bits(0.0, 2**20), "delta": 0.025, "m": m}
    limit = F * bound_mean(T / F, pilot=(tried / F, pilot.places), places=scores.places, one_inner=True, **of_f).bound
    for inequality in ("hoeffding", "betting"):
        stated = beside(certificate, "document", "iid", inequality)
        assert limit - 0.05 < stated.bound <= limit + STEP + 1e-4
    assert all(b.gain <= 0 for b in beside(certificate) if b.gain is not None)
    assert (losses <= T + 1e-9).all() and complexity_nats(certificate.message_bits, 0.025) > 500
    assert certificate.params["kind"] == "zeroshot" and len(as_it_is.compress()) == 1
    assert certificate.public.base_weights_sha256 == base_sha256(base_model(as_it_is.experiment.model, V))
    assert verify(as_it_is.path, as_it_is.corpora) == [] and verify_arithmetic(as_it_is.path) == []


def test_its_message_is_three_bytes_behind_the_configuration(as_it_is):
    experiment = as_it_is.experiment
    configuration, message = unwrapped(as_it_is.message)
    assert configuration == experiment.model.architecture
    assert message == encode_unchanged(as_it_is.certificate.alpha) and len(message) == 3
    for alpha in ALPHA_GRID:
        assert decode(with_alpha(as_it_is.message, alpha, experiment, V), experiment, V).alpha == alpha
    start = as_it_is.message.index(bytes([0x5A]), len(as_it_is.message) - 3)
    for altered in (b"\x08", b"\xff"):
        with pytest.raises(MessageError, match="smoothing weight"):
            decode(as_it_is.message[: start + 1] + altered, experiment, V)
    with pytest.raises(MessageError):
        decode(as_it_is.message + b"\x00", experiment, V)
    with pytest.raises(MessageError, match="does not belong to an experiment of kind 'finetune'"):
        decode(as_it_is.message, as_experiment(values()), V)
    assert isinstance(as_it_is.problem, ZeroshotProblem)


def test_a_rounded_model_may_stand_beside_the_model_it_was(home):
    """Its message has all weights, and yet the base's are needed."""
    found = values("round", bounds={"documents": 40, "pilot": 0.5, "held_out_documents": 20})
    found["rounding"] = {"bits": [4], "scales": ["tensor"]}
    run = Run(found, "runs")
    certificate = run.certify()
    assert certificate.public.base_weights_sha256 and certificate.public.condition == "base_independent"
    assert all(b.gain < 0 for b in beside(certificate) if b.gain is not None)
    assert verify(run.folder / "certificate.json", run.corpora) == [] == verify_arithmetic(run.folder / "certificate.json")
