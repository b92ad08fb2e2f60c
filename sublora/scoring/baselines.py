"""Baselines that need no proof to be understood: codes and compressors, measured on held-out documents in bits per byte.

None of them enters a certificate. Each is given a document by itself, and the mean is over the units that held-out values are of.
What was made of training text (counts, a dictionary) is not in the bits: these are what others' methods reach at best.
"""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import zstandard

from sublora.data import Split, Tokenizer, TokenStore
from sublora.experiment.groups import STREAM_COUNTS, Bounds
from sublora.inequalities.smoothing import document_means
from sublora.models.references.document import DocumentCode, log_probabilities
from sublora.models.references.stream import stream_log_probabilities
from sublora.progress import notice, progress_bar

COLUMNS = ("method", "training_bytes", "documents", "bits_per_byte", "standard_error")
TRAINING = 2**24
"""The most bytes of training text that counts and a dictionary are made of: the first training documents, a random part."""
DICTIONARY = 112_640
"""The size of the trained dictionary in bytes: the default of the command `zstd --train`."""
SEGMENTS = {"k": 200, "d": 8}
"""How the dictionary is put together (Liao et al. 2016): a search for the best takes minutes, and brings a hundredth of a bit."""
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**22}]
"""`xz -9e`, with a window of 4 MiB: the whole one is 64 MiB, which take longer to set up than a document to compress."""
CODES = ("byte histogram", "document code", "5-grams of bytes")
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda text: gzip.compress(text, 9, mtime=0),
    "bzip2 -9": lambda text: bz2.compress(text, 9),
    "xz -9e": lambda text: lzma.compress(text, lzma.FORMAT_XZ, filters=XZ),
    "zstd -19": zstandard.ZstdCompressor(level=19).compress,
}
WITH_DICTIONARY = "zstd -19, trained dictionary"
END = 256
"""The end of a document as a token of bytes."""


def baselines(store: TokenStore, split: Split, tokenizer: Tokenizer, bounds: Bounds) -> pd.DataFrame:
    """One row a method, `COLUMNS`: mean bits per byte of the certificate's held-out units, and the standard error of that.

    A document's bits are divided by its bytes and one more, as those of models are. Codes tell where a
    document ends; compressors have headers instead. training_bytes: what the method has read of training text. Deterministic.
    """
    documents = split.test[: bounds.held_out_documents]
    members = np.arange(len(documents) + 1)
    if split.groups is not None:
        sizes = split.groups[2][: bounds.held_out_groups]
        documents, members = split.test[: int(sizes.sum())], np.concatenate([[0], np.cumsum(sizes)])
    rows, read = list[dict[str, object]](), 0
    with progress_bar(total=(len(CODES) + len(COMPRESSORS) + 1) * len(documents), desc="baselines", unit="document") as bar:
        held, seen = list(_texts(store, documents, tokenizer)), list[bytes]()
        for text in _texts(store, split.train, tokenizer):
            if read + len(text) > TRAINING:
                break
            seen.append(text)
            read += len(text)
        sizes = np.array([len(text) + 1 for text in held])

        def measured(method: str, bits: np.ndarray, training: int) -> None:
            losses = document_means(bits / sizes, members)
            error = float(losses.std(ddof=1) / len(losses) ** 0.5) if len(losses) > 1 else float("nan")
            rows.append(dict(zip(COLUMNS, (method, training, len(held), float(losses.mean()), error), strict=True)))

        for name, bits in zip(CODES, _codes(seen, held, bar.update), strict=True):
            measured(name, bits, 0 if name == "document code" else read)
        ways = [(name, way, 0) for name, way in COMPRESSORS.items()]
        try:
            made = zstandard.train_dictionary(DICTIONARY, list(seen), **SEGMENTS)
            ways.append((WITH_DICTIONARY, zstandard.ZstdCompressor(level=19, dict_data=made).compress, read))
        except (zstandard.ZstdError, ValueError):
            notice(f"baselines: {read:,} bytes of training text are too few for a dictionary of zstd; it is left out")
        for name, way, training in ways:
            bits = np.empty(len(held))
            for place, text in enumerate(held):
                bits[place] = 8 * len(way(text))
                bar.update()
            measured(name, bits, training)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _texts(store: TokenStore, documents: np.ndarray, tokenizer: Tokenizer) -> Iterator[bytes]:
    for document in documents:
        ids = store.document(int(document))[:-1]
        yield ids.astype(np.uint8).tobytes() if store.tokenizer == "bytes" else tokenizer.to_bytes(ids)


def _codes(seen: list[bytes], held: list[bytes], done: Callable[[int], object]) -> Iterator[np.ndarray]:
    """Bits of each held-out document by each of `CODES`, float64 (documents,). done: told how many documents are."""
    training, lengths = _as_tokens(seen)
    apart, held_lengths = _as_tokens(held)
    first = np.cumsum(held_lengths) - held_lengths
    text = {"vocab_size": END + 1, "eot": END}
    counts = np.bincount(training, minlength=END + 1) + 1.0
    yield -np.add.reduceat(np.log2(counts / counts.sum())[apart], first)
    done(len(held))
    nats = log_probabilities(apart, first, held_lengths, code=DocumentCode(), **text)
    yield -np.add.reduceat(nats, first) / np.log(2.0)
    done(len(held))
    both, every = np.concatenate([training, apart]), np.concatenate([lengths, held_lengths])
    starts = np.cumsum(every) - every
    found = stream_log_probabilities(both, starts, every, apart=len(held), pseudo_counts=STREAM_COUNTS, **text)
    yield -np.add.reduceat(found[len(training) :], first, dtype=np.float64) / np.log(2.0)
    done(len(held))


def _as_tokens(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(the bytes of all texts as tokens, each with `END` behind it; how many each has)."""
    lengths = np.array([len(text) + 1 for text in texts], np.int64)
    tokens = np.full(int(lengths.sum()), END, np.uint16)
    tokens[np.delete(np.arange(len(tokens)), np.cumsum(lengths) - 1)] = np.frombuffer(b"".join(texts), np.uint8)
    return tokens, lengths
