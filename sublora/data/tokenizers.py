"""Text to token ids and back: bytes, or GPT-2's byte-pair encoding."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tiktoken

from sublora.errors import SubloraError


@dataclass(frozen=True)
class Tokenizer:
    """`vocab_size` token ids, of which `eot` ends a document and never stands inside one.

    Everything in a text is ordinary text: a document's characters "<|endoftext|>" become the ids of these characters.
    """

    name: str
    vocab_size: int
    eot: int
    _to_ids: Callable[[str], np.ndarray] = field(repr=False, compare=False)
    _to_bytes: Callable[[list[int]], bytes] = field(repr=False, compare=False)

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text` without the end-of-text id: unsigned integers, shape [tokens].

        Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes U+FFFD.
        """
        try:
            return self._to_ids(text)
        except UnicodeEncodeError:
            return self._to_ids(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`; end-of-text ids are left out, bytes that are no UTF-8 become U+FFFD.

        Raises SubloraError for an id outside 0..vocab_size-1.
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        outside = ids[(ids < 0) | (ids >= self.vocab_size)]
        if outside.size:
            raise SubloraError(f"token id {outside[0]} is outside 0..{self.vocab_size - 1} of tokenizer {self.name!r}")
        return self._to_bytes(ids[ids != self.eot].tolist()).decode("utf-8", "replace")


def get_tokenizer(name: str) -> Tokenizer:
    """The tokenizer `bytes` (V = 257: 256 bytes and end-of-text) or `gpt2` (V = 50257, through tiktoken).

    Raises SubloraError for another name, and when tiktoken can neither find nor download the two files of `gpt2`.
    """
    if name == "bytes":
        return Tokenizer("bytes", 257, 256, _utf8_ids, bytes)
    if name == "gpt2":
        return _gpt2()
    raise SubloraError(f"corpus.tokenizer: unknown tokenizer {name!r}; choose bytes or gpt2")


def _utf8_ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _gpt2() -> Tokenizer:
    try:
        encoding = tiktoken.get_encoding("gpt2")
    except Exception as error:  # tiktoken passes on whatever its downloader or its file system raises
        raise SubloraError(
            f"tokenizer gpt2: tiktoken cannot load its files ({type(error).__name__}); connect to the network once, or "
            "set TIKTOKEN_CACHE_DIR to a folder with 6d1cbeee0f20b3d9449abfede4726ed8212e3aee (GPT-2's vocab.bpe) "
            "and 6c7ea1a7e38e3a7f062df639a5b80947f075ffe6 (its encoder.json)"
        ) from None
    to_ids = functools.partial(encoding.encode_to_numpy, disallowed_special=())
    return Tokenizer("gpt2", encoding.n_vocab, encoding.eot_token, to_ids, encoding.decode_bytes)
