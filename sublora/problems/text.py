"""Predicting the tokens of documents: data, training, scoring and statements of a language model."""

import contextlib
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd

import sublora
from sublora import budget
from sublora.atomic import write_text
from sublora.certificate import references, statements
from sublora.certificate.build import Findings
from sublora.certificate.comparison import MetricName
from sublora.certificate.paired import Losses, Measured
from sublora.certificate.schema import AssumptionName, Certificate, Statement, TextPublic
from sublora.certificate.statements import PUBLISHED, By
from sublora.compression import quantize_and_adapt
from sublora.compression.price import Pricing
from sublora.data import Split, TokenStore, find_store, prepare, split_of
from sublora.data.corpora import corpus_identity
from sublora.data.direction import in_direction
from sublora.data.duplicates import near_duplicates
from sublora.data.files import files_fingerprint, given_path
from sublora.data.store import groups_sha256
from sublora.data.tokenizers import Tokenizer, tokenizer_of
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, OWN_TOKENIZERS, Finetune, Gpt, Level, OnText, Pretrain, Pretrained
from sublora.experiment import Subspace as SubspaceSettings
from sublora.experiment.packages import WHEELS
from sublora.inequalities.smoothing import document_means, loss_range
from sublora.limits import Limits
from sublora.message import Coded, Gridded, configured, decode, with_alpha
from sublora.message.language import Message, encode
from sublora.models import Subspace, base_by_itself, base_model, base_sha256, build, layer_names, parametrize
from sublora.models.pretrained import Causal, architecture, configuration_sha256
from sublora.problems.prior import refuse_base_of_the_pool
from sublora.progress import notice, progress_bar
from sublora.scoring.baselines import baselines
from sublora.scoring.reference import Population, populations
from sublora.scoring.scores import Scores
from sublora.scoring.text import (
    Drawn,
    Evaluation,
    evaluate,
    evaluate_drawn,
    evaluate_pilot,
    evaluated_units,
    training_units,
)
from sublora.training import train_phase, training_seconds

HEADLINES: dict[Level, By] = {
    "document": ("unseen", "betting"),
    "sequence": ("iid", "betting"),
    "token": ("martingale", "freedman"),
    "position": ("unseen", "betting"),
    "group": ("unseen", "betting"),
}
"""What the smoothing weight is chosen for, by the level that comes first in an experiment."""
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
    per_byte: bool = False  # whether bits per byte are stated, beside those per token

    @classmethod
    def open(cls, experiment: OnText, corpora: Path) -> Self:
        """State a pretrained model's architecture, prepare the corpus below the folder `corpora`, and draw the split.

        In this order, so that a base model that cannot be used leaves nothing. Raises SubloraError for what is not here, and for a
        base that was made of documents of this pool (`problems.prior`).
        """
        stated = cls.refuse_base(experiment)
        store, levels = prepare(experiment.corpus, corpora), set(experiment.bounds.levels)
        refuse_base_of_the_pool(experiment, store)
        problem = cls._on(store, stated)
        by_byte = experiment.corpus.tokenizer not in statements.BY_CHARACTER and bool(levels & set(statements.BY_BYTE))
        if by_byte and store.altered:
            why = f"{store.altered:,} of {len(store):,} documents do not come back from tokenizer {store.tokenizer} as they were"
            notice(f"{store.name}: bits per byte are not stated, since {why}")
        return replace(problem, per_byte=by_byte and not store.altered)

    @staticmethod
    def refuse_base(experiment: OnText) -> OnText:
        """The experiment with its pretrained model's architecture.

        Raises SubloraError for a base that cannot be used, and for a subspace that does not fit it. It writes no
        file, except the folder that a GGUF file is converted to.
        """
        model = experiment.model
        if not isinstance(model, Pretrained) or model.architecture is not None:
            return experiment
        tokenizer = tokenizer_of(experiment.corpus)
        base = base_model(model, tokenizer.vocab_size)
        assert isinstance(base, Causal)
        stated = experiment.model_copy(update={"model": model.model_copy(update={"architecture": architecture(base)})})
        if isinstance(experiment, Finetune):
            parametrize(base, model, _with_ids(experiment.subspace, tokenizer.eot))
        return stated

    @classmethod
    def _on(cls, store: TokenStore, experiment: OnText) -> Self:
        if isinstance(experiment, Finetune | Pretrain):
            experiment = experiment.model_copy(update={"subspace": _with_ids(experiment.subspace, store.eot)})
        split, model = split_of(store, experiment.corpus), experiment.model
        if isinstance(model, Gpt):
            store = in_direction(store, model.direction, model.block, model.permutation_seed)
        return cls(experiment, store, split)

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
        ours = corpus.packages is not None and set(corpus.packages) <= WHEELS.keys()
        embedded = (ours or corpus.source in ("python-stdlib", "exact")) and corpus.tokenizer in OWN_TOKENIZERS
        groups = None if certificate.corpus.groups is None else certificate.corpus.groups.sha256
        store = None if embedded or given is not None else find_store(corpora, certificate.corpus.sha256, groups)
        if store is None and not embedded and given is None:
            raise SubloraError(
                f"{path}: its corpus ({corpus.source}, path {corpus.path}, tokenizer {corpus.tokenizer}) is not prepared in "
                f"{corpora}; say where the data is with --corpus, or prepare it with `sublora data`"
            )
        wheels = given if given is not None and any(given.glob("*.whl")) else None
        problem = replace(cls._on(store or prepare(corpus, corpora, wheels, local_only=True), experiment), local_only=True)
        if isinstance(certificate.public, TextPublic) and certificate.public.bytes is not None:
            if problem.store.sizes is None or problem.store.altered:
                why = "has no counts of bytes" if problem.store.sizes is None else "does not give its documents back byte for byte"
                raise SubloraError(f"{path}: it states bits per byte, but {problem.store.path} {why}; prepare the corpus again")
            problem = replace(problem, per_byte=True)
        if (here := problem.store.sha256) != (stated := certificate.corpus.sha256):
            cure = f"Python {certificate.environment.python}" if corpus.source == "python-stdlib" else "the data it was made from"
            raise SubloraError(f"{path}: it speaks of a corpus with sha256 {stated:.12}, here it is {here:.12}; use {cure}")
        if corpus.max_documents is not None and corpus.max_documents < len(problem.store):
            raise SubloraError(f"{path}: its corpus has {len(problem.store):,} documents, more than its max_documents")
        base, base_here = certificate.public.base_weights_sha256, problem._base_sha256()
        if base_here != base:
            raise SubloraError(f"{path}: its base model has the sha256 {base!s:.12}, here it is {base_here!s:.12}; use that model")
        said, found = getattr(certificate.public, "base_configuration_sha256", None), problem.base_configuration_sha256
        if said != found:
            what = f"its base model has a configuration with the sha256 {said!s:.12}, here it is {found!s:.12}"
            raise SubloraError(f"{path}: {what}; use that model")
        return problem

    @staticmethod
    def refuse_costly(experiment: OnText, certificate: Certificate, path: Path, limits: Limits, scored: bool = True) -> None:
        """Raises SubloraError if the check would take more than the limits, by what message and certificate say.

        scored: the check scores the model again; else it decodes it alone.
        """
        made = budget.language_model(experiment, certificate.message_bytes, certificate.corpus.vocab_size, str(path), limits)
        budget.refuse_above(made.plus(budget.scoring(experiment, certificate)) if scored else made, str(path), limits)

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
                *statements.held_out(evaluation.held_out, levels, facts, self.split.drawn[2], tolerant),
                *references.held_out(evaluation.held_out, levels, facts, self.split.drawn[2], tolerant),
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

    @property
    def unit(self) -> str:
        """What a loss in bits is of: byte or token."""
        return statements.text_corpus(self.experiment)["unit"]

    def units(self, level: Level, held_out: bool) -> tuple[int, int]:
        """(how many training or test units of a level there are, how many of them the settings want scored)."""
        bounds, block = self.experiment.bounds, self.experiment.model.block
        m = training_units(level, self.store, self.split, block)
        if not held_out:
            return m, evaluated_units(level, self.experiment, m)
        wanted = {"position": bounds.held_out_positions, "group": bounds.held_out_groups}.get(level, bounds.held_out_documents)
        return self.split.drawn[2], min(wanted, self.split.drawn[2])

    def measured(self, message: bytes, drawn: Drawn) -> list[Measured]:
        """What the decoded model loses on units that another model is scored on, too: bits per token, as its headline has them, and
        per byte, where these are stated."""
        store, level = self.store, drawn.level
        hypothesis = decode(message, self.experiment, store.vocab_size, self.local_only)
        assert hypothesis.alpha is not None
        facts = self._facts(message, hypothesis.alpha)
        scored = evaluate_drawn(message, store, self.split, self.experiment, drawn, local_only=self.local_only)
        by_byte = self.per_byte and level in statements.BY_BYTE
        return [self._measured(name, facts, drawn, scored) for name in get_args(MetricName)[: 1 + by_byte]]

    def _measured(self, name: MetricName, facts: statements.Facts, drawn: Drawn, scored: tuple[Scores, Scores | None]) -> Measured:
        store, level, beside = self.store, drawn.level, self.experiment.reference.name != "uniform"
        rhos = facts.ratios if name == "bpb" else {}
        of = {assumption: statements.per_byte(facts.alpha, store.vocab_size, rho) for assumption, rho in rhos.items()}
        of_token = statements.metric("bpd", facts.alpha, store.vocab_size)

        def losses(scores: Scores) -> Losses:
            alone, whole = replace(scores, members=np.zeros(0, np.int64)), of.get("pool", of_token)
            if beside:
                values, _ = references.unit_losses(alone, level, facts, name)
            else:
                values = whole.low + whole.width * statements.unit_losses(alone, whole, store.vocab_size)
            return Losses(values, scores.sizes if name == "bpb" else np.diff(scores.offsets), scores.places, scores.members)

        def range_of(assumption: AssumptionName) -> tuple[float, float]:
            if beside:
                return 0.0, references.largest(level, assumption, facts, name)
            by = of.get(assumption, of_token)
            return by.low, by.low + by.width

        names = statements.assumptions(level, self.experiment.corpus.tokenizer_from)
        if drawn.held_out:
            names = statements.held_out_assumptions(level, self.experiment.corpus.tokenizer_from)
        if name == "bpb":
            names = tuple(each for each in names if each in of)
        m, all_sizes = facts.units[level], store.lengths if name == "bpd" else store.sizes
        assert all_sizes is not None
        lengths = all_sizes[self.split.train] if level in statements.BY_BYTE else np.ones(m, np.int64)
        if self.split.groups is not None:
            ends = np.concatenate([[0], np.cumsum(self.split.groups[0])])
            lengths = 1.0 / document_means(1.0 / lengths, ends)
        populations: dict[AssumptionName, int] = {"pool": facts.pool, "unseen": facts.pool - m}
        if drawn.held_out:
            populations = {"unseen": self.split.drawn[2]}
        return Measured(
            losses=losses(scored[0]),
            pilot=None if scored[1] is None else losses(scored[1]),
            ranges={each: range_of(each) for each in names},
            shortest={each: references.least_tokens(level, each, int(all_sizes.min())) for each in names},
            all_lengths=lengths,
            populations=populations,
            single=level in references.SINGLE,
            metric=name,
        )

    def measure_beside(self, folder: Path) -> None:
        """Write `baselines.csv` and `duplicates.csv` into the folder, unless they are there: they stand beside a certificate.

        Of positions there is neither, since their held-out values are not of documents.
        """
        if self.split.rule == "positions":
            return
        made: dict[str, Callable[[], pd.DataFrame]] = {
            "baselines": lambda: baselines(TokenStore.open(self.store.path), self.split, self._tokenizer, self.experiment.bounds),
            "duplicates": lambda: near_duplicates(TokenStore.open(self.store.path), self.split),
        }
        for name, make in made.items():
            if not (path := folder / f"{name}.csv").exists():
                write_text(path, self._measured_once(name, make))

    def _measured_once(self, name: str, make: Callable[[], pd.DataFrame]) -> str:
        """A table about split and held-out documents alone, as text: kept beside the token store, for other runs on them."""
        bounds = self.experiment.bounds.model_dump(mode="json", include={"held_out_documents", "held_out_groups"})
        facts = [sublora.__version__, self.store.sha256, self.experiment.corpus.model_dump(mode="json"), bounds]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        kept = self.store.path.with_name(f"{name}-{digest[:12]}.csv")
        if kept.is_file():
            return kept.read_text("utf-8")
        text = make().to_csv(index=False)
        with contextlib.suppress(SubloraError):  # a folder of corpora may be read-only
            write_text(kept, text)
        return text

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of each phase of training, in seconds, from the log in `folder`."""
        return training_seconds(folder)

    def _facts(self, message: bytes, alpha: float) -> statements.Facts:
        store, bounds, block = self.store, self.experiment.bounds, self.experiment.model.block
        units = {level: training_units(level, store, self.split, block) for level in bounds.levels}
        shared = (8 * len(message), alpha, store.vocab_size, bounds.delta, units, self.pool_size)
        choices = bounds.configurations, bounds.candidates, bounds.tokens, bounds.nominal_tokens
        beside = self.experiment.reference, self._populations, self._ratios, 2 if store.sizes is None else int(store.sizes.min())
        return statements.Facts(*shared, *choices, self.experiment.corpus.tokenizer_from, bounds.split_seeds, *beside)

    @functools.cached_property
    def _populations(self) -> dict[Level, Population]:
        """What the public reference says of all training units; empty for the uniform guess."""
        if self.experiment.reference.name == "uniform":
            return {}
        return populations(self.store, self.split, self.experiment.bounds.levels, self.experiment, shortest=self._shortest)

    @functools.cached_property
    def _ratios(self) -> dict[str, float]:
        """rho, the most tokens for each of b: of the tokenizer, if it is proven, and of the whole pool. Empty without bits per
        byte."""
        if not self.per_byte:
            return {}
        assert self.store.sizes is not None
        pool, proven = float((self.store.lengths / self.store.sizes).max()), self._tokenizer.ratio
        return ({} if proven is None else {"iid": proven}) | {"pool": pool, "unseen": pool}

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.experiment.corpus, self.local_only)

    @property
    def _shortest(self) -> int:
        """Tokens of the pool's shortest document."""
        return int(np.delete(self.store.lengths, self.split.prior).min())

    @property
    def pool_size(self) -> int:
        """M: all that the split draws from."""
        return sum(self.split.drawn)

    def _corpus(self) -> dict[str, Any]:
        store, split = self.store, self.split
        by_position = split.rule == "positions"
        return {
            **statements.text_corpus(self.experiment),
            "sha256": store.sha256,
            "documents": len(store if by_position else split.train),
            "pool": self.pool_size,
            "tokens": len(split.train) if by_position else int(store.lengths[split.train].sum()),
            "vocab_size": store.vocab_size,
            **({"prior": len(split.prior)} if len(split.prior) else {}),
            **self._groups(),
        }

    def _groups(self) -> dict[str, Any]:
        """What the certificate says of groups; nothing where documents were drawn."""
        if self.split.groups is None:
            return {}
        assert self.store.groups is not None
        facts = {"column": self.experiment.corpus.group, "sha256": groups_sha256(self.store.groups)}
        return {"groups": {**facts, "training": self.split.drawn[0]}}

    def _public(self) -> dict[str, Any]:
        """What the decoder and the reader may assume: fixed before the training split was drawn."""
        experiment = self.experiment
        levels, block = experiment.bounds.levels, experiment.model.block
        units = {level: training_units(level, self.store, self.split, block) for level in levels}
        stated = statements.assumptions("document", experiment.corpus.tokenizer_from)
        ratio = {name: self._ratios[name] for name in stated if name in self._ratios}
        shortest = 0 if self.store.sizes is None else int(self.store.sizes.min())
        whole = all(evaluated_units(level, experiment, m) == m for level, m in units.items())
        return {
            "base_weights_sha256": self._base_sha256(),
            **({} if (own := self.base_configuration_sha256) is None else {"base_configuration_sha256": own}),
            "tokenizer_sha256": self._tokenizer.sha256,
            "end_of_text": self.store.eot,
            **statements.text_rules(experiment, whole),
            **references.rules(experiment, self.store.vocab_size, self._shortest),
            **({"bytes": {"ratio": ratio, "shortest": shortest}} if ratio else {}),
        }

    def _base_sha256(self) -> str | None:
        """The fingerprint of the base weights that the message starts from."""
        return base_sha256(base_model(self.experiment.model, self.store.vocab_size, self.local_only))

    @functools.cached_property
    def base_configuration_sha256(self) -> str | None:
        """The fingerprint of the reference's own configuration, which is its source's; None where no base is the reference."""
        return reference_configuration(self.experiment, self.store.vocab_size, self.local_only)


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
        if self.experiment.training.gradient_checkpointing:
            for causal in [each for each in model.modules() if isinstance(each, Causal)]:
                causal.compute_layers_again()
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


def _with_ids(subspace: SubspaceSettings, eot: int) -> SubspaceSettings:
    """The settings of a subspace with the id of the token that ends documents in place of the word for it."""
    named = subspace.tokens == "end" and "biases" in subspace.parametrization
    return subspace.model_copy(update={"tokens": (eot,)}) if named else subspace


def reference_configuration(experiment: OnText, vocab_size: int, local_only: bool = False) -> str | None:
    """The fingerprint of the configuration that the base has by itself, where it is the reference; else None."""
    if experiment.reference.name != "base":
        return None
    assert isinstance(experiment.model, Pretrained)
    return configuration_sha256(architecture(base_by_itself(experiment.model, vocab_size, local_only)))


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
