"""A run's folder: what the run noted is its own; everything else is somebody's."""

import json

import pytest

from sublora.atomic import replaced_atomically, write_text
from sublora.errors import SubloraError
from sublora.own import NOTED, claim, delete_all_but, delete_leftovers, note, noted
from sublora.training.metrics import MetricsLog


@pytest.fixture
def folder(tmp_path):
    claim(tmp_path / "runs" / "mine")
    return tmp_path / "runs" / "mine"


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {NOTED}


def test_a_folder_that_is_new_or_empty_becomes_a_runs_and_stays_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "new"):
        claim(tmp_path / name)
        assert noted(tmp_path / name) == []


@pytest.mark.parametrize("theirs", ["notes.txt", "metrics.csv", ".hidden"])
def test_a_folder_with_anything_else_in_it_is_refused(tmp_path, theirs):
    (tmp_path / theirs).write_text("mine", "utf-8")
    with pytest.raises(SubloraError, match="holds files that no run made; move it away or choose another name"):
        claim(tmp_path)
    assert files(tmp_path) == {theirs}


def test_a_link_is_not_followed(tmp_path, folder):
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(SubloraError, match="linked: a symbolic link"):
        claim(tmp_path / "linked")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "scores").symlink_to(elsewhere)
    (folder / "metrics.csv").symlink_to(tmp_path / "target")
    for name in ("scores/a", "metrics.csv"):
        with pytest.raises(SubloraError, match="a symbolic link, which a run does not follow; remove it"):
            write_text(folder / name, "x")
    with pytest.raises(SubloraError, match=r"metrics\.csv: a symbolic link"):
        MetricsLog(folder, "pretrain", 0)
    assert files(elsewhere) == set() and (folder / "metrics.csv").is_symlink()


@pytest.mark.parametrize("name", ["metrics.csv", "scores/a"])
def test_a_run_does_not_begin_where_a_link_stands_for_its_file(tmp_path, folder, name):
    write_text(folder / name, "of the run")
    claim(folder)
    link = folder / name.split("/")[0]
    link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / "moved")
    with pytest.raises(SubloraError, match=f"{link}: a symbolic link, which a run does not follow; remove it"):
        claim(folder)


def test_what_was_noted_is_deleted_and_nothing_else(tmp_path, folder):
    for name in ("a", "kept", "scores/b", "ways/3/c", "odd [x]*", "tensorboard/pretrain/events.1"):
        write_text(folder / name, "of the run")
    for name in ("tensorboard/pretrain/mine", "scores/mine", "odd x", "mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of a person", "utf-8")
    delete_all_but(folder, ["kept"])
    assert files(folder) == {"kept", "tensorboard/pretrain/mine", "scores/mine", "odd x", "mine"}
    assert not (folder / "ways").exists()
    (folder / "a").write_text("made by a person, now", "utf-8")
    delete_all_but(folder, [])
    assert files(folder) == {"a", "tensorboard/pretrain/mine", "scores/mine", "odd x", "mine"}


def test_nothing_behind_a_link_is_deleted(tmp_path, folder):
    write_text(folder / "scores" / "a", "of the run")
    (folder / "scores").rename(tmp_path / "moved")
    (folder / "scores").symlink_to(tmp_path / "moved")
    delete_all_but(folder, [])
    assert files(tmp_path / "moved") == {"a"} and (folder / "scores").is_symlink()


def test_a_persons_file_is_not_replaced(folder):
    (folder / "metrics.csv").write_text("of a person", "utf-8")
    with pytest.raises(SubloraError, match=r"metrics\.csv: a run would replace this file and did not make it; move it away"):
        write_text(folder / "metrics.csv", "of the run")
    assert (folder / "metrics.csv").read_text("utf-8") == "of a person" and noted(folder) == []


@pytest.mark.parametrize("entry", ["../outside", "/etc/passwd", "a/../../outside"])
def test_a_list_from_a_stranger_leads_nowhere_else(tmp_path, folder, entry):
    (tmp_path / "runs" / "outside").write_text("of a person", "utf-8")
    (folder / NOTED).write_text(f'# head\n"{entry}"', "utf-8")
    assert noted(folder) == []
    delete_all_but(folder, [])
    assert (tmp_path / "runs" / "outside").exists()


@pytest.mark.parametrize("entry", ["*", "**/*", "sub/*", "sub/?", "[m-s]ine", ".", "sub"])
def test_a_name_in_the_list_is_no_pattern(folder, entry):
    write_text(folder / entry.replace("/", "_") / "made", "of the run")
    for name in ("mine", "sub/x"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of a person", "utf-8")
    with open(folder / NOTED, "a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(entry)}")
    delete_all_but(folder, [])
    assert files(folder) == {"mine", "sub/x"}


def test_a_line_that_was_cut_off_is_no_name(folder):
    write_text(folder / "a", "of the run")
    text = (folder / NOTED).read_text("utf-8")
    for end in range(len(text)):
        (folder / NOTED).write_text(text[:end], "utf-8")
        assert noted(folder) == []
        note(folder / "b")
        assert noted(folder) == ["b"]


def test_what_a_killed_process_left_half_written_is_deleted(folder):
    with pytest.raises(KeyboardInterrupt), replaced_atomically(folder / "a") as temporary:
        left = temporary.name
        raise KeyboardInterrupt
    for name in (left, ".b.12345678.part"):
        (folder / name).touch()
    delete_leftovers(folder)
    assert files(folder) == {".b.12345678.part"}
