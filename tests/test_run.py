"""A run from Python: lazy, resumable, and its results as a table, a language model, and a certificate that lasts."""

import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from certificates import certificate, classifier_certificate, write_run
from filelock import FileLock
from tiny import settings, write_params, write_texts

import sublora
from sublora import problems
from sublora.errors import SubloraError
from sublora.experiment import Gpt, Pretrain, kinds
from sublora.reporting.reading import number
from sublora.run import HELD, Run, alone, load_runs
from sublora.training import Sampler
from sublora.verification import Verdict, verify


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("run") / "texts", 400)


@pytest.fixture(scope="module")
def made(texts, tmp_path_factory):
    """A run that has ended, with its `certificate` and the `path` of it."""
    run = Run(settings(texts), tmp_path_factory.mktemp("made") / "runs")
    run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


def claims(of):
    """A certificate as data, without what no one can compute again."""
    return {**of.data(), "environment": None, "certificate_sha256": None}


# --- steps


def test_what_is_asked_for_is_done_and_no_more(texts, tmp_path, monkeypatch):
    run = Run(settings(texts), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(run.problem.store) == 400 and [path.name for path in tmp_path.iterdir()] == ["corpora"]
    log = run.train()
    assert log["step"].tolist() == [10, 20] and run.train() is log
    assert not (run.folder / "quantize.safetensors").exists()
    assert run.compress()["step"].tolist() == [10]
    assert not (run.folder / "scores").exists()
    assert len(run.message) == len(run.draft)
    assert not (run.folder / "certificate.json").exists()
    assert repr(run) == f"<run tiny in {tmp_path}/tiny>"


def test_the_last_step_does_those_before_it_and_it_verifies(made):
    assert verify(made.path, made.corpora) == []
    assert sublora.load_certificate(made.path) == made.certificate
    assert made.certificate.environment.seconds.keys() == {"pretrain", "quantize", "score"}


def test_a_second_run_reads_what_the_first_has_done(made, monkeypatch):
    monkeypatch.setattr(Sampler, "batch", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("sublora.scoring.scores._looked_at", lambda *_: pytest.fail("scored again"))
    again = Run(made.settings, made.folder.parent)
    assert claims(again.certify()) == claims(made.certificate)


@pytest.mark.parametrize("at", [7, 15])
def test_an_interrupted_run_ends_with_the_same_certificate(made, texts, tmp_path, monkeypatch, at):
    original = Sampler.batch

    def interrupted(self, step, sequences):
        if step == at:
            raise KeyboardInterrupt
        return original(self, step, sequences)

    run = Run(settings(texts), tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Sampler, "batch", interrupted)
        run.certify()
    assert claims(run.certify()) == claims(made.certificate)


@pytest.fixture
def copied(made, texts, tmp_path):
    """A function: the finished run in a folder of this test, with changed settings."""
    shutil.copytree(made.folder, tmp_path / "tiny")
    return lambda **changes: Run(settings(texts, **changes), tmp_path)


def test_changed_settings_are_named_and_replace_the_run(copied, capsys):
    assert copied().certify() and "settings changed" not in capsys.readouterr().out
    run = copied(training__steps=15, model__seed=2)
    assert run.train()["step"].tolist() == [10, 15]
    said = "tiny: settings changed: model.seed 0 -> 2, training.steps 20 -> 15; replacing what depends on them\n"
    assert capsys.readouterr().out == said
    assert not (run.folder / "certificate.json").exists() and not (run.folder / "scores").exists()
    run.certify()
    assert capsys.readouterr().out == "", "it is said once"


def test_with_other_bounds_the_training_remains(copied, monkeypatch, capsys):
    monkeypatch.setattr(Sampler, "batch", lambda *_: pytest.fail("trained again"))
    run = copied(bounds__documents=90)
    run.train()
    assert "bounds.documents 100 -> 90; replacing" in capsys.readouterr().out
    assert {path.name for path in run.folder.iterdir()} == {
        "made-by-sublora.txt",
        "params.yaml",
        "pretrain.safetensors",
        "quantize.safetensors",
        "metrics.csv",
        "precision.txt",
        "tensorboard",
    }
    assert run.certify().public.evaluated == {"document": 90} and verify(run.folder / "certificate.json", run.corpora) == []


def test_the_notebooks_that_show_a_run_are_no_setting_of_it(copied, capsys):
    run = copied(notebooks=["pretrain"])
    run.train()
    assert capsys.readouterr().out == "" and (run.folder / "certificate.json").exists()


def test_two_processes_are_not_at_work_in_one_folder(copied):
    run = copied(model__seed=2)
    with FileLock(run.folder.parent / ".tiny.lock"):
        for step in (run.train, run.compress, run.certify):
            with pytest.raises(SubloraError, match="another run is at work here"):
                step()
        assert (run.folder / "certificate.json").exists(), "nothing is deleted"
    run.train()
    with alone(run.folder):  # as `sublora run` is while it executes the notebooks that hold a `Run`
        assert run.compress() is not None
    assert HELD not in os.environ


def test_a_run_is_made_from_a_file_from_data_or_from_an_experiment(texts, tmp_path):
    path = write_params(tmp_path / "tiny.yaml", settings(texts))
    assert Run(path).settings == Run(str(path)).settings == Run(settings(texts)).settings == Run(Run(path).settings).settings
    assert Run(path, overrides=["training.steps=12"]).settings.training.steps == 12
    with pytest.raises(SubloraError, match="unknown key 'modle'; did you mean 'model'"):
        Run({"name": "tiny", "modle": {}})


# --- the package's own names


def test_the_package_offers_five_names_and_imports_torch_for_none_of_them_before_it_must():
    code = """
import sys, sublora
assert {"Run", "load_runs", "load", "verify", "load_certificate"} <= set(dir(sublora))
sublora.load_certificate
assert not {"torch", "transformers", "pandas"} & set(sys.modules), "slow to import"
sublora.Run, sublora.load_runs, sublora.load, sublora.verify
assert "torch" in sys.modules
try:
    sublora.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("module 'sublora' has no attribute 'nothing'\n", "")


# --- the language model of a certificate


def test_bits_of_a_text_are_those_that_the_certificate_counts(made):
    model, store = sublora.load(made.path), made.problem.store
    scores = made.evaluation.held_out["document"]
    compared = 0
    for unit, place in enumerate(scores.places):
        tokens = store.document(made.problem.split.test[place])
        if len(tokens) <= made.experiment.model.block:  # one window
            ours = model.bits(model.tokenizer.decode(tokens[:-1]))
            theirs = -scores.log_probability[scores.offsets[unit] : scores.offsets[unit + 1]].sum() / math.log(2)
            assert ours == pytest.approx(theirs, abs=1e-3)
            compared += 1
    assert compared > 5


def test_a_longer_text_is_cut_into_windows_and_likely_text_has_fewer_bits(made):
    model = sublora.load(str(made.path))
    likely = "7: " + 20 * "one two three "
    assert len(likely) > 4 * made.experiment.model.block
    assert 0 < model.bits("") < model.bits(likely) < model.bits(likely[::-1].upper())


def test_it_generates_what_the_command_samples(made, request):
    model, command = sublora.load(made.path), request.getfixturevalue("sublora")
    text = model.generate("12: ", max_new_tokens=20, smoothing=0.1, seed=3)
    options = ("--prompt", "12: ", "--tokens", "20", "--smoothing", "0.1", "--seed", "3")
    assert command("sample", made.path, *options) == (0, text + "\n", "")
    assert text.startswith("12: ") and model.generate("12: ", max_new_tokens=0) == "12: "
    assert len({model.generate("", 20, seed=seed) for seed in range(5)}) > 1


def test_a_classifier_writes_no_text(tmp_path):
    with pytest.raises(SubloraError, match="certifies a classifier, which writes no text"):
        sublora.load(write_run(tmp_path, classifier_certificate()))


def test_results_show_themselves_in_a_line(made):
    assert str(made.certificate) == repr(made.certificate) == f"<certificate of tiny: {len(made.certificate.statements)} bounds>"
    weights = sum(p.numel() for p in made.model.materialized().parameters())
    assert repr(sublora.load(made.path)) == f"<language model of {weights:,} weights, reads windows of 32 tokens of bytes>"
    assert repr(sublora.verify(made.path, made.corpora)) == "verified: the model and every bound agree"
    assert repr(Verdict(["alpha: another", "delta: another"])) == "NOT verified\nalpha: another\ndelta: another"


def strings(data):
    """Every text in plain data."""
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else []
    return [data] if isinstance(data, str) else [text for part in parts for text in strings(part)]


def test_a_certificate_holds_no_sentences(made):
    """`verify` compares texts letter by letter. What explains is in the schema and in `reporting`, free to be reworded."""
    data = {key: value for key, value in made.certificate.data().items() if key != "environment"}
    assert [text for text in strings(data) if " " in text] == []


# --- tables of runs


def test_runs_are_a_table_of_what_differs_and_what_came_of_it(made, texts, tmp_path, request):
    other = Run(settings(texts, name="other", subspace__dimension=20), tmp_path)
    other.certify()
    write_run(tmp_path, made.certificate)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "certificate.json").write_text("{}", "utf-8")
    table = load_runs(tmp_path)
    assert list(table["name"]) == ["other", "tiny"] and list(table["subspace.dimension"]) == [20, 40]
    assert not {"training.steps", "kind", "corpus.path"} & set(table.columns), "these do not differ"
    assert list(table["message_bits"]) == [8 * len(other.message), 8 * len(made.message)]
    assert (table["assumption"] == "unseen").all() and (table["inequality"] == "betting").all()
    row = table.set_index("name").loc["tiny"]
    (bound,) = [
        b
        for b in made.certificate.statements
        if (b.assumption, b.inequality, b.alpha) == ("unseen", "betting", made.certificate.alpha)
    ]
    (truth,) = [h for h in made.certificate.held_out if (h.level, h.alpha) == ("document", bound.alpha)]
    assert bound.bound == np.log2(257 / bound.alpha), "so small a run proves nothing"
    assert (row["bound"], row["vacuous_at"], row["held_out"]) == (np.log2(257 / bound.alpha), np.log2(257), truth.value)
    assert not row["nonvacuous"]
    assert row["seconds"] == pytest.approx(sum(made.certificate.environment.seconds.values()))
    printed = request.getfixturevalue("sublora")("table", "--runs", tmp_path)
    assert printed[0] == 0 and "subspace.dimension" in printed[1] and number(row["bound"], 4) in printed[1]


def test_no_runs_are_an_empty_table(tmp_path):
    assert load_runs(tmp_path).empty and load_runs(tmp_path / "none").empty


def test_kinds_may_be_mixed(tmp_path):
    for each in (certificate(), classifier_certificate()):
        write_run(tmp_path, each)
    table = load_runs(tmp_path).set_index("name")
    assert table["kind"].to_dict() == {"glue": "classify", "quick": "pretrain"}
    assert table["metric"].to_dict() == {"glue": "error", "quick": "bpd"}


# --- later versions


class LaterGpt(Gpt):
    """The architecture in a version that has one setting more."""

    rotations: int = 0


class LaterPretrain(Pretrain):
    model: LaterGpt = LaterGpt()


def test_a_certificate_verifies_under_a_version_with_one_more_setting(made, monkeypatch):
    monkeypatch.setattr("sublora.__version__", "99.0")
    monkeypatch.setitem(kinds.KINDS, "pretrain", LaterPretrain)
    monkeypatch.setitem(problems.PROBLEMS, LaterPretrain, problems.TextProblem)
    assert verify(made.path, made.corpora) == []
    later = Run(made.certificate.params, made.folder.parent)
    assert "rotations" not in made.certificate.params["model"] and later.settings.model.rotations == 0
