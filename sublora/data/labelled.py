"""Tasks: GLUE's (Wang et al. 2018, arXiv:1804.07461), from local files in its row formats or from the hub, and `functions`.

GLUE's examples are labelled sentences. Those of `functions` are functions of two pinned packages: of which one is it?
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sublora.data.files import files_fingerprint, given_path
from sublora.data.packages import package_functions, packages_identity
from sublora.data.rows import Row, read_rows, table_kind, whole_characters
from sublora.data.split import permutation
from sublora.errors import SubloraError, errors_named, listed
from sublora.experiment import Task
from sublora.progress import notice

HUB = "nyu-mll/glue"
ENTAILED = ("entailment", "not_entailment")
FUNCTIONS = "functions"
PACKAGES = ("networkx==3.6.1", "sympy==1.14.0")
"""torch needs both, so that they are often installed. Their order numbers the classes."""
FUNCTIONS_VALIDATION = 0.2  # share of the functions that validates
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
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
    FUNCTIONS: Format((("function",),), classes=("networkx", "sympy")),
}


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples in the order of their file. texts: tuples of one or two strings; labels: int64 (n,)."""

    texts: list[tuple[str, ...]]
    labels: np.ndarray

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


def load_task(task: Task, folder: Path | None = None) -> tuple[Examples, dict[str, Examples]]:
    """(training examples, {name: validation examples}) of a task: from `task.path`, or from the hub where it is null.

    `functions` reads pinned packages (`package_functions`, also for `folder`); a fixed share of its examples is for validation.
    Validation files lie beside the training file, `train` in its name being `dev` or `validation` (mnli: `_matched`,
    `_mismatched`), unless `task.validation` names one. Raises SubloraError naming what to put where.
    """
    form = TASKS[task.name]
    if task.name == FUNCTIONS:
        return _functions(folder)
    if task.path is None:
        return _from_hub(task.name, "train", form), {name: _from_hub(task.name, name, form) for name in form.validation}
    path = given_path(task.path, "task.path")
    training = read_examples(path, task.name)
    files = _validation_files(path, task)
    if not files:
        raise SubloraError(f"{path}: no validation file beside it (`train` in its name as `dev`); set task.validation to one")
    return training, {_stem(file): read_examples(file, task.name) for file in files}


def data_identity(task: Task) -> dict[str, Any]:
    """What the examples depend on, as plain data: files count by path, size and time of last change,
    packages by their wheels' SHA-256.

    Raises SubloraError naming the key of a file that is not there.
    """
    if task.name == FUNCTIONS:
        return {"task": task.name, **packages_identity(PACKAGES)}
    if task.path is None:
        return {"task": task.name, "hub": HUB}
    for key, file in (("path", task.path), ("validation", task.validation)):
        if file and not given_path(file, f"task.{key}").is_file():
            raise SubloraError(f"{file}: no such file; set task.{key} to {task.name}'s {key.replace('path', 'training')} file")
    path = given_path(task.path, "task.path")
    files = [path, *_validation_files(path, task)]
    return {"task": task.name, "files": [files_fingerprint(file) for file in files]}


def _validation_files(path: Path, task: Task) -> list[Path]:
    """The file that the settings name, or those that lie beside the training file `path`."""
    if task.validation:
        return [given_path(task.validation, "task.validation")]
    with errors_named(f"{path.parent}: cannot read", "check the folder"):
        tables = sorted(file for file in path.parent.iterdir() if file.is_file() and table_kind(file) in TABLES)
    found = []
    for name in HELD_OUT_NAMES:
        stem = _stem(path).replace("train", name)
        files = [file for file in tables if _stem(file) == stem != _stem(path)]
        if len(files) > 1:
            raise SubloraError(f"{files[0]} and {files[1].name}: which validates? Set task.validation to one of them")
        found += files
    return found


def read_examples(path: Path, name: str) -> Examples:
    """The labelled examples of a table file (`read_rows`). A row that is cut short, or holds null for a text or
    its label, is left out and counted on the terminal.

    Raises SubloraError naming the file, and the row: for one that is missing or unreadable, has no labels, labels outside the
    task's set, or no such key in one row.
    """
    form = TASKS[name]
    if not path.is_file():
        raise SubloraError(f"{path}: there is no such file; set task.path to the task's training file, or to null for the hub")
    return _examples(list(read_rows(path, headerless=form.headerless, cut_short=True)), form, str(path))


def _examples(rows: list[Row], form: Format, source: str) -> Examples:
    if not rows:
        raise SubloraError(f"{source}: holds no example; give the task's training or validation data")
    fields = dict.fromkeys(field for _, row in rows for field in row)
    columns = [_column(fields, names, source, "text") for names in form.texts] + [_column(fields, form.label, source, "label")]
    numbers = {**{text: i for i, text in enumerate(form.classes)}, **{str(i): i for i in range(len(form.classes))}}
    texts, labels = [], []
    for where, row in rows:
        if absent := [column for column in columns if column not in row]:
            raise SubloraError(f"{where}: no {absent[0]!r}, which other rows have; there are: {listed(row)}")
        *parts, label = (row[column] for column in columns)
        if label is None or None in parts:
            continue
        if wrong := [type(part).__name__ for part in parts if not isinstance(part, str)]:
            raise SubloraError(f"{where}: a text is {wrong[0]}, not text; write it as text")
        number = numbers.get(stated := str(label).removesuffix(".0"))
        if number is None:
            hint = " (a test file has none: give another)" if stated == "-1" else ""
            raise SubloraError(f"{where}: has the label {stated!r:.40}, which is none of {', '.join(numbers)}{hint}")
        texts.append(tuple(whole_characters(part) for part in parts))
        labels.append(number)
    if not labels:
        raise SubloraError(f"{source}: holds no example with a label; give the task's training or validation data")
    if dropped := len(rows) - len(labels):
        notice(f"{source}: {dropped:,} of {len(rows):,} rows are cut short or have no value, and are left out")
    return Examples(texts, np.array(labels, np.int64))


def _column(fields: Iterable[str], names: tuple[str, ...], source: str, what: str) -> str:
    if found := next((name for name in names if name in fields), None):
        return found
    wanted = " or ".join(map(repr, names))
    raise SubloraError(f"{source}: no {what}s: a column {wanted} is missing; there are: {listed(fields)}")


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _functions(folder: Path | None) -> tuple[Examples, dict[str, Examples]]:
    """As many functions of each package, shuffled; which are drawn is a function of the sources alone.

    A text counts once. One that both packages have answers no question and is left out.
    """
    found = [list(package_functions([package], folder)) for package in PACKAGES]
    both = set(found[0]) & set(found[1])
    found = [[text for text in texts if text not in both] for texts in found]
    size = min(map(len, found))
    texts = [texts[i] for texts in found for i in permutation(len(texts), 0)[:size]]
    order = permutation(len(texts), 1)
    examples = Examples([(texts[i],) for i in order], order // size)
    held_out, training = np.split(permutation(len(examples), 2), [round(FUNCTIONS_VALIDATION * len(examples))])
    return examples.subset(training), {"validation": examples.subset(held_out)}


def _from_hub(name: str, split: str, form: Format) -> Examples:
    import datasets  # slow to import, and only the hub needs it
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # without a network it would report every attempt
    source = f"{HUB} {name} {split}"
    cure = "there is no network or nothing is cached: set task.path to a local training file, or load it once with a network"
    with errors_named(f"task.path: {source} cannot be loaded", cure):
        rows = [(f"{source}: row {i}", row) for i, row in enumerate(datasets.load_dataset(HUB, name, split=split), 1)]
    return _examples(rows, form, source)
