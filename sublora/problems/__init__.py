"""Problems: data, and what is measured on it. One class a problem, all with the same methods.

`open` loads the data; `train`, `compress` and `seal` make a message; `evaluate` scores what it decodes to; `findings` are the
statements that a certificate makes of that. Nothing outside this room asks which kind of problem it has.
"""

from typing import Any

from sublora.experiment import Classify, Experiment, Finetune, Ngram, Pretrain, Round, Zeroshot
from sublora.problems.labels import LabelProblem
from sublora.problems.ngrams import NgramProblem
from sublora.problems.rounding import RoundingProblem
from sublora.problems.text import TextProblem
from sublora.problems.zeroshot import ZeroshotProblem

Problem = TextProblem | RoundingProblem | ZeroshotProblem | NgramProblem | LabelProblem
PROBLEMS: dict[type, type[Any]] = {
    Pretrain: TextProblem, Finetune: TextProblem, Round: RoundingProblem, Zeroshot: ZeroshotProblem, Ngram: NgramProblem,
    Classify: LabelProblem,
}  # fmt: skip

__all__ = ["LabelProblem", "NgramProblem", "Problem", "RoundingProblem", "TextProblem", "ZeroshotProblem", "problem_class"]


def problem_class(experiment: Experiment) -> type[Any]:
    """The class of an experiment's problem: its `open`, `open_for_verification` and `identity` take the experiment."""
    return PROBLEMS[type(experiment)]
