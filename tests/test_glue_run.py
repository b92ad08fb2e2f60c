"""A GLUE task from its file to a verified certificate, on models made on the spot; and functions of packages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from tiny import NOTEBOOKS, write_params
from tiny_models import save_model

from sublora.certificate.schema import digest
from sublora.certificate.statements import DETERMINISM
from sublora.data.labelled import Examples
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.message import unwrapped
from sublora.message.classifier import FORMAT, decode
from sublora.models.classifiers import Encoded
from sublora.problems.labels import draw_training
from sublora.run import Run
from sublora.scoring.labels import usual_scores
from sublora.training.examples import EpochSampler, LinearDecay, examples_batch
from sublora.verification import verify

GOOD, BAD = ["good", "fine"], ["dull", "bad", "stale"]


def write_sst2(folder, examples=400):
    """Sentences whose label is in one word of theirs, in SST-2's format; the same every time."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("train", examples), ("dev", 60)):
        rows = ["sentence\tlabel"]
        for _ in range(n):
            label = int(random.random() < 0.55)
            words = random.choice(["the", "film", "was", "a", "story"], 4).tolist() + [str(random.choice((BAD, GOOD)[label]))]
            rows.append(f"{' '.join(words)} \t{label}")
        (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder / "train.tsv"


def settings(path, **changes):
    """A bag of words on such files; `group__key=value` changes one of its settings, `key=value` a whole one."""
    values = {
        "kind": "classify",
        "name": "tiny",
        "task": {"path": str(path)},
        "model": {"buckets": 64},
        "subspace": {"parametrization": "lora", "modules": ["head"]},
        "training": {"epochs": 4, "batch": 50, "learning_rate": 0.1, "validate_every": 8, "watched_examples": 100},
        "compression": {"levels": 3, "finetune_steps": 16, "finetune_learning_rate": 0.01, "rate_penalty": 0.05},
    }
    values["training"]["precision"] = "no"
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (values[group] if group else values)[name] = value
    return values


def encoder(folder, modules, load_pretrained=True):
    """The settings that take a model from a folder."""
    return {
        "model": {"source": folder, "load_pretrained": load_pretrained},
        "subspace": {"dimension": 30, "modules": modules} | ({"rank": 2, "lora_alpha": 4.0} if "attention" in modules else {}),
        "task__max_length": 8,
        "training__epochs": 1,
        "training__learning_rate": 0.05,
    }


def certified(values, folder):
    """(run, certificate) below a folder, without the notebook."""
    run = Run(values, folder)
    return run, run.certify()


def write(certificate, path):
    """Its data as a file with a fresh digest."""
    data = {**certificate, "certificate_sha256": digest(certificate)}
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    return path


def of(certificate, assumption, inequality):
    keys = (assumption, inequality)
    (found,) = [bound for bound in certificate.statements if (bound.assumption, bound.inequality) == keys]
    return found


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch, tmp_path_factory):
    """A certificate's places lead into the current folder, or are not followed."""
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    return certified(settings(write_sst2(folder / "data", 2000), task__train=0.6, training__epochs=2), folder)


def test_a_bag_of_words_learns_and_its_bounds_are_ordered(words):
    run, certificate = words
    assert certificate.alpha is None and certificate.message_bits == 8 * len(run.message)
    m = certificate.corpus.documents
    assert (m, certificate.corpus.pool) == (1200, 2000)
    assert {count for bound in certificate.statements for count in (bound.units, bound.evaluated)} == {m}
    bounds = [of(certificate, "iid", name).bound for name in ("binomial_tail", "kl", "hoeffding")]
    assert bounds == sorted(bounds)
    assert of(certificate, "iid", "kl").nonvacuous, "the label is in the words: anything that learns finds it"
    assert certificate.held_out[0].value < bounds[0]


def test_iid_bounds_by_hand(words):
    """From the message's size and the count of errors alone, by formulas written here anew."""
    run, certificate = words
    m, tolerance = 1200, DETERMINISM["errors"]
    hoeffding, tail = (of(certificate, "iid", name) for name in ("hoeffding", "binomial_tail"))
    errors = round(hoeffding.empirical * m)
    nats = (8 * len(run.message) + 20) * math.log(2) + math.log(1 / 0.05)  # log2 J are 20 bits
    assert hoeffding.bound == pytest.approx(errors / m + math.sqrt(nats / (2 * m)) + tolerance, abs=1e-12)
    assert binom.logcdf(errors, m, tail.bound - tolerance) == pytest.approx(-nats, rel=1e-6)


def test_vacuous_at_is_the_other_labels_share(words):
    run, certificate = words
    share = run.problem.training.labels.mean()
    assert of(certificate, "iid", "kl").vacuous_at == min(share, 1 - share)


def test_unseen_examples_are_counted_apart(words):
    certificate = words[1]
    assert [value.split for value in certificate.held_out] == ["dev", "unseen"] and certificate.held_out[1].n == 800
    assert {bound.assumption for bound in certificate.statements} == {"unseen", "iid", "pool"}
    assert {bound.assumption for bound in certificate.statements if bound.inequality == "binomial_tail"} == {"iid"}
    assert certificate.held_out[1].value < of(certificate, "unseen", "betting").bound


def test_all_of_the_file_to_train_on_leaves_iid_alone(tmp_path):
    certificate = certified(settings(write_sst2(tmp_path / "data", 100), training__epochs=1), tmp_path)[1]
    assert {(bound.assumption, bound.pool) for bound in certificate.statements} == {("iid", None)}
    assert [value.split for value in certificate.held_out] == ["dev"]


def test_a_certificate_verifies_and_states_what_the_message_says(words, tmp_path):
    run, certificate = words
    assert verify(run.folder / "certificate.json", run.corpora) == []
    altered = {"buckets": 65, "hashes": 2, "seed": 1, "prefix": 3}
    for group, key, value in (*(("model", *pair) for pair in altered.items()), ("compression", "levels", 7)):
        data = certificate.data()
        data["params"][group] = {**data["params"][group], key: value}
        wrong = verify(write(data, tmp_path / "certificate.json"), run.corpora)
        assert [line.split(":")[0] for line in wrong] == [f"params.{group}.{key}"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["bounds"][0].update(bound=c["bounds"][0]["bound"] - 0.01), "bounds["),
        (lambda c: c["reference"]["dev"].update(accuracy=0.123), "reference.dev.accuracy"),
        (lambda c: c["reference"]["dev"].pop("f1"), "reference.dev:"),
        (lambda c: c["reference"].pop("dev"), "reference:"),
        (lambda c: c["public"].update(base_weights_sha256="0" * 64), "public.base_weights_sha256"),
        (lambda c: c["corpus"].update(documents=1201), ("corpus.documents", "bounds[", "paper_accounting")),
        (lambda c: c["held_out"][0].update(value=0.0123), "held_out["),
    ],
)
def test_verify_sees_what_was_altered(words, tmp_path, change, said):
    run, certificate = words
    data = certificate.data()
    change(data)
    for bound in data["bounds"]:
        bound["nonvacuous"] = bound["bound"] < bound["vacuous_at"]
    wrong = verify(write(data, tmp_path / "certificate.json"), run.corpora)
    assert wrong and all(line.startswith(said) for line in wrong)


def test_verify_refuses_other_data(words, tmp_path):
    data = words[1].data()
    data["params"]["task"]["path"] = str(write_sst2(tmp_path / "other", 300))
    with pytest.raises(SubloraError, match="speaks of examples with sha256"):
        verify(write(data, tmp_path / "certificate.json"), words[0].corpora)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("modules", [["attention", "head"], ["head"]])
def test_any_classifier_from_a_folder(tmp_path, kind, modules):
    """Pretrained weights and random ones; what is trained is in the message, and verify decodes the same model."""
    folder, pretrained = save_model(tmp_path / "model", kind), modules == ["head"]
    values = settings(write_sst2(tmp_path / "data", 100), **encoder(folder, modules, pretrained), training__accumulation=2)
    run, certificate = certified(values, tmp_path)
    configuration, behind = unwrapped(run.message)
    assert configuration["model_type"] == kind and behind[1 + (behind[0] > 127)] == FORMAT
    message = decode(behind, run.experiment.model, 1000)
    assert (len(message.coded.symbols), message.subspace.dimension, message.subspace.modules) == (30, 30, tuple(modules))
    assert certificate.public.condition == "base_independent", "of random weights, the tokenizer is from the folder"
    assert verify(run.folder / "certificate.json", run.corpora) == []


@pytest.mark.parametrize("subspace", [{"parametrization": "full"}, {"parametrization": "subspace", "dimension": 20}], ids=str)
def test_a_classifiers_own_weights_are_moved_and_quantized(tmp_path, subspace):
    folder = save_model(tmp_path / "model", "bert")
    values = settings(write_sst2(tmp_path / "data", 100), **encoder(folder, ["head"])) | {"subspace": subspace}
    run, certificate = certified(values, tmp_path)
    weights = sum(parameter.numel() for parameter in run.model.module.parameters())
    assert run.model.projector.shape == (weights, subspace.get("dimension", weights))
    assert {"dimension": None, **subspace}.items() <= certificate.params["subspace"].items()
    assert verify(run.folder / "certificate.json", run.corpora) == []


def other_weights(folder):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 3] += 1e-3
    model.save_pretrained(folder)


def labels_in_the_tokenizer(folder):
    """Each text becomes a word that is its label: what a tokenizer could tell a model, at no cost in the message."""
    path = Path(folder) / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    said = [("good", GOOD), ("bad", BAD)]
    rules = [{"type": "Replace", "pattern": {"Regex": f".*({'|'.join(words)}).*"}, "content": word} for word, words in said]
    path.write_text(json.dumps({**data, "normalizer": {"type": "Sequence", "normalizers": rules}}), "utf-8")


def other_activation(folder):
    path = Path(folder) / "config.json"
    path.write_text(path.read_text("utf-8").replace("gelu_new", "relu"), "utf-8")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (other_weights, "base_weights_sha256"),
        (labels_in_the_tokenizer, "tokenizer_sha256"),
        (other_activation, "configuration_sha256"),
    ],
)
def test_a_pretrained_base_that_changed_is_noticed(tmp_path, change, key):
    folder = save_model(tmp_path / "model")
    values = settings(write_sst2(tmp_path / "data", 60), **encoder(folder, ["head"]), compression={"levels": 3})
    run, certificate = certified(values, tmp_path)
    change(folder)
    wrong = verify(run.folder / "certificate.json", run.corpora)
    if key == "configuration_sha256":  # the message has the configuration
        assert wrong == [] and unwrapped(run.message)[0]["activation_function"] == "gelu_new"
    else:
        assert [line for line in wrong if line.startswith(f"public.{key}")]
    differs = "model.architecture.activation_function" if key == "configuration_sha256" else f"base.{key}"
    with pytest.raises(SubloraError, match=f"the checkpoint has {differs}"):
        Run(values, tmp_path).train()


def test_interrupted_training_goes_on_to_the_same_message(tmp_path, monkeypatch):
    values = settings(write_sst2(tmp_path / "data", 200))
    straight = Run(values, tmp_path / "straight").message
    batch, calls = EpochSampler.batch, []

    def failing(self, step, examples):
        calls.append(step)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return batch(self, step, examples)

    monkeypatch.setattr(EpochSampler, "batch", failing)
    with pytest.raises(KeyboardInterrupt):
        Run(values, tmp_path / "again").compress()
    assert Run(values, tmp_path / "again").message == straight
    assert calls.count(8) == 3, "steps from the checkpoint on alone are made again (8 is in both phases)"


def test_every_epoch_has_each_example_once_and_the_rate_falls_to_zero():
    n = 70
    lengths = np.full(n, 3)
    encoded = Encoded(np.arange(n * 3).reshape(n, 1, 3).astype(np.int32), lengths)
    sampler = EpochSampler(encoded, np.zeros(n, np.int64), seed=3)
    seen = torch.cat([sampler.batch(step, 10).inputs[:, 0, 0] for step in range(14)])
    for epoch in (seen[:n], seen[n:]):
        assert sorted(epoch.tolist()) == list(range(0, 3 * n, 3))
    assert seen[:n].tolist() != seen[n:].tolist()
    fields = {name: 1 for name in LinearDecay.__dataclass_fields__}
    schedule = LinearDecay(**{**fields, "steps": 10, "warmup": 2, "learning_rate": 1.0})
    np.testing.assert_allclose([schedule.rate(s) for s in range(10)], [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_batch_weighs_its_examples_equally():
    encoded = Encoded(np.ones((5, 1, 20), np.int32), np.array([1, 2, 3, 17, 20]))
    batch = examples_batch(encoded, np.arange(5), np.array([0, 2]))
    assert batch.inputs.shape == (2, 1, 16) and batch.targets.tolist() == [[0], [2]]
    assert batch.weights.sum() == 1


def test_usual_scores_by_the_textbook():
    """Matthews' correlation of two classes by its own formula; a tie (-1) is an error of its label."""
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 1])
    predicted = np.array([1, 0, 1, 0, 1, 0, 0, 1, 1, 0])
    tp, tn, fp, fn = 3, 3, 2, 2
    found = usual_scores(predicted, labels, 2)
    assert found["accuracy"] == 0.6 and found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["matthews"] == pytest.approx((tp * tn - fp * fn) / root)
    assert usual_scores(np.full(10, -1), labels, 2)["accuracy"] == 0
    assert usual_scores(np.ones(10, np.int64), labels, 2)["matthews"] == 0


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_an_empty_share_is_refused(share):
    pool = Examples([("a",)] * 3, np.zeros(3, np.int64))
    with pytest.raises(SubloraError, match="task.train"):
        draw_training(pool, as_experiment(settings("x", task__train=share)))


def test_the_command_from_params_to_report_tables(tmp_path, monkeypatch, sublora):
    """`sublora run` with the real notebook, a second run that keeps it, `sublora verify`, and the certificate's own page."""
    monkeypatch.chdir(tmp_path)
    write_sst2(tmp_path / "data", 200)
    write_params(tmp_path / "tiny.yaml", settings("data/train.tsv", training__epochs=1))
    status, out, err = sublora("run", "tiny.yaml", "--notebooks", NOTEBOOKS)
    assert status == 0, err
    path = tmp_path / "runs" / "tiny" / "certificate.json"
    status, _, err = sublora("verify", path)
    assert status == 0, err
    assert "kept" in sublora("run", "tiny.yaml", "--notebooks", NOTEBOOKS)[1]
    absent = write_params(tmp_path / "absent.yaml", settings("data/absent.tsv"))
    status, _, err = sublora("run", absent, "--notebooks", NOTEBOOKS)
    assert status == 1 and "data/absent.tsv" in err and err.count("\n") == 1


def test_unseen_bounds_hold_for_the_others_of_the_pool(tmp_path):
    """A classifier that memorizes nothing (one bit of choice) on five splits: the unseen error stays below each unseen bound."""
    path = write_sst2(tmp_path / "data", 300)
    for seed in range(5):
        values = settings(path, task={"path": str(path), "train": 0.5, "split_seed": seed}, model={"buckets": 2})
        values["training"]["epochs"], values["compression"] = 1, {"levels": 3}
        certificate = certified(values, tmp_path / str(seed))[1]
        truth = certificate.held_out[1].value
        pool = (certificate.statements[0].empirical * 150 + truth * 150) / 300
        for bound in certificate.statements:
            assert {"unseen": truth, "pool": pool, "iid": 0.0}[bound.assumption] < bound.bound


def functions_of_packages():
    """Functions of two packages, which say which they are from; a few are in both, and the second has more."""
    random, found = np.random.default_rng(0), {}
    for package, n, word in zip(("networkx", "sympy"), (900, 1100), ("graph", "symbol"), strict=True):
        names = [[*random.choice(["add", "find", "walk"], 3).tolist(), word] for _ in range(n)]
        functions = [f"def f{i}(x):\n    return {'(x) + '.join(words)}(x)\n" for i, words in enumerate(names)]
        found[package] = functions + [f"def same{i}(x):\n    return x\n" for i in range(20)]
    return found


def test_functions_of_packages_make_a_certificate(tmp_path, monkeypatch):
    found = functions_of_packages()
    monkeypatch.setattr("sublora.data.labelled.package_functions", lambda pins, folder: iter(found[pins[0].split("==")[0]]))
    run, certificate = certified(settings("x", task={"name": "functions", "train": 0.7}, training__epochs=12), tmp_path)
    assert certificate.public.classes == ["networkx", "sympy"]
    assert (certificate.corpus.pool, certificate.corpus.documents) == (1440, 1008)
    assert [value.split for value in certificate.held_out] == ["validation", "unseen"]
    assert of(certificate, "unseen", "betting").nonvacuous
    assert verify(run.folder / "certificate.json", run.corpora) == []
    found["networkx"] = ["def other(): pass\n", "def third(): pass\n"]
    with pytest.raises(SubloraError, match="speaks of examples with sha256"):
        verify(run.folder / "certificate.json", run.corpora)
