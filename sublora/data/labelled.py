"""Labelled examples: of any table file or data set on the hub, of GLUE's tasks, and of `functions`.

GLUE's tasks (Wang et al. 2018, arXiv:1804.07461) are presets: their columns and classes are known by name. The examples of
`functions` are functions of two pinned packages: of which one is it?
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sublora.data.files import files_fingerprint, given_path
from sublora.data.packages import package_functions, packages_identity
from sublora.data.rows import Row, read_rows, table_kind, whole_characters
from sublora.data.split import permutation
from sublora.errors import SubloraError, errors_named, listed, no_such
from sublora.experiment import Task, class_name, is_table
from sublora.experiment.groups import TABLES
from sublora.progress import notice

HUB = "nyu-mll/glue"
ENTAILED = ("entailment", "not_entailment")
FUNCTIONS = "functions"
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
PACKAGES = ("networkx==3.6.1", "sympy==1.14.0")
"""torch needs both, so that they are often installed. Their order numbers the classes."""
FUNCTIONS_VALIDATION = 0.2  # share of the functions that validates
HELD_OUT = "held out"
"""The name of the part of a source's examples that is drawn to validate."""
MOST_CLASSES = 10_000
HELD_OUT_NAMES = ("dev", "validation", "dev_matched", "validation_matched", "dev_mismatched", "validation_mismatched")


@dataclass(frozen=True)
class Format:
    """Columns of one task: for each text, and for the label, the names that it may have.

    classes: the labels' names in the order of their numbers; None: those that occur. preset: a task of GLUE, whose files may hold
    the numbers, have rows cut short, and columns `headerless` without a header. others: rows with another label are left out.
    """

    texts: tuple[tuple[str, ...], ...]
    label: tuple[str, ...] = ("label",)
    classes: tuple[str, ...] | None = ("0", "1")
    headerless: tuple[str, ...] = ()
    validation: tuple[str, ...] = ("validation",)
    preset: bool = True
    others: bool = False


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


class TaskData(NamedTuple):
    """What a task's settings lead to. pool: the examples to train on, and those not drawn to; validation: by name.

    classes: the labels' names, in the order of their numbers.
    """

    pool: Examples
    validation: dict[str, Examples]
    classes: tuple[str, ...]


def load_task(task: Task, folder: Path | None = None, local_only: bool = False) -> TaskData:
    """The examples of a task: from `task.source`, from `task.path`, or of GLUE's from the hub where both are null.

    `functions` reads pinned packages (`package_functions`, also for `folder`); a fixed share of its examples is for validation.
    GLUE's validation files lie beside the training file, `train` in its name being `dev` or `validation` (mnli: `_matched`,
    `_mismatched`), unless `task.validation` names one. Of a source without one, a share is drawn at random to validate.
    local_only: nothing is downloaded.
    Raises SubloraError naming what to put where, and for labels of one class.
    """
    if task.source is not None:
        return _own_task(task, local_only)
    if task.name == FUNCTIONS:
        data = TaskData(*_functions(folder), _classes(TASKS[FUNCTIONS]))
    else:
        data = _preset(task, TASKS[task.name])
    _check_classes(data.pool, data.classes, task.path or task.name)
    return data


def _check_classes(examples: Examples, classes: tuple[str, ...], where: str) -> None:
    if len(found := np.unique(examples.labels)) < 2:
        raise SubloraError(f"{where}: all examples have the label {ascii(classes[found[0]]):.60}; a classifier needs two")


def _preset(task: Task, form: Format) -> TaskData:
    if task.path is None:
        validation = {name: _from_hub(task.name, name, form) for name in form.validation}
        return TaskData(_from_hub(task.name, "train", form), validation, _classes(form))
    path = given_path(task.path, "task.path")
    training = read_examples(path, task.name)
    files = _validation_files(path, task)
    if not files:
        raise SubloraError(f"{path}: no validation file beside it (`train` in its name as `dev`); set task.validation to one")
    return TaskData(training, {_stem(file): read_examples(file, task.name) for file in files}, _classes(form))


def _classes(form: Format) -> tuple[str, ...]:
    assert form.classes is not None
    return form.classes


def _own_task(task: Task, local_only: bool) -> TaskData:
    """The examples of `task.source`. A label's number is its place in `task.classes`, or among all labels that the source has.

    That is a function of the whole source, not of what is drawn from it.
    """
    asked: dict[str, Any] = {"preset": False, "others": task.others == "leave_out"}
    form = Format(tuple((name,) for name in task.text), (task.label,), task.classes, **asked)
    texts, names = _read_source(task, "source", form, local_only)
    classes = task.classes or _in_order(names, f"{task.source}: column {ascii(task.label):.80}")
    numbers = {name: number for number, name in enumerate(classes)}
    examples = Examples(texts, np.array([numbers[name] for name in names], np.int64))
    _check_classes(examples, classes, task.source or "")
    if task.draws_held_out:
        order = permutation(len(examples), task.split_seed, HELD_OUT)
        size = round(task.held_out * len(examples))
        if not 0 < size < len(examples) - 1:
            why = f"task.held_out {task.held_out} of {len(examples)} examples leaves too few on one side"
            raise SubloraError(f"{task.source}: {why}; change it, or set task.validation to a file")
        held_out, kept = np.sort(order[:size]), np.sort(order[size:])
        return TaskData(examples.subset(kept), {HELD_OUT: examples.subset(held_out)}, classes)
    texts, names = _read_source(task, "validation", replace(form, classes=classes), local_only)
    validation = Examples(texts, np.array([numbers[name] for name in names], np.int64))
    assert task.validation is not None  # else a part of the source is drawn
    name = _stem(Path(task.validation)) if is_table(task.validation) else task.validation
    return TaskData(examples, {name: validation}, classes)


def _read_source(task: Task, key: str, form: Format, local_only: bool) -> tuple[list[tuple[str, ...]], list[str]]:
    """(texts, names of the labels' classes) of `task.source` or `task.validation`: of a file, or a split on the hub."""
    place = getattr(task, key)
    assert task.source is not None
    if key == "source" and not is_table(place) or key == "validation" and not (is_table(place) or is_table(task.source)):
        return _rows_of_hub(task.source, "train" if key == "source" else place, form, local_only)
    path = given_path(place, f"task.{key}")
    if not path.is_file():
        raise SubloraError(f"{path}: there is no such file; set task.{key} to a table file with the examples")
    return _texts_and_names(list(read_rows(path)), form, str(path))


def _in_order(names: list[str], where: str) -> tuple[str, ...]:
    """The classes of labels: whole numbers by value, then the others by code point."""
    found, cure = set(names), "set task.label to a column of classes"
    if len(names) == len(found) > 3:
        raise SubloraError(f"{where}: no label occurs twice in {len(names):,} examples; {cure}")
    if len(found) > MOST_CLASSES:
        raise SubloraError(f"{where}: {len(found):,} different labels, of at most {MOST_CLASSES:,}; {cure}")
    return tuple(sorted(found, key=lambda name: (0, int(name), name) if WHOLE.fullmatch(name) else (1, 0, name)))


def task_name(task: Task) -> str:
    """A short readable name: the task's, or the last part of its source."""
    return task.name if task.source is None else Path(task.source).name


def data_identity(task: Task) -> dict[str, Any]:
    """What the examples depend on, as plain data: files count by path, size and time of last change,
    packages by their wheels' SHA-256.

    Raises SubloraError naming the key of a file that is not there.
    """
    if task.source is not None:
        named = {"source": task.source, "validation": task.validation}
        paths = [given_path(place, f"task.{key}") for key, place in named.items() if place and is_table(place)]
        if missing := [path for path in paths if not path.is_file()]:
            key = "source" if str(missing[0]) == str(given_path(task.source, "task.source")) else "validation"
            raise SubloraError(f"{missing[0]}: no such file; set task.{key} to a table file with the examples")
        return {**named, "files": [files_fingerprint(path) for path in paths]}
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
    numbers = {name: number for number, name in enumerate(_classes(form))}
    texts, names = _texts_and_names(rows, form, source)
    return Examples(texts, np.array([numbers[name] for name in names], np.int64))


def _texts_and_names(rows: list[Row], form: Format, source: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """(texts, names of the labels' classes) of the rows that have a value for each; the others are counted on the terminal."""
    if not rows:
        raise SubloraError(f"{source}: holds no example; give the task's training or validation data")
    fields = dict.fromkeys(field for _, row in rows for field in row)
    columns = [_column(fields, each, source, "text") for each in form.texts] + [_column(fields, form.label, source, "label")]
    known = {name: name for name in form.classes or ()}
    known |= {str(number): name for number, name in enumerate(known)} if form.preset else {}
    texts, names = [], []
    for where, row in rows:
        if absent := [column for column in columns if column not in row]:
            raise SubloraError(f"{where}: no {absent[0]!r}, which other rows have; there are: {listed(row)}")
        *parts, label = (row[column] for column in columns)
        if label is None or label != label or None in parts or (not form.preset and isinstance(label, str) and not label.strip()):
            continue
        if wrong := [type(part).__name__ for part in parts if not isinstance(part, str)]:
            raise SubloraError(f"{where}: a text is {wrong[0]}, not text; write it as text")
        try:
            stated = whole_characters(class_name(label))
        except ValueError as error:
            raise SubloraError(f"{where}: {error}; set task.label to a column of classes") from None
        if (name := known.get(stated, stated if form.classes is None else None)) is None:
            if form.others:
                continue
            hint = " (a test file has none: give another)" if stated == "-1" else ""
            raise SubloraError(f"{where}: has the label {stated!r:.40}, which is none of {listed(known, 20)}{hint}")
        texts.append(tuple(whole_characters(part) for part in parts))
        names.append(name)
    if not names:
        raise SubloraError(f"{source}: holds no example with a label; give the task's training or validation data")
    if dropped := len(rows) - len(names):
        why = "are cut short, have no value or another label" if form.others else "are cut short or have no value"
        notice(f"{source}: {dropped:,} of {len(rows):,} rows {why}, and are left out")
    return texts, names


def _column(fields: Iterable[str], names: tuple[str, ...], source: str, what: str) -> str:
    if found := next((name for name in names if name in fields), None):
        return found
    if len(names) == 1:
        raise SubloraError(f"{source}: no {what}s: there is no column {no_such(names[0], fields)}")
    wanted = " or ".join(map(repr, names))
    raise SubloraError(f"{source}: no {what}s: a column {wanted} is missing; there are: {listed(fields)}")


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _functions(folder: Path | None) -> tuple[Examples, dict[str, Examples]]:
    """As many functions of each package, shuffled; which are drawn is a function of the sources alone.

    A text counts once. A text of both packages has no right answer and is left out.
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
    cure = "there is no network or nothing is cached: set task.path to a local training file, or load it once with a network"
    source = f"{HUB} {name} {split}"
    rows = _hub_rows(f"task.path: {source} cannot be loaded", cure, HUB, name, split=split)
    return _examples([(f"{source}: row {i}", row) for i, row in enumerate(rows, 1)], form, source)


def _rows_of_hub(name: str, split: str, form: Format, local_only: bool) -> tuple[list[tuple[str, ...]], list[str]]:
    options: dict[str, Any] = {"split": split}
    if local_only:  # a stranger's certificate does not choose what is downloaded
        from datasets import DownloadConfig

        options["download_config"] = DownloadConfig(local_files_only=True)
    source, cure = f"{name} {split}", "check the network and the name, or set task.source to a local file"
    rows = _hub_rows(f"task.source: {source} cannot be loaded", cure, name, **options)
    return _texts_and_names([(f"{source}: row {i}", row) for i, row in enumerate(rows, 1)], form, source)


def _hub_rows(what: str, cure: str, *name: str, **options: Any) -> list[dict[str, Any]]:
    """All rows of a split of a data set on the hub."""
    import datasets  # slow to import, and only the hub needs it
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # without a network it would report every attempt
    with errors_named(what, cure):
        return list(datasets.load_dataset(*name, **options))
