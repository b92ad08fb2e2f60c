"""What the project's files say about each other."""

import re

import yaml
from tiny import HOME, listed_by_git

import sublora
from sublora.experiment import as_experiment, load_experiment
from sublora.experiment.params import read_yaml


def test_one_version_everywhere():
    citation = yaml.safe_load((HOME / "CITATION.cff").read_text("utf-8"))
    changes = re.findall(r"^## \[(.+?)\]", (HOME / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation["version"] == sublora.__version__
    assert changes[:2] == ["Unreleased", sublora.__version__]


def test_links_between_the_projects_pages_lead_to_files():
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (HOME / page).read_text("utf-8")):
            assert (HOME / target).exists(), f"{page}: {target}"


def test_the_sweeps_of_the_readme_sweep_the_dimension():
    """Both commands make the same experiments, which differ from the params file in name and dimension alone."""
    text = (HOME / "README.md").read_text("utf-8").replace("\\\n", " ")
    command = re.search(r"for d in 250 500; do sublora run (\S+) --set (\S+) --set (\S+);", text)
    papermill = re.search(r"papermill \S+ \S+ -f (\S+) -p name (\S+) +-y \"(.+)\"", text)
    assert command and papermill
    for d in ("250", "500"):
        file, *overrides = (part.replace("$d", d) for part in command.groups())
        other, name, group = (part.replace("$d", d) for part in papermill.groups())
        values = read_yaml((HOME / other).read_text("utf-8")) | {"name": name} | read_yaml(group)
        swept = load_experiment(HOME / file, overrides)
        assert as_experiment(values) == swept and (swept.name, swept.subspace.dimension) == (f"d{d}", int(d))
        assert load_experiment(HOME / file, [*overrides, "name=quick", "subspace.dimension=961"]) == load_experiment(HOME / file)


def test_ci_runs_the_pythons_that_the_package_supports():
    workflow = yaml.safe_load((HOME / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f"Python {', '.join(pythons[:-1])} or {pythons[-1]}" in (HOME / "README.md").read_text("utf-8")
    assert any(step.get("run", "").startswith("make test") for step in workflow["jobs"]["test"]["steps"])


def test_git_holds_no_links_and_no_local_data():
    """A link would dangle, or lead out of the repository, on another machine."""
    files = [line.split(maxsplit=3) for line in listed_by_git("--stage")]
    assert len(files) > 100
    assert [name for mode, _, _, name in files if mode == "120000" or name.split("/")[0] in ("data", "runs")] == []
