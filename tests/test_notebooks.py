"""What the notebooks promise a reader and nbval (which executes them): short cells, and outputs only where they are compared."""

import ast
import re

import nbformat
import pytest
from tiny import NOTEBOOKS

from sublora.config import Experiment

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


def test_defaults_are_a_valid_experiment_of_the_settings_that_a_params_file_has(path):
    (tagged,) = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    values = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(tagged.source).body}
    assert values.pop("runs") == "../runs"
    alone = {"notebooks": [path.stem]} if path.stem in ("glue", "pretrained") else {}
    experiment = Experiment.from_parameters({**values, **alone}, path.name)
    assert experiment.name == {"glue": "demo-glue", "pretrained": "demo-pretrained"}.get(path.stem, "demo")
    assert values.keys() <= Experiment.model_fields.keys()
