"""What the notebooks promise a reader and nbval, which compares their outputs: short cells, whole and small outputs."""

import ast
import re
import subprocess
import sys

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns
from papermill.iorw import load_notebook_node as papermill_read
from papermill.parameterize import parameterize_notebook
from tiny import HOME, NOTEBOOKS, write_params

from sublora.errors import SubloraError
from sublora.experiment import as_experiment, load_experiment
from sublora.experiment.params import load_experiments, read_yaml
from sublora.pipeline import _code, _taken

every_notebook = pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@every_notebook
def test_cells_are_short(path):
    long = [cell.id for cell in code(path) if len(cell.source.splitlines()) > 15]
    assert long == []


def compared(path):
    """The outputs that nbval compares, as (cell's id, text), after it has replaced what tests/nbval.cfg names."""
    for cell in code(path):
        if "nbval-ignore-output" not in cell.metadata.get("tags", []):
            for output in cell.outputs:
                texts = output.data if "data" in output else {output.name: output.text}
                yield from ((cell.id, sanitized(text)) for kind, text in texts.items() if kind != "image/png")


def sanitized(text):
    for pattern, replacement in get_sanitize_patterns((HOME / "tests" / "nbval.cfg").read_text("utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


@every_notebook
def test_outputs_are_those_of_one_execution_from_top_to_bottom(path):
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.id for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@every_notebook
def test_outputs_are_small_and_name_no_machine(path):
    assert path.stat().st_size < 200_000
    assert nbformat.read(path, as_version=4).metadata.language_info == {"name": "python"}
    for cell in code(path):
        for output in cell.outputs:
            assert output.get("name") != "stderr", cell.id
            assert not re.search(r"/home/|/root/|/tmp/|/Users/|site-packages|it/s", str(output)), cell.id


@every_notebook
def test_a_cell_is_compared_or_tagged_and_few_are_tagged(path):
    tags = [cell.metadata.get("tags", []) for cell in code(path)]
    assert {tag for of in tags for tag in of} <= {"parameters", "nbval-ignore-output"}
    assert sum("nbval-ignore-output" in of for of in tags) <= 1
    assert len({cell for cell, _ in compared(path)}) >= 2


@every_notebook
def test_compared_outputs_hold_no_measured_number(path):
    assert [cell for cell, text in compared(path) if re.search(r"\d\.\d|\de-\d|\b0x|\d (bytes|bits)\b", text)] == []


def defaults(path):
    """What the cell tagged `parameters` assigns."""
    (tagged,) = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    lines = (line for line in ast.parse(tagged.source).body if isinstance(line, ast.Assign))
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


@every_notebook
def test_the_first_cell_after_the_parameters_enters_the_study(path):
    first, second, *_ = code(path)
    assert "parameters" in first.metadata["tags"]
    assert "\nenter_study()" in second.source


@every_notebook
def test_defaults_are_a_valid_experiment_that_needs_no_network(path):
    values = defaults(path)
    assert values.pop("runs") == "runs"
    experiment = as_experiment(values, path.name)
    assert values.keys() == type(experiment).model_fields.keys() - {"notebooks"}, "papermill can replace each group"
    named = {"glue": "demo-glue", "pretrained": "demo-pretrained", "arrow_of_time": "demo-arrow"}
    assert experiment.name == named.get(path.stem, "demo")
    if path.stem == "arrow_of_time":
        assert experiment.corpus.source == "exact"
    elif experiment.kind == "classify":
        assert (experiment.task.name, experiment.task.path) == ("functions", None)
    else:
        assert (experiment.corpus.source, experiment.corpus.packages) == ("python-packages", ("networkx==3.6.1",))


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


@every_notebook
def test_papermill_with_a_params_file_is_the_experiment_of_the_command(path, tmp_path):
    kind = as_experiment({key: value for key, value in defaults(path).items() if key != "runs"}).kind
    model = {"round": {"model": {"source": "some/model"}}, "classify": {"model": {"buckets": 50}}}.get(kind, {})
    file = write_params(tmp_path / "few.yaml", {"kind": kind, "name": "few", **model})
    made = run_of(path, read_yaml(file.read_text("utf-8")) | {"runs": "elsewhere"}, tmp_path)
    assert made.settings == load_experiment(file) and str(made.folder) == "elsewhere/few"


@every_notebook
def test_without_a_params_file_it_is_the_demonstration(path, tmp_path):
    values = {key: value for key, value in defaults(path).items() if key != "runs"}
    for parameters in ({}, {"runs": "elsewhere"}):
        made = run_of(path, parameters, tmp_path)
        assert made.settings == as_experiment(values) and made.folder.parent.name == parameters.get("runs", "runs")


@every_notebook
def test_a_name_that_is_no_setting_is_an_error(path, tmp_path):
    values = {key: value for key, value in defaults(path).items() if key != "runs"}
    with pytest.raises(SubloraError, match="unknown key 'nmae'; did you mean 'name'"):
        run_of(path, {**values, "nmae": "d500"}, tmp_path)


@every_notebook
def test_its_kind_of_experiment_runs_it(path):
    """The notebooks of a run are those that `sublora run` executes for that kind; the others are for looking on."""
    experiment = as_experiment({key: value for key, value in defaults(path).items() if key != "runs"})
    assert (path.stem in experiment.notebooks) == (path.stem not in ("arrow_of_time", "compression", "explore"))


def test_comparison_sees_words_and_shapes_and_no_measured_number():
    line = "| **Iid** | betting | 0.5 | 4.90 | **6.38** | 4.90 | 8.01 | better |"
    assert sanitized(line) == sanitized("| **Iid** | betting | 0.25 | 4.81 | **vacuous** |  4.79 | 8.01 | vacuous |")
    for other in (line.replace("Iid", "Pool"), line.replace(" | 4.90", "", 1), line.replace("better", "-")):
        assert sanitized(other) != sanitized(line)
    split = "55381 documents by a uniformly random permutation from split seed 1: 49842 train, 553 validation, 4986 test"
    assert sanitized(split) == sanitized(split.replace("55381", "61234").replace("553", "612"))
    assert sanitized("72,196 weights") != sanitized("72,197 weights")
    assert sanitized("3000 documents by x: 1800 train") != sanitized("3000 documents by x: 1801 train")


@pytest.mark.parametrize("stored, outcome", [("4.21 bits, better", 0), ("4.21 bits, vacuous", 1)])
def test_an_output_that_differs_in_a_word_fails(tmp_path, stored, outcome):
    output = nbformat.v4.new_output("stream", name="stdout", text=stored)
    cell = nbformat.v4.new_code_cell("print('4.35 bits, better', end='')", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    nbval = ["--nbval", "--nbval-sanitize-with", HOME / "tests" / "nbval.cfg", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *nbval, tmp_path / "one.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == outcome, done.stdout
    assert ("Cell outputs differ" in done.stdout) == bool(outcome)


@pytest.mark.parametrize("path", sorted(HOME.glob("params/**/*.yaml")), ids=lambda path: path.stem)
def test_the_notebooks_of_every_params_file_take_all_of_its_settings(path):
    for experiment in load_experiments(path):
        for name in experiment.notebooks:
            source = NOTEBOOKS / f"{name}.ipynb"
            _taken(source, _code(source), {**experiment.parameters(), "runs": "runs"})
