"""Predicting the tokens of documents: data, training, scoring and statements of a language model."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from sublora import budget
from sublora.certificate import references, statements
from sublora.certificate.build import Findings
from sublora.certificate.schema import Certificate, Statement
from sublora.certificate.statements import PUBLISHED, By
from sublora.compression import quantize_and_adapt
from sublora.compression.price import Pricing
from sublora.data import Split, TokenStore, find_store, prepare, split_of
from sublora.data.corpora import corpus_identity
from sublora.data.files import files_fingerprint, given_path
from sublora.data.tokenizers import get_tokenizer
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, Counts, Finetune, Gpt, Level, OnText, Pretrain, Pretrained
from sublora.experiment.packages import WHEELS
from sublora.inequalities.smoothing import loss_range
from sublora.limits import Limits
from sublora.message import Coded, Gridded, configured, decode, with_alpha
from sublora.message.language import Message, encode
from sublora.models import Subspace, base_model, base_sha256, build, layer_names
from sublora.models.pretrained import Causal, architecture
from sublora.problems.prior import refuse_base_of_the_pool
from sublora.progress import progress_bar
from sublora.scoring.reference import Population, populations
from sublora.scoring.text import Evaluation, evaluate, evaluate_pilot, evaluated_units, unit_count
from sublora.training import train_phase, training_seconds

HEADLINES: dict[Level, By] = {
    "document": ("unseen", "betting"),
    "sequence": ("iid", "betting"),
    "token": ("martingale", "freedman"),
    "position": ("unseen", "betting"),
}
"""What the smoothing weight is chosen for, by the level that comes first in an experiment."""
BASES = {Gpt: "gpt", Pretrained: "transformers", Counts: "none"}
"""What a certificate calls the base model."""
TO_THE_BASE = 0.1
"""Bits per token by which a fine-tuned document differs from its base, about: what the search is steered by."""
PROMISED = ("message_bits", "alpha", "empirical", "gap", "bound", "seconds")
"""What is known of a way to make a message before it is certified."""


@dataclass
class DocumentProblem:
    """A language model's problem: a prepared corpus, its split, and an experiment on them.

    How the message is made is a matter of the kind: `TextProblem` trains coordinates, `RoundingProblem` rounds weights,
    `NgramProblem` counts.
    """

    experiment: OnText
    store: TokenStore
    split: Split
    local_only: bool = False

    @classmethod
    def open(cls, experiment: OnText, corpora: Path) -> Self:
        """Prepare the corpus below the folder `corpora`, draw the split, and state a pretrained model's architecture.

        Raises SubloraError for what is not here, and for a base that was made of documents of this pool (`problems.prior`).
        """
        store = prepare(experiment.corpus, corpora)
        refuse_base_of_the_pool(experiment, store)
        return cls._on(store, experiment)

    @classmethod
    def _on(cls, store: TokenStore, experiment: OnText) -> Self:
        model = experiment.model
        if isinstance(model, Pretrained) and model.architecture is None:
            base = base_model(model, store.vocab_size)
            assert isinstance(base, Causal)
            stated = {"architecture": architecture(base)}
            experiment = experiment.model_copy(update={"model": model.model_copy(update=stated)})
        return cls(experiment, store, split_of(store, experiment.corpus))

    @classmethod
    def open_for_verification(
        cls, experiment: OnText, certificate: Certificate, path: Path, corpora: Path, given: Path | None
    ) -> Self:
        """`open`, for somebody else's certificate.

        A corpus of functions is prepared as params say, if sublora itself pins the packages, with a download if need be. Any other
        is prepared from the place that was `given` by a person; without one it is the prepared corpus with the certificate's hash,
        whatever it was made of. A stranger's certificate must not choose which files are read, and nothing else is downloaded.
        Raises SubloraError when corpus or base model are not here, or are not those that the certificate speaks of.
        """
        corpus = experiment.corpus
        pinned = corpus.source == "python-stdlib" or corpus.packages is not None and set(corpus.packages) <= WHEELS.keys()
        embedded = pinned and corpus.tokenizer in ("bytes", "gpt2")
        store = None if embedded or given is not None else find_store(corpora, certificate.corpus.sha256)
        if store is None and not embedded and given is None:
            raise SubloraError(
                f"{path}: its corpus ({corpus.source}, path {corpus.path}, tokenizer {corpus.tokenizer}) is not prepared in "
                f"{corpora}; say where the data is with --corpus, or prepare it with `sublora data`"
            )
        wheels = given if given is not None and any(given.glob("*.whl")) else None
        problem = replace(cls._on(store or prepare(corpus, corpora, wheels, local_only=True), experiment), local_only=True)
        if (here := problem.store.sha256) != (stated := certificate.corpus.sha256):
            cure = f"Python {certificate.environment.python}" if corpus.source == "python-stdlib" else "the data it was made from"
            raise SubloraError(f"{path}: it speaks of a corpus with sha256 {stated:.12}, here it is {here:.12}; use {cure}")
        if corpus.max_documents is not None and corpus.max_documents < len(problem.store):
            raise SubloraError(f"{path}: its corpus has {len(problem.store):,} documents, more than its max_documents")
        base, base_here = certificate.public.base_weights_sha256, problem._base_sha256()
        if base_here != base:
            raise SubloraError(f"{path}: its base model has the sha256 {base!s:.12}, here it is {base_here!s:.12}; use that model")
        return problem

    @staticmethod
    def refuse_costly(experiment: OnText, certificate: Certificate, path: Path, limits: Limits) -> None:
        """Raises SubloraError if the check would take more than the limits, by what message and certificate say."""
        made = budget.language_model(experiment, certificate.message_bytes, certificate.corpus.vocab_size, str(path), limits)
        budget.refuse_above(made.plus(budget.scoring(experiment, certificate)), str(path), limits)

    @staticmethod
    def identity(experiment: OnText) -> dict[str, Any]:
        """What the data and the base model depend on, as plain data: two experiments with the same identity have the same."""
        identity, model = corpus_identity(experiment.corpus), experiment.model
        if isinstance(model, Pretrained) and given_path(model.source, "model.source").exists():
            identity = {**identity, "base": files_fingerprint(Path(model.source))}
        return identity

    def promised(self, message: bytes, folder: Path | None = None, by: By | None = None) -> list[Statement]:
        """For each smoothing weight, the bound that the pilot units promise: what choices are made by.

        Which bound is a matter of the experiment's first level (`HEADLINES`), unless `by` names another assumption and inequality;
        it is the one beside the reference, if there is one.
        It is computed as if the pilot's losses were those of the n units that will certify. The pilot is drawn independently of
        these, so what is chosen by it and is in the message costs nothing more (candidates A = 1). No entry is a claim.
        folder: where the scores are kept.
        """
        level, store = self.experiment.bounds.levels[0], self.store
        pilot = evaluate_pilot(message, store, self.split, self.experiment, folder)[level]
        facts = self._facts(message, ALPHA_GRID[0])
        scores = pilot.repeated(evaluated_units(level, self.experiment, facts.units[level]), facts.units[level])
        wanted = by or HEADLINES[level]
        beside = self.experiment.reference.name != "uniform" and wanted[1] in references.INEQUALITIES[level]
        entries = []
        for alpha in ALPHA_GRID:
            of, assumed = statements.metric("bpd", alpha, store.vocab_size), facts._replace(alpha=alpha)
            shared: dict[str, Any] = {"scores": scores, "pilot": pilot, "facts": assumed}
            if beside:
                entries.append(references.bound(level, alpha, *wanted, **shared))
            else:
                entries.append(statements.bound(level, of, *wanted, **shared))
        return entries

    def seal(self, message: bytes, folder: Path | None = None) -> bytes:
        """The final message: the same model, with the smoothing weight that promises the smallest bound (`promised`)."""
        best = min(self.promised(message, folder), key=lambda entry: entry.bound)
        assert best.alpha is not None
        return with_alpha(message, best.alpha, self.experiment, self.store.vocab_size)

    def evaluate(self, message: bytes, folder: Path | None = None) -> Evaluation:
        """The decoded model's scores. folder: where they are kept; interrupted scoring continues from there."""
        return evaluate(message, self.store, self.split, self.experiment, folder, local_only=self.local_only)

    def findings(self, message: bytes, evaluation: Evaluation, tolerant: bool = True) -> Findings:
        """What a certificate states about the message. tolerant: as `statements.bound` has it."""
        store, levels = self.store, self.experiment.bounds.levels
        hypothesis = decode(message, self.experiment, store.vocab_size, self.local_only)
        assert hypothesis.alpha is not None
        facts = self._facts(message, hypothesis.alpha)
        training, pilot = evaluation.training, evaluation.pilot
        published = facts.as_published(hypothesis.published_bits)
        return Findings(
            alpha=hypothesis.alpha,
            public=self._public(),
            corpus=self._corpus(),
            bounds=[
                *statements.all_bounds(training, pilot, facts, tolerant),
                *references.all_bounds(training, pilot, facts, tolerant),
            ],
            held_out=[
                *statements.held_out(evaluation.held_out, levels, store.vocab_size),
                *references.held_out(evaluation.held_out, levels, facts),
            ],
            published_bits=hypothesis.published_bits,
            published_bounds=[
                statements.bound(level, of, *PUBLISHED[level], scores=scores, pilot=pilot[level], facts=published, tolerant=False)
                for level, scores in training.items()
                if PUBLISHED[level][0] in statements.assumptions(level, facts.tokenizer_from)
                for of in statements.metrics(store.vocab_size)
            ],
            said=hypothesis.said,
        )

    def held_out_losses(self, message: bytes, evaluation: Evaluation, alpha: float) -> tuple[Level, np.ndarray, np.ndarray | None]:
        """(unit, losses of single held-out units, the reference's own or None): what the headline speaks of, in bits per token.

        Beside a reference the losses are the mixture's, of the first level's units. With the uniform guess they are of documents,
        sequences or positions, with smoothing weight alpha.
        """
        facts, level = self._facts(message, alpha), self.experiment.bounds.levels[0]
        if self.experiment.reference.name != "uniform":
            return level, *references.held_out_losses(evaluation.held_out, level, facts)
        level = "document" if level == "token" else level
        of = statements.metric("bpd", alpha, self.store.vocab_size)
        losses = of.low + of.width * statements.unit_losses(evaluation.held_out[level], of, self.store.vocab_size)
        return level, losses, None

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of each phase of training, in seconds, from the log in `folder`."""
        return training_seconds(folder)

    def _facts(self, message: bytes, alpha: float) -> statements.Facts:
        store, bounds, block = self.store, self.experiment.bounds, self.experiment.model.block
        units = {level: unit_count(level, store, self.split.train, block) for level in bounds.levels}
        shared = (8 * len(message), alpha, store.vocab_size, bounds.delta, units, self._pool)
        choices = bounds.configurations, bounds.candidates, bounds.tokens, bounds.nominal_tokens
        beside = self.experiment.reference, self._populations
        return statements.Facts(*shared, *choices, self.experiment.corpus.tokenizer_from, bounds.split_seeds, *beside)

    @functools.cached_property
    def _populations(self) -> dict[Level, Population]:
        """What the public reference says of all training units; empty for the uniform guess."""
        if self.experiment.reference.name == "uniform":
            return {}
        return populations(self.store, self.split.train, self.experiment.bounds.levels, self.experiment, shortest=self._shortest)

    @property
    def _shortest(self) -> int:
        """Tokens of the pool's shortest document."""
        return int(np.delete(self.store.lengths, self.split.prior).min())

    @property
    def _pool(self) -> int:
        """M: all that the split draws from."""
        return sum(map(len, (self.split.train, self.split.validation, self.split.test)))

    def _corpus(self) -> dict[str, Any]:
        store, split = self.store, self.split
        by_position = split.rule == "positions"
        return {
            "name": store.name,
            "sha256": store.sha256,
            "documents": len(store if by_position else split.train),
            "pool": self._pool,
            "tokens": len(split.train) if by_position else int(store.lengths[split.train].sum()),
            "vocab_size": store.vocab_size,
            "split": split.rule,
            **({"prior": len(split.prior)} if len(split.prior) else {}),
            "unit": "byte" if self.experiment.corpus.tokenizer == "bytes" else "token",
        }

    def _public(self) -> dict[str, Any]:
        """What the decoder and the reader may assume: fixed before the training split was drawn."""
        experiment = self.experiment
        tokenizer = get_tokenizer(experiment.corpus.tokenizer, self.local_only)
        levels, block = experiment.bounds.levels, experiment.model.block
        units = {level: unit_count(level, self.store, self.split.train, block) for level in levels}
        whole = all(evaluated_units(level, experiment, m) == m for level, m in units.items())
        return {
            "base": next(name for kind, name in BASES.items() if isinstance(experiment.model, kind)),
            "base_weights_sha256": self._base_sha256(),
            "tokenizer": experiment.corpus.tokenizer,
            "tokenizer_sha256": tokenizer.sha256,
            "tokenizer_from": experiment.corpus.tokenizer_from or "elsewhere",
            "draw": None if whole else "message" if experiment.bounds.beacon is None else "beacon",
            "beacon": None if whole else experiment.bounds.beacon,
            "end_of_text": self.store.eot,
            "condition": "base_independent" if experiment.needs_base or tokenizer.name != "bytes" else None,
            **statements.text_rules(experiment),
            **references.rules(experiment, self.store.vocab_size, self._shortest),
        }

    def _base_sha256(self) -> str | None:
        """The fingerprint of the base weights that the message starts from."""
        return base_sha256(base_model(self.experiment.model, self.store.vocab_size, self.local_only))


@dataclass
class TextProblem(DocumentProblem):
    """A language model's problem whose message holds trained coordinates."""

    experiment: Pretrain | Finetune

    def build(self) -> Subspace:
        """The model at coordinates zero."""
        return build(self.experiment.model, self.experiment.subspace, self.store.vocab_size)

    def train(self, folder: Path) -> tuple[Subspace, pd.DataFrame]:
        """(the trained model, its training log). Finished or interrupted training is read from `folder` and continued."""
        model = self.build()
        return model, self._phase(model, folder, "pretrain")

    def compress(self, folder: Path, model: Subspace) -> tuple[bytes, pd.DataFrame | None]:
        """(the message of the trained `model` with the grid's first smoothing weight, the log of the adaptation)."""

        def adapt(quantized, penalty):
            return self._phase(quantized, folder, "quantize", penalty)

        parts, log = quantize_and_adapt(model, self.experiment.compression, adapt, self.pricing())
        public, form = self.experiment.model, Gridded if self.experiment.compression.quantizer == "grid" else Coded
        message = encode(Message(self.experiment.subspace, ALPHA_GRID[0], form(*parts), layer_names(public)))
        return configured(None if isinstance(public, Gpt) else public.architecture, message), log

    def pricing(self) -> Pricing:
        """What the statement that training works for makes of a message's bits: that of the first level.

        With the uniform guess it is that at alpha .1. Beside a reference differences count: they are at most c, and on the whole
        about a quarter of c below zero and half of it apart; those of single tokens have the width log2(1/alpha) at alpha .5; those
        to the base about `TO_THE_BASE`.
        """
        bounds, level = self.experiment.bounds, self.experiment.bounds.levels[0]
        facts = self._facts(b"", ALPHA_GRID[0])
        m, single = float(facts.units[level]), level in references.SINGLE
        assumption, top = HEADLINES[level][0], sum(loss_range(0.1, self.store.vocab_size))
        nats = math.log(statements.reachable(assumption, bounds.configurations, bounds.split_seeds) / bounds.delta)
        if self.experiment.reference.name == "uniform":
            m *= 1 - m / facts.pool if assumption == "unseen" else 1
            return Pricing(m, nats, lambda mean: top - mean, single)
        if single:
            return Pricing(m, nats, lambda mean: 1.0, True)
        if self.experiment.reference.name == "base":
            return Pricing(m, nats, lambda mean: TO_THE_BASE, False, TO_THE_BASE)
        c = self.experiment.reference.excess or math.log2(self.store.vocab_size) / 4
        return Pricing(m, nats, lambda mean: 1.25 * c, False, c / 2)

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of each phase of training, from the log in `folder`."""
        return training_seconds(folder)

    def _phase(self, module, folder: Path, phase: Literal["pretrain", "quantize"], penalty=None) -> pd.DataFrame:
        return train_phase(module, self.store, self.split, self.experiment, folder, phase=phase, penalty=penalty)


def smallest_promise(
    ways: Sequence[tuple], make: Callable[..., tuple[bytes, DocumentProblem]], folder: Path, *, columns: tuple[str, ...], what: str
) -> tuple[bytes, Any, pd.DataFrame]:
    """(the message with the smallest promised bound, its problem, the table of all ways in the order tried).

    make: from a way's own folder below `folder`, where its scores are kept, and the way to its message and problem.
    All that is tried is in the message, and pilot units are drawn independently of those that certify (`promised`), so choosing
    costs nothing. The table has `columns`, which name the parts of a way, and `PROMISED`: bits per token at the best alpha; with a
    public reference also `reference_empirical` and `gain`.
    """
    rows: list[dict[str, Any]] = []
    best: tuple[float, bytes, DocumentProblem] | None = None
    for way in progress_bar(ways, desc=what, unit="way"):
        began, place = time.monotonic(), folder / "-".join(map(str, way))
        message, problem = make(place, *way)
        entry = min(problem.promised(message, place), key=lambda entry: entry.bound)
        gap, seconds = entry.bound - entry.empirical, time.monotonic() - began
        promised = (8 * len(message), entry.alpha, entry.empirical, gap, entry.bound, seconds)
        beside = {} if entry.reference is None else {"reference_empirical": entry.reference_empirical, "gain": entry.gain}
        rows.append(dict(zip((*columns, *PROMISED), (*way, *promised), strict=True)) | beside)
        if best is None or entry.bound < best[0]:
            best = entry.bound, message, problem
    assert best is not None
    return best[1], best[2], pd.DataFrame(rows)
