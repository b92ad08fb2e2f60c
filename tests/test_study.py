"""Where relative paths lead."""

from pathlib import Path

from sublora.study import enter_study


def test_a_notebook_opened_in_its_folder_moves_to_the_folder_above(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert enter_study() == Path.cwd() == tmp_path
    assert enter_study() == Path.cwd() == tmp_path, "a second call stays"


def test_any_other_folder_stays(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "deeper").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "notebooks", tmp_path / "notebooks" / "deeper"):  # none is beside a folder `params`
        monkeypatch.chdir(folder)
        assert enter_study() == Path.cwd() == folder
