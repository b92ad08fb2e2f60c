"""Building a certificate: the one place where evaluation, message and settings become its statements.

All of it but the environment is a function of the message, the settings and the data. `facts` computes it once to write it, and
`verify` computes it again to check it.
"""

import base64
import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import torch

import sublora
from sublora.certificate.schema import FORMAT, Certificate, HeldOut, Statement, certificate_of, digest
from sublora.experiment import Experiment


class Findings(NamedTuple):
    """What a problem finds out about a decoded message: everything in a certificate that depends on the kind of problem.

    said: the settings that the message states, by group; they replace those of the experiment.
    """

    alpha: float | None
    public: dict[str, Any]
    corpus: dict[str, Any]
    bounds: list[Statement]
    held_out: list[HeldOut]
    published_bits: float
    published_bounds: list[Statement]
    said: dict[str, dict[str, Any]]
    reference: dict[str, dict[str, Any]] | None = None


class Problem(Protocol):
    """Data, and what is measured on it: see `sublora.problems`."""

    @property
    def experiment(self) -> Experiment: ...

    def evaluate(self, message: bytes) -> Any: ...

    def findings(self, message: bytes, evaluation: Any, tolerant: bool = True) -> Findings: ...


def facts(problem: Problem, message: bytes, evaluation: Any, tolerant: bool = True) -> dict[str, Any]:
    """The certificate as plain data, without environment and digest. Raises MessageError when the bytes are no message.

    tolerant: with the `tolerance` in the bounds; without it they are what is proven on this machine.
    """
    found, experiment = problem.findings(message, evaluation, tolerant), problem.experiment
    params = experiment.parameters()
    for group, values in found.said.items():
        params[group] = {**params[group], **values}
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "params": params,
        "message": base64.b64encode(message).decode(),
        "message_bits": 8 * len(message),
        "message_sha256": hashlib.sha256(message).hexdigest(),
        "public": found.public,
        "corpus": found.corpus,
        "delta": experiment.bounds.delta,
        "alpha": found.alpha,
        "bounds": [bound.model_dump(mode="json") for bound in found.bounds],
        "held_out": [value.model_dump(mode="json") for value in found.held_out],
        "reference": found.reference,
        "paper_accounting": {
            "certified": False,
            "bits": found.published_bits,
            "bounds": [bound.model_dump(mode="json") for bound in found.published_bounds],
        },
    }


def certify(
    problem: Problem, message: bytes, evaluation: Any, seconds: Mapping[str, float], precision: str | None = None
) -> Certificate:
    """The certificate of a message. seconds: wall time of each stage; precision: what `training.precision` auto was settled to.

    The digest is of the canonical JSON of everything else: it shows an altered number even where `verify` has nothing to compute it
    from.
    """
    data = {**facts(problem, message, evaluation), "environment": environment(seconds, precision)}
    return certificate_of({**data, "certificate_sha256": digest(data)}, problem.experiment.name)


def environment(seconds: Mapping[str, float], precision: str | None = None) -> dict[str, Any]:
    """Versions, device, and how long each stage took."""
    return {
        "sublora": sublora.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "dtype": "float32",
        **({} if precision is None else {"training_precision": precision}),
        "seconds": {stage: round(float(value), 1) for stage, value in seconds.items()},
    }
