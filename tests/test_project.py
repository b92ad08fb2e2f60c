"""What the project's files say about each other."""

import re
import tomllib

import yaml
from tiny import HOME

import sublora


def test_one_version_everywhere():
    citation = yaml.safe_load((HOME / "CITATION.cff").read_text("utf-8"))
    changes = re.findall(r"^## \[(.+?)\]", (HOME / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation["version"] == sublora.__version__
    assert changes[:2] == ["Unreleased", sublora.__version__]


def test_links_between_the_projects_pages_lead_to_files():
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (HOME / page).read_text("utf-8")):
            assert (HOME / target).exists(), f"{page}: {target}"


def test_ci_runs_the_pythons_that_the_package_supports():
    workflow = yaml.safe_load((HOME / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f"Python {', '.join(pythons[:-1])} or {pythons[-1]}" in (HOME / "README.md").read_text("utf-8")
    assert any(step.get("run", "").startswith("make test") for step in workflow["jobs"]["test"]["steps"])


def canonical(requirement):
    """The name of a package in a requirement, as indexes write it."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def test_the_lock_file_has_every_dependency_but_torch_with_hashes_and_names_no_index():
    project = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]
    asked = {canonical(each) for each in project["dependencies"]}
    asked |= {canonical(each) for extra in ("dev", "release", "supply") for each in project["optional-dependencies"][extra]}
    text = (HOME / "requirements.lock").read_text("utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    locked = {canonical(entry) for entry in entries}
    assert asked - locked == {"torch"} and not [name for name in locked if name.startswith(("torch", "nvidia", "triton"))]
    for entry in entries:
        first, *hashes = [line.rstrip(" \\").strip() for line in entry.splitlines()]
        assert "==" in first and hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), first
    assert "://" not in text and "index" not in text


def test_what_is_outside_the_lock_file_is_pinned():
    lines = [line for line in (HOME / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert [line.split("==")[0] for line in lines] == ["torch", "quarto-cli"]
    assert "--require-hashes -r requirements.lock" in (HOME / "Makefile").read_text("utf-8")
