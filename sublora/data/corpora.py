"""Where documents come from: every source is a stream of texts, in an order that depends on the source alone."""

import ast
import bz2
import contextlib
import csv
import gc
import gzip
import hashlib
import io
import json
import lzma
import sys
import sysconfig
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sublora.errors import SubloraError
from sublora.experiment import Corpus
from sublora.progress import progress_bar

HUB_NAMES = {"openwebtext": "Skylion007/openwebtext"}
OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}


def documents(corpus: Corpus) -> Iterator[str]:
    """The pool's documents, one text after the other, with a progress bar. A document without text is dropped.

    Dropping is a function of the pool alone, done before any split. Memory does not grow with the corpus, except for a
    hash of each document of `python-stdlib`. Raises SubloraError for a source that is missing, unreadable or empty.
    """
    sources = {"python-stdlib": _python_stdlib, "text": _text_folder, "file": _table_file}
    source = sources.get(corpus.source, _hugging_face)
    empty = True
    for text in source(corpus):
        if text:
            empty = False
            yield text
    if empty:
        raise SubloraError(f"{corpus.source}: no document with text in {_where(corpus)}; choose another corpus")


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
        return identity | {"files": files_fingerprint(_folder(corpus))}
    if corpus.source == "file":
        return identity | {"field": corpus.field, "files": files_fingerprint(_path(corpus))}
    name = _hub_name(corpus)
    local = Path(name)
    files = files_fingerprint(local) if local.exists() else None
    return identity | {"name": name, "subset": corpus.subset, "field": corpus.field, "files": files}


# --- python-stdlib


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _python_stdlib(corpus: Corpus) -> Iterator[str]:
    """Every distinct function of the running interpreter's standard library, in the order of file names and lines."""
    return distinct_functions(_stdlib(), "python-stdlib")


def python_files(folder: Path) -> list[str]:
    """The names, relative to a folder and sorted, of its Python files: neither what is installed below it nor what is compiled."""
    others = {"site-packages", "dist-packages", "__pycache__"}
    names = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted(name.as_posix() for name in names if not others & set(name.parts))


def distinct_functions(folder: Path, name: str) -> Iterator[str]:
    """Every distinct function of a folder's Python files, in the order of file names and lines. name: what the bar says."""
    seen = set()
    for file in progress_bar(python_files(folder), desc=name, unit="file"):
        for text in python_functions(_read_bytes(folder / file)):
            digest = hashlib.sha256(text.encode("utf-8")).digest()
            if digest not in seen:
                seen.add(digest)
                yield text


def python_functions(source: bytes) -> list[str]:
    """The source lines of every function in a Python file, methods and nested functions too, from the first decorator on.

    Indentation is kept, line ends become "\\n". A file that is not UTF-8 or not this Python's syntax has no functions.
    """
    try:
        text = source.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        with warnings.catch_warnings(), _no_garbage_collection():
            warnings.simplefilter("ignore")  # invalid escapes in old test files
            tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):  # ast.parse raises all of these
        return []
    spans, nodes = [], [tree]
    while nodes:  # functions are statements, so only lists of statements are visited: ast.walk takes twice as long
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            spans.append((min([node.lineno] + [d.lineno for d in node.decorator_list]), node.end_lineno))
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):  # a lambda's body is an expression
                nodes.extend(statements)
    lines = text.split("\n")  # not splitlines: a form feed ends no line in Python's grammar
    return ["\n".join(lines[start - 1 : end]) + "\n" for start, end in sorted(spans)]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A syntax tree is a million objects and not one cycle: looking for some takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# --- files


def _path(corpus: Corpus) -> Path:
    if corpus.path is None:
        raise SubloraError(f"corpus.path: source {corpus.source!r} needs the path of its {_kind(corpus)}")
    path = Path(corpus.path).expanduser()
    if not path.exists():
        raise SubloraError(f"{path}: does not exist; set corpus.path to a {_kind(corpus)}")
    return path


def _kind(corpus: Corpus) -> str:
    return "folder of text files" if corpus.source == "text" else "file (.jsonl, .csv, .tsv or .parquet)"


def _folder(corpus: Corpus) -> Path:
    path = _path(corpus)
    if not path.is_dir():
        raise SubloraError(f"{path}: not a folder; source 'text' reads a folder, one document a file")
    return path


def _files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def files_fingerprint(path: Path) -> str:
    """SHA-256 over the resolved path, and every file's relative path, size in bytes and time of last change."""
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
    for file in _files(path) if path.is_dir() else [path]:
        status = file.stat()
        digest.update(f"\n{file.relative_to(path).as_posix()!r} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _read_bytes(path: Path) -> bytes:
    with _io_errors_named(path):
        with OPENERS.get(path.suffix, open)(path, "rb") as stream:
            return stream.read()


@contextlib.contextmanager
def _io_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SubloraError(f"{path}: cannot read ({reason}); check the file") from error


def _text_folder(corpus: Corpus) -> Iterator[str]:
    """Every regular file below a folder, in the order of relative paths; UTF-8, unpacked if .xz, .gz or .bz2."""
    for path in progress_bar(_files(_folder(corpus)), desc="text", unit="file"):
        try:
            yield _read_bytes(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise SubloraError(f"{path}: not UTF-8 text at byte {error.start}; convert it or take it out") from None


def _table_file(corpus: Corpus) -> Iterator[str]:
    """One column of a table file."""
    path = _path(corpus)
    suffixes = [suffix for suffix in path.suffixes if suffix not in OPENERS]
    reader = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet}.get(suffixes[-1] if suffixes else "")
    if reader is None or not path.is_file() or (reader is _parquet and path.suffix != ".parquet"):
        raise SubloraError(f"{path}: source 'file' reads .jsonl, .csv, .tsv (these also with .xz, .gz, .bz2) and .parquet")
    return reader(path, corpus.field)


def _text(value: Any, field: str, where: str) -> str:
    """A cell as text; a missing value (null) is an empty document, anything else an error."""
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise SubloraError(f"{where}: field {field!r} holds {kind}, not text; set corpus.field to a text field")
    return value


def _no_field(field: str, fields: Any, where: str) -> SubloraError:
    there_are = ", ".join(map(str, fields)) or "(no field at all)"
    return SubloraError(f"{where}: no field {field!r}; set corpus.field to one of: {there_are}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], object]]]:
    """The unpacked bytes of a file, and a function that brings the progress bar up to date."""
    with _io_errors_named(path), open(path, "rb") as raw:
        with progress_bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True) as bar:
            stream = OPENERS[path.suffix](raw) if path.suffix in OPENERS else raw
            yield stream, lambda: bar.update(raw.tell() - bar.n)


def _jsonl(path: Path, field: str) -> Iterator[str]:
    with _opened(path) as (stream, advance):
        for number, line in enumerate(stream, 1):
            advance()
            where = f"{path}: line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:  # also UnicodeDecodeError
                raise SubloraError(f"{where}: not a line of JSON in UTF-8 ({error}); correct or remove it") from None
            if not isinstance(record, dict):
                raise SubloraError(f"{where}: holds {type(record).__name__}, not a JSON object; correct or remove it")
            if field not in record:
                raise _no_field(field, record, where)
            yield _text(record[field], field, where)


def _csv(path: Path, field: str) -> Iterator[str]:
    return _separated(path, field, delimiter=",", strict=True)


def _tsv(path: Path, field: str) -> Iterator[str]:
    # Tab-separated files know no quoting: a lone " is a character of the text, as in GLUE's files.
    return _separated(path, field, delimiter="\t", quoting=csv.QUOTE_NONE)


def _separated(path: Path, field: str, **dialect: Any) -> Iterator[str]:
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse long documents
    with _opened(path) as (stream, advance):
        rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), **dialect)
        try:
            header = next(rows, [])
            if field not in header:
                raise _no_field(field, header, f"{path}: line 1")
            column = header.index(field)
            for row in rows:
                advance()
                if row and len(row) != len(header):
                    where = f"{path}: line {rows.line_num}"
                    raise SubloraError(f"{where}: {len(row)} cells, but the header has {len(header)}; correct the row")
                if row:
                    yield row[column]
        except UnicodeDecodeError:
            raise SubloraError(f"{path}: not UTF-8 text after line {rows.line_num}; convert the file") from None
        except csv.Error as error:
            raise SubloraError(f"{path}: line {rows.line_num}: {error}; correct the row") from None


def _parquet(path: Path, field: str) -> Iterator[str]:
    try:
        with _io_errors_named(path), pq.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise _no_field(field, file.schema_arrow.names, str(path))
            with progress_bar(total=file.metadata.num_rows, desc=path.name, unit="row") as bar:
                for batch in file.iter_batches(batch_size=1024, columns=[field]):
                    for value in batch.column(0).to_pylist():
                        bar.update()
                        yield _text(value, field, f"{path}: row {bar.n}")
    except pa.ArrowException as error:
        raise SubloraError(f"{path}: not a readable parquet file ({_line(error)}); check the file") from None


# --- Hugging Face


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
        records = iter(progress_bar(stream, desc=corpus_name(corpus), unit="document", total=total))
    except Exception as error:  # the loader and its network stack raise dozens of types
        raise _hub_error(name, error) from None
    number = 0
    while True:
        try:
            record = next(records, None)
        except Exception as error:
            raise _hub_error(name, error) from None
        if record is None:
            return
        number += 1
        where = f"{name}: record {number}"
        if corpus.field not in record:
            raise _no_field(corpus.field, record, where)
        yield _text(record[corpus.field], corpus.field, where)


def _hub_error(name: str, error: Exception) -> SubloraError:
    return SubloraError(
        f"{name}: cannot load the Hugging Face data set ({type(error).__name__}: {_line(error)}); check the network, "
        "corpus.source and corpus.subset, or set corpus.path to a local copy; "
        "the sources that download nothing are python-stdlib, text and file"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _where(corpus: Corpus) -> str:
    if corpus.source == "python-stdlib":
        return str(_stdlib())
    return corpus.path or _hub_name(corpus)
