"""What the notebooks promise a reader and nbval (which executes them): short cells, and outputs only where they are compared."""

import ast
import re

import nbformat
import pytest
from tiny import HOME, NOTEBOOKS

from sublora.experiment import as_experiment, load_experiments
from sublora.experiment.params import read_yaml

CHECKED = "# NBVAL_CHECK_OUTPUT"

pytestmark = pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_cells_are_short(path):
    long = [cell.id for cell in code(path) if len(cell.source.splitlines()) > 15]
    assert long == []


def test_outputs_are_stored_where_they_are_compared_and_nowhere_else(path):
    for cell in code(path):
        # nbval compares only what has an execution count.
        assert bool(cell.outputs) == bool(cell.execution_count) == cell.source.startswith(CHECKED), cell.id
    assert any(cell.outputs for cell in code(path))


def test_compared_outputs_are_printed_and_hold_no_measured_number(path):
    for cell in code(path):
        for output in cell.outputs:
            assert (output.output_type, output.name) == ("stream", "stdout")
            assert not re.search(r"\d\.\d|e-\d|/home|0x", output.text), cell.id


def defaults(path):
    """What the cell tagged `parameters` assigns."""
    (tagged,) = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(tagged.source).body}


def test_the_first_cell_after_the_parameters_enters_the_study(path):
    first, second, *_ = code(path)
    assert "parameters" in first.metadata["tags"]
    assert "\nenter_study();" in second.source


def test_defaults_are_a_valid_experiment_that_needs_no_network(path):
    values = defaults(path)
    assert values.pop("runs") == "runs"
    experiment = as_experiment(values, path.name)
    assert values.keys() == experiment.parameters().keys() - {"notebooks"}, "each group is stated, so that papermill can replace it"
    assert experiment.name == {"classify": "demo-glue", "round": "demo-pretrained"}.get(experiment.kind, "demo")
    if experiment.kind == "classify":
        assert (experiment.task.name, experiment.task.path) == ("functions", None)
    else:
        assert (experiment.corpus.source, experiment.corpus.path) == ("python-stdlib", None)


def test_papermill_with_a_params_file_means_what_the_command_means(path):
    """A group that the file leaves out has the notebook's default with papermill, and the package's with `sublora run`."""
    values = defaults(path)
    del values["runs"]
    for file in sorted((HOME / "params").rglob("*.yaml")):
        stated = read_yaml(file.read_text("utf-8"))
        for experiment in load_experiments(file):
            if path.stem in experiment.notebooks:
                assert stated.get("kind") == experiment.kind, f"{file}: state the kind"
                for group in values.keys() - stated.keys():
                    given = as_experiment({**experiment.parameters(), group: values[group]})
                    assert getattr(given, group) == getattr(experiment, group), f"{file}: state the group {group}"


def test_its_kind_of_experiment_runs_it(path):
    """The notebooks of a run are those that `sublora run` executes for that kind; the others are for looking on."""
    experiment = as_experiment({key: value for key, value in defaults(path).items() if key != "runs"})
    assert (path.stem in experiment.notebooks) == (path.stem not in ("compression", "explore"))
