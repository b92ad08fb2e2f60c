"""Every bad input, as a user meets it: one line on standard error that says what to do, and nothing half-written."""

import base64
import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from certificates import certificate, write_run
from tiny import NOTEBOOKS, complaint, complaint_after_bars, settings, write_params, write_texts

from sublora import pipeline
from sublora.certificate.schema import load_certificate
from sublora.errors import SubloraError
from sublora.run import Run
from sublora.training import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a prepared corpus, a checkpoint and a certificate."""
    home = tmp_path_factory.mktemp("made")
    run = Run(settings(write_texts(home / "texts"), compression={"levels": 5}), home / "runs")
    run.certify()
    return SimpleNamespace(home=home, texts=home / "texts", folder=run.folder, store=run.problem.store)


@pytest.fixture
def altered(made, tmp_path):
    """A function that writes the certificate with some of its keys changed, and returns its path."""

    def write(**changes):
        certificate = load_certificate(made.folder / "certificate.json").data() | changes
        path = tmp_path / "certificate.json"
        path.write_text(json.dumps(certificate, indent=1) + "\n", "utf-8")
        return path

    return write


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- params files


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bound": {}}, "unknown key 'bound'; did you mean 'bounds'?"),
        ({"notebooks": "pretrain"}, "key 'notebooks'"),
        ({"name": "../elsewhere"}, "name '../elsewhere'"),
        ({"grid": {"bounds.delta": [0.1, 2.0]}}, "key 'bounds.delta'"),
        ({"corpus__path": "nowhere"}, "nowhere: does not exist"),
        ({"corpus__path": None}, "key 'corpus': path is needed for source text"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_before_anything_is_written(made, sublora, tmp_path, changes, says):
    params = write_params(tmp_path / "params.yaml", settings(made.texts, **changes))
    line = complaint(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", NOTEBOOKS))
    assert says in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", [None, "", "name: [unclosed"], ids=repr)
def test_a_params_file_that_is_none(sublora, tmp_path, text):
    params = tmp_path / "params.yaml"
    if text is not None:
        params.write_text(text, "utf-8")
    line = complaint(sublora("run", params, "--runs", tmp_path / "runs"))
    assert line.startswith(f"sublora: {params}: ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.steps", "--set 'training.steps': write it as key=value"),
        ("training.step=10", "unknown key 'training.step'; did you mean 'training.steps'?"),
    ],
)
def test_an_override_that_is_none(made, sublora, tmp_path, override, says):
    params = write_params(tmp_path / "params.yaml", settings(made.texts))
    line = complaint(sublora("run", params, "--set", "bounds.delta=0.1", "--set", override, "--runs", tmp_path / "runs"))
    assert says in line
    assert not (tmp_path / "runs").exists()


# --- corpora


def test_an_empty_corpus(sublora, tmp_path):
    (tmp_path / "texts").mkdir()
    line = complaint_after_bars(sublora("data", "text", "--path", tmp_path / "texts", "--runs", tmp_path / "runs"))
    assert f"no document with text in {tmp_path}/texts; choose another corpus" in line
    assert [name for name in files(tmp_path / "runs") if not name.endswith(".lock")] == []


def test_documents_with_no_tokens(sublora, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").touch()
    command = ("data", "text", "--path", folder, "--runs", tmp_path / "runs")
    assert "no document with text" in complaint_after_bars(sublora(*command))
    (folder / "1.txt").write_text("something", "utf-8")
    status, out, _ = sublora(*command)
    assert status == 0 and ": 1 documents, 10 tokens, V = 257" in out
    assert "a split with train 0.75 and validation 0.02 needs at least 6; add documents or split the files" in out
    (folder / "1.txt").write_text("one\n\ntwo\n", "utf-8")
    assert ": 2 documents, 10 tokens, V = 257" in sublora(*command, "--split-on", "blank-line")[1]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("text", [], "key 'corpus': path is needed for source text"),
        ("file", ["--path", "none.jsonl"], "none.jsonl: does not exist"),
        ("text", ["--tokenizer", "words", "--path", "."], "key 'corpus.tokenizer'"),
        ("text", ["--path", ".", "--split-on", "regex:("], "key 'corpus.split_on': RE2 does not take the pattern: missing )"),
        ("python-packages", ["--split-on", "blank-line"], "split_on has no effect for source python-packages"),
        ("python-packages", ["--max-documents", "0"], "key 'corpus.max_documents'"),
        ("python-packages", ["--package", "sympy"], "key 'corpus.packages.0': must be one of sympy==1.14.0"),
    ],
    ids=str,
)
def test_data_that_cannot_be(sublora, tmp_path, source, options, says):
    assert says in complaint(sublora("data", source, *options, "--runs", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_an_empty_file_is_one_line_without_bars(sublora, tmp_path, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    (tmp_path / "zero.csv").touch()
    line = complaint(sublora("data", "file", "--path", tmp_path / "zero.csv", "--runs", tmp_path / "runs"))
    assert "no document with text in" in line and "zero.csv" in line


def cut(tokens):
    tokens.write_bytes(tokens.read_bytes()[:-7])


def beyond_vocabulary(tokens):
    data = bytearray(tokens.read_bytes())
    data[0:2] = (257).to_bytes(2, "little")
    tokens.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(cut, "multiple of the data-type size"), (beyond_vocabulary, "it holds token id 257, outside 0..256")],
    ids=["truncated", "id"],
)
def test_a_spoilt_token_store_is_named_and_built_again(made, sublora, tmp_path, spoil, says):
    corpora = shutil.copytree(made.home / "runs" / "corpora", tmp_path / "corpora")
    tokens = corpora / made.store.path.name / "tokens.bin"
    whole = tokens.read_bytes()
    spoil(tokens)
    line = complaint(sublora("verify", made.folder / "certificate.json", "--runs", tmp_path))
    assert f"{tokens}: not a whole token store" in line and line.endswith("remove its folder and prepare the corpus again")
    status, out, err = sublora("data", "text", "--path", made.texts, "--runs", tmp_path)
    assert status == 0 and made.store.sha256 in out
    assert err.startswith(f"warning: {tokens}: not a whole token store ({says}" if says[0] == "i" else f"warning: {tokens}: ")
    assert says in err.splitlines()[0] and "building it again" in err.splitlines()[0]
    assert tokens.read_bytes() == whole


# --- what a notebook says is wrong


def begun(made, runs, values, monkeypatch):
    """A run that was interrupted before its first notebook did anything: its parameters are written down."""
    params = write_params(runs.parent / "params.yaml", values)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pipeline, "_execute", interrupted)
        list(pipeline.run(params, runs, NOTEBOOKS))
    return params


def test_a_loss_that_is_not_finite_stops_the_run_at_the_last_good_checkpoint(made, sublora, tmp_path):
    values = settings(made.texts, notebooks=["pretrain"], training__learning_rate=1e30, training__validate_every=1)
    params = write_params(tmp_path / "params.yaml", values)
    line = complaint_after_bars(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", NOTEBOOKS))
    assert "the loss is not finite at step" in line and "lower training.learning_rate" in line
    folder = tmp_path / "runs" / "tiny"
    assert not list(folder.glob("*.ipynb")) and not list(folder.glob(".*"))
    if (folder / "pretrain.safetensors").exists():
        tensors, _ = load_checkpoint(folder / "pretrain.safetensors", {})
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_checkpoint_of_another_architecture_stops_the_run(made, sublora, tmp_path, monkeypatch):
    params = begun(made, tmp_path / "runs", settings(made.texts, model__width=32), monkeypatch)
    checkpoint = tmp_path / "runs" / "tiny" / "pretrain.safetensors"
    shutil.copy(made.folder / "pretrain.safetensors", checkpoint)
    line = complaint_after_bars(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", NOTEBOOKS))
    assert f"{checkpoint}: the checkpoint has model.width 16, not 32; delete it" in line
    assert checkpoint.read_bytes() == (made.folder / "pretrain.safetensors").read_bytes()
    assert not list(checkpoint.parent.glob("*.ipynb"))


def test_more_coordinates_than_weights_stop_the_run(made, sublora, tmp_path):
    params = write_params(tmp_path / "params.yaml", settings(made.texts, subspace__dimension=1_000_000))
    line = complaint_after_bars(sublora("run", params, "--runs", tmp_path / "runs", "--notebooks", NOTEBOOKS))
    assert "subspace.dimension 1,000,000 exceeds the 1,348 trainable weights; lower it" in line
    assert not list((tmp_path / "runs" / "tiny").glob("*.ipynb"))


# --- certificates


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        (b"", "not valid JSON"),
        (b"[]", "key 'format' is missing"),
        (b'{"format": "sublora-certificate/1"}', "key 'format' is 'sublora-certificate/1'"),
        (b"\xff\xfe", "cannot read the certificate"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("command", ["verify", "sample", "show"])
def test_a_file_that_is_no_certificate(sublora, tmp_path, text, says, command):
    path = tmp_path / "certificate.json"
    if text is not None:
        path.write_bytes(text)
    elif command != "sample":  # a checkpoint would do, too
        says = "no certificate; finish the run"
    result = sublora(command, path)
    line = complaint(result)
    assert says in line and str(path) in line
    assert result[1] == (f"{path}: NOT verified\n" if command == "verify" else "")


@pytest.mark.parametrize("command", ["verify", "sample"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"alpha": 1.5}, "key 'alpha'"),
        ({"params": {"name": "tiny", "modle": {}}}, "params: unknown key 'modle'"),
        ({"params": {"name": "tiny", "kind": ["round"]}}, "params: key 'kind'"),
    ],
    ids=str,
)
def test_a_certificate_with_an_impossible_key(sublora, altered, command, changes, says):
    path = altered(**changes)
    line = complaint(sublora(command, path))
    assert says in line and str(path) in line


@pytest.mark.parametrize("count", [10, 11, 300])
def test_of_many_differences_the_first_ten_are_shown(sublora, tmp_path, monkeypatch, count):
    monkeypatch.setattr("sublora.cli.limited", lambda *_, **__: [f"bounds[{i}]: another" for i in range(count)])
    status, _, err = sublora("verify", tmp_path / "a.json")
    more = [f"{tmp_path}/a.json: ... and {count - 10} more"] if count > 10 else []
    assert status == 1 and err.splitlines() == [*(f"{tmp_path}/a.json: bounds[{i}]: another" for i in range(10)), *more]


def coded(message):
    sha256 = hashlib.sha256(message).hexdigest()
    return {"message": base64.b64encode(message).decode(), "message_bits": 8 * len(message), "message_sha256": sha256}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda message: message[:-1], "it is truncated or extended"),
        (lambda message: message + b"\0", "it is truncated or extended"),
        (lambda message: message[:1] + b"\0" + message[2:], "unknown message format"),
        (lambda message: message[:3] + b"\xff" + message[4:], "unknown projector 31"),
    ],
    ids=["truncated", "extended", "format", "projector"],
)
def test_a_spoilt_message(made, sublora, altered, spoil, says):
    path = altered(**coded(spoil(load_certificate(made.folder / "certificate.json").message_bytes)))
    status, out, err = sublora("verify", path, "--runs", made.home / "runs")
    assert (status, out) == (1, f"{path}: NOT verified\n")
    assert any(line.startswith(f"{path}: message: ") and says in line for line in err.splitlines())
    line = complaint(sublora("sample", path))
    assert line.startswith(f"sublora: {path}: key 'message': ") and says in line


def test_a_certificate_of_another_corpus(made, sublora, altered):
    corpus = load_certificate(made.folder / "certificate.json").data()["corpus"]
    path = altered(corpus=corpus | {"sha256": 64 * "0"})
    line = complaint(sublora("verify", path, "--runs", made.home / "runs"))
    assert "is not prepared in" in line and str(path) in line and "--corpus" in line
    line = complaint(sublora("verify", path, "--runs", made.home / "runs", "--corpus", made.texts))
    assert "speaks of a corpus with sha256 000000000000" in line and str(path) in line
    assert line.endswith("use the data it was made from")


def test_a_certificate_whose_corpus_is_not_here(made, sublora, tmp_path):
    line = complaint(sublora("verify", made.folder / "certificate.json", "--runs", tmp_path / "runs"))
    assert "is not prepared in" in line and "sublora data" in line
    assert not (tmp_path / "runs").exists()


FAKE = "\x1b[2K\x1b]0;x\x07\x9b1A\r\u202e\nfake.json: verified: the model and every bound agree"
"""What would show on a terminal, or in a line of its own, that a certificate was verified."""


def steers_nothing(out, err):
    text = out + err
    assert not {c for c in text if not c.isprintable()} - {"\n", "\t"}
    assert not [line for line in text.splitlines() if line.startswith(("fake", "verified"))]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update({FAKE: 1}),
        lambda data: data.update(experiment=FAKE),
        lambda data: data.update(format=FAKE),
        lambda data: data["params"].update({FAKE: 1}),
        lambda data: data["params"].update(kind=FAKE),
        lambda data: data["params"]["corpus"].update({FAKE: FAKE}),
        lambda data: data["params"]["corpus"].update(path=FAKE),
        lambda data: data["corpus"].update(name=FAKE, split=FAKE),
        lambda data: data["corpus"].update(sha256=FAKE),
        lambda data: data["public"].update(tokenizer=FAKE),
        lambda data: data["public"]["evaluated"].update({FAKE: 3}),
        lambda data: data["bounds"][0].update(metric=FAKE),
        lambda data: data["bounds"][0].update(parts={FAKE: 1.0}),
        lambda data: data["environment"].update(device=FAKE, python=FAKE, seconds={FAKE: 1.0}),
    ],
)
@pytest.mark.parametrize("command", ["verify", "show", "sample", "table"])
def test_a_certificate_cannot_steer_the_terminal(made, sublora, tmp_path, command, spoil):
    data = load_certificate(made.folder / "certificate.json").data()
    spoil(data)
    for name in ("spoilt", "whole") if command == "table" else ("spoilt",):
        path = tmp_path / "runs" / name / "certificate.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    arguments = {"table": ("--runs", tmp_path / "runs"), "verify": (path, "--runs", made.home / "runs")}.get(command, (path,))
    status, out, err = sublora(command, *arguments, *(("--tokens", 1) if command == "sample" else ()))
    if command == "sample" and status == 0:
        out = ""  # what a byte model writes: shown as it is, where nobody looks at a terminal
    steers_nothing(out, err.replace("\r", "\n"))
    assert status == 1 or command != "verify"


# --- samples


@pytest.mark.parametrize("smoothing", ["-0.1", "1", "1.5", "nan"])
def test_a_smoothing_weight_outside_its_range(made, sublora, smoothing):
    assert f"smoothing {float(smoothing)} is outside [0, 1)" in complaint(
        sublora("sample", made.folder / "certificate.json", "--smoothing", smoothing)
    )


def test_a_checkpoint_of_another_architecture_than_it_says(made, sublora, tmp_path):
    path = tmp_path / "other.safetensors"
    tensors, facts = load_checkpoint(made.folder / "pretrain.safetensors", {})
    save_checkpoint(path, tensors, facts | {"subspace": facts["subspace"] | {"dimension": 39}})
    assert f"{path}: holds no coordinates of the architecture it names" in complaint(sublora("sample", path))


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "foreign"])
def test_a_file_that_is_no_checkpoint(made, sublora, tmp_path, kind):
    path = tmp_path / "file.safetensors"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello", "utf-8")
    elif kind == "cut":
        path.write_bytes((made.folder / "pretrain.safetensors").read_bytes()[:-50])
    elif kind == "foreign":
        save_checkpoint(path, {"weight": torch.zeros(3)}, {"by": "someone else"})
    assert complaint(sublora("sample", path)).startswith(f"sublora: {path}: ")


# --- where to write


@pytest.mark.parametrize("command", ["run", "data"])
def test_a_runs_folder_that_is_a_file(made, sublora, tmp_path, command):
    (tmp_path / "runs").write_text("not a folder", "utf-8")
    what = {"data": ("text", "--path", made.texts), "run": (write_params(tmp_path / "p.yaml", settings(made.texts)),)}[command]
    line = complaint(sublora(command, *what, "--runs", tmp_path / "runs"))
    assert f"{tmp_path}/runs" in line and "choose another" in line
    assert files(tmp_path) == ["p.yaml", "runs"] or command == "data"


def outside(*arguments, limit=None, stdout=subprocess.PIPE):
    """The command in a process of its own, which can write no file larger than `limit` bytes."""

    def limited():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", "from sublora.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=limited, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_full_disk_while_a_corpus_is_prepared(made, tmp_path):
    line = complaint_after_bars(outside("data", "text", "--path", made.texts, "--runs", tmp_path / "runs", limit=2000))
    assert line.startswith(f"sublora: {tmp_path}/runs/corpora/") and "cannot write" in line and "free space" in line
    assert [name for name in files(tmp_path / "runs") if not name.endswith(".lock")] == []


def test_a_full_disk_where_the_output_goes(made):
    with open("/dev/full", "w") as full:
        result = outside("data", "text", "--path", made.texts, "--runs", made.home / "runs", stdout=full)
    assert complaint(result) == "sublora: standard output: No space left on device; free space or choose another place"


def test_a_full_disk_at_any_moment_of_a_run_is_one_error_and_the_run_goes_on_from_there(made, tmp_path, capsys):
    values, failed = settings(made.texts, compression={"levels": 5}), set()  # capsys: bars go to memory, not to a file
    wanted = load_certificate(made.folder / "certificate.json").data()
    heeded, (_, most) = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    shutil.copytree(made.home / "runs" / "corpora", tmp_path / "corpora")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (10, 200, 600, 1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000, 5000, 10_000, 20_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
            try:
                Run(values, tmp_path).certify()
            except SubloraError as error:
                failed.add(str(error).removeprefix(str(tmp_path)).split(":")[0])
                assert "cannot write (" in str(error) and "free space or choose another folder" in str(error)
            assert not list(tmp_path.rglob("*.part"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, heeded)
    assert "/tiny/pretrain.safetensors" in failed and any(name.startswith("/tiny/scores/") for name in failed) and len(failed) >= 4
    found = Run(values, tmp_path).certify().data()
    assert {**found, "environment": 0, "certificate_sha256": 0} == {**wanted, "environment": 0, "certificate_sha256": 0}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_a_character_shows_another(made, monkeypatch, encoding):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    status, out, err = outside("sample", made.folder / "certificate.json", "--prompt", "\u6771\u4eac", "--tokens", 1)
    assert (status, err) == (0, "") and out.startswith("??")
    assert "??" in complaint(outside("show", "\u6771\u4eac.json"))


# --- the report


def test_a_report_of_no_runs(sublora, tmp_path):
    project = shutil.copytree(Path(NOTEBOOKS).parent / "report", tmp_path / "report", ignore=shutil.ignore_patterns("_site"))
    line = complaint(sublora("report", tmp_path, "--project", project))
    assert line.endswith(f"{tmp_path}: holds no certificate.json; give the folder of a finished run, such as runs/quick")
    line = complaint(sublora("report", "--project", project, "--runs", tmp_path / "runs"))
    assert f"{tmp_path}/runs: no finished run" in line and "sublora run params/quick.yaml" in line
    assert not (project / "_site").exists()


def test_a_report_whose_pages_are_not_there(sublora, tmp_path):
    assert "not the report's folder" in complaint(sublora("report", "--project", tmp_path, "--runs", tmp_path))


def test_show_prints_a_certificate_without_checking_it(sublora, tmp_path):
    status, out, err = sublora("show", write_run(tmp_path, certificate()))
    assert (status, err) == (0, "")
    assert out.startswith("quick\n") and "4.96 bits per byte" in out and "281 bytes" in out and "top-100 error" in out


def test_a_table_of_runs(sublora, tmp_path):
    for name in ("quick", "other"):
        write_run(tmp_path, certificate(name))
    status, out, err = sublora("table", "--runs", tmp_path)
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split()[0] == "name" and {"message_bits", "bound", "held_out", "seconds"} <= set(header.split())
    assert [row.split()[0] for row in rows] == ["other", "quick"]
    (tmp_path / "other" / "certificate.json").write_text("[")
    status, out, err = sublora("table", "--runs", tmp_path)
    assert status == 0 and len(out.splitlines()) == 2 and "other/certificate.json" in err and len(err.splitlines()) == 1
    line = complaint(sublora("table", "--runs", tmp_path / "none"))
    assert "no finished run; run `sublora run params/quick.yaml` first" in line
