"""The certificates kept in results/: whole, of the params files that are named beside them, and of models that decode.

Whether the models really score so is for `make verify`, which takes minutes and the same interpreter.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from sublora.certificate.schema import digest, load_certificate
from sublora.experiment import Finetune, Ngram, Round, Zeroshot, as_experiment, load_experiment
from sublora.experiment.params import load_experiments
from sublora.message import decode
from sublora.reporting.results import load_metrics
from sublora.reporting.runs import GROUPS

HOME = Path(__file__).parent.parent
KEPT = sorted((HOME / "results").rglob("certificate.json"))
LARGEST_NOTEBOOK = 200_000  # bytes


def test_each_group_has_a_certificate_for_each_of_its_params_files():
    for group in {path.parent.parent.name for path in KEPT} & {"table1", "figure1", "structured", "ngram", "ablation"}:
        wanted = {path.stem for path in (HOME / "params" / group).glob("*.yaml")}
        assert wanted and wanted == {path.parent.name for path in KEPT if path.parent.parent.name == group}
    assert {path.parent.parent.name for path in KEPT} <= {*GROUPS, "results"}


def _stated(folder):
    """The experiment of a kept run as its params file has it; those of grids lie in a folder of many."""
    group = folder.parent.name
    if group in ("experiments", "arrow"):
        files = sorted((HOME / "params" / group).glob("*.yaml"))
        return {each.name: each for file in files for each in load_experiments(file)}[f"{group}-{folder.name}"]
    return load_experiment(HOME / "params" / folder.relative_to(HOME / "results").with_suffix(".yaml"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: "-".join(path.relative_to(HOME / "results").parts[:-1]))
def test_a_kept_certificate_is_whole_and_of_its_params_file(path):
    certificate = load_certificate(path)
    assert certificate.certificate_sha256 == digest(json.loads(path.read_text("utf-8")))
    experiment = as_experiment(certificate.params)
    stated = _stated(path.parent)
    if isinstance(experiment, Round | Finetune | Zeroshot):  # the certificate adds the architecture
        stated = stated.model_copy(update={"model": experiment.model})
    for key, word in (("targets", ("all",)), ("tokens", "end")):  # and names all layers, and the token that ends documents
        if isinstance(experiment, Finetune) and getattr(stated.subspace, key) == word:
            named = stated.subspace.model_copy(update={key: getattr(experiment.subspace, key)})
            stated = stated.model_copy(update={"subspace": named})
    if isinstance(experiment, Round):  # and has the rounding that was chosen
        stated = stated.model_copy(update={"rounding": experiment.rounding})
    compression = getattr(stated, "compression", None)
    if compression is not None and experiment.compression.levels < compression.levels:  # levels that met are one in the message
        fewer = compression.model_copy(update={"levels": experiment.compression.levels})
        stated = stated.model_copy(update={"compression": fewer})
    if isinstance(experiment, Ngram):  # likewise
        bases = experiment.counting.bases
        stated = stated.model_copy(update={"counting": stated.counting.model_copy(update={"bases": bases})})
    assert experiment.parameters() == stated.parameters()
    if not isinstance(experiment, Round | Ngram | Zeroshot):  # which are not trained, and have no log
        assert load_metrics(path.parent / "metrics.csv")["train_loss"].notna().any()
    if isinstance(experiment, Finetune | Zeroshot) and not (HOME / experiment.model.source).exists():
        return  # the base, which the message starts from, is not here
    decoded = decode(certificate.message_bytes, experiment, certificate.corpus.vocab_size, local_only=True)
    assert decoded.alpha == certificate.alpha
    assert all(np.isfinite(weights.detach().numpy()).all() for weights in decoded.model.parameters())


def test_kept_notebooks_are_small_and_name_no_machine():
    kept = sorted((HOME / "results").rglob("*.ipynb"))
    assert kept
    for path in kept:
        assert path.stat().st_size < LARGEST_NOTEBOOK, path
        parameters = [
            "".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if "injected" in str(cell["metadata"])
        ]
        assert parameters and 'runs = "runs"' in parameters[0], path
