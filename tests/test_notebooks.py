"""What the notebooks promise a reader and nbval (which executes them): short cells, and outputs only where they are compared."""

import ast
import re

import nbformat
import pytest
from papermill.iorw import load_notebook_node as papermill_read
from papermill.parameterize import parameterize_notebook
from tiny import NOTEBOOKS, write_params

from sublora.errors import SubloraError
from sublora.experiment import as_experiment, load_experiment
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


def run_of(path, parameters, folder):
    """The `Run` that the notebook makes of what papermill puts into it: the cells up to there, as IPython executes them."""
    notebook = parameterize_notebook(papermill_read(str(path)), parameters)
    variables = {"In": [""]}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            variables["In"].append(cell.source)
            made, found, rest = cell.source.partition("run = Run(")
            source = made + found + rest.partition("\n")[0] if found else cell.source
            with pytest.MonkeyPatch.context() as patched:
                patched.chdir(folder)
                exec(source, variables)
            if found:
                return variables["run"]
    raise AssertionError("it makes no Run")


def test_papermill_with_a_params_file_is_the_experiment_of_the_command(path, tmp_path):
    kind = as_experiment({key: value for key, value in defaults(path).items() if key != "runs"}).kind
    model = {"round": {"model": {"source": "some/model"}}, "classify": {"model": {"buckets": 50}}}.get(kind, {})
    file = write_params(tmp_path / "few.yaml", {"kind": kind, "name": "few", **model})
    made = run_of(path, read_yaml(file.read_text("utf-8")) | {"runs": "elsewhere"}, tmp_path)
    assert made.settings == load_experiment(file) and str(made.folder) == "elsewhere/few"


def test_without_a_params_file_it_is_the_demonstration(path, tmp_path):
    values = {key: value for key, value in defaults(path).items() if key != "runs"}
    for parameters in ({}, {"runs": "elsewhere"}):
        made = run_of(path, parameters, tmp_path)
        assert made.settings == as_experiment(values) and made.folder.parent.name == parameters.get("runs", "runs")


def test_a_name_that_is_no_setting_is_an_error(path, tmp_path):
    values = {key: value for key, value in defaults(path).items() if key != "runs"}
    with pytest.raises(SubloraError, match="unknown key 'nmae'; did you mean 'name'"):
        run_of(path, {**values, "nmae": "d500"}, tmp_path)


def test_its_kind_of_experiment_runs_it(path):
    """The notebooks of a run are those that `sublora run` executes for that kind; the others are for looking on."""
    experiment = as_experiment({key: value for key, value in defaults(path).items() if key != "runs"})
    assert (path.stem in experiment.notebooks) == (path.stem not in ("compression", "explore"))
