"""What a large corpus will take, from its first documents: said before hours of tokenizing begin."""

import itertools
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from sublora.data.corpora import documents, documents_on_hub, source_files
from sublora.data.rows import OPENERS, table_kind
from sublora.data.tokenizers import Tokenizer
from sublora.errors import SubloraError, errors_named
from sublora.experiment import Corpus
from sublora.progress import notice

SAMPLE = 1000
"""Documents that an estimate reads."""
LARGE = 2**26
"""Bytes of files from which on an estimate is made."""


@dataclass(frozen=True)
class Estimate:
    """documents, tokens: about how many; size: bytes of the token store; seconds: of one core that tokenizes."""

    documents: int
    tokens: int
    size: int
    seconds: float

    def __str__(self) -> str:
        hours, minutes = divmod(round(self.seconds / 60), 60)
        took = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes > 1 else f"{self.seconds:.0f} s"
        size = f"{self.size / 1e9:,.1f} GB" if self.size >= 1e8 else f"{self.size / 1e6:,.0f} MB"
        return f"about {self.documents:,} documents and {self.tokens:,} tokens; {size} on disk; {took} of tokenizing on one core"


def estimate(corpus: Corpus, tokenizer: Tokenizer, itemsize: int) -> Estimate | None:
    """What the corpus takes, from its first documents; None for one that is small, or of unknown size.

    itemsize: bytes of a token in the store. Raises SubloraError as the corpus does.
    """
    share = _share(corpus)
    if share is None:
        return None
    texts = list(itertools.islice(documents(corpus), SAMPLE))
    began, tokens = time.process_time(), 0
    for text in texts:
        ids = tokenizer.encode(text)
        tokenizer.to_bytes(ids)  # as a build does, to see whether they are the text's
        tokens += len(ids) + 1
    seconds = time.process_time() - began
    number, tokens = round(len(texts) / share), round(tokens / share)
    return Estimate(number, tokens, itemsize * tokens + 16 * number, seconds / share)


def announce(corpus: Corpus, tokenizer: Tokenizer, itemsize: int, folder: Path, name: str) -> None:
    """Say what a large corpus will take in `folder`. Raises SubloraError if the disk has less than that free."""
    found = estimate(corpus, tokenizer, itemsize)
    if found is None:
        return
    notice(f"{name}: {found}")
    there = next(each for each in (folder, *folder.resolve().parents) if each.exists())
    if (free := shutil.disk_usage(there).free) < found.size:
        raise SubloraError(f"{folder}: {free / 1e9:,.1f} GB are free, but the tokens need {found.size / 1e9:,.1f} GB; free space")


def _share(corpus: Corpus) -> float | None:
    """Which part of the corpus its first `SAMPLE` documents are, about."""
    files = source_files(corpus)
    if files is None:
        return None if (number := documents_on_hub(corpus)) is None else min(1.0, SAMPLE / number)
    sizes = [file.stat().st_size for file in files]
    if sum(sizes) < LARGE:
        return None
    if corpus.source == "text":
        return sum(sizes[:SAMPLE]) / sum(sizes) if corpus.split_on == "file" else None
    return min(1.0, SAMPLE / _rows(files[0]) * sizes[0] / sum(sizes))


def _rows(path: Path) -> float:
    """About how many rows a table file has: stated, or by its first lines. (A row of a .csv file may be several lines.)"""
    with errors_named(f"{path}: cannot read", "check the file"), open(path, "rb") as raw:
        if table_kind(path) == ".parquet":
            return max(1, pq.ParquetFile(raw).metadata.num_rows)
        stream = OPENERS[path.suffix](raw) if path.suffix in OPENERS else raw
        lines = sum(1 for _ in itertools.islice(stream, SAMPLE))
        return max(1, lines * path.stat().st_size / max(1, raw.tell()))
