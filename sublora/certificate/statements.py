"""Every bound that a certificate lists: one function builds the whole list, so that nothing can be forgotten or left uncharged."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from sublora.certificate.schema import AssumptionName, HeldOut, Statement, Terms
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, Level
from sublora.inequalities.independent import binomial_tail, complexity_nats
from sublora.inequalities.martingale import azuma_tokens, entropy_guess_width, freedman_tokens
from sublora.inequalities.means import bound_mean
from sublora.inequalities.smoothing import document_means, loss_range, scale_to_unit, smoothed_bits, topk_errors
from sublora.scoring.scores import Scores

FOR_UNITS = ("hoeffding", "kl", "empirical_bernstein", "betting")
INEQUALITIES: dict[Level, tuple[str, ...]] = {"document": FOR_UNITS, "sequence": FOR_UNITS, "token": ("azuma", "freedman")}
FOR_EXAMPLES: dict[AssumptionName, tuple[str, ...]] = {
    "iid": ("hoeffding", "kl", "binomial_tail", "betting"),
    "pool": ("hoeffding", "kl", "betting"),
    "unseen": ("hoeffding", "kl", "betting"),
}
"""The inequalities for 0-1 errors of examples, by assumption."""
ASSUMPTIONS: dict[Level, tuple[AssumptionName, ...]] = {
    "document": ("iid", "pool", "unseen"),
    "sequence": ("iid",),
    "token": ("martingale",),
}
TOLERANCE = 1e-4
"""How far another machine's float32 arithmetic may move a value (bits per token, or an error); every bound includes it."""


class Metric(NamedTuple):
    """What is measured: "bpd" (bits per token under smoothing weight alpha) or "top<k>_error" (alpha None).

    low, width: the range of the loss of a token; vacuous_at: the uniform guess, at which a bound says nothing.
    """

    name: str
    alpha: float | None
    low: float
    width: float
    vacuous_at: float

    @property
    def k(self) -> int:
        return int(self.name.removeprefix("top").removesuffix("_error"))


def metric(name: str, alpha: float | None, vocab_size: int) -> Metric:
    """The metric of that name. Raises SubloraError for an alpha outside (0, 1)."""
    if name == "bpd":
        if alpha is None:
            raise SubloraError("alpha: missing; bits per token need a smoothing weight")
        return Metric(name, alpha, *loss_range(alpha, vocab_size), math.log2(vocab_size))
    unfinished = Metric(name, None, 0.0, 1.0, 0.0)
    return unfinished._replace(vacuous_at=1 - unfinished.k / vocab_size)


def metrics(vocab_size: int) -> list[Metric]:
    """All metrics that a certificate lists."""
    bits = [metric("bpd", alpha, vocab_size) for alpha in ALPHA_GRID]
    return bits + [metric(f"top{k}_error", None, vocab_size) for k in TOP_K if k < vocab_size]


def token_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Loss of each token, float64 (tokens,), in [low, low + width] of the metric."""
    if of.alpha is not None:
        return smoothed_bits(scores.log_probability, of.alpha, vocab_size)
    return topk_errors(scores.rank, of.k)


_UNIT_LOSSES: WeakKeyDictionary[Scores, dict[tuple[Metric, int], np.ndarray]] = WeakKeyDictionary()


def unit_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Mean loss of each unit's tokens, scaled to [0, 1]: float64 (units,), not to be written to.

    Computed once for each metric, since every inequality asks for them.
    """
    known = _UNIT_LOSSES.setdefault(scores, {})
    if (of, vocab_size) not in known:
        losses = scale_to_unit(document_means(token_losses(scores, of, vocab_size), scores.offsets), low=of.low, width=of.width)
        losses.flags.writeable = False
        known[of, vocab_size] = losses
    return known[of, vocab_size]


def expected_losses(scores: Scores, of: Metric) -> np.ndarray:
    """The loss that the model itself expects of each token, from what it predicts: float64 (tokens,), in the metric's unit."""
    if of.alpha is not None:
        return scores.expected_bits[:, ALPHA_GRID.index(of.alpha)].astype(np.float64)
    return 1.0 - scores.expected_hits[:, TOP_K.index(of.k)].astype(np.float64)


class Facts(NamedTuple):
    """What all bounds of a certificate share. message_bits: K; alpha: the message's; units: m of each level; pool: M documents."""

    message_bits: float
    alpha: float
    vocab_size: int
    delta: float
    units: Mapping[Level, int]
    pool: int


def all_bounds(training: Mapping[Level, Scores], pilot: Mapping[Level, Scores], facts: Facts) -> Iterator[Statement]:
    """Every bound: each level, metric and alpha, by each inequality, under each assumption that the level admits.

    The message holds one alpha, chosen on the pilot: its bounds have A = 1. The rows of the other alphas are other messages of
    the same length, scored on the same units; since a reader may prefer any of them, each is charged for all (A = 8).
    """
    for level, scores in training.items():
        for of in metrics(facts.vocab_size):
            for assumption in ASSUMPTIONS[level]:
                for inequality in inequalities_for(level, assumption, len(scores.offsets) - 1, facts.units[level]):
                    yield bound(level, of, assumption, inequality, scores=scores, pilot=pilot[level], facts=facts)


def inequalities_for(level: Level, assumption: AssumptionName, n: int, m: int) -> tuple[str, ...]:
    """Those inequalities that hold for a level under an assumption when n of its m units are evaluated."""
    needs_all_units = () if assumption == "iid" and n == m else ("empirical_bernstein",)
    return tuple(name for name in INEQUALITIES[level] if name not in needs_all_units)


def bound(
    level: Level,
    of: Metric,
    assumption: AssumptionName,
    inequality: str,
    *,
    scores: Scores,
    pilot: Scores,
    facts: Facts,
    tolerance: float = TOLERANCE,
) -> Statement:
    """One statement. pilot: scores on units drawn independently of those of `scores`."""
    m, n = facts.units[level], len(scores.offsets) - 1
    candidates = 1 if of.alpha in (None, facts.alpha) else len(ALPHA_GRID)
    if level == "token":
        found = _token_bound(of, inequality, scores, pilot, facts, candidates=candidates)
    else:
        found = _unit_bound(of, (assumption, inequality), scores, pilot, facts, m=m, candidates=candidates)
    empirical, value, parts = found
    value = float(value + tolerance)
    return Statement(
        level=level,
        metric=of.name,
        assumption=assumption,
        inequality=inequality,
        alpha=of.alpha,
        units=m,
        pool=facts.pool if level == "document" else None,
        evaluated=n,
        candidates=candidates,
        empirical=empirical,
        bound=value,
        vacuous_at=of.vacuous_at,
        nonvacuous=value < of.vacuous_at,
        parts=_terms(parts),
    )


def example_bounds(
    errors: np.ndarray,
    assumption: AssumptionName,
    *,
    message_bits: float,
    delta: float,
    pool: int,
    guess: float,
    names: tuple[str, ...] | None = None,
    tolerance: float = TOLERANCE,
) -> Iterator[Statement]:
    """The bounds on a classifier's error under one assumption.

    errors: 0 or 1, float64 (m,), of all m training examples in the order in which the split drew them. pool: M; guess: the error of
    the commonest label; names: of `FOR_EXAMPLES`, all by default.
    """
    m, others = len(errors), None if assumption == "iid" else pool
    for name in names or FOR_EXAMPLES[assumption]:
        parts = None
        if name == "binomial_tail":
            value = binomial_tail(int(errors.sum()), complexity_nats(message_bits, delta), m)
        else:
            found = bound_mean(
                errors,
                inequality=name,
                assumption=assumption,
                message_bits=message_bits,
                delta=delta,
                m=m,
                pool=others,
                places=np.arange(m),
            )
            value, parts = found.bound, found.parts
        value = float(value + tolerance)
        yield Statement(
            level="example",
            metric="error",
            assumption=assumption,
            inequality=name,
            alpha=None,
            units=m,
            pool=others,
            evaluated=m,
            candidates=1,
            empirical=float(errors.mean()),
            bound=value,
            vacuous_at=guess,
            nonvacuous=value < guess,
            parts=_terms(parts),
        )


def _terms(parts: tuple[float, float, float] | None) -> Terms | None:
    if parts is None:
        return None
    empirical, complexity, subsampling = map(float, parts)
    return Terms(empirical=empirical, complexity=complexity, subsampling=subsampling)


_Found = tuple[float, float, tuple[float, float, float] | None]
"""Empirical value, bound, and the terms of the paper's inequality."""


def _unit_bound(
    of: Metric, by: tuple[str, str], scores: Scores, pilot: Scores, facts: Facts, *, m: int, candidates: int
) -> _Found:
    assumption, inequality = by
    found = bound_mean(
        unit_losses(scores, of, facts.vocab_size),
        inequality=inequality,
        assumption=assumption,
        message_bits=facts.message_bits,
        delta=facts.delta,
        m=m,
        pool=facts.pool,
        candidates=candidates,
        pilot=unit_losses(pilot, of, facts.vocab_size),
        places=scores.places,
        pilot_places=pilot.places,
    )
    empirical = of.low + of.width * found.empirical
    parts = found.parts and (empirical, of.width * found.parts.complexity, of.width * found.parts.subsampling)
    return empirical, of.low + of.width * found.bound, parts


def _token_bound(
    of: Metric, inequality: str, scores: Scores, pilot: Scores, facts: Facts, *, candidates: int
) -> _Found:
    losses = token_losses(scores, of, facts.vocab_size)
    common = (facts.message_bits, facts.delta, facts.units["token"])
    if inequality == "azuma":
        parts = azuma_tokens(float(losses.mean()), len(losses), *common, candidates=candidates, width=of.width)
        return parts.empirical, parts.bound, parts
    guess_width = of.width if of.alpha is None else entropy_guess_width(of.alpha, facts.vocab_size)
    value = freedman_tokens(
        losses,
        expected_losses(scores, of),
        *common,
        candidates=candidates,
        low=of.low,
        width=of.width,
        guess_width=guess_width,
        pilot=(token_losses(pilot, of, facts.vocab_size), expected_losses(pilot, of)),
    )
    return float(losses.mean()), value, None


def held_out(scores: Mapping[Level, Scores], levels: tuple[Level, ...], vocab_size: int) -> Iterator[HeldOut]:
    """The same metrics on documents of the test split. At token level every token of theirs weighs the same."""
    for level in levels:
        for of in metrics(vocab_size):
            if level == "token":
                losses = token_losses(scores["document"], of, vocab_size)
            else:
                losses = of.low + of.width * unit_losses(scores[level], of, vocab_size)
            yield HeldOut(level=level, metric=of.name, alpha=of.alpha, n=len(losses), value=float(losses.mean()), split=None)
