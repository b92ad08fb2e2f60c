"""A study's folder: where relative paths lead, and how it begins."""

from pathlib import Path

import pytest
from tiny import complaint, listed_by_git

from sublora import study
from sublora.study import PARTS, enter_study


def test_a_notebook_opened_in_its_folder_moves_to_the_folder_above(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    enter_study()
    assert Path.cwd() == tmp_path
    enter_study()
    assert Path.cwd() == tmp_path, "a second call stays"


def test_any_other_folder_stays(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "deeper").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "notebooks", tmp_path / "notebooks" / "deeper"):  # none is beside a folder `params`
        monkeypatch.chdir(folder)
        enter_study()
        assert Path.cwd() == folder


def test_a_new_study_is_a_copy_of_the_repository_without_what_was_made_there(tmp_path, sublora):
    status, out, err = sublora("init", tmp_path / "new" / "study")
    assert (status, err) == (0, "") and out.endswith(f"next: cd {tmp_path / 'new' / 'study'} && sublora run params/quick.yaml\n")
    copied = {path.relative_to(tmp_path / "new" / "study") for path in tmp_path.rglob("*") if path.is_file()}
    assert copied == set(map(Path, listed_by_git("--cached", "--others", "--exclude-standard", *PARTS)))


@pytest.mark.parametrize("there", ["full/of", "full", "a-file"])
def test_a_study_begins_only_in_an_empty_folder(tmp_path, sublora, there):
    (tmp_path / "full" / "of").mkdir(parents=True)
    (tmp_path / "full" / "of" / "things").touch()
    (tmp_path / "a-file").touch()
    before = sorted(tmp_path.rglob("*"))
    line = complaint(sublora("init", tmp_path / there))
    assert line.startswith(f"sublora: {tmp_path / there}: ") and "give a new" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_copy_that_fails_leaves_nothing(tmp_path, sublora, monkeypatch):
    (tmp_path / "study").mkdir()
    monkeypatch.setattr(study, "PARTS", ("params", "no-such-part"))
    assert "no-such-part" in complaint(sublora("init", tmp_path / "study"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "study"]


def test_commands_and_notebooks_mean_the_same_by_a_relative_path(tmp_path, sublora, monkeypatch):
    """In the folder `notebooks` of a study, `runs` is the folder beside it; elsewhere, the one in the current folder."""
    for folder in ("notebooks", "params", "elsewhere"):
        (tmp_path / folder).mkdir()
    for folder, runs in (("notebooks", "../runs"), ("elsewhere", "runs")):
        monkeypatch.chdir(tmp_path / folder)
        assert sublora("table")[2].startswith(f"sublora: {runs}: no finished run")
