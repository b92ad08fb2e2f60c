"""The wheel, unpacked where no repository is near: a study begins, runs, is verified and reported."""

import os
import subprocess
import sys
import zipfile

import pytest
from tiny import HOME, settings, write_params, write_texts

TINY = {
    "name": "quick",
    "corpus": {"packages": ["networkx==3.6.1"], "max_documents": 300},
    "model": {"layers": 1, "heads": 2, "width": 16, "block": 32},
    "subspace": {"dimension": 40},
    "training": {"steps": 20, "batch": 8, "validate_every": 10},
    "compression": {"levels": 5, "finetune_steps": 5},
}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Calls `python -m sublora` of the unpacked wheel in a folder; returns standard output."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=HOME, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")

    def call(cwd, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "sublora", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(folder / "site")},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_everything_works_in_a_new_study(command, tmp_path):
    command(tmp_path, "init", "my-study")
    study = tmp_path / "my-study"
    assert sorted(path.name for path in study.iterdir()) == ["notebooks", "params", "report"]
    write_params(study / "params" / "tiny.yaml", TINY)
    assert "finished: runs/quick" in command(study, "run", "params/tiny.yaml")
    certificate = "runs/quick/certificate.json"
    assert "message" in command(study, "show", certificate)
    assert f"{certificate}: verified" in command(study, "verify", certificate)
    assert "rendered with" in command(study, "report")
    assert (study / "report" / "_site" / "index.html").is_file()


def test_without_a_study_a_run_uses_the_packages_notebooks(command, tmp_path):
    write_texts(tmp_path / "texts")
    write_params(tmp_path / "tiny.yaml", {**settings("texts"), "notebooks": ["pretrain"]})
    command(tmp_path, "run", "tiny.yaml")
    assert (tmp_path / "runs" / "tiny" / "pretrain.ipynb").is_file()
