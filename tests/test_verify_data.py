"""Which data `verify` takes, whatever a stranger's certificate says of them."""

import json

import pytest
from tiny import put, settings, write_texts

from sublora.certificate.schema import digest
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.run import Run
from sublora.verification import verify, verify_arithmetic


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify-data")
    run = Run(settings(write_texts(folder / "texts")), folder / "runs")
    run.certify()
    run.path, run.texts = run.folder / "certificate.json", folder / "texts"
    return run


@pytest.fixture
def altered(made, tmp_path):
    """The certificate with one value replaced, sealed anew."""

    def file(path, value):
        data = put(json.loads(made.path.read_text("utf-8")), path, value)
        data["certificate_sha256"] = digest(data)
        (tmp_path / "altered.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
        return tmp_path / "altered.json"

    return file


def test_functions_of_pinned_packages_are_those_that_are_named(made, altered):
    """A prepared corpus with the right SHA-256 does not make a false name true."""
    path = altered(("params", "corpus"), {"packages": ["networkx==3.6.1"], "max_documents": 200, "train": 0.6})
    with pytest.raises(SubloraError, match="speaks of a corpus with sha256"):
        verify(path, made.corpora)


@pytest.mark.parametrize("source", ["/etc", "stranger/texts", "openwebtext"])
def test_with_a_place_for_the_data_nothing_else_is_read(made, altered, source, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("looked for on the hub"))
    (tmp_path / "empty").mkdir()
    path = altered(("params", "corpus"), {"source": source, "train": 0.6})
    with pytest.raises(SubloraError, match="empty: holds no"):
        verify(path, tmp_path / "none", tmp_path / "empty")


def test_a_tokenizer_is_not_downloaded(made, altered, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("sublora.data.store.tokenizer_of", lambda corpus, local_only=False: asked.append(local_only) or 1 / 0)
    said = {"source": "text", "path": "texts", "tokenizer": "stranger/tokenizer", "tokenizer_from": "elsewhere", "train": 0.6}
    with pytest.raises(ZeroDivisionError):
        verify(altered(("params", "corpus"), said), tmp_path / "none", made.texts)
    assert asked == [True]


def test_a_place_that_is_not_there_is_refused(made, tmp_path):
    with pytest.raises(SubloraError, match="not there"):
        verify(made.path, made.corpora, tmp_path / "nowhere")


def test_arithmetic_looks_at_the_random_base(made, altered):
    assert verify_arithmetic(made.path) == []
    assert any("base_weights_sha256" in line for line in verify_arithmetic(altered(("params", "model", "seed"), 5)))


def test_a_seed_that_torch_cuts_off_is_refused():
    """2^32 + 1 and 1 would be two messages of one model."""
    with pytest.raises(SubloraError, match="seed"):
        as_experiment(settings("texts", model__seed=2**32 + 1))
