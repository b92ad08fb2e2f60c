"""Text to token ids and back: bytes, GPT-2's byte-pair encoding, or the tokenizer of a pretrained model."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import tokenizers

from sublora.data.files import given_path
from sublora.data.gguf import is_gguf, tokenizer_folder
from sublora.data.llama2c import load_llama2c_tokenizer
from sublora.data.rows import whole_characters
from sublora.errors import SubloraError, errors_named, listed
from sublora.experiment import Corpus
from sublora.progress import silence_transformers

LARGEST_VOCABULARY = 2**22
"""Four times the largest in use. A model has a row of weights for each id, and an id may be any number in a file."""


@dataclass(frozen=True)
class Tokenizer:
    """`vocab_size` token ids, of which `eot` ends a document and never stands inside one.

    Everything in a text is ordinary text: a document's characters "<|endoftext|>" become the ids of these characters.
    sha256: of its vocabulary and rules; None where the name says all of that (bytes, gpt2).
    ratio: no text has more tokens, end of text included, than this times its bytes and one more. It is a property of the rules,
    not of any text; None where nothing is proven.
    """

    name: str
    vocab_size: int
    eot: int
    _to_ids: Callable[[str], np.ndarray] = field(repr=False, compare=False)
    _to_bytes: Callable[[list[int]], bytes] = field(repr=False, compare=False)
    sha256: str | None = None
    ratio: float | None = None
    _to_all: Callable[[list[str]], list[np.ndarray]] | None = field(default=None, repr=False, compare=False)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text. Other threads run meanwhile, but for the tokenizers that take no time."""
        if self._to_all is None:
            return [self.encode(text) for text in texts]
        return self._to_all([whole_characters(text) for text in texts])

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text` without the end-of-text id: unsigned integers, shape [tokens].

        Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes U+FFFD.
        Raises SubloraError for a text that the tokenizer cannot read.
        """
        return self._to_ids(whole_characters(text))

    def to_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The text of a document's ids, without its end-of-text id, in UTF-8."""
        return self._to_bytes(np.asarray(ids, dtype=np.int64).tolist())

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`; end-of-text ids are left out, bytes that are no UTF-8 become U+FFFD.

        Raises SubloraError for an id outside 0..vocab_size-1.
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        outside = ids[(ids < 0) | (ids >= self.vocab_size)]
        if outside.size:
            raise SubloraError(f"token id {outside[0]} is outside 0..{self.vocab_size - 1} of tokenizer {self.name!r}")
        return self._to_bytes(ids[ids != self.eot].tolist()).decode("utf-8", "replace")


def get_tokenizer(name: str, local_only: bool = False, end: str | None = None) -> Tokenizer:
    """The tokenizer `bytes` (V = 257: 256 bytes and end-of-text), `bits` (V = 3: the characters 0 and 1, and end-of-text), `gpt2`
    (V = 50257, through tiktoken), a llama2.c one (a path that ends in .bin), that of a GGUF file, or any other that `transformers`
    loads, by folder or hub name.

    local_only: nothing is downloaded. end: the text of the token that ends documents, if not the tokenizer's own (`transformers`,
    GGUF). Raises SubloraError when there is none of that name, or its files can neither be found nor downloaded.
    """
    if name == "bytes":
        return Tokenizer("bytes", 257, 256, _utf8_ids, bytes, ratio=1.0)
    if name == "bits":
        return Tokenizer("bits", 3, 2, _bit_ids, lambda ids: bytes(id + ord("0") for id in ids), ratio=1.0)
    if name == "gpt2":
        return _gpt2()
    if name.endswith(".bin"):
        return _fast(Path(name).name, *load_llama2c_tokenizer(name))
    return _transformers(name, local_only, end)


def rules_sha256(backend: tokenizers.Tokenizer, *settings: Any) -> str:
    """Fingerprint of a tokenizer: its vocabulary, normalizer and all other rules, and settings that its JSON does not hold.

    Merges are no longer dropped at random, which is for training a model: the same text always has the same tokens.
    """
    if getattr(backend.model, "dropout", None) is not None:
        backend.model.dropout = None
    backend.no_truncation()
    backend.no_padding()
    return hashlib.sha256(json.dumps([backend.to_str(), *settings]).encode()).hexdigest()


def _utf8_ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _bit_ids(text: str) -> np.ndarray:
    if other := text.strip("01"):
        raise SubloraError(f"tokenizer bits: cannot read the text '{listed([other])}'; it reads 0 and 1 alone, so take bytes")
    return _utf8_ids(text) - ord("0")


def _gpt2() -> Tokenizer:
    cure = (
        "connect to the network once, or set TIKTOKEN_CACHE_DIR to a folder with 6d1cbeee0f20b3d9449abfede4726ed8212e3aee "
        "(GPT-2's vocab.bpe) and 6c7ea1a7e38e3a7f062df639a5b80947f075ffe6 (its encoder.json)"
    )
    with errors_named("tokenizer gpt2: tiktoken cannot load its files", cure):
        encoding = tiktoken.get_encoding("gpt2")
    to_ids = functools.partial(encoding.encode_to_numpy, disallowed_special=())
    return Tokenizer("gpt2", encoding.n_vocab, encoding.eot_token, to_ids, encoding.decode_bytes, ratio=1.0)


def tokenizer_of(corpus: Corpus, local_only: bool = False) -> Tokenizer:
    """The tokenizer of a corpus. Raises SubloraError as `get_tokenizer`."""
    return get_tokenizer(corpus.tokenizer, local_only, corpus.end_of_text)


def load_tokenizer(source: str, key: str, cure: str, local_only: bool = False) -> Any:
    """The tokenizer of `transformers` in a folder or on the hub. No code of its own is run; local_only: nothing is downloaded.

    Raises SubloraError, which begins with `key` and ends with `cure`, for one whose files are missing or wrong.
    """
    from transformers import AutoTokenizer  # here, because importing it takes seconds

    silence_transformers()
    with errors_named(f"{key}: {source!r} has no tokenizer that can be read", cure):
        loaded = AutoTokenizer.from_pretrained(source, use_fast=True, local_files_only=local_only, trust_remote_code=False)
        # Of a folder without a tokenizer, transformers makes an empty one of the model's type.
        if not set(loaded.get_vocab()) - set(loaded.all_special_tokens):
            raise OSError("its files are missing, or name no token")
    return loaded


def _transformers(name: str, local_only: bool, end: str | None) -> Tokenizer:
    folder = str(tokenizer_folder(name, "corpus.tokenizer")) if is_gguf(name) else name
    cure = "no such folder, or no network and not in the hub's cache; choose bytes or gpt2, or give a folder or a name on the hub"
    if given_path(name, "corpus.tokenizer").is_dir():
        cure = "save one in the folder with tokenizer.save_pretrained"
    loaded = load_tokenizer(folder, "corpus.tokenizer", cure, local_only)
    eot = loaded.eos_token_id if loaded.eos_token_id is not None else loaded.bos_token_id
    if end is not None:
        special = {str(token): number for number, token in loaded.added_tokens_decoder.items() if token.special}
        if (eot := special.get(end)) is None:
            raise SubloraError(f"corpus.end_of_text: {end!r:.60} is no special token of {name!r}; there are {listed(special)}")
    if eot is None or not loaded.is_fast:
        raise SubloraError(f"corpus.tokenizer: {name!r} has no end-of-text token, or no fast form; give another tokenizer")
    # The folder's name is no part of what the tokens are; the ids themselves are in the store's SHA-256.
    return _fast(Path(name).name, loaded.backend_tokenizer, eot)


def _fast(name: str, backend: tokenizers.Tokenizer, eot: int) -> Tokenizer:
    """All text is ordinary text to it: what looks like a special token is read letter by letter."""
    backend.encode_special_tokens = True
    sha256 = rules_sha256(backend)

    def to_all(texts: list[str]) -> list[np.ndarray]:
        with errors_named(f"tokenizer {name}: cannot read the text '{listed(texts)}'", "take another tokenizer"):
            found = [np.array(each.ids, dtype=np.int64) for each in backend.encode_batch(texts, add_special_tokens=False)]
        for text, ids in zip(texts, found, strict=True):
            if (ids == eot).any():
                where = f"the end-of-text token {eot} is inside the text '{listed([text])}'"
                raise SubloraError(f"tokenizer {name}: {where}; take another tokenizer")
        return found

    def to_ids(text: str) -> np.ndarray:
        return to_all([text])[0]

    def to_bytes(ids: list[int]) -> bytes:
        return backend.decode(ids, skip_special_tokens=True).encode()

    largest = max(backend.get_vocab(with_added_tokens=True).values())
    if largest >= LARGEST_VOCABULARY:
        raise SubloraError(f"tokenizer {name}: a token has the id {largest:,}; at most {LARGEST_VOCABULARY:,} tokens are read")
    return Tokenizer(name, largest + 1, eot, to_ids, to_bytes, sha256, _proven_ratio(backend), to_all)


def _proven_ratio(backend: tokenizers.Tokenizer) -> float | None:
    """`Tokenizer.ratio` of two families of byte-pair encodings; None for any other.

    Byte-level, nothing put before a text: a token stands for one byte at least, so `T <= b`; a byte that the vocabulary lacks is
    one unknown token or none. (If the model fell back to the bytes of the character that stands for it, it would be several.)
    Normalized to NFC, a text grows to three times its bytes at most (Unicode Standard Annex 15). Pieces with one character put
    before a text, each space being one character of the vocabulary: `T <= b + 1`, and b is 2 at least.
    """
    rules = json.loads(backend.to_str())
    if rules["model"]["type"] != "BPE":
        return None
    before, normal = _steps(rules["pre_tokenizer"], "pretokenizers"), _steps(rules["normalizer"], "normalizers")
    kinds, normal_kinds = {step["type"] for step in before}, [step["type"] for step in normal]
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Digits", "Split"} and not any(s.get("add_prefix_space") for s in before):
        return None if rules["model"].get("byte_fallback") else {(): 1.0, ("NFC",): 3.0}.get(tuple(normal_kinds))
    added = [step["prepend"] if step["type"] == "Prepend" else step["content"] for step in normal if step["type"] in _ONE_CHARACTER]
    spaces = all(step["pattern"] == {"String": " "} for step in normal if step["type"] == "Replace")
    pieces = not before and normal_kinds.count("Prepend") == 1 and set(normal_kinds) <= set(_ONE_CHARACTER) and spaces
    return 1.5 if pieces and all(len(c) == 1 and c in rules["model"]["vocab"] for c in added) else None


_ONE_CHARACTER = ("Prepend", "Replace")


def _steps(rules: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer in order, none of them a sequence."""
    if rules is None:
        return []
    if rules["type"] != "Sequence":
        return [rules]
    return [step for each in rules[key] for step in _steps(each, key)]
