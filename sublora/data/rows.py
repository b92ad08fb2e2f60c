"""The rows of table files, one after the other: for corpora and for labelled examples alike."""

import bz2
import csv
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from sublora.errors import SubloraError, errors_named, listed
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


def read_rows(path: Path, only: tuple[str, ...] = (), headerless: tuple[str, ...] = (), cut_short: bool = False) -> Iterator[Row]:
    """Every row of a .jsonl, .json, .csv, .tsv, .txt (these also .xz, .gz, .bz2) or .parquet file, in bounded memory.

    JSON is an object a line, or one array of objects. .tsv and .txt are separated by tabs and know no quoting: a lone " is a
    character of the text, as in GLUE's files.
    only: the columns that are needed, if not all; of a parquet file the others are not read.
    headerless: the columns of a separated file without header, told by its first row: as many cells, none a column's name.
    cut_short: a row of a separated file may lack its last cells, which are None then.
    Raises SubloraError naming the file, and the row, for what cannot be read.
    """
    kind = table_kind(path)
    if kind not in (".jsonl", ".json", ".parquet", *SEPARATORS):
        formats = ".jsonl, .json, .csv, .tsv, .txt (also .xz, .gz, .bz2) or .parquet"
        raise SubloraError(f"{path}: not a {formats} file; convert it")
    with errors_named(f"{path}: cannot read", "check the file"), open(path, "rb") as raw:
        if kind == ".parquet":
            yield from _parquet(raw, path, only)
            return
        size = path.stat().st_size
        with progress_bar(total=size, desc=path.name, unit="B", unit_scale=True, disable=not size) as bar:
            stream = OPENERS[path.suffix](raw) if path.suffix in OPENERS else raw
            separator = SEPARATORS.get(kind)
            rows = _separated(stream, path, separator, headerless, cut_short) if separator else _json(stream, path)
            for row in rows:
                bar.update(raw.tell() - bar.n)
                yield row


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked if its suffix says that it is packed."""
    with errors_named(f"{path}: cannot read", "check the file"), OPENERS.get(path.suffix, open)(path, "rb") as stream:
        return stream.read()


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, unpacked if its suffix says that it is packed."""
    with errors_named(f"{path}: cannot read", "check the file"), OPENERS.get(path.suffix, open)(path, "rb") as stream:
        yield from _lines(stream, path)


def whole_characters(text: str) -> str:
    """The text with U+FFFD for half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _json(stream: BinaryIO, path: Path) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        where = f"{path}: line {number}"
        if not line.strip():
            continue
        array = number == 1 and line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        with errors_named(f"{where}: not a line of JSON in UTF-8", "correct or remove it"):
            found = json.loads((line + stream.read() if array else line).decode("utf-8-sig"), object_pairs_hook=_object)
        for place, record in enumerate(found if array else [found], 1):
            where = f"{path}: record {place}" if array else where
            if not isinstance(record, dict):
                raise SubloraError(f"{where}: holds {type(record).__name__}, not a JSON object; correct or remove it")
            yield where, record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"'{_twice(key for key, _ in pairs)}' is there twice")
    return found


def _twice(names: Iterable[str]) -> str | None:
    """The first name that occurs again, as a message shows it."""
    return next((listed([name]) for name, times in Counter(names).items() if times > 1), None)


def _separated(stream: BinaryIO, path: Path, separator: str, headerless: tuple[str, ...], cut_short: bool) -> Iterator[Row]:
    rows = _tabbed(stream, path) if separator == "\t" else _comma_separated(stream, path)
    _, header = next(rows, (1, []))
    if headerless and len(header) == len(headerless) and not set(header) & set(headerless):
        yield f"{path}: line 1", dict(zip(headerless, header, strict=True))
        header = list(headerless)
    if len(header) == 1 and (other := next((mark for mark in "\t;|," if mark in header[0]), None)):
        wanted = {",": "commas", "\t": "tabs"}[separator]
        why = f"one column, '{listed(header)}', so its cells seem to be separated by {other!r}"
        raise SubloraError(f"{path}: line 1: {why}; separate them by {wanted}, or rename the column")
    if twice := _twice(filter(None, header)):
        raise SubloraError(f"{path}: line 1: two columns have the same name '{twice}'; rename one")
    for number, cells in rows:
        where = f"{path}: line {number}"
        cells = cells or [""] * (len(header) == 1)  # in a single column, a line without text is a row
        if len(cells) > len(header) or (0 < len(cells) < len(header) and not cut_short):
            raise SubloraError(f"{where}: {len(cells)} cells, but the header has {len(header)}; correct the row")
        if cells:
            yield where, dict(zip_longest(header, cells))


def _lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends. A line ends at "\\n" alone: a lone carriage return is inside a cell."""
    for number, line in enumerate(stream, 1):
        with errors_named(f"{path}: line {number}: not UTF-8 text", "convert the file"):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        yield text


def _tabbed(stream: BinaryIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_lines(stream, path), 1):
        line = line.removesuffix("\n").removesuffix("\r")
        yield number, line.split("\t") if line else []


def _comma_separated(stream: BinaryIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(the line on which a row begins, its cells)."""
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse long texts
    rows, begin = csv.reader(_lines(stream, path), strict=True), 1
    try:
        for cells in rows:
            yield begin, cells
            begin = rows.line_num + 1
    except csv.Error as error:
        why = "a carriage return in a cell without quotes" if "new-line" in str(error) else error
        raise SubloraError(f"{path}: line {begin}: {why}; correct the row") from None


def _parquet(raw: BinaryIO, path: Path, only: tuple[str, ...]) -> Iterator[Row]:
    whole = errors_named(f"{path}: not a readable parquet file", "check the file")
    with whole, pq.ParquetFile(raw, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        if twice := _twice(names):
            raise SubloraError(f"{path}: two columns have the same name '{twice}'; rename one")
        rows = count(1)
        with progress_bar(total=file.metadata.num_rows, desc=path.name, unit="row") as bar:
            wanted = list(dict.fromkeys(only)) if only and set(only) <= set(names) else None
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                for i in range(len(batch)):
                    bar.update()
                    where = f"{path}: row {next(rows)}"
                    with errors_named(f"{where}: cannot read", "correct or remove it"):
                        (row,) = batch.slice(i, 1).to_pylist()
                    yield where, row
