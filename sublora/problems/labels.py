"""Labelling examples: data, training, scoring and statements of a classifier."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from sublora import budget
from sublora.certificate.build import Findings
from sublora.certificate.paired import Losses, Measured
from sublora.certificate.schema import AssumptionName, Certificate, HeldOut
from sublora.certificate.statements import example_bounds, label_assumptions, label_corpus, label_rules, reachable, test_set_bound
from sublora.compression import quantize_and_adapt
from sublora.compression.price import Pricing
from sublora.data.labelled import TASKS, Examples, data_identity, load_task
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.experiment import Classify, Encoder
from sublora.limits import Limits
from sublora.message import Coded, configured
from sublora.message.classifier import ClassifierMessage, encode
from sublora.models import Subspace
from sublora.models.classifiers import base_sha256s, classifier_base, classifier_in_subspace
from sublora.models.loading import load_config
from sublora.models.pretrained import classifier_configuration
from sublora.scoring.labels import LabelEvaluation, evaluate, usual_scores
from sublora.scoring.text import Drawn
from sublora.training import training_seconds
from sublora.training.examples import train_examples_phase


@dataclass
class LabelProblem:
    """A classifier's problem: the task's examples, and an experiment on them.

    pool: all examples of the training file (of a source without validation file those that are not held out); training and
    unseen: its two parts; validation: by the file's name. classes: the labels' names, by number.
    """

    experiment: Classify
    pool: Examples
    training: Examples
    unseen: Examples
    validation: dict[str, Examples]
    classes: tuple[str, ...] = ("0", "1")
    local_only: bool = False
    unit: ClassVar = "example"  # what a loss in bits is of

    @classmethod
    def open(cls, experiment: Classify, corpora: Path, wheels: Path | None = None, local_only: bool = False) -> Self:
        """The task's examples are loaded, the training split is drawn, a pretrained model's configuration is stated.

        wheels: the folder of the packages of task `functions`. local_only: no source is downloaded.
        """
        pool, validation, classes = load_task(experiment.task, wheels, local_only)
        model = experiment.model
        if isinstance(model, Encoder) and model.architecture is None:
            stated = classifier_configuration(load_config(model.source))
            experiment = experiment.model_copy(update={"model": model.model_copy(update={"architecture": stated})})
        return cls(experiment, pool, *draw_training(pool, experiment), validation, classes)

    @staticmethod
    def refuse_base(experiment: Classify) -> None:
        """Raises SubloraError for a pretrained model whose configuration cannot be had."""
        if isinstance(experiment.model, Encoder) and experiment.model.architecture is None:
            load_config(experiment.model.source)

    @classmethod
    def open_for_verification(
        cls, experiment: Classify, certificate: Certificate, path: Path, corpora: Path, given: Path | None
    ) -> Self:
        """`open`, for somebody else's certificate: no model is downloaded.

        Raises SubloraError when the examples are not here, or are not those that the certificate speaks of.
        """
        if isinstance(experiment.model, Encoder) and experiment.model.architecture is None:
            raise SubloraError(f"{path}: params.model.architecture: missing, so nobody knows what the message's weights are for")
        problem, task = replace(cls.open(experiment, corpora, given, local_only=True), local_only=True), experiment.task
        if (here := problem.pool.sha256) != (stated := certificate.corpus.sha256):
            made = task.source or task.path
            cure = f"the file it was made from ({made})" if made else "the version of sublora that made it"
            raise SubloraError(f"{path}: it speaks of examples with sha256 {stated:.12}, here it is {here:.12}; use {cure}")
        return problem

    @staticmethod
    def refuse_costly(experiment: Classify, certificate: Certificate, path: Path, limits: Limits, scored: bool = True) -> None:
        """Raises SubloraError if the check would take more than the limits, by what message and certificate say.

        scored: the check scores the model again; else it decodes it alone.
        """
        labels = stated_labels(experiment, certificate)
        made = budget.classifier(experiment, certificate.message_bytes, labels, str(path), limits)
        budget.refuse_above(made.plus(budget.labelling(experiment, certificate, labels)) if scored else made, str(path), limits)

    @staticmethod
    def identity(experiment: Classify) -> dict[str, Any]:
        """What the examples depend on, as plain data."""
        return data_identity(experiment.task)

    @property
    def pool_size(self) -> int:
        """M: the examples that the split draws from."""
        return len(self.pool)

    @property
    def labels(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def build(self) -> tuple[Subspace, dict[str, str | None]]:
        """(the classifier at coordinates zero, `base_sha256s` of its base model)."""
        base = classifier_base(self.experiment.model, self.labels, self.experiment.task.max_length, self.local_only)
        sha256s = base_sha256s(base)
        return classifier_in_subspace(base, self.experiment.subspace), sha256s

    def train(self, folder: Path) -> tuple[Subspace, pd.DataFrame]:
        """(the trained classifier, its training log). Finished or interrupted training is read from `folder` and continued."""
        model, sha256s = self.build()
        return model, self._phase(model, model.module.encode, folder, "finetune", sha256s)

    def compress(self, folder: Path, model: Subspace) -> tuple[bytes, pd.DataFrame | None]:
        """(the message of the trained `model`, the log of the adaptation)."""
        _, sha256s = self.build()

        def adapt(quantized, penalty):
            return self._phase(quantized, model.module.encode, folder, "quantize", sha256s, penalty=penalty)

        # The loss in bits is above the 0-1 error that is bounded, and priced in its place.
        charged = self.experiment.bounds.configurations / self.experiment.bounds.delta
        pricing = Pricing(len(self.training), math.log(charged), lambda mean: max(1 - mean, 0.5))
        coded, log = quantize_and_adapt(model, self.experiment.compression, adapt, pricing)
        public = self.experiment.model
        message = encode(ClassifierMessage(public, self.experiment.subspace, Coded(*coded)))
        return configured(public.architecture if isinstance(public, Encoder) else None, message), log

    def seal(self, message: bytes, folder: Path | None = None) -> bytes:
        """The message as it is: nothing is left to choose."""
        return message

    def evaluate(self, message: bytes, folder: Path | None = None) -> LabelEvaluation:
        """The decoded classifier's predictions. They take seconds and are not kept."""
        examples = (self.training, self.unseen, self.validation)
        return evaluate(message, self.experiment, self.labels, examples, self.local_only)

    def findings(self, message: bytes, evaluation: LabelEvaluation, tolerant: bool = True) -> Findings:
        """What a certificate states about the message. tolerant: as `example_bounds` has it."""
        training, unseen, first = self.training, self.unseen, next(iter(self.validation))
        errors = (evaluation.training != training.labels).astype(np.float64)
        guess, bits = float(1 - np.bincount(training.labels).max() / len(training)), evaluation.hypothesis.published_bits
        common: dict[str, Any] = {"delta": self.experiment.bounds.delta, "pool": len(self.pool), "guess": guess}
        published: dict[str, Any] = {"message_bits": bits, "names": ("hoeffding",), "configurations": 1, "tolerant": False}
        priced: dict[str, Any] = {"message_bits": 8 * len(message), "tolerant": tolerant}
        choices = self.experiment.bounds.configurations, self.experiment.bounds.split_seeds
        assumptions = label_assumptions(len(training), len(self.pool))
        truths = [(first, evaluation.validation[first] != self.validation[first].labels)]
        truths += [("unseen", evaluation.unseen != unseen.labels)] if len(unseen) else []
        charged: dict[str, Any] = dict(zip(("configurations", "split_seeds"), choices, strict=True))
        charged |= {"delta": self.experiment.bounds.delta, "tolerant": tolerant}
        return Findings(
            alpha=None,
            public=self._public(evaluation, assumptions),
            corpus=self._corpus(evaluation),
            bounds=[
                each
                for name in assumptions
                for each in example_bounds(errors, name, configurations=reachable(name, *choices), **priced, **common)
            ],
            held_out=[
                HeldOut(
                    level="example",
                    metric="error",
                    alpha=None,
                    n=len(wrong),
                    value=float(wrong.mean()),
                    split=name,
                    test_bound=test_set_bound(
                        wrong.astype(np.float64),
                        dict.fromkeys(("iid", "unseen") if name == "unseen" else ("iid",), (0.0, 1.0)),
                        "error",
                        population=len(wrong),
                        **charged,
                    ),
                )
                for name, wrong in truths
            ],
            published_bits=bits,
            published_bounds=list(example_bounds(errors, "iid", **published, **common)),
            said=evaluation.hypothesis.said,
            reference={
                name: {"sha256": each.sha256, **usual_scores(evaluation.validation[name], each.labels, self.labels)}
                for name, each in self.validation.items()
            },
        )

    def units(self, level: str, held_out: bool) -> tuple[int, int]:
        """(how many training or held-out examples there are, the same: all of them are labelled). Without unseen ones the first
        validation set is held out."""
        n = len(self._apart) if held_out else len(self.training)
        return n, n

    def measured(self, message: bytes, drawn: Drawn) -> list[Measured]:
        """The decoded classifier's errors on the training examples, or on the held-out ones."""
        evaluation, m, pool = self.evaluate(message), len(self.training), len(self.pool)
        names = label_assumptions(m, pool)
        populations: dict[AssumptionName, int] = {"pool": pool, "unseen": pool - m}
        if not drawn.held_out:
            errors = evaluation.training != self.training.labels
        else:
            names = tuple(name for name in names if name != "pool")
            found = evaluation.unseen if len(self.unseen) else next(iter(evaluation.validation.values()))
            errors = found != self._apart.labels
        found_errors = Measured(
            losses=Losses(errors.astype(np.float64), np.ones(len(errors), np.int64), np.arange(len(errors))),
            pilot=None,
            ranges=dict.fromkeys(names, (0.0, 1.0)),
            shortest=dict.fromkeys(names, 1),
            all_lengths=np.ones(m, np.int64),
            populations=populations,
            metric="error",
        )
        return [found_errors]

    @property
    def _apart(self) -> Examples:
        return self.unseen if len(self.unseen) else next(iter(self.validation.values()))

    def measure_beside(self, folder: Path) -> None:
        """Nothing: baselines and near-duplicates are those of text."""

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of each phase of training, in seconds, from the log in `folder`."""
        return training_seconds(folder)

    def _phase(self, module, encode_texts, folder: Path, phase: str, sha256s: dict, *, penalty=None) -> pd.DataFrame:
        groups = self.experiment.parameters()
        facts = {key: groups[key] for key in ("task", "model", "subspace")}
        facts |= {"data": self.training.sha256, "base": sha256s}
        encoded = encode_texts(self.training.texts)
        return train_examples_phase(
            module, encoded, self.training, self.experiment, folder, phase=phase, facts=facts, penalty=penalty
        )

    def _public(self, evaluation: LabelEvaluation, assumptions: tuple[AssumptionName, ...]) -> dict[str, Any]:
        return {
            **(evaluation.hypothesis.sha256s or {}),
            "classes": list(self.classes),
            **label_rules(self.experiment, assumptions),
        }

    def _corpus(self, evaluation: LabelEvaluation) -> dict[str, Any]:
        pool = self.pool
        return {
            **label_corpus(self.experiment, len(self.training), len(pool)),
            "sha256": pool.sha256,
            "documents": len(self.training),
            "pool": len(pool),
            "tokens": max(1, evaluation.tokens),
            "vocab_size": self.labels,
            "unit": self.unit,
        }


def stated_labels(experiment: Classify, certificate: Certificate) -> int:
    """The number of classes before the examples are read: the settings', or, where those do not have it, the certificate's."""
    task = experiment.task
    classes = task.classes if task.source is not None else TASKS[task.name].classes
    return len(classes) if classes is not None else certificate.corpus.vocab_size


def draw_training(pool: Examples, experiment: Classify) -> tuple[Examples, Examples]:
    """(the m training examples, the others): `task.train` of the pool by a seeded uniform permutation, in the order drawn."""
    m = round(experiment.task.train * len(pool))
    if m < 1 or (m == len(pool) and experiment.task.train < 1):
        raise SubloraError(f"task.train {experiment.task.train} of {len(pool)} examples leaves no training, or no unseen ones")
    drawn = permutation(len(pool), experiment.task.split_seed)
    return pool.subset(drawn[:m]), pool.subset(drawn[m:])
