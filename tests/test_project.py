"""What the project's files say about each other."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import yaml
from tiny import HOME, listed_by_git

import sublora
from sublora.experiment import as_experiment, load_experiment
from sublora.experiment.params import read_yaml
from sublora.reporting.bits import ABLATED


def test_one_version_everywhere():
    citation = yaml.safe_load((HOME / "CITATION.cff").read_text("utf-8"))
    changes = re.findall(r"^## \[(.+?)\]", (HOME / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation["version"] == sublora.__version__
    assert changes[:2] == ["Unreleased", sublora.__version__]


def test_links_between_the_projects_pages_lead_to_files():
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (HOME / page).read_text("utf-8")):
            assert (HOME / target).exists(), f"{page}: {target}"


def test_the_sweeps_of_the_readme_sweep_the_width():
    """Both commands make the same experiments, which differ from the params file in name and width alone."""
    text = (HOME / "README.md").read_text("utf-8").replace("\\\n", " ")
    command = re.search(r"for w in 8 16; do sublora run (\S+) --set (\S+) --set (\S+);", text)
    papermill = re.search(r"papermill \S+ \S+ -f (\S+) -p name (\S+) +-y \"(.+)\"", text)
    assert command and papermill
    for w in ("8", "16"):
        file, *overrides = (part.replace("$w", w) for part in command.groups())
        other, name, group = (part.replace("$w", w) for part in papermill.groups())
        values = read_yaml((HOME / other).read_text("utf-8")) | {"name": name} | read_yaml(group)
        swept = load_experiment(HOME / file, overrides)
        assert as_experiment(values) == swept and (swept.name, swept.model.width) == (f"w{w}", int(w))
        assert load_experiment(HOME / file, [*overrides, "name=quick", "model.width=8"]) == load_experiment(HOME / file)


def test_an_ablation_changes_one_part_of_the_whole():
    """Each file of params/ablation differs from whole.yaml, the quick run, in the keys of one part."""
    quick = load_experiment(HOME / "params" / "quick.yaml")
    assert load_experiment(HOME / "params" / "ablation" / "whole.yaml", ["name=quick"]) == quick
    files = {path.stem: load_experiment(path).parameters() for path in (HOME / "params" / "ablation").glob("*.yaml")}
    assert files.keys() == ABLATED.keys()
    logits, offset = ("model", "residual"), ("reference", "offset")
    rates = {("training", "learning_rate"), ("training", "min_learning_rate"), ("compression", "finetune_learning_rate")}
    allowed = {
        "whole": set(),
        "no-reference": {logits, ("reference", None)},
        "no-logits": {logits},
        "half-offset": {offset, ("reference", "excess")},
        "top-offset": {offset, ("reference", "excess")},
        "no-penalty": {("compression", "rate_penalty")},
        "kmeans": {("compression", key) for key in ("quantizer", "levels", "entropy_penalty")},
        "subspace": rates | {("subspace", key) for key in ("parametrization", "dimension", "projector", "seed")},
        "subsample": {("bounds", "documents"), ("bounds", "candidates"), ("bounds", "beacon")},
    }
    for name, values in files.items():
        assert values["name"] == f"ablation-{name}"
        differing = set()
        for group in (files["whole"].keys() | values.keys()) - {"name"}:
            one, other = files["whole"].get(group), values.get(group)
            if not (isinstance(one, dict) and isinstance(other, dict)):
                differing |= {(group, None)} if one != other else set()
                continue
            differing |= {(group, key) for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        assert differing <= allowed[name] and bool(differing) == (name != "whole"), name


def test_no_script_hides_a_module_that_a_package_imports():
    """A script's folder is searched first: while there was benchmarks/coverage.py, numba imported it in place of the package."""
    scripts = {path.stem for folder in ("benchmarks", "fuzz") for path in (HOME / folder).glob("*.py")}
    assert scripts and not scripts & {*packages_distributions(), *sys.stdlib_module_names}


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
