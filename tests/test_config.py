"""Params files: what is wrong is named in one line."""

from pathlib import Path

import pytest

from sublora.config import Experiment
from sublora.errors import SubloraError

PARAMS = Path(__file__).parent.parent / "params"


@pytest.mark.parametrize("path", sorted(PARAMS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(PARAMS)))
def test_every_params_file_is_valid_and_named_after_its_place(path):
    experiment = Experiment.from_file(path)
    assert Experiment.from_parameters(experiment.parameters()) == experiment
    assert experiment.name == "-".join(path.relative_to(PARAMS).with_suffix("").parts)
    assert path.read_text("utf-8").startswith("# "), "a params file says first what it is"


def test_quick_is_there():
    assert (PARAMS / "quick.yaml").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", "unknown key 'modle'; did you mean 'model'?"),
        ("model: {layer: 3}", "unknown key 'model.layer'; did you mean 'model.layers'?"),
        ("model: {layers: '3'}", "key 'model.layers': Input should be a valid integer (got '3')"),
        ("model: {layers: 0}", "key 'model.layers'"),
        ("model: {heads: 3}", "width 128 is not divisible by heads 3"),
        ("model: 3", "key 'model'"),
        ("bounds: {delta: 1.5}", "key 'bounds.delta'"),
        ("bounds: {stride: 999}", "bounds.stride 999 exceeds model.block 128"),
        ("subspace: {parametrization: lora}", "dimension must be null"),
        ("subspace: {parametrization: subspace, dimension: null}", "dimension is needed"),
        ("training: {learning_rate: 1e-3}", "write it with a point and a sign"),
        ("training: {batch: 10, accumulation: 3}", "batch 10 is not divisible by accumulation 3"),
        ("corpus: {train: 0.9, validation: 0.1}", "a test split remains"),
        ("name: ../escape", "it names a folder"),
        ("notebooks: [glue]", "notebook glue needs the group task"),
        ("task: {epoch: 3}", "unknown key 'task.epoch'; did you mean 'task.epochs'?"),
        ("task: {}\nsubspace: {parametrization: full, dimension: null}", "must be sublora or lora for a task"),
        ("task: {model: small}", "its modules are [head]"),
        ("task: {modules: [head, attention]}", "modules must be"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text if text.startswith("name") else f"name: mine\n{text}\n")
    with pytest.raises(SubloraError) as caught:
        Experiment.from_file(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a", "name: [", "just words"])
def test_not_a_params_file(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SubloraError, match=r"mine\.yaml"):
        Experiment.from_file(tmp_path / "mine.yaml")
    with pytest.raises(SubloraError, match="cannot read"):
        Experiment.from_file(tmp_path / "missing.yaml")


def test_the_publications_runs_have_its_settings():
    for method in ("sublora", "lora", "subspace", "full"):
        experiment = Experiment.from_file(PARAMS / "paper" / f"table1-{method}.yaml")
        assert experiment.subspace.parametrization == method
        model, training = experiment.model, experiment.training
        assert (model.layers, model.heads, model.width, model.block) == (12, 12, 768, 1024)
        assert (training.batch, training.accumulation, training.learning_rate, training.weight_decay) == (320, 40, 5e-3, 0.01)
        assert (experiment.compression.quantizer, experiment.compression.levels) == ("uniform", 11)
        assert (experiment.bounds.documents, experiment.stride) == (10_000, 100)
