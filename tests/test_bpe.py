"""`sublora tokenizer`: a byte-level BPE that experiments read."""

import random

import pytest
from tiny import complaint, settings

from sublora.data.tokenizers import get_tokenizer
from sublora.run import Run


@pytest.fixture
def texts(tmp_path):
    words, draw = ["alpha", "beta", "gamma", "delta", "Grüße", "🙂"], random.Random(0)
    for name in ("apart", "pool"):
        (tmp_path / name).mkdir()
        for i in range(60):
            (tmp_path / name / f"{i}.txt").write_text(" ".join(draw.choices(words, k=12)), "utf-8")
    return tmp_path


def test_it_is_trained_and_certified_with(sublora, texts, monkeypatch):
    monkeypatch.chdir(texts)
    status, out, err = sublora("tokenizer", texts / "apart", "--vocab-size", 300)
    assert status == 0 and "./tokenizers/apart-300" in out and "tokenizer_from" in out
    made = get_tokenizer("./tokenizers/apart-300")
    assert 257 < made.vocab_size <= 300
    for text in ("alpha beta 🙂", "a<|endoftext|>b", "\x00 never seen: é"):
        assert made.decode(made.encode(text)) == text and made.eot not in made.encode(text)
    assert len(made.encode("alpha beta")) < len("alpha beta") / 2, "it has learnt words"
    values = settings(texts / "pool", bounds__documents=20)
    values["corpus"] |= {"tokenizer": "./tokenizers/apart-300", "tokenizer_from": "elsewhere"}
    found = Run(values, texts / "runs").certify()
    assert {bound.assumption for bound in found.statements} >= {"iid", "unseen"}


def test_it_is_a_function_of_its_documents(sublora, texts, monkeypatch):
    monkeypatch.chdir(texts)
    for name in ("a", "b"):
        assert sublora("tokenizer", texts / "apart", "--vocab-size", 280, "--out", name)[0] == 0
    assert (texts / "a" / "tokenizer.json").read_bytes() == (texts / "b" / "tokenizer.json").read_bytes()


def test_what_cannot_be_is_one_line_and_leaves_nothing(sublora, texts, monkeypatch):
    monkeypatch.chdir(texts)
    assert "at least 257" in complaint(sublora("tokenizer", texts / "apart", "--vocab-size", 256))
    assert "does not exist" in complaint(sublora("tokenizer", texts / "none"))
    (texts / "taken").mkdir()
    assert "is there already" in complaint(sublora("tokenizer", texts / "apart", "--out", "taken"))
    assert sorted(path.name for path in texts.iterdir()) == ["apart", "pool", "taken"]
