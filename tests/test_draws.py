"""What evaluated subsamples are drawn from, and where a tokenizer was made: what a certificate says of it."""

import json

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.certificate.schema import digest, load_certificate
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.inequalities.subsampling import subsample
from sublora.reporting.sentences import small_print
from sublora.run import Run
from sublora.verification import verify, verify_arithmetic

BEACON = "00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("draws") / "texts")


def certified(texts, folder, **groups):
    run = Run(settings(texts, **groups), folder / "runs")
    return run, run.certify()


def test_a_beacon_takes_the_place_of_the_message_in_the_draw_alone(texts, tmp_path):
    run, first = certified(texts, tmp_path)
    trained = (run.folder / "pretrain.safetensors").stat().st_mtime_ns
    again, second = certified(texts, tmp_path, bounds__beacon=BEACON)
    assert (run.folder / "pretrain.safetensors").stat().st_mtime_ns == trained, "the published message is not made again"
    assert (first.public.draw, first.public.beacon) == ("message", None)
    assert (second.public.draw, second.public.beacon) == ("beacon", BEACON)
    assert first.message == second.message and first.held_out == second.held_out
    assert "nobody can check" in small_print(first) and "before this value was known" in small_print(second)
    store, m = again.problem.store, second.statements[0].units
    places = [each.evaluation.training["document"].places for each in (run, again)]
    np.testing.assert_array_equal(places[0], np.sort(subsample(first.message_bytes, store.sha256, m, 100)))
    np.testing.assert_array_equal(places[1], np.sort(subsample(bytes.fromhex(BEACON), store.sha256, m, 100)))
    path = again.folder / "certificate.json"
    assert verify(path, again.corpora) == []
    data = second.data()
    for change in ({"bounds": {"beacon": BEACON[::-1]}}, {"bounds": {"beacon": None}}):
        altered = {**data, "params": {**data["params"], "bounds": {**data["params"]["bounds"], **change["bounds"]}}}
        altered["public"] = {**data["public"], "beacon": change["bounds"]["beacon"]}
        altered["public"]["draw"] = "beacon" if change["bounds"]["beacon"] else "message"
        path.write_text(json.dumps({**altered, "certificate_sha256": digest(altered)}, indent=1) + "\n", "utf-8")
        assert any(line.startswith("bounds[") for line in verify(path, again.corpora))


def test_where_all_units_are_evaluated_nothing_is_drawn(texts, tmp_path):
    with pytest.raises(SubloraError, match="beacon has no effect"):
        certified(texts, tmp_path, bounds__documents=None, bounds__beacon=BEACON)
    _, certificate = certified(texts, tmp_path, bounds__documents=None)
    assert (certificate.public.draw, certificate.public.beacon) == (None, None)
    assert "nobody can check" not in small_print(certificate)


@pytest.mark.parametrize("beacon", ["", "00", "xy" * 16, "0" * 33, 12])
def test_what_is_no_beacon_is_refused(beacon):
    with pytest.raises(SubloraError, match="'bounds.beacon'") as caught:
        as_experiment({"name": "mine", "bounds": {"beacon": beacon}})
    assert "\n" not in str(caught.value)


def test_a_beacon_in_capitals_is_the_same():
    given = as_experiment({"name": "mine", "bounds": {"beacon": BEACON.upper()}}).bounds.beacon
    assert given == BEACON != BEACON.upper()


def test_the_command_takes_a_beacon(monkeypatch, tmp_path, sublora):
    taken = []
    monkeypatch.setattr("sublora.pipeline.run", lambda *arguments: taken.append(arguments[-1]) or [])
    assert sublora("run", tmp_path / "any.yaml", "--beacon", BEACON, "--set", "training.steps=3")[0] == 0
    assert taken == [["training.steps=3", f'bounds.beacon="{BEACON}"']]


OTHER = {"source": "text", "path": "x", "tokenizer": "./folder"}


@pytest.mark.parametrize(
    ("corpus", "levels", "says"),
    [
        (OTHER, ["document"], "tokenizer_from is needed for tokenizer ./folder: elsewhere, or pool"),
        ({**OTHER, "tokenizer_from": "here"}, ["document"], "corpus.tokenizer_from"),
        ({**OTHER, "tokenizer_from": "pool"}, ["document", "token"], "bounds.levels: token bounds need a tokenizer made elsewhere"),
        ({**OTHER, "tokenizer_from": "pool"}, ["sequence"], "bounds.levels: sequence bounds need a tokenizer made elsewhere"),
        ({"tokenizer_from": "elsewhere"}, ["document"], "tokenizer_from has no effect for tokenizer bytes"),
        ({"tokenizer": "gpt2", "tokenizer_from": "pool"}, ["token"], "tokenizer_from has no effect for tokenizer gpt2"),
        ({**OTHER, "tokenizer_from": "pool"}, ["document"], None),
        ({**OTHER, "tokenizer_from": "elsewhere"}, ["document", "token", "sequence"], None),
    ],
    ids=str,
)
def test_where_a_tokenizer_was_made_must_be_said_and_decides_what_may_be_claimed(corpus, levels, says):
    values = {"name": "mine", "corpus": corpus, "bounds": {"levels": levels}}
    if says is None:
        assert as_experiment(values).corpus.tokenizer_from
        return
    with pytest.raises(SubloraError, match=says) as caught:
        as_experiment(values)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_made_of_the_pool_leaves_pool_and_unseen(texts, tmp_path, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    bpe.train([str(path) for path in sorted(texts.iterdir())], trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>").save_pretrained(tmp_path / "tokenizer")
    found = {}
    monkeypatch.chdir(tmp_path)  # no other tokenizer is read that a certificate names
    for origin in ("elsewhere", "pool"):
        values = settings(texts, name=origin, corpus__tokenizer="./tokenizer", corpus__tokenizer_from=origin)
        run = Run(values, tmp_path / "runs")
        found[origin] = run.certify()
        assert found[origin].public.tokenizer_from == origin
        path = run.folder / "certificate.json"
        assert verify(path, run.corpora) == [] == verify_arithmetic(path)
    papers = {origin: len(each.paper_accounting.bounds) for origin, each in found.items()}
    assert papers["pool"] == 0 < papers["elsewhere"], "the papers' inequalities are iid ones"
    stated = {origin: {bound.assumption for bound in each.statements} for origin, each in found.items()}
    assert stated == {"elsewhere": {"iid", "pool", "unseen"}, "pool": {"pool", "unseen"}}
    assert found["pool"].public.assumptions == {"document": ["pool", "unseen"]}
    assert load_certificate(tmp_path / "runs" / "pool" / "certificate.json") == found["pool"]
    assert len({path.name for path in (tmp_path / "runs" / "corpora").iterdir() if path.is_dir()}) == 1, "one store serves both"
