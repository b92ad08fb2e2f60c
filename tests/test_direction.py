"""The order in which a model reads documents: the same tokens, a proper code, the same certificate."""

import itertools
import math

import numpy as np
import pytest
from tiny import settings, write_texts

from sublora.certificate.schema import load_certificate
from sublora.comparing import compare
from sublora.data.direction import block_permutation, in_direction, places, reordered
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.models.references.document import DocumentCode, log_probabilities
from sublora.run import Run
from sublora.sampling import load
from sublora.verification import verify


def of_each(tokens, lengths, permutation):
    return reordered(tokens, np.concatenate([[0], np.cumsum(lengths)]), permutation)


def test_a_document_is_read_from_its_end_and_ends_with_the_end_of_text():
    tokens = np.array([1, 2, 3, 0, 4, 0, 5, 6, 0])
    assert of_each(tokens, [4, 2, 3], None).tolist() == [3, 2, 1, 0, 4, 0, 6, 5, 0]


def test_blocks_are_permuted_and_a_shorter_one_in_the_same_order():
    order = np.array([2, 0, 3, 1])
    found = of_each(np.array([1, 2, 3, 4, 5, 6, 7, 0]), [8], order)
    assert found.tolist() == [3, 1, 4, 2, 7, 5, 6, 0]


@pytest.mark.parametrize("permutation", [None, block_permutation(4, 3), np.arange(4)])
def test_each_order_holds_the_same_tokens_and_the_identity_is_forward(permutation):
    lengths = np.array([2, 5, 4, 6, 9, 13])
    tokens = np.arange(1, lengths.sum() + 1)
    found, begin = of_each(tokens, lengths, permutation), np.cumsum(lengths) - lengths
    for at, length in zip(begin, lengths, strict=True):
        assert sorted(found[at : at + length]) == tokens[at : at + length].tolist()
        assert found[at + length - 1] == tokens[at + length - 1]
    if permutation is not None and (permutation == np.arange(4)).all():
        assert (found == tokens).all()


@pytest.mark.parametrize("permutation", [None, np.array([1, 2, 0])])
def test_a_code_in_any_order_is_one_of_documents(permutation):
    """Over all documents of up to five tokens of three, with their ends: no more than 1, and as much as forward."""
    documents = [(*body, 2) for n in range(1, 6) for body in itertools.product(range(2), repeat=n)]
    lengths = np.array([len(each) for each in documents])
    tokens, starts = np.concatenate(documents), np.cumsum(lengths) - lengths
    shared = {"vocab_size": 3, "eot": 2, "code": DocumentCode(pseudo_counts=(1.0, 0.5, 0.5))}

    def total(read):
        return sum(math.exp(each.sum()) for each in np.split(log_probabilities(read, starts, lengths, **shared), starts[1:]))

    assert total(of_each(tokens, lengths, permutation)) == pytest.approx(total(tokens), rel=1e-12)
    assert total(tokens) < 1
    broken = tokens.copy()  # an order that the tokens decide, such as a sorted one, gives several documents one code
    for at, length in zip(starts, lengths, strict=True):
        broken[at : at + length - 1].sort()
    assert total(broken) != pytest.approx(total(tokens), rel=1e-4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("direction")
    texts, runs = write_texts(home / "texts", 120), {}
    for name, model in {
        "forward": {},
        "backward": {"direction": "backward"},
        "permutation": {"direction": "permutation", "permutation_seed": 5},
    }.items():
        values = settings(texts, bounds__documents=30, bounds__levels=["document", "token"], bounds__tokens=60)
        values["model"] |= model
        runs[name] = Run({**values, "name": name}, home / "runs")
        runs[name].certify()
    return runs


def test_directions_share_the_corpus_and_each_certificate_verifies(made):
    shas = {load_certificate(run.folder / "certificate.json").corpus.sha256 for run in made.values()}
    assert len(shas) == 1
    for name, run in made.items():
        assert not verify(run.folder / "certificate.json", run.folder.parent / "corpora"), name
    assert "direction" not in load_certificate(made["forward"].folder / "certificate.json").params["model"]
    assert "permutation_seed" not in load_certificate(made["backward"].folder / "certificate.json").params["model"]


def test_the_store_is_read_in_the_direction_everywhere(made):
    forward, backward = (made[name].problem.store for name in ("forward", "backward"))
    for i in range(3):
        assert backward.document(i)[:-1].tolist() == forward.document(i)[:-1][::-1].tolist()
    assert in_direction(forward, "forward", 8, 0) is forward


def test_two_directions_are_compared_on_the_same_documents(made):
    found = compare([made["backward"].folder / "certificate.json", made["forward"].folder / "certificate.json"], "held-out", made["forward"].folder.parent / "corpora")
    assert found.pairs[0].statements[0].lower <= found.pairs[0].statements[0].upper


@pytest.mark.parametrize("name", ["backward", "permutation"])
def test_text_comes_out_in_reading_order(made, name, monkeypatch):
    model = load(made[name].folder / "certificate.json")
    drawn = iter([*b"olleh", model.tokenizer.eot])
    monkeypatch.setattr("torch.multinomial", lambda *_, **__: next(drawn))
    order = places(np.array([6]), model.permutation)[:-1]
    wanted = bytes(b"olleh"[at] for at in np.argsort(order)).decode()
    assert model.generate() == wanted
    assert name == "permutation" or wanted == "hello"


def test_a_backward_model_writes_what_comes_before_a_prompt(made, monkeypatch):
    model = load(made["backward"].folder / "certificate.json")
    drawn = iter([*b"cba", model.tokenizer.eot])
    monkeypatch.setattr("torch.multinomial", lambda *_, **__: next(drawn))
    assert model.generate("xyz") == "abcxyz"
    assert model.bits("abc") == pytest.approx(model.bits("abc"))
    with pytest.raises(SubloraError, match="continues no prompt"):
        load(made["permutation"].folder / "certificate.json").generate("xyz")


def test_a_pretrained_model_has_its_own_direction(made):
    values = settings("texts")
    values |= {"kind": "finetune", "model": {"source": "a/b", "direction": "backward"}, "subspace": {"dimension": 4}}
    with pytest.raises(SubloraError, match="direction"):
        as_experiment(values)
    with pytest.raises(SubloraError, match="permutation_seed has no effect for direction backward"):
        as_experiment(settings("texts", model__direction="backward", model__permutation_seed=3))
