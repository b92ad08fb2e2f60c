"""Where documents come from: every source is a stream of texts, in an order that depends on the source alone."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sublora.data.functions import distinct_functions
from sublora.data.rows import read_bytes, read_rows, table_kind
from sublora.errors import SubloraError, one_line
from sublora.experiment import Corpus
from sublora.progress import progress_bar

HUB_NAMES = {"openwebtext": "Skylion007/openwebtext"}
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
KINDS = {"text": "folder of text files", "file": "file (.jsonl, .csv, .tsv or .parquet)"}
"""What the path of a source leads to."""


def documents(corpus: Corpus) -> Iterator[str]:
    """The pool's documents, one text after the other, with a progress bar. A document without text is dropped.

    Dropping is a function of the pool alone, done before any split. Memory does not grow with the corpus, except for a
    hash of each document of `python-stdlib`. Raises SubloraError for a source that is missing, unreadable or empty.
    """
    sources = {"python-stdlib": _python_stdlib, "text": _text_folder, "file": _table_file}
    empty = True
    for text in sources.get(corpus.source, _hugging_face)(corpus):
        if text:
            empty = False
            yield text
    if empty:
        where = _stdlib() if corpus.source == "python-stdlib" else _hub_name(corpus)
        raise SubloraError(f"{corpus.source}: no document with text in {where}; choose another corpus")


def corpus_name(corpus: Corpus) -> str:
    """A short readable name: the source, and the last part of its path."""
    parts = (corpus.source, corpus.subset, corpus.path and Path(corpus.path).name)
    return ":".join(part for part in parts if part)


def corpus_identity(corpus: Corpus) -> dict[str, Any]:
    """What the documents depend on, as plain data: two corpora with the same identity have the same documents.

    Files count by path, size and time of last change; the standard library by the interpreter's version and its folder.
    """
    identity = {"source": corpus.source, "tokenizer": corpus.tokenizer, "max_documents": corpus.max_documents}
    if corpus.tokenizer not in ("bytes", "gpt2") and Path(corpus.tokenizer).exists():
        identity["tokenizer files"] = files_fingerprint(Path(corpus.tokenizer))
    if corpus.source == "python-stdlib":
        return identity | {"python": sys.version, "folder": str(_stdlib())}
    if corpus.source == "text":
        return identity | {"files": files_fingerprint(_path(corpus))}
    if corpus.source == "file":
        return identity | {"field": corpus.field, "files": files_fingerprint(_path(corpus))}
    name = _hub_name(corpus)
    files = files_fingerprint(Path(name)) if Path(name).exists() else None
    return identity | {"name": name, "subset": corpus.subset, "field": corpus.field, "files": files}


def files_fingerprint(path: Path) -> str:
    """SHA-256 over the resolved path, and every file's relative path, size in bytes and time of last change."""
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
    for file in _files(path) if path.is_dir() else [path]:
        status = file.stat()
        digest.update(f"\n{file.relative_to(path).as_posix()!r} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _python_stdlib(corpus: Corpus) -> Iterator[str]:
    """Every distinct function of the running interpreter's standard library."""
    return distinct_functions(_stdlib(), "python-stdlib")


def _path(corpus: Corpus) -> Path:
    kind = KINDS[corpus.source]
    assert corpus.path is not None  # the settings see to it
    path = Path(corpus.path).expanduser()
    if not path.exists():
        raise SubloraError(f"{path}: does not exist; set corpus.path to a {kind}")
    if corpus.source == "text" and not path.is_dir():
        raise SubloraError(f"{path}: not a folder; source 'text' reads a folder, one document a file")
    return path


def _files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _text_folder(corpus: Corpus) -> Iterator[str]:
    """Every regular file below a folder, in the order of relative paths; UTF-8, unpacked if .xz, .gz or .bz2."""
    for path in progress_bar(_files(_path(corpus)), desc="text", unit="file"):
        try:
            yield read_bytes(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise SubloraError(f"{path}: not UTF-8 text at byte {error.start}; convert it or take it out") from None


def _table_file(corpus: Corpus) -> Iterator[str]:
    """One column of a table file."""
    path = _path(corpus)
    if not path.is_file() or table_kind(path) not in TABLES:
        raise SubloraError(f"{path}: source 'file' reads .jsonl, .csv, .tsv (these also with .xz, .gz, .bz2) and .parquet")
    for where, row in read_rows(path, only=corpus.field):
        yield _text(row, corpus.field, where)


def _text(row: dict[str, Any], field: str, where: str) -> str:
    """A row's text; a missing value (null) is an empty document, anything else an error."""
    if field not in row:
        raise SubloraError(f"{where}: no field {field!r}; set corpus.field to one of: {', '.join(map(str, row))}")
    if row[field] is None:
        return ""
    if not isinstance(row[field], str):
        kind = type(row[field]).__name__
        raise SubloraError(f"{where}: field {field!r} holds {kind}, not text; set corpus.field to a text field")
    return row[field]


def _hub_name(corpus: Corpus) -> str:
    return corpus.path or HUB_NAMES.get(corpus.source, corpus.source)


def _hugging_face(corpus: Corpus) -> Iterator[str]:
    """The train split of a data set, streamed: on the Hugging Face hub, in a folder, or in its local copy `corpus.path`."""
    import datasets  # slow to import, and only this source needs it

    name = _hub_name(corpus)
    try:
        stream = datasets.load_dataset(name, corpus.subset, split="train", streaming=True)
        splits = stream.info.splits or {}
        total = splits["train"].num_examples if "train" in splits else None
        for number, row in enumerate(progress_bar(stream, desc=corpus_name(corpus), unit="document", total=total), 1):
            yield _text(row, corpus.field, f"{name}: record {number}")
    except SubloraError:
        raise
    except Exception as error:  # the loader and its network stack raise dozens of types
        raise SubloraError(
            f"{name}: cannot load the Hugging Face data set ({type(error).__name__}: {one_line(error, 300)}); check the network, "
            "corpus.source and corpus.subset, or set corpus.path to a local copy; "
            "the sources that download nothing are python-stdlib, text and file"
        ) from None
