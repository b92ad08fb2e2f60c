"""Functions of pinned packages: the same with every Python, from what is installed, a folder, or a download."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from certificates import certificate
from tiny import HOME

from sublora.data import documents, prepare
from sublora.data.corpora import corpus_identity
from sublora.data.packages import package_functions
from sublora.errors import SubloraError
from sublora.experiment import Corpus, as_experiment
from sublora.experiment.packages import WHEELS
from sublora.problems import TextProblem

NETWORKX = "networkx==3.6.1"
STORE = "0438f61ac4ceb4ad432c78c4ab2adc917d14de874ba6756ffa7ec18dc05ea0ba"
"""SHA-256 of networkx's functions as bytes: certificates depend on it."""
FOUND = {"a/__init__.py": "def first(): pass\n", "a/b.py": "def second(): pass\ndef first(): pass\n", "c.py": "def third(): pass\n"}
METADATA = "Metadata-Version: 2.1\nName: demo-pack\nVersion: 1.0\nRequires-Python: >=99\n"


def write_wheel(folder, files=FOUND):
    """A wheel for a Python that nobody has, with a file that is installed elsewhere; returns its entry of `packages`."""
    folder.mkdir(exist_ok=True)
    path = folder / "demo_pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in reversed(files.items()):
            archive.writestr(name, text)
        archive.writestr("demo_pack-1.0.data/scripts/no.py", "def no(): pass\n")
        archive.writestr("demo_pack-1.0.dist-info/METADATA", METADATA)
        archive.writestr("demo_pack-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("demo_pack-1.0.dist-info/RECORD", "")
    return f"demo-pack==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def names(texts):
    return [text.split()[1].partition("(")[0] for text in texts]


def complaint(packages, folder=None):
    with pytest.raises(SubloraError) as caught:
        list(package_functions(packages, folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A study without wheels, and pip without a network: it finds what is in the folder `index`."""
    (tmp_path / "study").mkdir()
    (tmp_path / "index").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path


def test_the_functions_of_networkx_are_known(tmp_path):
    store = prepare(Corpus(packages=(NETWORKX,)), tmp_path)
    assert (len(store), len(store.tokens), store.sha256) == (7_071, 6_211_911, STORE)


def others():
    """Other Pythons of this machine that can load the parser."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}."
    found = sorted((Path.home() / ".pyenv" / "versions").glob("3.1[1-9].*/bin/python"))
    return [path for path in found if not path.parent.parent.name.startswith(here)]


FIND = """
import hashlib, runpy, sys
from pathlib import Path
find = runpy.run_path(sys.argv[1])["distinct_functions"]
files = sorted(Path(sys.argv[2]).rglob("*.py"))
texts = list(find(path.read_bytes() for path in files))
print(sys.version_info[:2], len(texts), hashlib.sha256("\\0".join(texts).encode()).hexdigest())
"""


def test_two_pythons_find_the_same_functions(tmp_path):
    if not others():
        pytest.skip("there is no other Python")
    folder, said = Path(str(importlib.metadata.distribution("networkx").locate_file("networkx"))), []
    parser = [f"{name}=={importlib.metadata.version(name)}" for name in ("tree-sitter", "tree-sitter-python")]
    for python in (Path(sys.executable), others()[-1]):
        site = tmp_path / str(len(said))
        install = [python, "-m", "pip", "install", "-q", "--no-deps", "-t", site, *parser]
        if said and subprocess.run(install, capture_output=True).returncode:
            pytest.skip("the parser cannot be installed for the other Python")
        find = [python, "-c", FIND, HOME / "sublora" / "data" / "code.py", folder]
        done = subprocess.run(find, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True)
        said.append(done.stdout.rsplit(maxsplit=2))
    assert said[0][0] != said[1][0] and said[0][1:] == said[1][1:] and int(said[0][1]) == 7_071


def test_a_folder_of_wheels_is_enough(tmp_path, monkeypatch):
    package = write_wheel(tmp_path / "wheels")
    monkeypatch.setattr(subprocess, "run", None)
    assert names(package_functions([package], tmp_path / "wheels")) == ["first", "second", "third"]
    assert names(documents(Corpus(packages=(package,)), tmp_path / "wheels")) == ["first", "second", "third"]
    other = package[:-64] + 64 * "0"
    says = complaint([other], tmp_path / "wheels")
    assert "demo_pack-1.0-py3-none-any.whl has another SHA-256 than the wheel of demo-pack==1.0" in says
    says = complaint([NETWORKX], tmp_path / "wheels")  # although it is installed
    assert f"the folder lacks the wheel of {NETWORKX}; `pip download" in says
    assert "none: cannot read" in complaint([package], tmp_path / "none")
    (broken := tmp_path / "wheels" / "bad-1-py3-none-any.whl").write_bytes(b"no wheel")
    bad = f"bad==1 --hash=sha256:{hashlib.sha256(b'no wheel').hexdigest()}"
    assert f"{broken}: not a readable wheel" in complaint([bad], tmp_path / "wheels")


def installed_copy(folder):
    """networkx as it is installed, copied to where it is found first."""
    distribution = importlib.metadata.distribution("networkx")
    for name in {Path(file.as_posix()).parts[0] for file in distribution.files} - {".."}:
        shutil.copytree(str(distribution.locate_file(name)), folder / name)
    return folder / "networkx"


def test_what_is_installed_counts_if_it_is_the_wheels_content(elsewhere, monkeypatch):
    package = installed_copy(elsewhere / "site")
    expected = list(package_functions([NETWORKX]))
    monkeypatch.syspath_prepend(elsewhere / "site")
    (package / "convert.pyc").write_bytes(b"compiled")
    assert list(package_functions([NETWORKX])) == expected
    (package / "convert.py").write_text("def to_networkx_graph(): pass\n")
    says = complaint([NETWORKX])  # the broken form would take the altered file
    assert says.startswith(f"{NETWORKX}: pip cannot download its wheel (ERROR: ")
    command = f"pip download --no-deps --only-binary :all: -d {elsewhere / 'study' / 'data' / 'wheels'} {NETWORKX}"
    assert says.endswith(f"; where there is a network: `{command}`")
    (package / "convert.py").unlink()
    assert "cannot download" in complaint([NETWORKX])


def test_another_installed_version_does_not_count(elsewhere, monkeypatch):
    metadata = installed_copy(elsewhere / "site").parent / "networkx-3.6.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text("utf-8").replace("\nVersion: 3.6.1\n", "\nVersion: 3.6.0\n"), "utf-8")
    monkeypatch.syspath_prepend(elsewhere / "site")
    assert importlib.metadata.version("networkx") == "3.6.0"
    assert f"{NETWORKX}: pip cannot download its wheel" in complaint([NETWORKX])


def test_another_version_or_none_is_downloaded_as_data(elsewhere, capsys):
    """With the real pip, which checks the hash; the wheel asks for Python 99."""
    package = write_wheel(elsewhere / "index")
    assert "cannot download" in complaint([package[:-64] + 64 * "0"])
    assert names(package_functions([package])) == ["first", "second", "third"]
    assert "downloading the wheel" in capsys.readouterr().err
    shutil.rmtree(elsewhere / "index")
    assert names(package_functions([package])) == ["first", "second", "third"]  # kept
    assert "downloading" not in capsys.readouterr().err and "demo_pack" not in sys.modules


def test_identity_is_of_the_wheels_and_the_parser_alone(monkeypatch):
    identity = corpus_identity(Corpus())
    assert corpus_identity(Corpus(split_seed=5, train=0.5)) == identity == corpus_identity(Corpus(packages=tuple(WHEELS)))
    assert corpus_identity(Corpus(packages=tuple(reversed(WHEELS)))) != identity
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    assert corpus_identity(Corpus()) != identity


def test_a_strangers_certificate_does_not_choose_what_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    experiment = as_experiment({"name": "x", "corpus": {"packages": [f"evil==1 --hash=sha256:{64 * '0'}"]}})
    with pytest.raises(SubloraError, match="c.json: its corpus .* is not prepared"):
        TextProblem.open_for_verification(experiment, certificate(), Path("c.json"), tmp_path, None)
