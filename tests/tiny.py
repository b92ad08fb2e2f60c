"""A corpus and an experiment small enough for tests."""

import copy
import random
import subprocess
from pathlib import Path

import pytest
import yaml

HOME = Path(__file__).resolve().parent.parent
NOTEBOOKS = HOME / "notebooks"


def listed_by_git(*arguments):
    """The lines of `git ls-files` for this repository; the test is skipped where there is no git, or no checkout."""
    try:
        done = subprocess.run(["git", "ls-files", *arguments], cwd=HOME, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def put(data, path, value):
    """Nested data with one value replaced, or removed for `KeyError`; what is not on the way to it is shared, not copied."""
    place = changed = copy.copy(data)
    for key in path[:-1]:
        place[key] = copy.copy(place[key])
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def write_texts(folder, documents=300):
    """A folder of small text files, the same every time."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for number in range(documents):
        words = draw.choices(["one", "two", "three", "four"], k=draw.randint(1, 10))
        (folder / f"{number:03}.txt").write_text(f"{number}: {' '.join(words)}\n", "utf-8")
    return folder


def settings(texts, **changes):
    """An experiment over that folder; `group__key=value` changes one of its settings, `key=value` a whole one."""
    values = {
        "name": "tiny",
        "corpus": {"source": "text", "path": str(texts), "train": 0.6},
        "model": {"layers": 1, "heads": 2, "width": 16, "block": 32},
        "subspace": {"dimension": 40, "lora_dropout": 0.0},
        "training": {"steps": 20, "batch": 8, "learning_rate": 0.04, "validate_every": 10, "validation_documents": 6},
        "compression": {"levels": 5, "finetune_steps": 10, "finetune_learning_rate": 0.002},
        "bounds": {"documents": 100, "pilot": 0.5, "held_out_documents": 50},
    }
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (values[group] if group else values)[name] = value
    return values


def write_params(path, values):
    path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    return path


def complaint(result):
    """The one line on standard error of a command that failed."""
    status, _, err = result
    assert status not in (0, None), "the command did not fail"
    lines = err.splitlines()
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def complaint_after_bars(result):
    """As `complaint`, where progress bars on standard error come before that line."""
    status, out, err = result
    *bars, line = [piece for piece in err.split("\n") if piece]
    states = [state for bar in bars for state in bar.split("\r") if state]
    assert {state.split(":")[0] for state in states} <= {"text", "pretrain"}, err
    return complaint((status, out, line))
