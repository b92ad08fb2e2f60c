"""Anybody's labelled examples: any table file, any columns, any labels; from a file to a verified certificate."""

import csv
import json
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom
from tiny_models import save_model

from sublora.certificate.schema import digest, load_certificate
from sublora.data.labelled import HELD_OUT, data_identity, load_task
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.experiment import Task, Words, as_experiment, class_name
from sublora.inequalities.independent import binomial_tail, complexity_nats
from sublora.message import MessageError, classifier, decode
from sublora.message.body import Coded
from sublora.models.classifiers import LARGEST_HEAD, classifier_base
from sublora.reporting import sentences, terminal
from sublora.run import Run
from sublora.verification import verify, verify_arithmetic

TEXT, MORE, LABEL = "Betreff (kurz)", "what they wrote\N{NO-BREAK SPACE}", "Abteilung/queue"
WORDS = {"7": "seven update driver", "billing, EU": "invoice refund price", "\N{DEVANAGARI LETTER A}": "late broken worst"}
WORDS["no idea\x1b[31m"] = "hello thanks maybe"


@pytest.fixture(autouse=True)
def in_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def write_rows(path, rows, header=(TEXT, MORE, LABEL)):
    """A csv file as spreadsheets write it."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(n=600, labels=tuple(WORDS), seed=0):
    """Texts of which one word says the label; the first label is the commonest."""
    random, found = np.random.default_rng(seed), []
    for _ in range(n):
        label = labels[int(random.random() ** 1.5 * len(labels))]
        words = [str(random.choice(WORDS[label].split())) for _ in range(3)]
        found.append((f"Re: {random.choice(['a', 'b'])}", " ".join(["the", *words, "is"]), label))
    return found


def settings(**changes):
    """A bag of words on such a file; `group__key=value` changes a setting, `group=value` a whole group."""
    values = {
        "kind": "classify",
        "name": "mine",
        "task": {"source": "mine.csv", "text": [TEXT, MORE], "label": LABEL},
        "model": {"buckets": 32},
        "subspace": {"parametrization": "lora", "modules": ["head"]},
        "training": {"epochs": 4, "batch": 50, "learning_rate": 0.1, "precision": "no"},
        "compression": {"levels": 3},
    }
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (values[group] if group else values)[name] = value
    return values


def task(**changes):
    return Task(**{"source": "t.csv", "text": ("text",), **changes})


def of(certificate, assumption, inequality):
    (found,) = [b for b in certificate.statements if (b.assumption, b.inequality) == (assumption, inequality)]
    return found


def test_four_labels_of_a_csv_give_a_certificate_that_verifies_in_seconds(tmp_path):
    began = time.process_time()
    write_rows("mine.csv", rows(1500))
    run = Run(settings(task__train=0.7, model={"buckets": 20}, training__epochs=8), tmp_path / "runs")
    certificate = run.certify()
    path = run.folder / "certificate.json"
    assert verify(path) == [] == verify_arithmetic(path)
    assert certificate.public.classes == ["7", "billing, EU", "no idea\x1b[31m", "\N{DEVANAGARI LETTER A}"]
    assert (certificate.corpus.name, certificate.corpus.vocab_size, certificate.corpus.unit) == ("mine.csv", 4, "example")
    assert (certificate.corpus.documents, certificate.corpus.pool) == (945, 1350)
    assert [(value.split, value.n) for value in certificate.held_out] == [(HELD_OUT, 150), ("unseen", 405)]
    guess = 1 - np.bincount(run.problem.training.labels).max() / 945
    best = of(certificate, "unseen", "betting")
    assert best.vacuous_at == guess and best.nonvacuous and of(certificate, "iid", "binomial_tail").nonvacuous
    assert time.process_time() - began < 20
    shown = terminal.details(load_certificate(path), path)
    assert "\x1b" not in shown and "no idea\N{REPLACEMENT CHARACTER}[31m" in shown
    assert "has no other labels than the 4 that" in sentences.guarantee_iid(certificate)
    assert "150 others were held out before, drawn from the same seed" in sentences.split(certificate)


def test_a_certificate_verifies_from_the_same_rows_in_another_format(tmp_path):
    found = rows(200)
    write_rows("mine.csv", found)
    run = Run(settings(training__epochs=1), tmp_path / "runs")
    run.certify()
    elsewhere = tmp_path / "theirs.parquet"
    pq.write_table(pa.Table.from_pylist([dict(zip((TEXT, MORE, LABEL), row, strict=True)) for row in found]), elsewhere)
    assert verify(run.folder / "certificate.json", corpus=elsewhere) == []
    data = load_certificate(run.folder / "certificate.json").data()
    for group, key, value in (
        ("public", "base", "transformers"),
        ("public", "arithmetic", "float32"),
        ("public", "condition", "base_independent"),
        ("corpus", "name", "theirs.csv"),
        ("corpus", "split", "permutation"),
    ):
        altered = {**data, group: {**data[group], key: value}}
        (tmp_path / "altered.json").write_text(json.dumps({**altered, "certificate_sha256": digest(altered)}, indent=1) + "\n")
        assert [line.split(":")[0] for line in verify_arithmetic(tmp_path / "altered.json")] == [f"{group}.{key}"]
    write_rows("mine.csv", [*found[1:], found[0]])
    with pytest.raises(SubloraError, match="speaks of examples with sha256"):
        verify(run.folder / "certificate.json")


def test_verify_sees_other_names_of_the_classes(tmp_path):
    found = rows(200)
    write_rows("mine.csv", found)
    run = Run(settings(training__epochs=1), tmp_path / "runs")
    run.certify()
    write_rows("mine.csv", [(*texts, label.replace("billing, EU", "billing")) for *texts, label in found])
    assert [line.split(":")[0] for line in verify(run.folder / "certificate.json")] == ["public.classes[1]"]


def test_a_certificate_says_where_its_classes_are_from(tmp_path):
    """Without it iid would seem to hold for a source with other labels."""
    write_rows("mine.csv", rows(200))
    run = Run(settings(training__epochs=1), tmp_path / "runs")
    data = run.certify().data()
    assert data["public"].pop("classes_from") == "examples"
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(SubloraError, match="public.classes_from is examples where"):
        verify(path)
    fixed = Run(settings(name="fixed", task__classes=[*WORDS, "never"], training__epochs=1), tmp_path / "runs")
    certificate = fixed.certify()
    assert certificate.public.classes == [*WORDS, "never"] and "classes_from" not in certificate.data()["public"]
    assert "no other labels" not in sentences.guarantee_iid(certificate)
    assert verify(fixed.folder / "certificate.json") == []


def constant_answers(m, labels, trials, random):
    """(bounds, true errors) of always answering the first class, in `trials` samples of m labels, drawn from so many."""
    bounds, truths = [], []
    nats = complexity_nats(8, 0.05)
    for _ in range(trials):
        sample = random.integers(0, labels, m)
        first = np.sort(sample)[0]
        bounds.append(binomial_tail(int((sample != first).sum()), nats, m))
        truths.append(1 - 1 / labels)
    return np.array(bounds), np.array(truths)


def test_iid_with_the_classes_of_the_examples_holds_if_the_source_has_no_others():
    """Twin: a source whose labels never come again. The first class of the sample is then always wrong, which no bound says."""
    random = np.random.default_rng(0)
    bounds, truths = constant_answers(100, 4, 2000, random)  # each of 4 labels is in 100 examples, nearly always
    assert (bounds < truths).mean() <= 0.05
    bounds, truths = constant_answers(100, 10**15, 2000, random)
    assert (bounds < truths).mean() == 1


# --- reading


def test_every_format_has_the_same_examples_and_classes(tmp_path):
    labels = [10, 2, -1, 2]
    table = [{"text": f'so, "{i}"', "label": label} for i, label in enumerate(labels)] * 4
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    (tmp_path / "b.json").write_text(json.dumps(table), "utf-8")
    write_rows(tmp_path / "c.csv", [row.values() for row in table], ("text", "label"))
    write_rows(tmp_path / "d.csv", [(row["text"], float(row["label"])) for row in table], ("text", "label"))
    lines = ["label\ttext", *(f"{row['label']}\t{row['text']}" for row in table)]
    (tmp_path / "e.tsv").write_text("\r\n".join(lines) + "\r\n", "utf-8")
    pq.write_table(pa.Table.from_pylist([{**row, "label": float(row["label"])} for row in table]), tmp_path / "f.parquet")
    found = [load_task(task(source=str(path))) for path in sorted(tmp_path.glob("*.*"))]
    assert len(found) == 6 and {each.classes for each in found} == {("-1", "2", "10")}
    assert len({(each.pool.sha256, each.validation[HELD_OUT].sha256) for each in found}) == 1


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "B", "10", "9", "a b"], ("9", "10", "B", "a b", "b")),
        ([True, False], ("False", "True")),
        ([1, "1", 1.0, "1.0", "01"], ("1", "01")),
        ([" x", "x"], (" x", "x")),
    ],
)
def test_the_order_of_classes(tmp_path, labels, classes):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": "a", "label": label}) + "\n" for label in labels * 5), "utf-8")
    data = load_task(task(source="t.jsonl"))
    assert data.classes == classes
    numbers = [classes.index(class_name(label)) for label in labels * 5]
    drawn = sorted([*data.pool.labels, *data.validation[HELD_OUT].labels])
    assert drawn == sorted(numbers)


def test_the_held_out_part_is_drawn_apart_from_the_split(tmp_path):
    write_rows(tmp_path / "t.csv", [(str(i), i % 2) for i in range(1000)], ("text", "label"))
    data = load_task(task(split_seed=3, held_out=0.2))
    held_out, pool = ([int(text) for (text,) in each.texts] for each in (data.validation[HELD_OUT], data.pool))
    assert len(held_out) == 200 and sorted(held_out + pool) == list(range(1000))
    assert held_out == sorted(held_out) and pool == sorted(pool)
    assert set(held_out) != set(permutation(1000, 3)[:200].tolist()), "the same keys would tell what is drawn next"
    other = load_task(task(split_seed=4, held_out=0.2)).validation[HELD_OUT]
    assert other.sha256 != data.validation[HELD_OUT].sha256


def test_a_validation_file_is_read_with_the_same_classes(tmp_path):
    write_rows(tmp_path / "t.csv", [("x", "b"), ("y", "c"), ("z", "c")], ("text", "label"))
    write_rows(tmp_path / "v.csv", [("x", "c")], ("text", "label"))
    data = load_task(task(validation="v.csv"))
    assert len(data.pool) == 3 and data.validation["v"].labels.tolist() == [1]
    before = data_identity(task(validation="v.csv"))
    write_rows(tmp_path / "v.csv", [("x", "a")], ("text", "label"))
    assert data_identity(task(validation="v.csv")) != before
    with pytest.raises(SubloraError, match="v.csv: line 2: has the label 'a', which is none of b, c"):
        load_task(task(validation="v.csv"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("texte,label\na,1\nb,2\n", "t.csv: no texts: there is no column 'text'; did you mean 'texte'? there are: texte, label"),
        ("text, Labels\na,1\nb,2\n", "t.csv: no labels: there is no column 'label'; did you mean ' Labels'? there are"),
        ("text,label\na,1\nb\n", "t.csv: line 3: 1 cells, but the header has 2"),
        ('text,label\na,1\n"b,2\n', "t.csv: line 3: unexpected end of data"),
        ("text,label\na,\nb, \n", "t.csv: holds no example with a label"),
        ("text,label\n", "t.csv: holds no example"),
        ("", "t.csv: holds no example"),
        ("text,label\na,1\nb,1\nc,1\nd,1\n", "t.csv: all examples have the label '1'; a classifier needs two"),
        ("text,label\na,1\nb,2\nc,3\nd,4\n", "t.csv: column 'label': no label occurs twice in 4 examples; set task.label"),
        ("text,label,label\na,1,2\n", "t.csv: line 1: two columns have the same name 'label'"),
        ("text,label\na\rb,1\n", "t.csv: line 2: a carriage return in a cell"),
        ("text,label\na,1\nb,2\n", "t.csv: task.held_out 0.1 of 2 examples leaves too few"),
        ("x" * 9000 + "\x1b[2J,label\na,1\n", "there are: " + "x" * 100 + ", label"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_and_nothing_is_written(tmp_path, content, says):
    (tmp_path / "t.csv").write_bytes(content.encode())
    with pytest.raises(SubloraError) as error:
        Run(settings(task={"source": "t.csv"}), tmp_path / "runs").certify()
    assert says in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 300
    assert not list((tmp_path / "runs").rglob("*.json"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "a", "label": 0.5}, "line 2: a label is text, a whole number or a boolean, not a number with a fraction"),
        ({"text": "a", "label": ["x"]}, "line 2: a label is text, a whole number or a boolean, not of type list"),
        ({"text": 3, "label": "x"}, "line 2: a text is int, not text"),
        ({"text": "a", "gold": "x"}, "line 2: no 'label', which other rows have; there are: text, gold"),
        ({"text": "a", "label": float("inf")}, "line 2: a label is"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, says):
    first = json.dumps({"text": "a", "label": "x"})
    (tmp_path / "t.jsonl").write_text(f"{first}\n{json.dumps(row)}\n", "utf-8")
    with pytest.raises(SubloraError, match=f"t.jsonl: {says}"):
        load_task(task(source="t.jsonl"))


def test_rows_without_a_label_are_counted(tmp_path, capsys):
    table = [{"text": "a", "label": label} for label in ["x", None, "", "y", float("nan")] * 9]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    assert len(load_task(task(source="t.jsonl")).pool) == 16
    assert "note: t.jsonl: 27 of 45 rows are cut short or have no value, and are left out\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"source": "a.pdf"}, "key 'task.source': must be a file (.jsonl, "),
        ({"source": "a.csv", "name": "sst2"}, "name has no effect beside source; remove it"),
        ({"source": "a.csv", "path": "b.csv"}, "path has no effect beside source; remove it"),
        ({"text": ["a"]}, "text has no effect without source; remove it"),
        ({"source": "a.csv", "text": ["a", "label"]}, "the answer must not be in the text"),
        ({"source": "a.csv", "classes": ["a"]}, "must be a list of two or more classes"),
        ({"source": "a.csv", "classes": [1, "1"]}, "must be a list of two or more classes"),
        ({"source": "a.csv", "classes": [0.5, 1]}, "not a number with a fraction"),
        ({"source": "a.csv", "validation": "v.csv", "held_out": 0.3}, "held_out has no effect for a validation file"),
        ({"source": "a.csv", "validation": "v.csv", "split_seed": 3}, "split_seed has no effect for train 1"),
        ({"source": "a.csv", "lable": "x"}, "did you mean 'task.label'?"),
    ],
)
def test_settings_of_a_task_are_checked(values, says):
    with pytest.raises(SubloraError) as error:
        as_experiment({"kind": "classify", "name": "t", "task": values})
    assert says in str(error.value)


def test_a_task_by_name_is_stated_as_it_was():
    stated = Task(name="sst2", path="t.tsv").model_dump(mode="json")
    assert list(stated) == ["name", "path", "validation", "train", "split_seed", "max_length"]
    own = as_experiment(settings()).parameters()["task"]
    assert "name" not in own and "path" not in own and as_experiment({**settings(), "task": own}).parameters()["task"] == own


# --- the hub


def test_a_data_set_on_the_hub_is_read_like_a_file(tmp_path, monkeypatch):
    datasets, asked = pytest.importorskip("datasets"), []
    splits = {"train": [{"text": f"t{i}", "label": i % 3} for i in range(30)], "test": [{"text": "v", "label": 2}]}

    def load(name, **options):
        asked.append((name, options))
        return splits[options["split"]]

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_task(task(source="owner/name", validation="test"))
    assert (len(data.pool), data.classes, list(data.validation)) == (30, ("0", "1", "2"), ["test"])
    load_task(task(source="owner/name"), local_only=True)
    assert asked[-1][1]["download_config"].local_files_only, "a stranger's certificate does not choose what is downloaded"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in splits["train"]), "utf-8")
    assert load_task(task(source="t.jsonl", validation="t.jsonl")).pool.sha256 == data.pool.sha256


# --- models


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "gpt_neox"])
def test_any_encoder_or_causal_base(tmp_path, kind):
    folder = save_model(tmp_path / "model", kind)
    write_rows("mine.csv", rows(80))
    changes = {"model": {"source": "model"}, "subspace": {"dimension": 30, "rank": 2, "lora_alpha": 4.0}, "training__epochs": 1}
    run = Run(settings(**changes, task__max_length=8), tmp_path / "runs")
    certificate = run.certify()
    assert folder and len(certificate.public.classes) == 4 and certificate.public.condition == "base_independent"
    assert any("lora_" in name for name in run.model.names)
    assert verify(run.folder / "certificate.json") == []


def test_an_encoder_reads_no_third_column(tmp_path):
    values = settings(model={"source": "x"}, subspace={"dimension": 30}, task__text=["a", "b", "c"])
    with pytest.raises(SubloraError, match="task.text must be one or two columns"):
        as_experiment(values)


def words_message(buckets, labels, symbols):
    model = Words(buckets=buckets)
    coded = Coded(np.array([-1.0, 0.0, 1.0], np.float32), symbols)
    return classifier.encode(classifier.ClassifierMessage(model, as_experiment(settings()).subspace, coded))


def test_the_classes_make_the_head_as_large_as_the_message_must_say(tmp_path):
    experiment = as_experiment(settings())
    data = words_message(32, 4, np.arange(3 * 33) % 3)
    assert decode(data, experiment, 4).model.head.weight.shape == (3, 32)
    for labels in (2, 3, 5):
        with pytest.raises(MessageError):
            decode(data, experiment, labels)
    with pytest.raises(SubloraError, match="take fewer buckets"):
        classifier_base(Words(buckets=2**20), 4, 8)
    assert classifier_base(Words(buckets=2**10), LARGEST_HEAD // 1025 + 1, 8)
    with pytest.raises(MessageError, match="too many for 1,000 classes"):
        decode(words_message(2**20, 1000, np.arange(5) % 3), experiment, 1000)


def test_the_bounds_of_four_classes_by_hand(tmp_path):
    write_rows("mine.csv", rows(700))
    run = Run(settings(), tmp_path / "runs")
    certificate = run.certify()
    predicted, labels = run.evaluation.training, run.problem.training.labels
    errors, m = int((predicted != labels).sum()), len(labels)
    nats = (8 * len(run.message) + 20) * np.log(2) + np.log(20)
    tail = of(certificate, "iid", "binomial_tail")
    assert tail.empirical == errors / m and binom.logcdf(errors, m, tail.bound - 5e-5) == pytest.approx(-nats, rel=1e-6)
