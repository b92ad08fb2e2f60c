"""Tokenizers: round trips, sizes, and text that looks like a special token."""

import os
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from sublora.data import get_tokenizer
from sublora.errors import SubloraError

DATA = os.environ.get("SUBLORA_TEST_DATA")


@pytest.fixture
def gpt2(monkeypatch):
    """The real encoding. Its two files are in the folder `tiktoken-cache` of SUBLORA_TEST_DATA, as tiktoken names them."""
    if DATA is None:
        pytest.skip("SUBLORA_TEST_DATA is not set: no files of tiktoken's gpt2 encoding")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(DATA) / "tiktoken-cache"))
    return get_tokenizer("gpt2")


@given(st.text())
def test_bytes_round_trip(text):
    tokenizer = get_tokenizer("bytes")
    ids = tokenizer.encode(text)
    assert ids.tolist() == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eot]) == text


def test_bytes_numbers():
    tokenizer = get_tokenizer("bytes")
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.eot) == ("bytes", 257, 256)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([0xFF]) == "\ufffd"


@pytest.mark.parametrize("name", ["bytes", "gpt2"])
def test_half_a_surrogate_pair_becomes_the_replacement_character(name, request):
    tokenizer = get_tokenizer(name) if name == "bytes" else request.getfixturevalue(name)
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_gpt2_is_tiktokens_gpt2(gpt2):
    assert (gpt2.name, gpt2.vocab_size, gpt2.eot) == ("gpt2", 50257, 50256)
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    assert gpt2.decode([15496, 995, gpt2.eot]) == "Hello world"


def test_special_token_text_is_ordinary_text(gpt2):
    text = "one<|endoftext|>two"
    ids = gpt2.encode(text)
    assert gpt2.eot not in ids
    assert ids.tolist() == tiktoken.get_encoding("gpt2").encode_ordinary(text)
    assert gpt2.decode(ids) == text


def test_gpt2_on_real_text(gpt2):
    text = Path(os.__file__).read_text("utf-8")
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text
    assert 0 <= ids.min() and ids.max() < gpt2.eot
    assert ids.tolist() == tiktoken.get_encoding("gpt2").encode_ordinary(text)


@pytest.mark.parametrize("wrong", [-1, 257, 2**40])
def test_decode_refuses_ids_outside_the_vocabulary(wrong):
    with pytest.raises(SubloraError, match=rf"token id {wrong} is outside 0\.\.256 of tokenizer 'bytes'"):
        get_tokenizer("bytes").decode(np.array([65, wrong]))


def test_unknown_name():
    with pytest.raises(SubloraError, match=r"'\./gpt3' has no tokenizer that can be read.*choose bytes or gpt2"):
        get_tokenizer("./gpt3")


@pytest.fixture
def bpe(tmp_path):
    """A small byte-level tokenizer of `transformers` in a folder; `tokenizer.json` as data and a way to write it."""
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Backend(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(tmp_path / "bpe")
    return tmp_path / "bpe"


def test_half_a_surrogate_pair_in_a_tokenizer_of_transformers(bpe):
    tokenizer = get_tokenizer(str(bpe))
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


WRONG = {
    "cut": lambda text: text[:200],
    "empty": lambda text: "",
    "nested": lambda text: "[" * 100_000,
    "negative": lambda text: text.replace('"a": ', '"a": -'),
    "twice": lambda text: text.replace('"merges": []', '"merges": [["q", "none"]]'),
    "pattern": lambda text: text.replace('"normalizer": null', '"normalizer": {"type": "Replace", "pattern": {"Regex": "(("}}'),
    "huge": lambda text: text.replace('"a": ', '"a": 99999'),
    "missing": None,
}


@pytest.mark.parametrize("change", WRONG)
def test_a_folder_whose_tokenizer_is_wrong_is_one_line(bpe, change):
    path = bpe / "tokenizer.json"
    text = path.read_text("utf-8")
    if change == "missing":
        path.unlink()
    else:
        path.write_text(WRONG[change](text), "utf-8")
        assert path.read_text("utf-8") != text
    says = "has no tokenizer that can be read.*save one in the folder|a token has the id"
    with pytest.raises(SubloraError, match=says) as caught:
        get_tokenizer(str(bpe))
    assert "\n" not in str(caught.value)


def test_merges_are_not_dropped_at_random(tmp_path):
    from transformers import PreTrainedTokenizerFast

    backend = Backend(models.BPE(vocab={"<end>": 0, "a": 1, "b": 2, "ab": 3}, merges=[("a", "b")], dropout=0.5))
    assert len({tuple(backend.encode("ab" * 20).ids) for _ in range(20)}) > 1
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(tmp_path)
    tokenizer = get_tokenizer(str(tmp_path))
    assert {tuple(tokenizer.encode("ab" * 20)) for _ in range(20)} == {(3,) * 20}
    assert tokenizer.sha256 == get_tokenizer(str(tmp_path)).sha256


def test_an_empty_tokenizer_in_place_of_a_missing_one_is_not_accepted(tmp_path):
    from transformers import GPT2Config

    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(SubloraError, match="has no tokenizer that can be read"):
        get_tokenizer(str(tmp_path))


def test_a_text_that_a_tokenizer_cannot_read_is_named(tmp_path):
    from transformers import PreTrainedTokenizerFast

    backend = Backend(models.WordLevel({"<end>": 0, "known": 1}))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(tmp_path)
    assert get_tokenizer(str(tmp_path)).encode("known").tolist() == [1]
    with pytest.raises(SubloraError, match=r"cannot read the text 'two\\n\\x1blines' .*take another tokenizer"):
        get_tokenizer(str(tmp_path)).encode("two\n\x1blines")


@pytest.mark.parametrize("name", ["~nouser/x", "./" + "x" * 5000, "."])
def test_a_path_that_cannot_be_is_one_line(name):
    with pytest.raises(SubloraError, match="^corpus.tokenizer: ") as caught:
        get_tokenizer(name if "/" in name else "./")
    assert "\n" not in str(caught.value)


def test_gpt2_with_no_network_and_no_cache_says_what_to_put_where(monkeypatch, tmp_path):
    def no_network(_):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    monkeypatch.setattr("tiktoken.load.read_file", no_network)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(SubloraError, match="TIKTOKEN_CACHE_DIR.*6d1cbeee.*6c7ea1a7") as caught:
        get_tokenizer("gpt2")
    assert "\n" not in str(caught.value)
