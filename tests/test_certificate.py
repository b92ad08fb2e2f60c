"""The certificate: what is in it follows from the message; one altered number is noticed."""

import base64
import copy
import json

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.bounds.certificate import contents, digest, seal, write_certificate
from sublora.bounds.evaluation import evaluate, evaluate_pilot
from sublora.bounds.format import load_certificate, message_of
from sublora.bounds.statements import metric, unit_losses
from sublora.bounds.verify import verify
from sublora.compression import compress, decode, encode
from sublora.config import ALPHA_GRID, Experiment
from sublora.data import draw_split, prepare
from sublora.errors import SubloraError
from sublora.models import build
from sublora.sampling import load_model
from sublora.training import pretrain


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(certificate, its path, folder of corpora, everything it was made from)"""
    folder = tmp_path_factory.mktemp("certificate")
    experiment = Experiment.from_parameters(settings(write_texts(folder / "texts", 500)))
    store = prepare(experiment.corpus, folder / "corpora")
    split = draw_split(len(store), experiment.corpus)
    model = build(experiment.model, experiment.subspace, store.vocab_size)
    pretrain(model, store, split, experiment, folder)
    message, _ = compress(model, store, split, experiment, folder)
    data = seal(encode(message), store, split, experiment)
    scores = evaluate(data, store, split, experiment)
    path = folder / "certificate.json"
    certificate = write_certificate(path, contents(data, store, split, experiment, scores), {"score": scores.seconds})
    return certificate, path, folder / "corpora", (data, store, split, experiment, scores, message)


def test_a_true_certificate_verifies(made):
    certificate, path, corpora, _ = made
    assert verify(path, corpora) == []
    assert load_certificate(path) == certificate


def test_every_bound_is_above_what_was_measured(made):
    bounds = made[0]["bounds"]
    assert bounds and all(b["bound"] > b["empirical"] for b in bounds)
    for b in bounds:
        if b["inequality"] == "hoeffding":
            assert sum(b["parts"].values()) == pytest.approx(b["bound"], abs=2e-4)
            assert b["parts"]["complexity"] > 0 and b["parts"]["subsampling"] > 0


def test_all_alphas_are_listed_and_only_the_message_s_is_not_charged(made):
    certificate, _, _, (data, *_) = made
    rows = [b for b in certificate["bounds"] if b["metric"] == "bpd" and b["level"] == "document"]
    assert {b["alpha"] for b in rows} == set(ALPHA_GRID)
    assert certificate["alpha"] == decode(data, 10**6).alpha
    for b in rows:
        assert b["candidates"] == (1 if b["alpha"] == certificate["alpha"] else len(ALPHA_GRID))
    assert all(b["candidates"] == 1 for b in certificate["bounds"] if b["alpha"] is None)


def test_complexity_is_every_byte_of_the_message(made):
    certificate, _, _, (data, *_) = made
    assert certificate["message_bits"] == 8 * len(data)
    assert message_of(certificate) == data
    b = next(b for b in certificate["bounds"] if b["inequality"] == "hoeffding" and b["assumption"] == "iid" and b["alpha"] == 0.1)
    m, n = b["units"], b["evaluated"]
    width = np.log2(1 + 0.9 * 257 / 0.1)
    nats = 8 * len(data) * np.log(2) + np.log((n + m) / (n * 0.05))
    assert b["parts"]["complexity"] == pytest.approx(width * np.sqrt(nats / (2 * m)), rel=1e-12)


def test_the_scored_model_is_the_decoded_one_and_its_documents_follow_from_the_message(made):
    _, _, _, (data, store, split, experiment, scores, message) = made
    again = evaluate(data, store, split, experiment)
    np.testing.assert_array_equal(again.training["document"].log_probability, scores.training["document"].log_probability)
    other = encode(message.with_alpha(next(a for a in ALPHA_GRID if a != decode(data, 10**6).alpha)))
    elsewhere = evaluate(other, store, split, experiment)
    one, two = (evaluation.training["document"].offsets for evaluation in (scores, elsewhere))
    assert not np.array_equal(one, two), "another message has another subsample"
    one, two = (evaluation.held_out["document"].log_probability for evaluation in (scores, elsewhere))
    np.testing.assert_array_equal(one, two)
    for pilot in (evaluate_pilot(data, store, split, experiment), elsewhere.pilot):
        np.testing.assert_array_equal(pilot["document"].log_probability, scores.pilot["document"].log_probability)
    assert len(scores.pilot["document"].offsets) - 1 == 50


def test_evaluating_all_documents_has_no_subsampling_term(made):
    _, _, _, (_, store, split, experiment, _, message) = made
    changed = experiment.parameters()
    changed["bounds"]["documents"] = None
    whole = Experiment.from_parameters(changed)
    data = seal(encode(message), store, split, whole)
    certificate = contents(data, store, split, whole, evaluate(data, store, split, whole))
    rows = [b for b in certificate["bounds"] if b["inequality"] == "hoeffding"]
    assert all(b["evaluated"] == b["units"] == len(split.train) and b["parts"]["subsampling"] == 0 for b in rows)


def test_document_losses_are_in_the_unit_interval(made):
    _, _, _, (_, store, _, _, scores, _) = made
    for name, alpha in (("bpd", 1e-4), ("bpd", 0.5), ("top10_error", None)):
        of = metric(name, alpha, store.vocab_size)
        losses = unit_losses(scores.training["document"], of, store.vocab_size)
        assert losses.shape == (100,) and 0 <= losses.min() <= losses.max() <= 1 and of.width > 0 and of.low >= 0


def alter(certificate, keys, change):
    target = certificate
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = change(target[keys[-1]])


def other_message(text):
    data = bytearray(base64.b64decode(text))
    data[-3] ^= 1
    return base64.b64encode(bytes(data)).decode()


ALTERATIONS = [
    (("bounds", 0, "bound"), lambda x: x - 0.01, "bounds"),
    (("bounds", 4, "empirical"), lambda x: x + 0.01, "bounds"),
    (("bounds", 1, "units"), lambda x: x + 1, "units"),
    (("bounds", 1, "candidates"), lambda x: x + 1, "candidates"),
    (("bounds", 0, "parts", "complexity"), lambda x: x / 2, "complexity"),
    (("held_out", 2, "value"), lambda x: x - 0.01, "held_out"),
    (("paper_accounting", "bits"), lambda x: x - 8, "paper_accounting"),
    (("corpus", "tokens"), lambda x: x + 1, "corpus.tokens"),
    (("public", "windows", "stride"), lambda x: x + 1, "public.windows.stride"),
    (("delta",), lambda x: 0.06, "delta"),
    (("alpha",), lambda x: 0.0001, "alpha"),
    (("message",), other_message, "message"),
    (("message_sha256",), lambda x: "0" * 64, "message_sha256"),
    (("params", "training", "learning_rate"), lambda x: x * 2, "certificate_sha256"),
    (("environment", "seconds", "score"), lambda x: x + 1, "certificate_sha256"),
]


# How the model was found and how long it took is no part of the claim: there, only the digest shows an alteration.
RESEALED = [(*a, True) for a in ALTERATIONS if a[2] != "certificate_sha256"]


@pytest.mark.parametrize(("keys", "change", "named", "resealed"), [(*a, False) for a in ALTERATIONS] + RESEALED)
def test_one_altered_number_is_noticed(made, tmp_path, keys, change, named, resealed):
    certificate, _, corpora, _ = made
    altered = copy.deepcopy(certificate)
    alter(altered, keys, change)
    if resealed:
        altered["certificate_sha256"] = digest(altered)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(altered, indent=1) + "\n")
    try:
        wrong = "\n".join(verify(path, corpora))
    except SubloraError as error:
        wrong = str(error)
    assert named in wrong


def test_a_certificate_of_another_corpus_is_refused(made, tmp_path):
    certificate, _, corpora, _ = made
    altered = copy.deepcopy(certificate)
    altered["corpus"]["sha256"] = "0" * 64
    (tmp_path / "certificate.json").write_text(json.dumps(altered))
    with pytest.raises(SubloraError, match="use the data it was made from"):
        verify(tmp_path / "certificate.json", corpora)


def test_a_stranger_s_certificate_chooses_neither_files_nor_memory(made, tmp_path):
    certificate, path, _, _ = made
    with pytest.raises(SubloraError, match="is not prepared in"):
        verify(path, tmp_path / "corpora")
    altered = copy.deepcopy(certificate)
    for layers, width in ((10**9, 16), (10**6, 2), (2, 10**5)):  # the second has few weights, and a million layers of them
        altered["params"]["model"] |= {"layers": layers, "width": width, "heads": 1}
        (tmp_path / "certificate.json").write_text(json.dumps(altered))
        with pytest.raises(SubloraError, match="more than 1,000,000,000 weights or 1,000 layers"):
            verify(tmp_path / "certificate.json", tmp_path / "corpora")
        with pytest.raises(SubloraError, match="more than 1,000,000,000 weights or 1,000 layers"):
            load_model(tmp_path / "certificate.json")
