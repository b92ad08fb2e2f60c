"""`sublora run` from a folder of texts to a certificate, and what becomes of it: once for real, then on its results."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from tiny import NOTEBOOKS, complaint, settings, write_params, write_texts

from sublora import pipeline
from sublora.atomic import write_text
from sublora.certificate.schema import load_certificate
from sublora.compression.codebooks import shortened_codebook
from sublora.errors import SubloraError
from sublora.experiment import load_experiment
from sublora.message import language
from sublora.run import Run
from sublora.sampling import LanguageModel, load
from sublora.training import load_checkpoint

BEGUN = {"made-by-sublora.txt", "params.yaml", "steps.json"}
"""The files of a run that has done nothing yet."""
COMMAND = (sys.executable, "-c", "from sublora.cli import main; main()")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run from a relative path of texts, by the real command in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    write_texts(home / "texts")
    params = write_params(home / "tiny.yaml", settings("texts"))
    done = subprocess.run(
        [*COMMAND, "run", "tiny.yaml", "--notebooks", NOTEBOOKS], cwd=home, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(home=home, params=params, folder=home / "runs" / "tiny", out=done.stdout, err=done.stderr)


@pytest.fixture
def here(finished, monkeypatch):
    """That run, with its folder as the current one."""
    monkeypatch.chdir(finished.home)
    return finished


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """The same in a copy that a test may spoil (the texts stay where they are, or they would be another corpus)."""
    shutil.copytree(finished.home / "runs", tmp_path / "runs")
    monkeypatch.chdir(finished.home)
    return SimpleNamespace(runs=tmp_path / "runs", folder=tmp_path / "runs" / "tiny")


# --- what a run leaves behind, and says


def test_a_run_leaves_its_files_and_nothing_half_made(finished):
    names = {path.name for path in finished.folder.iterdir()}
    checkpoints = {"pretrain.safetensors", "quantize.safetensors"}
    assert names == checkpoints | {
        "baselines.csv",
        "bounds.ipynb",
        "certificate.json",
        "duplicates.csv",
        "made-by-sublora.txt",
        "metrics.csv",
        "params.yaml",
        "precision.txt",
        "pretrain.ipynb",
        "scores",
        "steps.json",
        "tensorboard",
    }


@pytest.mark.parametrize("name", ["pretrain", "bounds"])
def test_executed_notebooks_are_whole_and_keep_only_the_last_state_of_a_bar(finished, name):
    notebook = nbformat.read(finished.folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    streams = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "\r" not in streams
    assert streams.count("pretrain: ") == 1 and "pretrain: 100%" in streams
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert Path(notebook.metadata.papermill.output_path).parent == Path("runs", "tiny"), "others read it, too: no machine's folders"


def test_a_run_says_names_printed_lines_and_bars_and_nothing_else(finished):
    first, *_, last, _, _, _, _, where, then = finished.out.splitlines()
    assert first == "pretrain: running, into runs/tiny/pretrain.ipynb" and last == "finished: runs/tiny"
    assert where.split() == ["certificate", "runs/tiny/certificate.json"]
    assert then.strip().startswith("next ") and ("sublora verify" in then or "a smaller message" in then)
    assert "300 documents by a uniformly random permutation" in finished.out
    bars = ("text", "pretrain", "quantize", "score pilot documents", "score training documents", "score held-out documents")
    bars += ("near-duplicates", "baselines")
    lines = finished.err.replace("\r", "\n").splitlines()
    assert {line.split(":")[0] for line in lines if line} == set(bars)
    assert any("step/s" in line and "20/20" in line for line in lines)


def test_the_certificate_speaks_of_this_experiment(here):
    certificate = load_certificate("runs/tiny/certificate.json")
    assert certificate.experiment == "tiny"
    assert (certificate.corpus.documents, certificate.corpus.pool) == (180, 300)
    assert certificate.params == load_experiment(here.params).parameters()
    assert len(language.decode(certificate.message_bytes, 10_000).coded.symbols) == 40
    metrics = pd.read_csv("runs/tiny/metrics.csv")
    assert metrics.groupby("phase")["step"].apply(list).to_dict() == {"pretrain": [10, 20], "quantize": [10]}


def test_papermill_alone_and_run_in_python_make_the_same_certificate(here, tmp_path):
    shutil.copytree("texts", tmp_path / "texts")
    for name in ("pretrain", "bounds"):
        command = [sys.executable, "-m", "papermill", NOTEBOOKS / f"{name}.ipynb", f"{name}.ipynb", "-f", here.params]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    found = [load_certificate(folder / "runs/tiny/certificate.json") for folder in (here.home, tmp_path)]
    found.append(Run(here.params, tmp_path / "python").certify())
    ours, *theirs = ({**one.data(), "environment": None, "certificate_sha256": None} for one in found)
    assert theirs == [ours, ours]


# --- verify


def test_the_certificate_verifies(here, sublora):
    status, out, err = sublora("verify", "runs/tiny/certificate.json")
    assert status == 0, err
    assert out.startswith("runs/tiny/certificate.json: verified: the model and every bound agree\n  bound ")


def raise_number(certificate, *keys):
    *path, last = keys
    for key in path:
        certificate = certificate[key]
    certificate[last] += 1 if isinstance(certificate[last], int) else 0.01


ALTERED = {
    ("bounds", 0, "bound"): "bounds[document bpd iid hoeffding 0.0001].bound: the certificate says",
    ("bounds", 2, "empirical"): "bounds[document bpd iid betting 0.0001].empirical: the certificate says",
    ("bounds", 8, "candidates"): "bounds[document bpd unseen betting 0.0001].candidates: the certificate says",
    ("held_out", 3, "value"): "held_out[document bpd 0.01].value: the certificate says",
    ("corpus", "tokens"): "corpus.tokens: the certificate says",
    ("delta",): "delta: the certificate says 0.06",
    ("paper_accounting", "bits"): "paper_accounting.bits: the certificate says",
    ("public", "determinism", "bits"): "public.determinism.bits: the certificate says",
    ("environment", "seconds", "pretrain"): "certificate_sha256: the file was altered",
}


def test_verify_names_every_altered_number(here, sublora, tmp_path, monkeypatch):
    monkeypatch.setattr("sublora.cli.MOST_LINES", 100)
    certificate = load_certificate("runs/tiny/certificate.json").data()
    for keys in ALTERED:
        raise_number(certificate, *keys)
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(certificate, indent=1) + "\n", "utf-8")
    status, out, err = sublora("verify", file)
    assert (status, out) == (1, f"{file}: NOT verified\n")
    for said in ALTERED.values():
        assert f"{file}: {said}" in err
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith(str(file))]
    contradicted = [line for line in lines if "paper_accounting.bounds[" in line]  # by the altered bits that they follow from
    assert contradicted and len(lines) - len(contradicted) == len(ALTERED)


def test_arithmetic_alone_is_said_to_be_alone(here, sublora, tmp_path):
    file = tmp_path / "certificate.json"
    shutil.copy("runs/tiny/certificate.json", file)
    status, out, _ = sublora("verify", "--arithmetic", file, "--runs", tmp_path / "no-corpora")
    assert status == 3 and out.startswith(f"{file}: arithmetic agrees, losses not checked\n")
    assert "unchecked    environment, name; losses," in out
    certificate = load_certificate(file).data()
    certificate["bounds"][0]["parts"]["complexity"] -= 1e-6
    file.write_text(json.dumps(certificate, indent=1) + "\n", "utf-8")
    status, out, err = sublora("verify", "--arithmetic", file)
    assert (status, out) == (1, f"{file}: NOT verified\n")
    assert "bounds[document bpd iid hoeffding 0.0001].parts.complexity: the certificate says" in err


def test_verify_goes_on_to_the_next_certificate(here, sublora, tmp_path):
    status, out, err = sublora("verify", tmp_path / "none.json", "runs/tiny/certificate.json")
    assert status == 1
    assert out.splitlines()[:2] == [
        f"{tmp_path}/none.json: NOT verified",
        "runs/tiny/certificate.json: verified: the model and every bound agree",
    ]
    assert err.startswith(f"sublora: {tmp_path}/none.json: no certificate")


# --- finished steps are kept


@pytest.fixture
def executed(monkeypatch):
    """Names of the notebooks that are executed: none is, but each leaves its output and a file of its own."""
    names = []

    def pretend(source, folder, parameters):
        names.append(source.stem)
        shutil.copy(source, folder / source.name)
        (folder / f"made-by-{source.stem}").touch()

    monkeypatch.setattr(pipeline, "_execute", pretend)
    return names


def run(values, runs, notebooks=NOTEBOOKS, force=False):
    return list(pipeline.run(write_params(runs.parent / "params.yaml", values), runs, notebooks, force))


def test_a_second_run_keeps_what_is_finished(here, executed, sublora):
    before = {path: path.stat().st_mtime_ns for path in here.folder.rglob("*") if path.name != "params.yaml"}
    status, out, _ = sublora("run", "tiny.yaml", "--notebooks", NOTEBOOKS)
    assert status == 0 and executed == []
    assert out.count("finished before, kept") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bounds__documents": 90}, "bounds.documents 100 -> 90"),
        ({"compression__levels": 4}, "compression.levels 5 -> 4"),
        ({"corpus__split_seed": 5, "model__seed": 6}, "corpus.split_seed 0 -> 5, model.seed 0 -> 6"),
    ],
    ids=str,
)
def test_changed_settings_are_named_and_what_depends_on_them_runs_again(copy, executed, capsys, changes, says):
    # Its own `runs` is a parameter too, so that the copied results are first made to be of this folder.
    run(settings("texts"), copy.runs)
    assert "settings changed" not in capsys.readouterr().out
    executed.clear()
    run(settings("texts", **changes), copy.runs)
    assert capsys.readouterr().out.startswith(f"tiny: settings changed: {says}; replacing the run\n")
    assert executed == ["pretrain", "bounds"]
    kept = {path.name for path in copy.folder.iterdir()}
    made = {"pretrain.ipynb", "bounds.ipynb", "made-by-pretrain", "made-by-bounds"}
    assert kept == made | BEGUN
    executed.clear()
    run(settings("texts", **changes), copy.runs)
    assert executed == [] and "settings changed" not in capsys.readouterr().out


def test_a_grid_is_a_run_each_and_overrides_are_for_all(here, executed, sublora, tmp_path):
    params = write_params(tmp_path / "grid.yaml", settings("texts", grid={"subspace.dimension": [30, 40]}))
    options = ("--set", "training.steps=12", "--set", "bounds.delta=1e-2", "--notebooks", NOTEBOOKS, "--runs", tmp_path / "runs")
    status, out, _ = sublora("run", params, *options)
    assert status == 0 and executed == 2 * ["pretrain", "bounds"]
    for dimension in (30, 40):
        folder = tmp_path / "runs" / f"tiny-{dimension}"
        made = load_experiment(folder / "params.yaml")
        assert (made.name, made.subspace.dimension, made.training.steps, made.bounds.delta) == (folder.name, dimension, 12, 0.01)
        assert f"finished: {folder}" in out


def test_force_reruns_all_from_the_beginning(copy, executed):
    run(settings("texts"), copy.runs)
    write_text(copy.folder / "pretrain.safetensors", "as if a notebook had written it")
    executed.clear()
    run(settings("texts"), copy.runs, force=True)
    assert executed == ["pretrain", "bounds"]
    assert not (copy.folder / "pretrain.safetensors").exists()


def test_changed_code_and_changed_texts_rerun_but_other_outputs_do_not(tmp_path, executed):
    texts, notebooks = write_texts(tmp_path / "texts", 5), tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, notebooks)
    run(settings(texts), tmp_path / "runs", notebooks)
    for edit, rerun in (
        (lambda cell: cell.update(outputs=[nbformat.v4.new_output("stream", text="looked at\n")]), []),
        (lambda cell: cell.update(source=cell.source + "\nprint('more')"), ["bounds"]),
    ):
        notebook = nbformat.read(notebooks / "bounds.ipynb", as_version=4)
        edit(notebook.cells[-1])
        nbformat.write(notebook, notebooks / "bounds.ipynb")
        executed.clear()
        run(settings(texts), tmp_path / "runs", notebooks)
        assert executed == rerun
    (texts / "more.txt").write_text("more", "utf-8")
    executed.clear()
    run(settings(texts), tmp_path / "runs", notebooks)
    assert executed == ["pretrain", "bounds"]


def test_spoilt_steps_are_not_relied_on(copy, executed):
    run(settings("texts"), copy.runs)
    executed.clear()
    (copy.folder / "steps.json").write_text('{"pretrain": ', "utf-8")
    run(settings("texts"), copy.runs)
    assert executed == ["pretrain", "bounds"]


def test_two_runs_do_not_share_a_folder(copy, executed):
    with FileLock(copy.runs / ".tiny.lock"):
        with pytest.raises(SubloraError, match="another run is at work here"):
            run(settings("texts"), copy.runs)
    assert executed == []


def test_a_persons_files_survive_whatever_the_run_makes_anew(copy, executed):
    run(settings("texts"), copy.runs)
    theirs = [copy.folder / name for name in ("notes.txt", "scores/notes.txt", "mine.safetensors", ".hidden")]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("of a person", "utf-8")
    (copy.folder / "link").symlink_to(copy.runs.parent)
    run(settings("texts", compression__levels=4), copy.runs, force=True)
    assert all(path.read_text("utf-8") == "of a person" for path in theirs) and (copy.folder / "link").is_symlink()
    assert executed == 2 * ["pretrain", "bounds"]


@pytest.mark.parametrize("kind", ["files", "link"])
def test_a_folder_that_is_not_a_runs_is_refused(tmp_path, executed, kind):
    texts, folder = write_texts(tmp_path / "texts", 5), tmp_path / "runs" / "tiny"
    theirs = folder if kind == "files" else tmp_path / "elsewhere"
    theirs.mkdir(parents=True)
    (theirs / "pretrain.safetensors").write_text("of a person", "utf-8")
    if kind == "link":
        folder.parent.mkdir()
        folder.symlink_to(theirs)
    says = {"files": "holds files that no run made", "link": "a symbolic link"}[kind]
    for attempt in (lambda: run(settings(texts), tmp_path / "runs"), lambda: Run(settings(texts), tmp_path / "runs").train()):
        with pytest.raises(SubloraError, match=f"tiny: {says}.*choose another name"):
            attempt()
    assert [path.name for path in theirs.iterdir()] == ["pretrain.safetensors"] and executed == []


def test_an_unknown_notebook_is_named_before_anything_is_written(tmp_path, sublora):
    texts = write_texts(tmp_path / "texts", 5)
    params = write_params(tmp_path / "p.yaml", settings(texts, notebooks=["pretrain", "pretrian"]))
    line = complaint(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", NOTEBOOKS))
    assert "key 'notebooks'" in line and "pretrian.ipynb" in line and "bounds" in line
    assert not (tmp_path / "runs").exists()


# --- notebooks that are not as they should be


def write_notebook(folder, source, parameters="runs = ''\nname = ''", tags=("parameters",), kernel="python3"):
    """A notebook `pretrain` that is quick to start, because it has nothing to do with models."""
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": list(tags)}), nbformat.v4.new_code_cell(source)]
    metadata = {"kernelspec": {"name": kernel, "display_name": "", "language": "python"}} if kernel else {}
    folder.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "pretrain.ipynb")
    return folder


GROUPS = "kind = name = runs = corpus = model = subspace = training = compression = bounds = None"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tags": ()}, "no code cell has the tag `parameters`"),
        ({"tags": ("injected-parameters",)}, "no code cell has the tag `parameters`"),
        ({"parameters": "name = ''"}, "does not assign runs"),
        ({"parameters": "other = 1"}, "does not assign name, runs"),
        ({"parameters": GROUPS.replace("bounds = ", "bound = ")}, "does not assign bounds; let it assign all keys of"),
        ({"parameters": "corpus = name = runs = None"}, "does not assign bounds, compression, kind, model, subspace, training"),
        ({"parameters": "%run x"}, "is not plain Python"),
    ],
    ids=str,
)
def test_a_notebook_that_would_run_on_its_defaults_is_refused(tmp_path, sublora, changes, says):
    texts, notebooks = write_texts(tmp_path / "texts", 5), write_notebook(tmp_path / "notebooks", "", **changes)
    params = write_params(tmp_path / "p.yaml", settings(texts, notebooks=["pretrain"]))
    line = complaint(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", notebooks))
    assert f"{notebooks}/pretrain.ipynb: " in line and says in line
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_notebook_takes_all_groups_however_it_assigns_them(tmp_path, executed):
    texts, notebooks = write_texts(tmp_path / "texts", 5), write_notebook(tmp_path / "notebooks", "", GROUPS)
    run(settings(texts, notebooks=["pretrain"]), tmp_path / "runs", notebooks)
    write_notebook(tmp_path / "typed", "", "name: str = ''\nruns: str = ''")
    run(settings(texts, notebooks=["pretrain"]), tmp_path / "runs", tmp_path / "typed")
    assert executed == 2 * ["pretrain"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", "\xff", 9000 * "[", '{"nbformat": 4}', '{"nbformat": 9}', '{"nbformat": 4, "cells": [3]}'],
    ids=lambda text: repr(text)[:20],
)
def test_a_file_that_is_no_notebook_is_named(tmp_path, sublora, text):
    texts, notebooks = write_texts(tmp_path / "texts", 5), tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "pretrain.ipynb").write_bytes(text.encode("latin-1"))
    params = write_params(tmp_path / "p.yaml", settings(texts, notebooks=["pretrain"]))
    line = complaint(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", notebooks))
    assert f"{notebooks}/pretrain.ipynb: not a notebook (" in line and len(line) < 400


@pytest.mark.parametrize("kernel", [None, "a-kernel-that-nobody-has"])
def test_any_kernel_is_this_one_and_braces_in_a_path_are_braces(tmp_path, sublora, monkeypatch, kernel):
    home = tmp_path / "{name} {} {0} é"
    home.mkdir()
    monkeypatch.chdir(home)
    write_texts(home / "texts", 5)
    notebooks = write_notebook(home / "{pm} note{{books", "print(name, runs)\nprint('\\x1b[31m')", kernel=kernel)
    params = write_params(home / "p.yaml", settings("texts", notebooks=["pretrain"]))
    status, out, err = sublora("run", params, "--runs", "{runs}{", "--notebooks", notebooks.name)
    assert (status, err) == (0, "")
    assert "tiny {runs}{\n\ufffd[31m\n" in out and "finished: {runs}{/tiny" in out
    assert (home / "{runs}{" / "tiny" / "pretrain.ipynb").is_file()


# --- interruption


def test_a_notebook_that_fails_has_no_output_and_goes_on_from_what_it_saved(tmp_path, sublora):
    texts = write_texts(tmp_path / "texts", 5)
    source = """
        from pathlib import Path
        saved = Path(runs) / name / "saved"
        if not saved.exists():
            saved.touch()
            raise KeyError("no such\\nluck")
        print("went on")
        """
    notebooks = write_notebook(tmp_path / "notebooks", textwrap.dedent(source))
    params = write_params(tmp_path / "p.yaml", settings(texts, notebooks=["pretrain"]))
    command = ("run", params, "--runs", tmp_path / "runs", "--notebooks", notebooks)
    line = complaint(sublora(*command))
    assert "pretrain.ipynb: KeyError: 'no such" in line and "pretrain.failed.ipynb" in line
    folder = tmp_path / "runs" / "tiny"
    assert {path.name for path in folder.iterdir()} == {*BEGUN, "saved", "pretrain.failed.ipynb"}
    status, out, _ = sublora(*command)
    assert status == 0 and "went on" in out
    assert {path.name for path in folder.iterdir()} == {*BEGUN, "saved", "pretrain.ipynb"}


def test_a_killed_kernel_is_one_line(tmp_path, sublora):
    texts = write_texts(tmp_path / "texts", 5)
    notebooks = write_notebook(tmp_path / "notebooks", "import os\nos.kill(os.getpid(), 9)")
    params = write_params(tmp_path / "p.yaml", settings(texts, notebooks=["pretrain"]))
    line = complaint(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", notebooks))
    assert "pretrain.ipynb: its Python process was killed" in line
    assert {path.name for path in (tmp_path / "runs" / "tiny").iterdir()} == BEGUN


def wait_for(path, process):
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "it ended before it was interrupted"
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_killed_run_goes_on_from_its_checkpoint(finished, tmp_path):
    values = settings(finished.home / "texts", notebooks=["pretrain"], training__steps=600, training__validate_every=50)
    params, folder = write_params(tmp_path / "long.yaml", values), tmp_path / "runs" / "tiny"
    command = [*COMMAND, "run", params, "--runs", tmp_path / "runs", "--notebooks", NOTEBOOKS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(folder / "metrics.csv", process)
        process.kill()
    before = pd.read_csv(folder / "metrics.csv")
    assert not (folder / "pretrain.ipynb").exists() and before["step"].max() < 600
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (folder / "pretrain.ipynb").exists() and not list(folder.glob(".*"))
    after = pd.read_csv(folder / "metrics.csv").query("phase == 'pretrain'")
    assert after["step"].tolist() == list(range(50, 601, 50))
    # Times of day cannot repeat: these rows were not made again.
    pd.testing.assert_frame_equal(after.head(len(before)), before)


def test_ctrl_c_says_that_the_run_can_go_on(tmp_path):
    texts = write_texts(tmp_path / "texts", 5)
    source = "from pathlib import Path\nimport time\n(Path(runs) / name / 'begun').touch()\ntime.sleep(60)"
    notebooks = write_notebook(tmp_path / "notebooks", source)
    params = write_params(tmp_path / "p.yaml", settings(texts, notebooks=["pretrain"]))
    command = [*COMMAND, "run", params, "--runs", tmp_path / "runs", "--notebooks", notebooks]
    # Where the tests run in the background of a shell, SIGINT is ignored and children inherit that.
    heeded = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **heeded) as process:
        wait_for(tmp_path / "runs" / "tiny" / "begun", process)
        os.kill(process.pid, signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert err.strip() == "sublora: interrupted; the same command continues from the last checkpoint"
    assert {path.name for path in (tmp_path / "runs" / "tiny").iterdir()} == {*BEGUN, "begun"}


# --- afterwards


def test_the_report_renders_from_it(here, tmp_path, sublora):
    project = shutil.copytree(Path(NOTEBOOKS).parent / "report", tmp_path / "report", ignore=shutil.ignore_patterns("_site", ".*"))
    status, out, _ = sublora("report", "--project", project)
    assert status == 0
    assert out.startswith("rendered with ") and (project / "_site" / "index.html").is_file()
    assert "tiny" in (project / "_site" / "runs.html").read_text("utf-8")


SAMPLED = ("certificate.json", "pretrain.safetensors", "quantize.safetensors")


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_are_a_function_of_the_seed(here, sublora, name):
    first = sublora("sample", here.folder / name, "--prompt", "12: ", "--tokens", "20")
    assert first[0] == 0 and first[1].startswith("12: ") and len(first[1]) > len("12: \n")
    assert sublora("sample", here.folder / name, "--prompt", "12: ", "--tokens", "20") == first
    assert sublora("sample", here.folder / name, "--prompt", "12: ", "--tokens", "20", "--seed", "1") != first
    status, smooth, _ = sublora("sample", here.folder / name, "--prompt", "12: ", "--tokens", "20", "--smoothing", "0.9")
    assert status == 0 and smooth != first[1]


def test_a_certificate_and_the_checkpoint_it_is_of_have_the_same_model(here):
    certified, pretrained, quantized = (load(here.folder / name).module for name in SAMPLED)
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        assert torch.equal(certified(tokens), quantized(tokens))
        assert not torch.equal(certified(tokens), pretrained(tokens))
    tensors, _ = load_checkpoint(here.folder / "quantize.safetensors", {})
    levels = tensors["codebook/best"].numpy().astype(np.float16)
    message = language.decode(load_certificate(here.folder / "certificate.json").message_bytes, 10_000)
    assert np.array_equal(shortened_codebook(np.sort(levels)), message.coded.codebook)


class Fixed(torch.nn.Module):
    """A model that is sure of one token, whatever came before."""

    block_size = 4

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens):
        assert tokens.shape[1] <= self.block_size
        return torch.full((*tokens.shape, 257), -1e9).index_fill(2, torch.tensor([ord("x")]), 0.0)


def test_smoothing_mixes_in_the_uniform_distribution(here):
    model = LanguageModel(Fixed(), load(here.folder / "certificate.json").tokenizer)
    assert model.generate("ab", 10) == "ab" + 10 * "x"
    drawn = [model.generate("", 1, smoothing=0.5, seed=seed) for seed in range(400)]
    assert 0.4 < np.mean([text == "x" for text in drawn]) < 0.6
    assert len(set(drawn)) > 60
