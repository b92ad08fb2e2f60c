"""The rows of table files, one after the other: for corpora and for labelled examples alike."""

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sublora.errors import SubloraError, one_line
from sublora.progress import progress_bar

OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and its values by column."""


def table_kind(path: Path) -> str:
    """The suffix that names a table file's format, without that of its packing; "" for a packed parquet file, which is none."""
    packed = path.suffix in OPENERS
    kind = Path(path.stem).suffix if packed else path.suffix
    return "" if packed and kind == ".parquet" else kind


def read_rows(path: Path, only: str | None = None, headerless: tuple[str, ...] = (), cut_short: bool = False) -> Iterator[Row]:
    """Every row of a .jsonl, .json, .csv, .tsv, .txt (these also .xz, .gz, .bz2) or .parquet file, in bounded memory.

    JSON is an object a line, or one array of objects. .tsv and .txt are separated by tabs and know no quoting: a lone " is a
    character of the text, as in GLUE's files.
    only: the one column that is needed; of a parquet file the others are not read.
    headerless: the columns of a separated file without header, told by its first row: as many cells, none a column's name.
    cut_short: a row of a separated file may lack its last cells, which are None then.
    Raises SubloraError naming the file, and the row, for what cannot be read.
    """
    kind = table_kind(path)
    if kind not in (".jsonl", ".json", ".parquet", *SEPARATORS):
        formats = ".jsonl, .json, .csv, .tsv, .txt (also .xz, .gz, .bz2) or .parquet"
        raise SubloraError(f"{path}: not a {formats} file; convert it")
    with io_errors_named(path):
        if kind == ".parquet":
            yield from _parquet(path, only)
            return
        with open(path, "rb") as raw, progress_bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True) as bar:
            stream = OPENERS[path.suffix](raw) if path.suffix in OPENERS else raw
            separator = SEPARATORS.get(kind)
            rows = _separated(stream, path, separator, headerless, cut_short) if separator else _json(stream, path)
            for row in rows:
                bar.update(raw.tell() - bar.n)
                yield row


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked if its suffix says that it is packed."""
    with io_errors_named(path), OPENERS.get(path.suffix, open)(path, "rb") as stream:
        return stream.read()


@contextlib.contextmanager
def io_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SubloraError(f"{path}: cannot read ({reason}); check the file") from error


def _json(stream: BinaryIO, path: Path) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        where = f"{path}: line {number}"
        if not line.strip():
            continue
        array = number == 1 and line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        try:
            found = json.loads((line + stream.read() if array else line).decode("utf-8-sig"))
        except ValueError as error:  # also UnicodeDecodeError
            raise SubloraError(f"{where}: not a line of JSON in UTF-8 ({error}); correct or remove it") from None
        for record in found if array else [found]:
            if not isinstance(record, dict):
                raise SubloraError(f"{where}: holds {type(record).__name__}, not a JSON object; correct or remove it")
            yield where, record


def _separated(stream: BinaryIO, path: Path, separator: str, headerless: tuple[str, ...], cut_short: bool) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse long texts
    dialect: dict[str, Any] = {"strict": True} if separator == "," else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=separator, **dialect)
    try:
        header = next(rows, [])
        if headerless and len(header) == len(headerless) and not set(header) & set(headerless):
            yield f"{path}: line 1", dict(zip(headerless, header, strict=True))
            header = list(headerless)
        names = list(filter(None, header))
        if len(set(names)) < len(names):
            raise SubloraError(f"{path}: line 1: two columns have the same name; rename one")
        for cells in rows:
            where = f"{path}: line {rows.line_num}"
            if len(cells) > len(header) or (0 < len(cells) < len(header) and not cut_short):
                raise SubloraError(f"{where}: {len(cells)} cells, but the header has {len(header)}; correct the row")
            if cells:
                yield where, dict(zip_longest(header, cells))
    except UnicodeDecodeError:
        raise SubloraError(f"{path}: not UTF-8 text after line {rows.line_num}; convert the file") from None
    except csv.Error as error:
        raise SubloraError(f"{path}: line {rows.line_num}: {error}; correct the row") from None


def _parquet(path: Path, only: str | None) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file, progress_bar(total=file.metadata.num_rows, desc=path.name, unit="row") as bar:
            columns = [only] if only in file.schema_arrow.names else None
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    bar.update()
                    yield f"{path}: row {bar.n}", row
    except pa.ArrowException as error:
        raise SubloraError(f"{path}: not a readable parquet file ({one_line(error)}); check the file") from None
