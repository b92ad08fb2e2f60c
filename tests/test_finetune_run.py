"""A pretrained language model, fine-tuned in a subspace of its weights: from a params file to `sublora verify`."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny import NOTEBOOKS, complaint, settings, write_params, write_texts
from transformers import GPT2Config, GPT2LMHeadModel

import sublora as package
from sublora.certificate.schema import load_certificate
from sublora.errors import SubloraError
from sublora.message import unwrapped
from sublora.run import Run

SIZES = {"vocab_size": 264, "n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}


def save_base(folder, seed=0, **sizes):
    """A causal model of `transformers` with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        GPT2LMHeadModel(GPT2Config(**{**SIZES, **sizes})).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch, tmp_path_factory):
    """A certificate's places lead into the current folder, or are not followed."""
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A study with texts, a pretrained model, and the params of its fine-tuning."""
    home = tmp_path_factory.mktemp("home")
    save_base(home / "base")
    write_texts(home / "texts")
    values = settings("texts", kind="finetune", model={"source": "base", "block": 32})
    values["subspace"] = {"parametrization": "subspace", "dimension": 300}
    write_params(home / "tiny.yaml", values)
    return home


@pytest.fixture(scope="module")
def finished(home, request):
    """The run by the command, in its folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        patched.setattr("sys.argv", ["sublora", "run", "tiny.yaml", "--notebooks", str(NOTEBOOKS)])
        from sublora import cli

        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    path = home / "runs" / "tiny" / "certificate.json"
    return SimpleNamespace(path=path, certificate=load_certificate(path), texts=home / "texts")


@pytest.fixture
def here(finished, home, monkeypatch):
    """That run, with its folder as the current one, and its base model as it was also after the test."""
    monkeypatch.chdir(home)
    yield finished
    shutil.rmtree(home / "base", ignore_errors=True)
    save_base(home / "base")


def test_it_verifies(here, sublora):
    status, out, err = sublora("verify", here.path)
    assert status == 0, err
    assert f"{here.path}: verified" in out


def test_the_certificate_states_the_base_and_holds_a_few_hundred_numbers(here):
    certificate = here.certificate
    model = certificate.params["model"]
    assert (certificate.params["kind"], model["source"], model["architecture"]["model_type"]) == ("finetune", "base", "gpt2")
    assert model["architecture"]["n_embd"] == 16
    assert certificate.params["subspace"]["dimension"] == 300
    _, coordinates = unwrapped(certificate.message_bytes)
    assert 8 * len(coordinates) < 300 * 4 + 400
    assert certificate.public.base == "transformers" and len(certificate.public.base_weights_sha256) == 64


def test_training_moved_the_pretrained_model(here):
    run = Run("tiny.yaml")
    log = run.train()
    assert log["validation_loss"].iloc[-1] < log["train_loss"].iloc[0]
    start, trained = run.problem.build(), run.model
    changed = [
        not torch.equal(a, b) for a, b in zip(start.materialized().parameters(), trained.materialized().parameters(), strict=True)
    ]
    assert all(changed)
    assert run.message == here.certificate.message_bytes, "the run in Python is the run of the command"


def test_it_speaks_and_counts_bits(here):
    model = package.load(here.path)
    assert model.generate("12: ", 5).startswith("12: ")
    assert 0 < model.bits("12: one two") < 12 * 8.2


def refusal(result):
    """The last line on standard error of a command that failed; before it are the bars with which `transformers` loads weights."""
    status, out, err = result
    *bars, line = [piece for piece in err.replace("\r", "\n").splitlines() if piece]
    assert all(bar.startswith(("Loading weights", "Writing model shards")) for bar in bars), err
    return complaint((status, out, line))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "its base model has"),
        ({"n_embd": 8}, "model.source: 'base': not the weights"),
        (None, "model.source: cannot load 'base'"),
    ],
    ids=str,
)
def test_another_base_is_refused_in_one_line(here, sublora, home, change, says):
    shutil.rmtree(home / "base")
    if change is not None:
        save_base(home / "base", **change)
    result = sublora("verify", here.path)
    assert says in refusal(result) and result[1] == f"{here.path}: NOT verified\n"
    with pytest.raises(SubloraError, match=says):
        package.load(here.path)


@pytest.mark.parametrize(("key", "value"), [("n_head", 4), ("activation_function", "relu"), ("layer_norm_epsilon", 0.5)])
def test_another_architecture_than_the_messages_is_noticed(here, sublora, tmp_path, key, value):
    data = here.certificate.data()
    data["params"]["model"]["architecture"][key] = value
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    status, _, err = sublora("verify", path)
    assert status == 1 and f"params.model.architecture.{key}: the certificate says" in err


def test_the_configuration_is_the_messages_and_not_the_folders(here, sublora, home):
    """Other heads have the same weights, and another file beside them does not change what the message means."""
    shutil.rmtree(home / "base")
    save_base(home / "base", n_head=4)
    assert sublora("verify", here.path)[0] == 0


def test_an_impossible_override_leaves_the_finished_run_as_it_is(here, sublora, home):
    files = {path.name: path.stat().st_mtime_ns for path in here.path.parent.iterdir()}
    override = "subspace={parametrization: monarch}"
    line = complaint(sublora("run", "tiny.yaml", "--notebooks", NOTEBOOKS, "--set", override))
    assert "monarch layers would take the place of the base model's" in line
    assert {path.name: path.stat().st_mtime_ns for path in here.path.parent.iterdir()} == files
