"""The certificates kept in results/: whole, of the params files that are named beside them, and of models that decode.

Whether the models really score so is for `make verify`, which takes minutes and the same interpreter.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sublora.bounds.certificate import digest
from sublora.bounds.format import load_certificate, message_of
from sublora.compression import decode_model, rebuild
from sublora.config import Experiment
from sublora.finetune.message import rebuild as rebuild_classifier
from sublora.reporting.runs import GROUPS, load_metrics

HOME = Path(__file__).parent.parent
KEPT = sorted((HOME / "results").glob("*/*/certificate.json"))


def test_each_group_has_a_certificate_for_each_of_its_params_files():
    for group in ("table1", "figure1"):
        wanted = {path.stem for path in (HOME / "params" / group).glob("*.yaml")}
        assert wanted and wanted == {path.parent.name for path in KEPT if path.parent.parent.name == group}
    assert {path.parent.parent.name for path in KEPT} <= set(GROUPS)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_a_kept_certificate_is_whole_and_of_its_params_file(path):
    certificate = load_certificate(path)
    assert certificate["certificate_sha256"] == digest(certificate)
    group, name = path.parts[-3:-1]
    experiment = Experiment.from_parameters(certificate["params"])
    stated = Experiment.from_file(HOME / "params" / group / f"{name}.yaml").parameters()
    if experiment.pretrained:  # whose architecture the certificate adds
        stated["pretrained"]["architecture"] = experiment.pretrained.architecture
    assert experiment.parameters() == stated
    message = message_of(certificate)
    assert hashlib.sha256(message).hexdigest() == certificate["message_sha256"]
    if experiment.pretrained:
        assert decode_model(message, experiment, certificate["corpus"]["vocab_size"]).alpha == certificate["alpha"]
        return  # it was trained elsewhere, so that there is no log
    if experiment.task is None:
        model, decoded = rebuild(message, experiment.model, certificate["corpus"]["vocab_size"])
        assert decoded.alpha == certificate["alpha"] and len(decoded.codebook) <= experiment.compression.levels
        assert all(np.isfinite(weights.detach().numpy()).all() for weights in model.parameters())
    else:
        rebuild_classifier(message, experiment.task, local_only=True)
    assert load_metrics(path.parent / "metrics.csv")["train_loss"].notna().any()
