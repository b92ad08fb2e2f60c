"""Tokenizers: round trips, sizes, and text that looks like a special token."""

import os
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

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


def test_gpt2_with_no_network_and_no_cache_says_what_to_put_where(monkeypatch, tmp_path):
    def no_network(_):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    monkeypatch.setattr("tiktoken.load.read_file", no_network)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(SubloraError, match="TIKTOKEN_CACHE_DIR.*6d1cbeee.*6c7ea1a7") as caught:
        get_tokenizer("gpt2")
    assert "\n" not in str(caught.value)
