"""Where documents come from: every source is a stream of texts, in an order that depends on the source alone."""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sublora.data.code import distinct_functions
from sublora.data.exact import exact_documents
from sublora.data.files import files_below, files_fingerprint, given_path
from sublora.data.packages import package_functions, packages_identity, parser_versions
from sublora.data.pieces import paragraphs, sections
from sublora.data.rows import read_bytes, read_rows, table_kind, text_lines
from sublora.errors import SubloraError, errors_named, listed, no_such
from sublora.experiment import OWN_TOKENIZERS, Corpus, Exact
from sublora.progress import notice, progress_bar

HUB_NAMES = {"openwebtext": "Skylion007/openwebtext"}
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
HUB_CURE = (
    "check the network, corpus.source and corpus.subset, or set corpus.path to a local copy; "
    "python-stdlib, text and file download nothing, nor does python-packages if these versions are installed"
)
KINDS = {"text": "folder of text files", "file": "file (.jsonl, .csv, .tsv or .parquet)"}
"""What the path of a source leads to; that of a data set on the hub leads to the folder of a copy."""


def documents(corpus: Corpus, folder: Path | None = None) -> Iterator[str]:
    """The texts of `grouped_documents`."""
    return (text for text, _ in grouped_documents(corpus, folder))


def grouped_documents(corpus: Corpus, folder: Path | None = None) -> Iterator[tuple[str, str | None]]:
    """The pool's documents, one (text, group) after the other, with a progress bar. A document without text is dropped.

    group: what stands in the column `corpus.group`; None where no column is named. Dropping is a function of the pool alone, done
    before any split; how many are dropped is said on standard error. Memory does not grow with the corpus, except for a hash of
    each function. folder: of a `python-packages` corpus, where its wheels are (`package_functions`). Raises SubloraError for a
    source that is missing, unreadable or empty.
    """

    def packages(corpus: Corpus) -> Iterator[str]:
        return package_functions(_named(corpus), folder)

    ungrouped = {"python-packages": packages, "python-stdlib": _python_stdlib, "text": _text_folder}
    ungrouped["exact"] = lambda corpus: exact_documents(_language(corpus))
    kept = left_out = 0
    if corpus.source in ungrouped:
        found: Iterator[tuple[str, str | None]] = ((text, None) for text in ungrouped[corpus.source](corpus))
    else:
        found = (_table_file if corpus.source == "file" else _hugging_face)(corpus)
    for text, group in found:
        if text:
            kept += 1
            yield text, group
        else:
            left_out += 1
    if not kept:
        inside = {"python-packages": lambda: ", ".join(_named(corpus)), "python-stdlib": _stdlib}
        where = inside.get(corpus.source, lambda: _hub_name(corpus))()
        raise SubloraError(f"{corpus.source}: no document with text in {where}; choose another corpus")
    if left_out:
        notice(f"{corpus_name(corpus)}: {left_out:,} of {kept + left_out:,} documents have no text and are left out")


def on_hub(corpus: Corpus) -> bool:
    """Whether the source is a data set on the hub, or a folder that is named in its place."""
    return corpus.source not in ("python-packages", "python-stdlib", "text", "file", "exact")


def corpus_name(corpus: Corpus) -> str:
    """A short readable name: the source, the last part of its path, how its files are split or its tokens shuffled."""
    split = None if corpus.split_on == "file" else corpus.split_on
    named = corpus.exact and f"{corpus.exact.language}-{corpus.exact.bits}"
    shuffle = corpus.shuffle and f"shuffled within {corpus.shuffle:,}"
    parts = (corpus.source, named, corpus.subset, corpus.path and Path(corpus.path).name, split, shuffle)
    return ":".join(part for part in parts if part)


def corpus_identity(corpus: Corpus) -> dict[str, Any]:
    """What the documents depend on, as plain data: two corpora with the same identity have the same documents.

    Files count by path, size and time of last change; packages by their wheels' SHA-256 and the parser's version; the standard
    library by the interpreter's version and its folder.
    """
    identity = {"source": corpus.source, "tokenizer": corpus.tokenizer, "max_documents": corpus.max_documents}
    identity |= {} if corpus.end_of_text is None else {"end of text": corpus.end_of_text}
    identity |= {} if corpus.shuffle is None else {"shuffle": corpus.shuffle}
    if corpus.tokenizer not in OWN_TOKENIZERS and given_path(corpus.tokenizer, "corpus.tokenizer").exists():
        identity["tokenizer files"] = files_fingerprint(Path(corpus.tokenizer))
    if corpus.source == "python-packages":
        return identity | packages_identity(_named(corpus))
    if corpus.source == "python-stdlib":
        return identity | {"python": sys.version, "folder": str(_stdlib()), "parser": parser_versions()}
    if corpus.source == "exact":
        return identity | {"exact": _language(corpus).model_dump(mode="json")}
    if corpus.group is not None:
        identity["group"] = corpus.group
    if corpus.source == "text":
        split = {} if corpus.split_on == "file" else {"split_on": corpus.split_on}
        return identity | {"files": files_fingerprint(_path(corpus))} | split
    if corpus.source == "file":
        return identity | {"field": corpus.field, "files": files_fingerprint(_path(corpus))}
    folder = _local_copy(corpus)
    files = files_fingerprint(folder) if folder else None
    return identity | {"name": _hub_name(corpus), "subset": corpus.subset, "field": corpus.field, "files": files}


def _named(corpus: Corpus) -> tuple[str, ...]:
    assert corpus.packages is not None  # the settings see to it
    return corpus.packages


def _language(corpus: Corpus) -> Exact:
    assert corpus.exact is not None  # the settings see to it
    return corpus.exact


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _python_stdlib(corpus: Corpus) -> Iterator[str]:
    """Every distinct function of the running interpreter's standard library."""
    folder, others = _stdlib(), {"site-packages", "dist-packages", "__pycache__"}
    names = (path.relative_to(folder) for path in folder.rglob("*.py"))
    files = sorted(name.as_posix() for name in names if not others & set(name.parts))
    return distinct_functions(read_bytes(folder / file) for file in progress_bar(files, desc="python-stdlib", unit="file"))


def _path(corpus: Corpus) -> Path:
    kind = KINDS.get(corpus.source, "folder with a copy of the data set")
    assert corpus.path is not None  # the settings see to it
    path = given_path(corpus.path, "corpus.path")
    if not path.exists():
        raise SubloraError(f"{path}: does not exist; set corpus.path to a {kind}")
    if corpus.source == "text" and not path.is_dir():
        raise SubloraError(f"{path}: not a folder; source 'text' reads a folder of text files")
    return path


def _text_folder(corpus: Corpus) -> Iterator[str]:
    """Every regular file below a folder, in the order of relative paths; UTF-8, unpacked if .xz, .gz or .bz2. A file is one
    document, or is cut into several where `corpus.split_on` says so."""
    found = 0
    for path in progress_bar(files_below(_path(corpus)), desc="text", unit="file"):
        if corpus.pattern is not None:
            for begun, section in sections(text_lines(path), corpus.pattern):
                found += begun
                if section.strip():  # what stands before the first one may be blank
                    yield section
        elif corpus.split_on == "blank-line":
            yield from paragraphs(text_lines(path))
        else:
            try:
                yield read_bytes(path).decode("utf-8")
            except UnicodeDecodeError as error:
                raise SubloraError(f"{path}: not UTF-8 text at byte {error.start}; convert it or take it out") from None
    if corpus.pattern is not None and not found:
        raise SubloraError(f"corpus.split_on: no line in {_path(corpus)} matches {corpus.pattern!r}; correct the pattern")


def _table_file(corpus: Corpus) -> Iterator[tuple[str, str | None]]:
    """The column of text of a table file, and that of groups."""
    path = _path(corpus)
    if not path.is_file() or table_kind(path) not in TABLES:
        raise SubloraError(f"{path}: source 'file' reads .jsonl, .csv, .tsv (these also with .xz, .gz, .bz2) and .parquet")
    for where, row in read_rows(path, only=_columns(corpus)):
        yield _text(row, corpus.field, where), _group(row, corpus, where)


def _columns(corpus: Corpus) -> tuple[str, ...]:
    return (corpus.field,) if corpus.group is None else (corpus.field, corpus.group)


def _group(row: dict[str, Any], corpus: Corpus, where: str) -> str | None:
    """What the column of groups has for a row: text, or a whole number as text. A missing value is an error: nobody knows its
    group."""
    if corpus.group is None:
        return None
    if corpus.group not in row:
        raise SubloraError(f"{where}: corpus.group: there is no field {no_such(corpus.group, row)}")
    value = row[corpus.group]
    if value is None or value == "" or not isinstance(value, str | int):
        what = "nothing" if value is None or value == "" else type(value).__name__
        raise SubloraError(f"{where}: field {corpus.group!r} holds {what}, not the name of a group; correct or remove the row")
    return str(value)


def _text(row: dict[str, Any], field: str, where: str) -> str:
    """A row's text; a missing value (null) is an empty document, anything else an error."""
    if field not in row:
        raise SubloraError(f"{where}: corpus.field: there is no field {no_such(field, row)}")
    if row[field] is None:
        return ""
    if not isinstance(row[field], str):
        kind = type(row[field]).__name__
        raise SubloraError(f"{where}: field {field!r} holds {kind}, not text; set corpus.field to a text field")
    return row[field]


def _hub_name(corpus: Corpus) -> str:
    return corpus.path or HUB_NAMES.get(corpus.source, corpus.source)


def _local_copy(corpus: Corpus) -> Path | None:
    """The folder of a data set that is here, whether it is named by `corpus.path` or as the source itself."""
    folder = given_path(_hub_name(corpus), "corpus.source") if corpus.path is None else _path(corpus)
    if folder.exists() and not folder.is_dir():
        raise SubloraError(f"{folder}: a file; set corpus.source to file and corpus.path to it")
    return folder / (corpus.subset or "") if folder.exists() else None


def _hugging_face(corpus: Corpus) -> Iterator[tuple[str, str | None]]:
    """The train split of a data set: in a local folder, or streamed from the Hugging Face hub."""
    if folder := _local_copy(corpus):
        yield from _copied(folder, corpus)
        return
    stream, total = _stream(corpus)
    name, number = _hub_name(corpus), 0
    with errors_named(f"{name}: cannot load the Hugging Face data set", HUB_CURE):
        for number, row in enumerate(progress_bar(stream, desc=corpus_name(corpus), unit="document", total=total), 1):
            where = f"{name}: record {number}"
            yield _text(row, corpus.field, where), _group(row, corpus, where)
    if total is not None and number != total:
        raise SubloraError(f"{name}: the stream ended after {number:,} of {total:,} documents; start again")


def _stream(corpus: Corpus) -> tuple[Any, int | None]:
    """(the rows of the train split on the hub, none of which is read yet; their number, if it is stated)."""
    import datasets  # slow to import, and only this source needs it

    name = _hub_name(corpus)
    with errors_named(f"{name}: cannot load the Hugging Face data set", HUB_CURE):
        stream = datasets.load_dataset(name, corpus.subset, split="train", streaming=True)
        splits = stream.info.splits or {}
        return stream, splits["train"].num_examples if "train" in splits else None


def _copied(folder: Path, corpus: Corpus) -> Iterator[tuple[str, str | None]]:
    """The columns of a folder's table files.

    The readers are those of single files: `datasets` takes a path for a pattern and "NA" for nothing, and leaves out links.
    """
    training, others = _tables(folder)
    if not training:
        raise SubloraError(f"{folder}: holds no .jsonl, .csv, .tsv or .parquet file; choose another folder")
    if others:
        notice(f"{folder}: {others} files without `train` in their names are left out")
    if unread := [path.relative_to(folder).as_posix() for path in files_below(folder) if table_kind(path) not in TABLES]:
        notice(f"{folder}: {len(unread)} files are not {', '.join(TABLES)}, and are left out: {listed(unread, 4)}")
    for path in training:
        for where, row in read_rows(path, only=_columns(corpus)):
            yield _text(row, corpus.field, where), _group(row, corpus, where)


def _tables(folder: Path) -> tuple[list[Path], int]:
    """(a folder's table files by relative path, those with `train` in their names if there are any; how many others)."""
    tables = [path for path in files_below(folder) if table_kind(path) in TABLES]
    training = [path for path in tables if "train" in path.relative_to(folder).as_posix()] or tables
    return training, len(tables) - len(training)


def source_files(corpus: Corpus) -> list[Path] | None:
    """The files that the documents are read from, in order; None where they are streamed from the hub, none for Python's code."""
    if corpus.source in ("python-packages", "python-stdlib", "exact"):
        return []
    if corpus.source in ("text", "file"):
        path = _path(corpus)
        return files_below(path) if path.is_dir() else [path]
    folder = _local_copy(corpus)
    return _tables(folder)[0] if folder else None


def documents_on_hub(corpus: Corpus) -> int | None:
    """How many documents a data set on the hub states that its train split has."""
    return _stream(corpus)[1]
