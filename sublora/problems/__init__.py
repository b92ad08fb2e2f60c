"""Problems: data, and what is measured on it. One class a problem, all with the same methods.

`open` loads the data; `train`, `compress` and `seal` make a message; `evaluate` scores what it decodes to; `findings` are the
statements that a certificate makes of that. Nothing outside this room asks which kind of problem it has.
"""

from pathlib import Path
from typing import Any, Protocol

from sublora.certificate.schema import Certificate
from sublora.experiment import Classify, Experiment, Finetune, Pretrain, Round
from sublora.problems.labels import LabelProblem
from sublora.problems.rounding import RoundingProblem
from sublora.problems.text import TextProblem

Problem = TextProblem | RoundingProblem | LabelProblem


class Opener(Protocol):
    """A class of problems. Each takes the experiments that `PROBLEMS` has it for."""

    def open(self, experiment: Any, corpora: Path) -> Problem: ...

    def open_for_verification(self, experiment: Any, certificate: Certificate, path: Path, corpora: Path) -> Problem: ...

    def identity(self, experiment: Any) -> dict[str, Any]: ...


PROBLEMS: dict[type, Opener] = {Pretrain: TextProblem, Finetune: TextProblem, Round: RoundingProblem, Classify: LabelProblem}

__all__ = ["LabelProblem", "PROBLEMS", "Problem", "RoundingProblem", "TextProblem", "open_for_verification", "open_problem"]


def open_problem(experiment: Experiment, corpora: Path) -> Problem:
    """The problem of an experiment, with its data loaded. corpora: folder of prepared corpora."""
    return PROBLEMS[type(experiment)].open(experiment, corpora)


def data_identity(experiment: Experiment) -> dict[str, Any]:
    """What the data and the base model depend on, as plain data."""
    return PROBLEMS[type(experiment)].identity(experiment)


def open_for_verification(experiment: Experiment, certificate: Certificate, path: Path, corpora: Path) -> Problem:
    """The problem of somebody else's certificate, read from `path`.

    The certificate chooses neither what is downloaded nor how much memory is taken.
    Raises SubloraError when the data or the base model are not here, or are not those that the certificate speaks of.
    """
    return PROBLEMS[type(experiment)].open_for_verification(experiment, certificate, path, corpora)
