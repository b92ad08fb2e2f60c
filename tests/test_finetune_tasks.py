"""GLUE's files: every task's own row format, and what is wrong with a file. The functions of two pinned packages."""

import gzip
import json
import lzma

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sublora.data import labelled
from sublora.data.labelled import TASKS, data_identity, load_task, read_examples
from sublora.errors import SubloraError
from sublora.experiment import Task, Words, groups
from sublora.experiment.packages import WHEELS
from sublora.models.classifiers import BagOfWords


def task(name, path=None):
    return Task(name=name, path=path and str(path))


def write(path, *rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
    return path


OFFICIAL = {  # the columns of GLUE's own training files, and rows of theirs
    "sst2": [("sentence", "label"), ('a " lone quote', "0"), ("fine", "1")],
    "mrpc": [("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), ("1", "5", "6", "He said .", "Said he .")],
    "qqp": [("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), ("7", "1", "2", "Who?", "What?", "0")],
    "mnli": [
        ("index", "promptID", "sentence1", "sentence2", "label1", "gold_label"),
        ("0", "1", "It rains.", "It is dry.", "neutral", "contradiction"),
        ("1", "2", "It rains.", "It is wet.", "neutral", "entailment"),
    ],
    "qnli": [("index", "question", "sentence", "label"), ("0", "Who?", "I.", "not_entailment")],
    "rte": [("index", "sentence1", "sentence2", "label"), ("0", "A.", "B.", "entailment")],
    "wnli": [("index", "sentence1", "sentence2", "label"), ("0", "A.", "B.", "1")],
}
EXPECTED = {
    "sst2": ([('a " lone quote',), ("fine",)], [0, 1]),
    "mrpc": ([("He said .", "Said he .")], [1]),
    "qqp": ([("Who?", "What?")], [0]),
    "mnli": ([("It rains.", "It is dry."), ("It rains.", "It is wet.")], [2, 0]),
    "qnli": ([("Who?", "I.")], [1]),
    "rte": ([("A.", "B.")], [0]),
    "wnli": ([("A.", "B.")], [1]),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_row_formats(tmp_path, name):
    examples = read_examples(write(tmp_path / "train.tsv", *OFFICIAL[name]), name)
    assert (examples.texts, examples.labels.tolist()) == EXPECTED[name]
    assert examples.labels.dtype == np.int64


def test_every_task_has_a_format_that_is_tested():
    assert set(TASKS) == set(OFFICIAL) | {"cola", "functions"}


def test_cola_has_no_header_and_may_have_one(tmp_path):
    rows = [("gj04", "1", "", "The label left."), ("gj04", "0", "*", "Left the.")]
    bare = read_examples(write(tmp_path / "train.tsv", *rows), "cola")
    headed = read_examples(write(tmp_path / "t.tsv", ("source", "label", "star", "sentence"), *rows), "cola")
    short = read_examples(write(tmp_path / "s.tsv", ("sentence", "label"), ("The label left.", "1"), ("Left the.", "0")), "cola")
    assert bare.texts == [("The label left.",), ("Left the.",)]
    assert bare.labels.tolist() == [1, 0]
    assert bare.sha256 == headed.sha256 == short.sha256


def test_the_same_examples_have_the_same_sha256_in_every_format(tmp_path):
    rows = [{"sentence": 'so, "good"', "label": 1}, {"sentence": "bad\u00e9", "label": 0}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, "utf-8")
    (tmp_path / "b.csv").write_text('sentence,label\n"so, ""good""",1\nbad\u00e9,0\n', "utf-8")
    plain = write(tmp_path / "c.tsv", ("label", "sentence"), ("1", 'so, "good"'), ("0", "bad\u00e9"))
    with lzma.open(tmp_path / "d.tsv.xz", "wb") as packed:
        packed.write(plain.read_bytes())
    with gzip.open(tmp_path / "e.jsonl.gz", "wt", encoding="utf-8") as packed:
        packed.write(lines)
    write(tmp_path / "f.tsv", ("label", "content"), ("positive", 'so, "good"'), ("negative", "bad\u00e9"))
    (tmp_path / "h.json").write_text(json.dumps(rows, indent=1), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "i.parquet")
    digests = {read_examples(path, "sst2").sha256 for path in sorted(tmp_path.iterdir())}
    assert len(digests) == 1
    other = read_examples(write(tmp_path / "g.tsv", ("label", "sentence"), ("0", 'so, "good"'), ("0", "bad\u00e9")), "sst2")
    assert other.sha256 not in digests


def test_words_that_look_like_missing_values_are_text(tmp_path):
    examples = read_examples(write(tmp_path / "t.tsv", ("sentence", "label"), ("NA", "0"), ("null", "1"), ("", "1")), "sst2")
    assert examples.texts == [("NA",), ("null",), ("",)]


def test_rows_cut_short_are_counted(tmp_path, capsys):
    path = write(tmp_path / "t.tsv", *OFFICIAL["qqp"], ("8", "1", "2", "Cut"), ("9", "3", "4", "Why?", "How?", "1"))
    examples = read_examples(path, "qqp")
    assert len(examples) == 2
    assert f"note: {path}: 1 of 3 rows are cut short or have no value, and are left out\n" in capsys.readouterr().err


@pytest.mark.parametrize("other", [{"content": "bad", "label": 0}, {"sentence": "bad", "gold": 0}])
def test_a_row_with_other_keys_is_named(tmp_path, other):
    rows = [{"sentence": "good", "label": 1}, other, {"sentence": "bad", "label": 0}]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with pytest.raises(SubloraError, match="line 2: no '(sentence|label)', which other rows have; there are: (content|sentence), "):
        read_examples(path, "sst2")
    path.with_suffix(".json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(SubloraError, match="record 2: no '(sentence|label)'"):
        read_examples(path.with_suffix(".json"), "sst2")


def test_a_carriage_return_makes_no_example(tmp_path):
    path = write(tmp_path / "train.tsv", ("sentence", "label"), ("a bad\rgood film", "0"), ("fine", "1"))
    assert read_examples(path, "sst2").texts == [("a bad\rgood film",), ("fine",)]


def test_half_a_surrogate_pair_becomes_the_replacement_character(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"sentence": "a\\ud800b", "label": 1}\n', "utf-8")
    examples = read_examples(tmp_path / "train.jsonl", "sst2")
    assert examples.texts == [("a\ufffdb",)] and BagOfWords(Words(), 2, 8).encode(examples.texts).lengths[0] > 0


@pytest.mark.parametrize(
    ("name", "rows", "says"),
    [
        ("sst2", [("sentence",), ("good",)], "no labels"),
        ("sst2", [("text", "label"), ("good", "1")], "'sentence'"),
        ("sst2", [("sentence", "label"), ("good", "1"), ("bad", "2")], "line 3: has the label '2'"),
        ("sst2", [("sentence", "label"), ("good", "-1")], "test file"),
        ("sst2", [("sentence", "label"), ("good", "")], "label"),
        ("mnli", [("sentence1", "sentence2", "gold_label"), ("a", "b", "perhaps")], "entailment, neutral, contradiction"),
        ("sst2", [("sentence", "label")], "no example"),
        ("sst2", [("sentence", "label"), ("good", "1", "more")], "line 2: 3 cells, but the header has 2"),
        ("sst2", [("sentence", "label"), ("good", "1"), ("bad", "0", "more")], "line 3: 3 cells"),
        ("sst2", [("sentence", "label", "label"), ("good", "1", "1")], "line 1: two columns have the same name 'label'"),
        ("sst2", [("x" * 9000 + "\x1b[2J", "label"), ("good", "1")], "there are: x{100}, label$"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(tmp_path, name, rows, says):
    path = write(tmp_path / "train.tsv", *rows)
    with pytest.raises(SubloraError, match=says) as error:
        read_examples(path, name)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


UNREADABLE = {
    "empty.tsv": b"",
    "latin.tsv": b"sentence\tlabel\n\xff\xfe\t1\n",
    "no-xz.tsv.xz": b"no xz",
    "cut.tsv.xz": lzma.compress(b"sentence\tlabel\nfine\t1\n" * 99)[:-20],
    "no-gz.tsv.gz": b"no gz",
    "cut.tsv.gz": gzip.compress(b"sentence\tlabel\nfine\t1\n" * 99, mtime=0)[:-20],
    "broken.jsonl": b"{broken\n",
    "number.jsonl": b'{"sentence": "good", "label": 1}\n{"sentence": 3, "label": 1}\n',
    "list.jsonl": b'["sentence", "label"]\n',
    "deep.jsonl": b'{"sentence": ' + b"[" * 100_000,
    "cut.parquet": b"PAR1",
    "open.csv": b'sentence,label\n"good,1\nbad,0\n',
    "nul.csv": b"sentence\x00\x00,label\ngood,1\n",
    "words.pdf": b"x",
}


@pytest.mark.parametrize(("name", "data"), UNREADABLE.items(), ids=list(UNREADABLE))
def test_unreadable_files_are_one_line(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SubloraError) as error:
        read_examples(path, "sst2")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_files_say_what_to_put_where(tmp_path):
    with pytest.raises(SubloraError, match=r"no such file; set task\.path"):
        load_task(task("sst2", tmp_path / "train.tsv"))
    path = write(tmp_path / "train.tsv", *OFFICIAL["sst2"])
    (tmp_path / "dev.md").write_text("no table")
    (tmp_path / "dev.tsv").mkdir()
    with pytest.raises(SubloraError, match="no validation file beside it"):
        load_task(task("sst2", path))


def test_settings_know_the_tasks():
    assert set(groups.TASKS) == set(TASKS)


def test_validation_files_are_found_by_name_alone(tmp_path):
    for stem in ("train[1]*", "dev[1]*", "dev1x"):
        write(tmp_path / f"{stem}.tsv", *OFFICIAL["sst2"], (stem, "1"))
    assert list(load_task(task("sst2", tmp_path / "train[1]*.tsv"))[1]) == ["dev[1]*"]
    write(tmp_path / "dev[1]*.csv", *OFFICIAL["sst2"])
    with pytest.raises(SubloraError, match=r"dev\[1\]\*\.csv and dev\[1\]\*\.tsv: which validates\? Set task\.validation"):
        load_task(task("sst2", tmp_path / "train[1]*.tsv"))


@pytest.mark.parametrize("read", [load_task, data_identity])
def test_a_path_that_cannot_be_is_one_line(read):
    with pytest.raises(SubloraError, match="task.path: '~nouser/x' cannot be looked up"):
        read(task("sst2", "~nouser/x"))


def test_no_network_and_nothing_cached_says_what_to_do(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(SubloraError, match=r"set task\.path to a local training file") as error:
        load_task(task("cola"))
    assert "\n" not in str(error.value)


def test_mnli_has_two_validation_files(tmp_path):
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / f"{name}.tsv", *OFFICIAL["mnli"], ("2", "2", name, "x", "-", "neutral"))
    training, validation, classes = load_task(task("mnli", tmp_path / "train.tsv"))
    assert classes == ("entailment", "neutral", "contradiction")
    assert training.texts[2] == ("train", "x")
    assert {name: examples.texts[2][0] for name, examples in validation.items()} == {
        "dev_matched": "dev_matched",
        "dev_mismatched": "dev_mismatched",
    }


def test_a_change_of_a_file_is_seen(tmp_path):
    path = write(tmp_path / "train.tsv", *OFFICIAL["sst2"])
    validation = write(tmp_path / "dev.tsv", *OFFICIAL["sst2"])
    before = data_identity(task("sst2", path))
    assert before == data_identity(task("sst2", path))
    write(validation, *OFFICIAL["sst2"], ("one more", "1"))
    assert data_identity(task("sst2", path)) != before


def test_a_file_that_is_not_there_is_named_with_its_key(tmp_path):
    missing = tmp_path / "train.tsv"
    with pytest.raises(SubloraError, match=r"train\.tsv: no such file; set task\.path to sst2's training file"):
        data_identity(task("sst2", missing))
    missing.write_text("sentence\tlabel\ngood\t1\n")
    other = task("sst2", missing).model_copy(update={"validation": str(tmp_path / "dev.tsv")})
    with pytest.raises(SubloraError, match=r"dev\.tsv: no such file; set task\.validation to sst2's validation file"):
        data_identity(other)


# --- functions


@pytest.fixture
def packages(monkeypatch):
    """Two small packages by name, of which the second has more functions; both have `same`."""
    found = {name: [f"def {name}{i}(): pass\n" for i in range(n)] for name, n in (("networkx", 10), ("sympy", 25))}
    both = ["def same(): pass\n"]
    monkeypatch.setattr(labelled, "package_functions", lambda pins, folder: iter(found[pins[0].split("==")[0]] + both))
    return list(found)


def test_functions_are_distinct_balanced_and_of_their_package(packages):
    training, validation, _ = load_task(task("functions"))
    held_out = validation["validation"]
    assert (len(training), len(held_out)) == (16, 4)
    texts, labels = training.texts + held_out.texts, [*training.labels, *held_out.labels]
    assert len(set(texts)) == 20 and labels.count(0) == labels.count(1) == 10
    for (text,), label in zip(texts, labels, strict=True):
        assert text.startswith(f"def {packages[label]}") and text.endswith("(): pass\n")


def test_the_functions_of_the_pinned_packages_are_known():
    """Kept certificates depend on these numbers."""
    training, validation, _ = load_task(task("functions"))
    assert (len(training), len(validation["validation"])) == (11_310, 2_828)
    assert training.sha256 == "6995fe147d4fd60031bd5875a8c6f20f7b687f075ce92c924ca49d2bc592d556"
    assert validation["validation"].sha256 == "228b75b5112bbf933ca9f936ed2f2385d8096f1fc956194a146b652bc8c17e76"
    assert data_identity(task("functions"))["wheels"] == [[name, WHEELS[name].sha256] for name in labelled.PACKAGES]


def test_functions_come_from_a_folder_of_wheels_if_one_is_given(tmp_path):
    with pytest.raises(SubloraError, match="the folder lacks the wheel of networkx==3.6.1"):
        load_task(task("functions"), tmp_path)
