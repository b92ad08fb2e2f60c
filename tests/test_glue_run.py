"""A GLUE task from its file to a verified certificate, on models made on the spot; and functions of packages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from tiny import NOTEBOOKS, write_params

from sublora.bounds.certificate import digest, write_certificate
from sublora.bounds.verify import verify
from sublora.config import Experiment
from sublora.errors import SubloraError
from sublora.finetune import Examples, load_task
from sublora.finetune.certificate import contents, draw_training, evaluate, reference
from sublora.finetune.message import FORMAT, decode, encode
from sublora.finetune.training import EpochSampler, LinearDecay, build, examples_batch, finetune

GOOD, BAD = ["lovely", "fine", "bright", "warm"], ["dull", "awful", "stale", "cold"]


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


def settings(path, **task):
    return {
        "name": "tiny-glue",
        "notebooks": ["glue"],
        "task": {
            "name": "sst2",
            "path": str(path),
            "model": "small",
            "modules": ["head"],
            "buckets": 64,
            "epochs": 4,
            "batch": 50,
            "learning_rate": 0.1,
            **task,
        },
        "subspace": {"parametrization": "lora", "dimension": None, "lora_dropout": 0.0},
        "training": {"validate_every": 8, "validation_documents": 100, "precision": "no"},
        "compression": {"levels": 3, "finetune_steps": 16, "finetune_learning_rate": 0.01, "rate_penalty": 0.05},
    }


def tiny_model(folder, kind="gpt2"):
    """A classifier of random weights with a tokenizer of whole words, saved as `from_pretrained` reads it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    words = ["<end>", "?", "the", "film", "was", "a", "story", *GOOD, *BAD]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", unk_token="?").save_pretrained(folder)
    torch.manual_seed(1)
    if kind == "gpt2":
        shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
        GPT2ForSequenceClassification(GPT2Config(vocab_size=len(words), pad_token_id=0, **shape)).save_pretrained(folder)
    else:
        shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
        BertForSequenceClassification(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder


def certified(values, folder):
    """(experiment, message, certificate) of a run in `folder`, without the notebook."""
    experiment = Experiment.from_parameters(values)
    pool, validation = load_task(experiment.task)
    model, sha256 = build(experiment)
    data = encode(finetune(model, draw_training(pool, experiment)[0], experiment, folder, sha256))
    evaluation = evaluate(data, pool, validation, experiment)
    certificate = contents(data, pool, validation, experiment, evaluation)
    return experiment, data, write_certificate(folder / "certificate.json", certificate, {"score": evaluation.seconds})


def of(certificate, assumption, inequality):
    keys = (assumption, inequality)
    (found,) = [b for b in certificate["bounds"] if (b["assumption"], b["inequality"]) == keys]
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, *certified(settings(write_sst2(folder / "data", 2000), train=0.6, epochs=2), folder)


def test_the_small_model_learns_and_its_bounds_are_ordered(small):
    _, experiment, data, certificate = small
    assert certificate["alpha"] is None and certificate["message_bits"] == 8 * len(data)
    m = certificate["corpus"]["documents"]
    assert (m, certificate["corpus"]["pool"]) == (1200, 2000)
    assert {b["units"] for b in certificate["bounds"]} == {b["evaluated"] for b in certificate["bounds"]} == {m}
    bounds = [of(certificate, "iid", name)["bound"] for name in ("binomial_tail", "kl", "hoeffding")]
    assert bounds == sorted(bounds)
    assert of(certificate, "iid", "kl")["nonvacuous"], "the label is in the words: anything that learns finds it"
    validation = certificate["held_out"][0]["value"]
    assert validation < bounds[0]


def test_iid_bounds_by_hand(small):
    """From the message's size and the count of errors alone, by formulas written here anew."""
    _, _, data, certificate = small
    m, tolerance = 1200, certificate["public"]["tolerance"]
    hoeffding, tail = (of(certificate, "iid", name) for name in ("hoeffding", "binomial_tail"))
    errors = round(hoeffding["empirical"] * m)
    nats = 8 * len(data) * math.log(2) + math.log(1 / 0.05)
    assert hoeffding["bound"] == pytest.approx(errors / m + math.sqrt(nats / (2 * m)) + tolerance, abs=1e-12)
    at_bound = binom.logcdf(errors, m, tail["bound"] - tolerance)
    assert at_bound == pytest.approx(-nats, rel=1e-6)


def test_vacuous_at_is_the_other_labels_share(small):
    _, experiment, _, certificate = small
    pool, _ = load_task(experiment.task)
    labels = draw_training(pool, experiment)[0].labels
    assert of(certificate, "iid", "kl")["vacuous_at"] == min(labels.mean(), 1 - labels.mean())


def test_unseen_examples_are_counted_apart(small):
    _, experiment, data, certificate = small
    assert [h["split"] for h in certificate["held_out"]] == ["dev", "unseen"]
    assert certificate["held_out"][1]["n"] == 800
    assert {b["assumption"] for b in certificate["bounds"]} == {"unseen", "iid", "pool"}
    assert not [b for b in certificate["bounds"] if b["assumption"] != "iid" and b["inequality"] == "binomial_tail"]
    assert certificate["held_out"][1]["value"] < of(certificate, "unseen", "betting")["bound"]


def test_all_of_the_file_to_train_on_leaves_iid_alone(tmp_path):
    values = settings(write_sst2(tmp_path / "data", 100), epochs=1)
    certificate = certified(values, tmp_path)[2]
    assert {b["assumption"] for b in certificate["bounds"]} == {"iid"}
    assert {b["pool"] for b in certificate["bounds"]} == {None}
    assert [h["split"] for h in certificate["held_out"]] == ["dev"]


def test_a_certificate_verifies(small):
    assert verify(small[0] / "certificate.json", Path("unused")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["bounds"][0].update(bound=c["bounds"][0]["bound"] - 0.01), "bounds["),
        (lambda c: c["reference"]["dev"].update(accuracy=0.123), "reference.dev.accuracy"),
        (lambda c: c["public"].update(base_weights_sha256="0" * 64), "public.base_weights_sha256"),
        (lambda c: c["corpus"].update(documents=1201), "corpus.documents"),
        (lambda c: c["held_out"][0].update(value=0.0123), "held_out["),
    ],
)
def test_verify_sees_what_was_altered(small, tmp_path, change, said):
    certificate = json.loads((small[0] / "certificate.json").read_text())
    change(certificate)
    for bound in certificate["bounds"]:
        bound["nonvacuous"] = bound["bound"] < bound["vacuous_at"]
    certificate["certificate_sha256"] = digest(certificate)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(certificate, indent=1) + "\n")
    assert [line for line in verify(path, Path("unused")) if line.startswith(said)]


def test_verify_refuses_other_data(small, tmp_path):
    certificate = json.loads((small[0] / "certificate.json").read_text())
    certificate["params"]["task"]["path"] = str(write_sst2(tmp_path / "other", 300))
    certificate["certificate_sha256"] = digest(certificate)
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(certificate, indent=1) + "\n")
    with pytest.raises(SubloraError, match="speaks of examples with sha256"):
        verify(path, Path("unused"))


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("modules", [["attention", "head"], ["head"]])
def test_any_classifier_from_a_folder(tmp_path, kind, modules):
    """Pretrained weights and random ones; what is trained is in the message, and verify decodes the same model."""
    folder = tiny_model(tmp_path / "model", kind)
    task = {"model": str(folder), "modules": modules, "load_pretrained": modules == ["head"], "max_length": 8, "epochs": 1}
    values = settings(write_sst2(tmp_path / "data", 100), **task, accumulation=2, learning_rate=0.05)
    values["subspace"] = {"dimension": 30, "rank": 2, "lora_alpha": 4.0}
    experiment, data, certificate = certified(values, tmp_path)
    assert data[1 + (data[0] > 127)] == FORMAT
    message = decode(data, experiment.task, 1000)
    assert (len(message.symbols), message.subspace.dimension, message.task.modules) == (30, 30, tuple(modules))
    assert ("condition" in certificate["public"]) == (modules == ["head"])
    assert verify(tmp_path / "certificate.json", Path("unused")) == []


def test_pretrained_weights_that_changed_are_noticed(tmp_path):
    folder = tiny_model(tmp_path / "model")
    values = settings(write_sst2(tmp_path / "data", 60), model=str(folder), max_length=8, epochs=1)
    values["compression"]["finetune_steps"] = 0
    certified(values, tmp_path)
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 3] += 1e-3
    model.save_pretrained(folder)
    wrong = verify(tmp_path / "certificate.json", Path("unused"))
    assert [line for line in wrong if line.startswith("public.base_weights_sha256")]


def test_predictions_do_not_depend_on_padding(tmp_path):
    """A sentence alone and among longer ones: the same logits, though GPT-2 pads with its end token."""
    values = settings(write_sst2(tmp_path / "data", 60), model=str(tiny_model(tmp_path / "model")), max_length=16)
    model, _ = build(Experiment.from_parameters(values))
    texts = [("the film was lovely",), ("a story",), ("the film was a dull stale story the film was a story",)]
    together = model.module.encode(texts)
    both = model.eval()(torch.from_numpy(together.ids.astype(np.int64)))
    for i, text in enumerate(texts):
        alone = model(torch.from_numpy(model.module.encode([text]).ids.astype(np.int64)))
        assert torch.allclose(alone[0], both[i], atol=1e-6)


def test_interrupted_training_goes_on_to_the_same_message(tmp_path, monkeypatch):
    values = settings(write_sst2(tmp_path / "data", 200))
    straight = certified(values, tmp_path / "straight")[1]
    experiment = Experiment.from_parameters(values)
    training = draw_training(load_task(experiment.task)[0], experiment)[0]
    batch, calls = EpochSampler.batch, []

    def failing(self, step, examples):
        calls.append(step)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return batch(self, step, examples)

    monkeypatch.setattr(EpochSampler, "batch", failing)
    model, sha256 = build(experiment)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, training, experiment, tmp_path / "again", sha256)
    model, sha256 = build(experiment)
    assert encode(finetune(model, training, experiment, tmp_path / "again", sha256)) == straight
    assert calls.count(8) == 3, "steps from the checkpoint on alone are made again (8 is in both phases)"


def test_every_epoch_has_each_example_once_and_the_rate_falls_to_zero():
    n = 70
    lengths = np.full(n, 3)
    encoded = type("E", (), {"ids": np.arange(n * 3).reshape(n, 1, 3).astype(np.int32), "lengths": lengths})()
    sampler = EpochSampler(encoded, np.zeros(n, np.int64), seed=3)
    seen = torch.cat([sampler.batch(step, 10).inputs[:, 0, 0] for step in range(14)])
    for epoch in (seen[:n], seen[n:]):
        assert sorted(epoch.tolist()) == list(range(0, 3 * n, 3))
    assert seen[:n].tolist() != seen[n:].tolist()
    fields = {name: 1 for name in LinearDecay.__dataclass_fields__}
    schedule = LinearDecay(**{**fields, "steps": 10, "warmup": 2, "learning_rate": 1.0})
    np.testing.assert_allclose([schedule.rate(s) for s in range(10)], [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_batch_weighs_its_examples_equally():
    encoded = type("E", (), {"ids": np.ones((5, 1, 20), np.int32), "lengths": np.array([1, 2, 3, 17, 20])})()
    batch = examples_batch(encoded, np.arange(5), np.array([0, 2]))
    assert batch.inputs.shape == (2, 1, 16) and batch.targets.tolist() == [[0], [2]]
    assert batch.weights.sum() == 1


def test_reference_by_the_textbook():
    """Matthews' correlation of two classes by its own formula; a tie (-1) is an error of its label."""
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 1])
    predicted = np.array([1, 0, 1, 0, 1, 0, 0, 1, 1, 0])
    tp, tn, fp, fn = 3, 3, 2, 2
    found = reference(predicted, labels, 2)
    assert found["accuracy"] == 0.6 and found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["matthews"] == pytest.approx((tp * tn - fp * fn) / root)
    assert reference(np.full(10, -1), labels, 2)["accuracy"] == 0
    assert reference(np.ones(10, np.int64), labels, 2)["matthews"] == 0


def test_an_empty_share_is_refused():
    pool = Examples([("a",)] * 3, np.zeros(3, np.int64))
    for share in (0.01, 0.99):
        experiment = Experiment.from_parameters(settings("x", train=share))
        with pytest.raises(SubloraError, match="task.train"):
            draw_training(pool, experiment)


def test_the_command_from_params_to_report_tables(tmp_path, monkeypatch, sublora):
    """`sublora run` with the real notebook, a second run that keeps it, `sublora verify`, and the certificate's own page."""
    monkeypatch.chdir(tmp_path)
    write_sst2(tmp_path / "data", 200)
    write_params(tmp_path / "tiny.yaml", settings("data/train.tsv", epochs=1))
    status, out, err = sublora("run", "tiny.yaml", "--notebooks", NOTEBOOKS)
    assert status == 0, err
    path = tmp_path / "runs" / "tiny-glue" / "certificate.json"
    assert sublora("verify", path)[0] == 0
    assert "kept" in sublora("run", "tiny.yaml", "--notebooks", NOTEBOOKS)[1]
    status, _, err = sublora("run", write_params_without_file(tmp_path), "--notebooks", NOTEBOOKS)
    assert status == 1 and "data/absent.tsv" in err and err.count("\n") == 1


def write_params_without_file(folder):
    path = folder / "absent.yaml"
    write_params(path, settings("data/absent.tsv"))
    return path


def test_unseen_bounds_hold_for_the_others_of_the_pool(tmp_path):
    """A classifier that memorizes nothing (one bit of choice) on five splits: the unseen error stays below each unseen bound."""
    path = write_sst2(tmp_path / "data", 300)
    for seed in range(5):
        values = settings(path, train=0.5, split_seed=seed, buckets=2, epochs=1)
        values["compression"]["finetune_steps"] = 0
        certificate = certified(values, tmp_path / str(seed))[2]
        truth = certificate["held_out"][1]["value"]
        pool = (certificate["bounds"][0]["empirical"] * 150 + truth * 150) / 300
        for bound in certificate["bounds"]:
            assert {"unseen": truth, "pool": pool, "iid": 0.0}[bound["assumption"]] < bound["bound"]


def write_packages(folder):
    """Two folders of Python files: functions that say which they are from, a few that both have, and more in the second."""
    random = np.random.default_rng(0)
    folders = (folder / "networkx", folder / "sympy")
    for package, n, word in zip(folders, (900, 1100), ("graph", "symbol"), strict=True):
        package.mkdir(parents=True)
        names = [[*random.choice(["add", "find", "walk"], 3).tolist(), word] for _ in range(n)]
        functions = [f"def f{i}(x):\n    return {'(x) + '.join(words)}(x)\n" for i, words in enumerate(names)]
        both = [f"def same{i}(x):\n    return x\n" for i in range(20)]
        (package / "code.py").write_text("\n".join([*functions, *both]), "utf-8")
    return folders


def test_functions_of_packages_make_a_certificate(tmp_path, monkeypatch):
    folders = write_packages(tmp_path)
    monkeypatch.setattr("sublora.finetune.functions.package_folders", lambda: folders)
    values = settings("x", name="functions", train=0.7, epochs=12)
    values["task"]["path"] = None
    certificate = certified(values, tmp_path)[2]
    assert certificate["public"]["classes"] == ["networkx", "sympy"]
    assert (certificate["corpus"]["pool"], certificate["corpus"]["documents"]) == (1440, 1008)
    assert [h["split"] for h in certificate["held_out"]] == ["validation", "unseen"]
    assert of(certificate, "unseen", "betting")["nonvacuous"]
    assert verify(tmp_path / "certificate.json", Path("unused")) == []
    (folders[0] / "code.py").write_text("def other(): pass\n" * 2 + "def third(): pass\n", "utf-8")
    with pytest.raises(SubloraError, match="speaks of examples with sha256"):
        verify(tmp_path / "certificate.json", Path("unused"))
