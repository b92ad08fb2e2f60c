"""Every bound that a certificate lists: one function builds the whole list, so that nothing can be forgotten or left uncharged."""

import functools
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sublora.certificate.schema import AssumptionName, HeldOut, Statement, Terms, TestSetBound
from sublora.data.corpora import corpus_name
from sublora.data.labelled import TASKS, task_name
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, Classify, Counts, Gpt, Level, OnText, Pretrained, Reference, Words
from sublora.inequalities.independent import betting_grid, check_nats, complexity_nats
from sublora.inequalities.martingale import (
    NOMINAL_BITS,
    azuma,
    azuma_subsampled,
    entropy_guess_width,
    freedman,
    freedman_subsampled,
    nearest_nominal,
    token_share,
)
from sublora.inequalities.means import NEED_ALL_UNITS, Bound, bound_mean
from sublora.inequalities.paired import held_out_limit
from sublora.inequalities.smoothing import document_means, loss_range, scale_to_unit, smoothed_bits, topk_errors
from sublora.inequalities.subsampling import Parts
from sublora.scoring.reference import Population
from sublora.scoring.scores import Scores

FOR_UNITS = ("hoeffding", "kl", "empirical_bernstein", "betting")
FOR_POOLS = ("hoeffding", "kl", "betting")
INEQUALITIES: dict[Level, tuple[str, ...]] = {
    "document": FOR_UNITS,
    "sequence": FOR_UNITS,
    "token": ("azuma", "freedman"),
    "position": FOR_POOLS,
    "group": FOR_UNITS,
}
FOR_EXAMPLES: dict[AssumptionName, tuple[str, ...]] = {
    "iid": ("hoeffding", "kl", "binomial_tail", "betting"),
    "pool": FOR_POOLS,
    "unseen": FOR_POOLS,
}
"""The inequalities for 0-1 errors of examples, by assumption."""
ASSUMPTIONS: dict[Level, tuple[AssumptionName, ...]] = {
    "document": ("iid", "pool", "unseen"),
    "sequence": ("iid",),
    "token": ("martingale",),
    "position": ("pool", "unseen"),
    "group": ("iid", "pool", "unseen"),
}
BY_BYTE: tuple[Level, ...] = ("document", "group")
"""Levels of which bits per byte are stated, too."""
BYTE_GUESS = math.log2(257)
"""Bits per byte of guessing each byte, or the end of text, uniformly; the same for all tokenizers."""
POOLED: tuple[Level, ...] = ("document", "position", "group")
"""Levels whose units the split draws from a pool."""
BITS = ("bpd", "bpb")
"""Metrics in bits: per token, per byte."""
By = tuple[AssumptionName, str]
"""An assumption and an inequality."""
PUBLISHED: dict[Level, By] = {
    "document": ("iid", "hoeffding"),
    "sequence": ("iid", "hoeffding"),
    "token": ("martingale", "azuma"),
    "position": ("iid", "hoeffding"),  # the papers state no bound for positions
    "group": ("iid", "hoeffding"),
}
"""The papers' assumption and inequality of each level."""
BY_CHARACTER = ("bytes", "bits")
"""Tokenizers that no text has made."""
BASES = {Gpt: "gpt", Pretrained: "transformers", Counts: "none"}
"""What a certificate calls the base model."""
CHARGED: tuple[AssumptionName, ...] = ("iid", "martingale")
"""A random split mends what was tuned on the pool for unseen and pool only; the others pay for all configurations."""


def reachable(assumption: AssumptionName, configurations: int, split_seeds: int) -> int:
    """J of an assumption: the choices that could have been made after a look at the data and that a random split does not mend."""
    return configurations if assumption in CHARGED else split_seeds


DETERMINISM = {"bits": 5e-6, "errors": 5e-5}
"""How far another machine's arithmetic may move a measured value: more than ten times what `benchmarks/determinism.py` measured of
means (a bound may be about three times as steep as the mean). A single flipped example of fewer than 20,000 moves the mean further:
then a true certificate fails there, which is safe. Every bound includes it; no certificate may state another."""


def assumptions(level: Level, tokenizer_from: str | None) -> tuple[AssumptionName, ...]:
    """Those of a level. A tokenizer made of this corpus was chosen with the units in hand: then without iid and martingale."""
    return tuple(name for name in ASSUMPTIONS[level] if tokenizer_from != "pool" or name in ("pool", "unseen"))


class Metric(NamedTuple):
    """What is measured: "bpd" or "bpb" (bits per token or byte under smoothing weight alpha) or "top<k>_error" (alpha None).

    low, width: the range of the loss of a token, of bpb that of a document; vacuous_at: the uniform guess, at which a bound says
    nothing.
    """

    name: str
    alpha: float | None
    low: float
    width: float
    vacuous_at: float
    k: int = 0


def metric(name: str, alpha: float | None, vocab_size: int) -> Metric:
    """The metric of that name. Raises SubloraError for an alpha outside (0, 1)."""
    if name == "bpd":
        if alpha is None:
            raise SubloraError("alpha: missing; bits per token need a smoothing weight")
        return Metric(name, alpha, *loss_range(alpha, vocab_size), math.log2(vocab_size))
    k = int(name.removeprefix("top").removesuffix("_error"))
    return Metric(name, None, 0.0, 1.0, 1 - k / vocab_size, k)


def metrics(vocab_size: int) -> list[Metric]:
    """All metrics that a certificate lists."""
    bits = [metric("bpd", alpha, vocab_size) for alpha in ALPHA_GRID]
    return bits + [metric(f"top{k}_error", None, vocab_size) for k in TOP_K if k < vocab_size]


def per_byte(alpha: float, vocab_size: int, ratio: float) -> Metric:
    """Bits per byte: a document's bits divided by b, its bytes and one more. In [0, ratio (a + Delta)].

    ratio: rho, the most tokens for each of b that any document of the population has, never of the sample alone.
    """
    low, width = loss_range(alpha, vocab_size)
    return Metric("bpb", alpha, 0.0, ratio * (low + width), BYTE_GUESS)


def of_bytes(facts: "Facts", level: Level) -> Iterator[tuple[Metric, AssumptionName]]:
    """(metric, assumption) of the statements in bits per byte at a level, in order; none where they are not stated.

    Under iid rho is a property of the tokenizer; for pool and unseen it may be that of the whole pool.
    """
    if level in BY_BYTE:
        for alpha in ALPHA_GRID:
            for assumption in assumptions(level, facts.tokenizer_from):
                if assumption in facts.ratios:
                    yield per_byte(alpha, facts.vocab_size, facts.ratios[assumption]), assumption


def tolerance(metric: str) -> float:
    """That of `DETERMINISM` for a metric."""
    return DETERMINISM["bits" if metric in BITS else "errors"]


def charged_bits(message_bits: float, J: int) -> float:
    """The bits that a bound pays: K, and log2 J more (`reachable`)."""
    return check_nats("message_bits", message_bits) + math.log2(J)


def bits_of_nats(log_probability: np.ndarray) -> np.ndarray:
    """`-log2 p`, float64, of float32 ln p; what is no probability counts as infinitely many bits."""
    logs = np.asarray(log_probability, np.float64)
    return np.where(np.isfinite(logs), -np.minimum(logs, 0.0), np.inf) / math.log(2.0)


def token_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Loss of each token, float64 (tokens,), in [low, low + width] of the metric."""
    if of.alpha is not None:
        return smoothed_bits(scores.log_probability, of.alpha, vocab_size)
    return topk_errors(scores.rank, of.k)


@functools.lru_cache(maxsize=2)  # every inequality asks for those of the scores and of the pilot
def unit_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Loss of each unit, scaled to [0, 1]: float64 (units,), not to be written to.

    It is the mean of its tokens' losses; in bits per byte their sum for each of b; of a group the mean of its documents' losses.
    """
    losses = document_means(token_losses(scores, of, vocab_size), scores.offsets)
    if of.name == "bpb":
        losses = losses * np.diff(scores.offsets) / scores.sizes
    if scores.members.size:
        losses = document_means(losses, scores.members)
    losses = scale_to_unit(losses, low=of.low, width=of.width)
    losses.flags.writeable = False
    return losses


def expected_losses(scores: Scores, of: Metric) -> np.ndarray:
    """The loss that the model itself expects of each token, from what it predicts: float64 (tokens,), in the metric's unit."""
    if of.alpha is not None:
        return scores.expected_bits[:, ALPHA_GRID.index(of.alpha)].astype(np.float64)
    return 1.0 - scores.expected_hits[:, TOP_K.index(of.k)].astype(np.float64)


def text_rules(experiment: OnText, whole: bool) -> dict[str, Any]:
    """What settings say of a language model, how it is scored, and what is stated of it, as `public` has it.

    whole: all training units are evaluated, so that none are drawn.
    """
    levels, beacon = experiment.bounds.levels, experiment.bounds.beacon
    return {
        "base": next(name for kind, name in BASES.items() if isinstance(experiment.model, kind)),
        "tokenizer": experiment.corpus.tokenizer,
        "tokenizer_from": experiment.corpus.tokenizer_from or "elsewhere",
        "draw": None if whole else "message" if beacon is None else "beacon",
        "beacon": None if whole else beacon,
        "condition": "base_independent" if experiment.needs_base or experiment.corpus.tokenizer not in BY_CHARACTER else None,
        "windows": {"block": experiment.model.block, "stride": experiment.stride},
        "evaluated": {level: getattr(experiment.bounds, level + "s") for level in levels},
        "pilot": experiment.bounds.pilot,
        "alpha_grid": list(ALPHA_GRID),
        "metrics": ["bpd", *(f"top{k}_error" for k in TOP_K)],
        "inequalities": {level: list(INEQUALITIES[level]) for level in levels},
        "assumptions": {level: list(assumptions(level, experiment.corpus.tokenizer_from)) for level in levels},
        "determinism": DETERMINISM,
    }


def label_assumptions(documents: int, pool: int) -> tuple[AssumptionName, ...]:
    """Under which a classifier's error is bounded: all of them if a part of the pool was not trained on."""
    return ("unseen", "iid", "pool") if documents < pool else ("iid",)


def text_corpus(experiment: OnText) -> dict[str, Any]:
    """What settings say of a language model's data, as `corpus` has it."""
    corpus = experiment.corpus
    return {
        "name": corpus_name(corpus),
        "split": "permutation" if corpus.split == "seeded" else corpus.split,
        "unit": "byte" if corpus.tokenizer == "bytes" else "token",
    }


def label_rules(experiment: Classify, assumptions: tuple[AssumptionName, ...]) -> dict[str, Any]:
    """What settings say of a classifier, and what is stated of it, as `public` has it."""
    words, task = isinstance(experiment.model, Words), experiment.task
    classes = task.classes if task.source is not None else TASKS[task.name].classes
    return {
        "base": "words" if words else "transformers",
        **({} if classes is None else {"classes": list(classes)}),
        **({"classes_from": "examples"} if task.source and not task.classes else {}),
        "condition": None if words else "base_independent",
        "arithmetic": "float64" if words else "float32",
        "metrics": ["error"],
        "inequalities": {name: list(FOR_EXAMPLES[name]) for name in assumptions},
        "determinism": DETERMINISM,
    }


def label_corpus(experiment: Classify, documents: int, pool: int) -> dict[str, Any]:
    """The same of a classifier's data. documents: to train on, of so many in the pool."""
    return {"name": task_name(experiment.task), "split": "all" if documents == pool else "permutation"}


class Facts(NamedTuple):
    """What all bounds of a certificate share.

    message_bits: K; alpha: the message's; units: m of each level; pool: M documents or positions; configurations: J of `CHARGED`;
    candidates: A, the certificates that are compared by their subsamples; tokens: n asked for at token level, None: all;
    nominal_tokens: N0, if it was fixed before the corpus was read; tokenizer_from: "pool" if it was made of this corpus;
    split_seeds: J of the rest.
    reference, populations: the public reference, and what it says of all training units of each level (not for the uniform guess).
    ratios: rho of each assumption under which bits per byte are stated, and "pool", which holds for held-out documents; empty where
    they are not. fewest: b of the pool's document with the fewest bytes.
    """

    message_bits: float
    alpha: float
    vocab_size: int
    delta: float
    units: Mapping[Level, int]
    pool: int
    configurations: int
    candidates: int
    tokens: int | None = None
    nominal_tokens: int | None = None
    tokenizer_from: str | None = None
    split_seeds: int = 1
    reference: Reference = Reference()
    populations: Mapping[Level, Population] = MappingProxyType({})
    ratios: Mapping[str, float] = MappingProxyType({})
    fewest: int = 2

    @property
    def nominal(self) -> int:
        """N0 of the bounds at token level."""
        return self.nominal_tokens or nearest_nominal(self.units["token"])

    @property
    def nominal_bits(self) -> int:
        """What the choice of N0 costs."""
        return NOMINAL_BITS if self.nominal_tokens is None else 0

    @property
    def share(self) -> float:
        """The share of delta that is spent on the stream; all of it where all tokens are asked for."""
        return 1.0 if self.tokens is None else token_share(self.tokens, nominal=self.nominal_tokens)

    def compared(self, alpha: float | None, all_units: bool) -> int:
        """A of a statement at that alpha: a reader may prefer any row of another alpha than the message's, so it pays for all."""
        return 1 if all_units else self.candidates * (1 if alpha in (None, self.alpha) else len(ALPHA_GRID))

    def as_published(self, bits: float) -> "Facts":
        """For the paper's accounting: its bits, J = A = 1, and N fixed in advance. Rows of other alphas still pay (`compared`)."""
        published = self._replace(message_bits=bits, configurations=1, split_seeds=1, candidates=1)
        if (N := self.units.get("token")) is None:
            return published
        return published._replace(nominal_tokens=N, tokens=None if (self.tokens or N) >= N else self.tokens)


def listed(level: Level, facts: Facts, all_units: bool) -> Iterator[tuple[Metric, AssumptionName, str]]:
    """(metric, assumption, inequality) of every bound at a level, in order. all_units: n = m."""
    by_token = ((of, name) for of in metrics(facts.vocab_size) for name in assumptions(level, facts.tokenizer_from))
    for of, assumption in (*by_token, *of_bytes(facts, level)):
        for inequality in INEQUALITIES[level]:
            if inequality not in NEED_ALL_UNITS or (assumption == "iid" and all_units):
                yield of, assumption, inequality


def all_bounds(
    training: Mapping[Level, Scores], pilot: Mapping[Level, Scores], facts: Facts, tolerant: bool = True
) -> Iterator[Statement]:
    """Every bound: each level, metric and alpha, by each inequality, under each assumption that the level admits.

    The message holds one alpha, chosen on the pilot. The rows of the other alphas are other messages of the same length, scored on
    the same units: `Facts.compared`.
    """
    for level, scores in training.items():
        for row in listed(level, facts, scores.units == facts.units[level]):
            yield bound(level, *row, scores=scores, pilot=pilot[level], facts=facts, tolerant=tolerant)


def bound(
    level: Level,
    of: Metric,
    assumption: AssumptionName,
    inequality: str,
    *,
    scores: Scores,
    pilot: Scores,
    facts: Facts,
    tolerant: bool = True,
) -> Statement:
    """One statement. pilot: scores on units drawn independently of those of `scores`. tolerant: with `tolerance` added."""
    m, n = facts.units[level], scores.units
    candidates = facts.compared(of.alpha, n == m)
    J = reachable(assumption, facts.configurations, facts.split_seeds)
    facts = facts._replace(message_bits=charged_bits(facts.message_bits, J))
    if level == "token":
        found = _token_bound(of, inequality, scores, pilot, facts, candidates=candidates)
    else:
        found = bound_mean(
            unit_losses(scores, of, facts.vocab_size),
            inequality=inequality,
            assumption=assumption,
            message_bits=facts.message_bits,
            delta=facts.delta,
            m=m,
            pool=facts.pool,
            candidates=candidates,
            places=scores.places,
            pilot=(unit_losses(pilot, of, facts.vocab_size), pilot.places),
            one_inner=level == "position",
        ).unscaled(of.low, of.width)
    return statement(
        found,
        tolerant,
        of.low + of.width,
        level=level,
        metric=of.name,
        assumption=assumption,
        inequality=inequality,
        alpha=of.alpha,
        units=m,
        pool=facts.pool if level in POOLED else None,
        nominal_tokens=facts.nominal if level == "token" else None,
        evaluated=n,
        candidates=candidates,
        configurations=J,
        vacuous_at=of.vacuous_at,
    )


def example_bounds(
    errors: np.ndarray,
    assumption: AssumptionName,
    *,
    message_bits: float,
    configurations: int,
    delta: float,
    pool: int,
    guess: float,
    names: tuple[str, ...] | None = None,
    tolerant: bool = True,
) -> Iterator[Statement]:
    """The bounds on a classifier's error under one assumption.

    errors: 0 or 1, float64 (m,), of all m training examples in the order in which the split drew them. configurations: J; pool: M;
    guess: the error of the commonest label; names: of `FOR_EXAMPLES`, all by default; tolerant: with `tolerance` added.
    """
    bits = charged_bits(message_bits, configurations)
    m, others = len(errors), None if assumption == "iid" else pool
    for name in names or FOR_EXAMPLES[assumption]:
        shared: dict[str, Any] = {"assumption": assumption, "inequality": name, "pool": others, "candidates": 1}
        found = bound_mean(errors, message_bits=bits, delta=delta, m=m, places=np.arange(m), **shared)
        shared |= {"level": "example", "metric": "error", "alpha": None, "units": m, "evaluated": m}
        shared["configurations"] = configurations
        yield statement(found, tolerant, 1.0, vacuous_at=guess, nominal_tokens=None, **shared)


def statement(found: Bound, tolerant: bool, largest: float, *, metric: str, vacuous_at: float, **said: Any) -> Statement:
    """A bound as a certificate states it: with the tolerance on top, never above the largest loss; in the unit of `vacuous_at`."""
    value = min(float(found.bound + tolerant * tolerance(metric)), largest)
    parts = found.parts and Terms(**{name: float(part) for name, part in found.parts._asdict().items()})
    return Statement(
        metric=metric,
        empirical=found.empirical,
        bound=value,
        vacuous_at=vacuous_at,
        nonvacuous=value < vacuous_at,
        parts=parts,
        **said,
    )


def _token_bound(of: Metric, inequality: str, scores: Scores, pilot: Scores, facts: Facts, *, candidates: int) -> Bound:
    """In the metric's unit. freedman is the smaller of freedman's bound and azuma's, each at delta/2."""
    losses = token_losses(scores, of, facts.vocab_size)
    n, mean = len(losses), float(losses.mean())
    if inequality == "azuma":
        return azuma_from_mean(mean, n, of, facts, candidates=candidates)
    half = facts._replace(delta=facts.delta / 2)
    ranges = {"low": of.low, "width": of.width, "guess_width": guess_width(of, facts.vocab_size)}
    on_pilot = token_losses(pilot, of, facts.vocab_size), expected_losses(pilot, of)
    value = freedman_bound(losses, expected_losses(scores, of), on_pilot, ranges, half, candidates=candidates)
    return Bound(min(value, azuma_from_mean(mean, n, of, half, candidates=candidates).bound), mean, None)


def freedman_bound(
    losses: np.ndarray,
    guesses: np.ndarray,
    on_pilot: tuple[np.ndarray, np.ndarray],
    ranges: Mapping[str, float],
    facts: Facts,
    *,
    candidates: int,
    one_inner: bool = False,
) -> float:
    """Freedman's bound at all of facts.delta, from n of the N tokens. facts: with the bits to be charged.

    on_pilot: (losses, guesses). ranges: low, width and guess_width. one_inner: as in `freedman_subsampled`.
    """
    N, bits, nominal, share = facts.units["token"], facts.message_bits + facts.nominal_bits, facts.nominal, facts.share
    if len(losses) < N:
        drawn: dict[str, Any] = {"candidates": candidates, "nominal": nominal, "share": share, **ranges}
        return freedman_subsampled(losses, guesses, bits, facts.delta, N, **drawn, pilot=on_pilot, one_inner=one_inner)
    nats = complexity_nats(bits, share * facts.delta)
    return freedman(losses, guesses, nats, **ranges, grid=betting_grid(nominal, nats))


def azuma_from_mean(mean: float, n: int, of: Metric, facts: Facts, *, candidates: int) -> Bound:
    """Azuma's bound, in the metric's unit, from the mean loss of n of the N tokens. facts: with the bits to be charged.

    Where all tokens are asked for, the whole of delta is spent on the stream (see `martingale`).
    """
    bits, N, nominal = facts.message_bits + facts.nominal_bits, facts.units["token"], facts.nominal
    if n < N:
        drawn: dict[str, Any] = {"candidates": candidates, "width": of.width, "nominal": nominal, "share": facts.share}
        parts = azuma_subsampled(mean, bits, facts.delta, N, n, **drawn)
    else:
        parts = Parts(mean, azuma(0.0, complexity_nats(bits, facts.share * facts.delta), N, width=of.width, nominal=nominal), 0.0)
    return Bound(parts.bound, mean, parts)


def guess_width(of: Metric, vocab_size: int) -> float:
    """Delta' of freedman: how far a loss may exceed what the model expects."""
    return of.width if of.alpha is None else entropy_guess_width(of.alpha, vocab_size)


def measured(level: Level, facts: Facts) -> list[Metric]:
    """What is measured of held-out units of a level, in order."""
    by_byte = facts.ratios and level in BY_BYTE
    more = [per_byte(alpha, facts.vocab_size, facts.ratios["pool"]) for alpha in ALPHA_GRID] if by_byte else []
    return metrics(facts.vocab_size) + more


def test_set_bound(
    losses: np.ndarray,
    ranges: Mapping[AssumptionName, tuple[float, float]],
    metric: str,
    *,
    delta: float,
    population: int,
    configurations: int,
    split_seeds: int,
    tolerant: bool = True,
) -> TestSetBound:
    """What held-out losses prove by themselves: `held_out_limit` at all of delta, with log2 of the J that each assumption pays.

    losses: in the order in which the split drew the units. ranges: (least, largest) loss of each assumption that is stated, of iid
    and unseen. population: the test split's units. tolerant: with `tolerance` on top, never above the largest loss.
    """

    def limit(name: AssumptionName) -> float | None:
        if name not in ranges:
            return None
        low, high = ranges[name]
        nats = math.log(reachable(name, configurations, split_seeds) / delta)
        found = held_out_limit(losses, low=low, high=high, nats=nats, population=population if name == "unseen" else None)
        return min(found + tolerant * tolerance(metric), high)

    return TestSetBound(population=population if "unseen" in ranges else None, iid=limit("iid"), unseen=limit("unseen"))


def held_out_assumptions(level: Level, tokenizer_from: str | None) -> tuple[AssumptionName, ...]:
    """Under which held-out units of a level prove something: those of `assumptions`, but pool; none for single tokens.

    None for sequences: pieces of one document are alike, and a limit that pays for no message has no room for that.
    """
    return () if level == "sequence" else tuple(name for name in assumptions(level, tokenizer_from) if name in ("iid", "unseen"))


def of_facts(facts: Facts) -> dict[str, Any]:
    """What a test-set bound pays, by `test_set_bound`'s names."""
    return {"delta": facts.delta, "configurations": facts.configurations, "split_seeds": facts.split_seeds}


def held_out(
    scores: Mapping[Level, Scores], levels: tuple[Level, ...], facts: Facts, population: int, tolerant: bool = True
) -> Iterator[HeldOut]:
    """The same metrics on documents of the test split. At token level every token of theirs weighs the same.

    population: the test split's documents, groups or positions. tolerant: as `test_set_bound` has it.
    """
    for level in levels:
        for of in measured(level, facts):
            proven = None
            if level == "token":
                losses = token_losses(scores["document"], of, facts.vocab_size)
            else:
                losses = of.low + of.width * unit_losses(scores[level], of, facts.vocab_size)
            names = held_out_assumptions(level, facts.tokenizer_from)
            if names and of.name != "bpb" and of.alpha in (facts.alpha, None):
                ranges = dict.fromkeys(names, (of.low, of.low + of.width))
                shared: dict[str, Any] = {"population": population, "tolerant": tolerant, **of_facts(facts)}
                proven = test_set_bound(losses, ranges, of.name, **shared)
            said: dict[str, Any] = {"level": level, "metric": of.name, "alpha": of.alpha, "n": len(losses), "split": None}
            yield HeldOut(value=float(losses.mean()), test_bound=proven, **said)
