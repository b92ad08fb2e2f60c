"""Tasks: GLUE's (Wang et al. 2018, arXiv:1804.07461), from local files in its row formats or from the hub, and `functions`.

GLUE's examples are labelled sentences. Those of `functions` are functions of two installed packages: no file and no network.
"""

import csv
import difflib
import hashlib
import io
import json
import lzma
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sublora.data.corpora import OPENERS, corpus_identity
from sublora.data.functions import PACKAGES, labelled_functions, packages_identity
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.experiment import Corpus, Task

HUB = "nyu-mll/glue"
ENTAILED = ("entailment", "not_entailment")
SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
FUNCTIONS = "functions"
FUNCTIONS_VALIDATION = 0.2  # share of the functions that validates
HELD_OUT_NAMES = ("dev", "validation", "dev_matched", "validation_matched", "dev_mismatched", "validation_mismatched")


@dataclass(frozen=True)
class Format:
    """Columns of one task: for each text, and for the label, the names it has in GLUE's files and on the hub.

    classes: the labels' names in the order of their numbers; a file may hold either. headerless: columns of a file without header.
    """

    texts: tuple[tuple[str, ...], ...]
    label: tuple[str, ...] = ("label",)
    classes: tuple[str, ...] = ("0", "1")
    headerless: tuple[str, ...] = ()
    validation: tuple[str, ...] = ("validation",)


_PAIR = (("sentence1",), ("sentence2",))
TASKS = {
    "cola": Format((("sentence",),), classes=("unacceptable", "acceptable"), headerless=("source", "label", "star", "sentence")),
    "sst2": Format((("sentence", "content"),), classes=("negative", "positive")),
    "mrpc": Format((("sentence1", "#1 String"), ("sentence2", "#2 String")), ("label", "Quality")),
    "qqp": Format((("question1",), ("question2",)), ("label", "is_duplicate")),
    "mnli": Format(
        (("premise", "sentence1"), ("hypothesis", "sentence2")),
        ("label", "gold_label"),
        ("entailment", "neutral", "contradiction"),
        validation=("validation_matched", "validation_mismatched"),
    ),
    "qnli": Format((("question",), ("sentence",)), classes=ENTAILED),
    "rte": Format(_PAIR, classes=ENTAILED),
    "wnli": Format(_PAIR),
    FUNCTIONS: Format((("function",),), classes=PACKAGES),
}


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples in the order of their file. texts: tuples of one or two strings; labels: int64 (n,)."""

    texts: list[tuple[str, ...]]
    labels: np.ndarray
    dropped: int = 0  # rows cut short, which the hub's reader leaves out, too

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, which: np.ndarray) -> "Examples":
        """The examples `which` (indices), in that order."""
        return Examples([self.texts[i] for i in which], self.labels[which])

    @property
    def sha256(self) -> str:
        """Of the examples themselves: the same data have the same, packed or not, from a file or from the hub."""
        digest = hashlib.sha256()
        for texts, label in zip(self.texts, self.labels.tolist(), strict=True):
            digest.update(json.dumps([*texts, label]).encode())
        return digest.hexdigest()


def task_format(name: str) -> Format:
    """The format of a task. Raises SubloraError for stsb, which has no 0-1 error, and for a name that does not exist."""
    if name in ("stsb", "sts-b"):
        raise SubloraError("task.name: stsb is regression (a score from 0 to 5): it has no 0-1 error to bound; choose another task")
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
        raise SubloraError(f"task.name: there is no task {name!r}; did you mean {near!r}? There are {', '.join(TASKS)}")
    return TASKS[name]


def load_task(task: Task) -> tuple[Examples, dict[str, Examples]]:
    """(training examples, {name: validation examples}) of a task: from `task.path`, or from the hub where it is null.

    `functions` reads the installed packages; a fixed share of its examples is for validation.
    Validation files lie beside the training file, `train` in its name being `dev` or `validation` (mnli: `_matched`,
    `_mismatched`), unless `task.validation` names one. Raises SubloraError naming what to put where.
    """
    form = task_format(task.name)
    if task.name == FUNCTIONS:
        return _functions(task)
    if task.path is None:
        return _from_hub(task.name, "train", form), {name: _from_hub(task.name, name, form) for name in form.validation}
    path = Path(task.path).expanduser()
    training = read_examples(path, task.name)
    files = [Path(task.validation).expanduser()] if task.validation else beside(path)
    if not files:
        raise SubloraError(f"{path}: no validation file beside it (`train` in its name as `dev`); set task.validation to one")
    return training, {_stem(file): read_examples(file, task.name) for file in files}


def data_identity(task: Task) -> dict[str, Any]:
    """What the examples depend on, as plain data: files count by path, size and time of last change,
    installed packages by version and content.

    Raises SubloraError naming the key of a file that is not there.
    """
    task_format(task.name)
    if task.name == FUNCTIONS:
        _refuse_files(task)
        return {"task": task.name, "packages": packages_identity()}
    if task.path is None:
        return {"task": task.name, "hub": HUB}
    for key, path in (("path", task.path), ("validation", task.validation)):
        if path and not Path(path).expanduser().is_file():
            raise SubloraError(f"{path}: no such file; set task.{key} to {task.name}'s {key.replace('path', 'training')} file")
    paths = [task.path, *([task.validation] if task.validation else map(str, beside(Path(task.path).expanduser())))]
    return {"task": task.name, "files": [corpus_identity(Corpus(source="file", path=path))["files"] for path in paths]}


def beside(path: Path) -> list[Path]:
    """The validation files that lie beside a training file."""
    found = []
    for name in HELD_OUT_NAMES:
        stem = _stem(path).replace("train", name)
        found += [file for file in sorted(path.parent.glob(f"{stem}.*")) if _stem(file) == stem != _stem(path)][:1]
    return found


def read_examples(path: Path, name: str) -> Examples:
    """The labelled examples of a .tsv, .txt, .csv, .json or .jsonl file (also .xz, .gz, .bz2).

    Tab-separated files know no quoting, as GLUE's; CoLA's have no header. Rows cut short are dropped and counted. Raises
    SubloraError naming the file for one that is missing or unreadable, without labels, or with labels outside the task's set.
    """
    form = task_format(name)
    table = _table(path, form)
    columns = [_column(table, names, path, "text") for names in form.texts]
    label = _column(table, form.label, path, "label")
    whole = ~table[[*columns, label]].isna().any(axis=1)
    numbers = {**{text: i for i, text in enumerate(form.classes)}, **{str(i): i for i in range(len(form.classes))}}
    if not whole.any():
        raise SubloraError(f"{path}: holds no example with a label; give {name}'s training or validation file")
    stated = table.loc[whole, label].map(lambda value: str(value).removesuffix(".0"))
    labels = stated.map(numbers)
    if labels.isna().any():
        row = labels.index[labels.isna()][0]
        hint = " (a test file has none: give another)" if stated[row] == "-1" else ""
        allowed = ", ".join(dict.fromkeys([*form.classes, *map(str, range(len(form.classes)))]))
        raise SubloraError(f"{path}: example {row + 1} has the label {stated[row]!r:.40}, which is none of {allowed}{hint}")
    texts = list(zip(*(table.loc[whole, column].map(str) for column in columns), strict=True))
    return Examples(texts, labels.to_numpy(np.int64), int((~whole).sum()))


def _table(path: Path, form: Format) -> pd.DataFrame:
    """The rows of a file; a row of a separated file that lacks cells has None for them."""
    if not path.is_file():
        raise SubloraError(f"{path}: there is no such file; set task.path to the task's training file, or to null for the hub")
    kind = next((suffix for suffix in reversed(path.suffixes) if suffix not in OPENERS), "")
    if kind not in (".json", ".jsonl", *SEPARATORS):
        raise SubloraError(f"{path}: not a .tsv, .txt, .csv, .json or .jsonl file (also .xz, .gz, .bz2); convert it")
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as stream:
            text = stream.read().decode("utf-8-sig")
        if kind in (".json", ".jsonl"):
            return pd.read_json(io.StringIO(text), lines=not text.lstrip().startswith("["), dtype=False, convert_dates=False)
        return _separated(text, kind, form)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, csv.Error) as error:
        raise SubloraError(f"{path}: not a readable table ({' '.join(str(error).split()):.200}); check the file") from None


def _separated(text: str, kind: str, form: Format) -> pd.DataFrame:
    csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse long texts
    dialect = {"strict": True} if kind == ".csv" else {"quoting": csv.QUOTE_NONE}
    reader, header, records = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS[kind], **dialect), None, []
    for cells in reader:
        if header is None:
            headerless = len(cells) == len(form.headerless) and not set(cells) & {"sentence", "label"}
            header = list(form.headerless) if headerless else cells
            if not headerless:
                continue
        if len(cells) > len(header):
            raise ValueError(f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}")
        if cells:
            records.append(cells + [None] * (len(header) - len(cells)))
    return pd.DataFrame(records, columns=header, dtype=object)


def _column(table: pd.DataFrame, names: tuple[str, ...], path: Path, what: str) -> str:
    for name in names:
        if name in table:
            return name
    there_are = ", ".join(map(str, table.columns))
    raise SubloraError(f"{path}: no {what}s: a column {' or '.join(map(repr, names))} is missing; there are: {there_are}")


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _functions(task: Task) -> tuple[Examples, dict[str, Examples]]:
    _refuse_files(task)
    texts, labels = labelled_functions()
    examples = Examples([(text,) for text in texts], labels)
    held_out, training = np.split(permutation(len(examples), 2), [round(FUNCTIONS_VALIDATION * len(examples))])
    return examples.subset(training), {"validation": examples.subset(held_out)}


def _refuse_files(task: Task) -> None:
    for key in ("path", "validation"):
        if getattr(task, key) is not None:
            raise SubloraError(f"task.{key}: functions reads the installed packages {' and '.join(PACKAGES)}; leave it null")


def _from_hub(name: str, split: str, form: Format) -> Examples:
    import datasets  # slow to import, and only the hub needs it
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # without a network it would report every attempt
    try:
        table = datasets.load_dataset(HUB, name, split=split)
    except Exception as error:  # the loader and its network stack raise dozens of types
        raise SubloraError(
            f"task.path: {HUB} {name} {split} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split()):.150}); "
            "there is no network or nothing is cached: set task.path to a local training file, or load it once with a network"
        ) from None
    texts = list(zip(*(table[names[0]] for names in form.texts), strict=True))
    labels = np.array(table["label"], np.int64)
    if not ((labels >= 0) & (labels < len(form.classes))).all():
        raise SubloraError(f"{HUB} {name} {split}: has examples without labels; choose another split")
    return Examples(texts, labels)
