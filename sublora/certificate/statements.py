"""Every bound that a certificate lists: one function builds the whole list, so that nothing can be forgotten or left uncharged."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sublora.certificate.schema import AssumptionName, HeldOut, Statement, Terms
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, Level
from sublora.inequalities.independent import betting_grid, complexity_nats
from sublora.inequalities.martingale import azuma, azuma_subsampled, entropy_guess_width, freedman, freedman_subsampled
from sublora.inequalities.means import NEED_ALL_UNITS, Bound, bound_mean
from sublora.inequalities.smoothing import document_means, loss_range, scale_to_unit, smoothed_bits, topk_errors
from sublora.inequalities.subsampling import Parts
from sublora.scoring.scores import Scores

FOR_UNITS = ("hoeffding", "kl", "empirical_bernstein", "betting")
INEQUALITIES: dict[Level, tuple[str, ...]] = {"document": FOR_UNITS, "sequence": FOR_UNITS, "token": ("azuma", "freedman")}
FOR_POOLS = ("hoeffding", "kl", "betting")
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
}


def assumptions(level: Level, tokenizer_from: str | None) -> tuple[AssumptionName, ...]:
    """Those of a level. A tokenizer made of this corpus was chosen with the units in hand: then without iid and martingale."""
    return tuple(name for name in ASSUMPTIONS[level] if tokenizer_from != "pool" or name in ("pool", "unseen"))


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


def token_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Loss of each token, float64 (tokens,), in [low, low + width] of the metric."""
    if of.alpha is not None:
        return smoothed_bits(scores.log_probability, of.alpha, vocab_size)
    return topk_errors(scores.rank, of.k)


@functools.lru_cache(maxsize=2)  # every inequality asks for those of the scores and of the pilot
def unit_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Mean loss of each unit's tokens, scaled to [0, 1]: float64 (units,), not to be written to."""
    losses = scale_to_unit(document_means(token_losses(scores, of, vocab_size), scores.offsets), low=of.low, width=of.width)
    losses.flags.writeable = False
    return losses


def expected_losses(scores: Scores, of: Metric) -> np.ndarray:
    """The loss that the model itself expects of each token, from what it predicts: float64 (tokens,), in the metric's unit."""
    if of.alpha is not None:
        return scores.expected_bits[:, ALPHA_GRID.index(of.alpha)].astype(np.float64)
    return 1.0 - scores.expected_hits[:, TOP_K.index(of.k)].astype(np.float64)


class Facts(NamedTuple):
    """What all bounds of a certificate share. message_bits: K; alpha: the message's; units: m of each level; pool: M documents.

    tokenizer_from: "pool" if the tokenizer was made of this corpus.
    """

    message_bits: float
    alpha: float
    vocab_size: int
    delta: float
    units: Mapping[Level, int]
    pool: int
    tokenizer_from: str | None = None


def all_bounds(training: Mapping[Level, Scores], pilot: Mapping[Level, Scores], facts: Facts) -> Iterator[Statement]:
    """Every bound: each level, metric and alpha, by each inequality, under each assumption that the level admits.

    The message holds one alpha, chosen on the pilot: its bounds have A = 1. The rows of the other alphas are other messages of
    the same length, scored on the same units; since a reader may prefer any of them, each is charged for all (A = 8).
    """
    for level, scores in training.items():
        all_units = len(scores.offsets) - 1 == facts.units[level]
        for of in metrics(facts.vocab_size):
            for assumption in assumptions(level, facts.tokenizer_from):
                for inequality in INEQUALITIES[level]:
                    if inequality not in NEED_ALL_UNITS or (assumption == "iid" and all_units):
                        yield bound(level, of, assumption, inequality, scores=scores, pilot=pilot[level], facts=facts)


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
    m, candidates = facts.units[level], 1 if of.alpha in (None, facts.alpha) else len(ALPHA_GRID)
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
        ).unscaled(of.low, of.width)
    return _statement(
        found,
        tolerance,
        level=level,
        metric=of.name,
        assumption=assumption,
        inequality=inequality,
        alpha=of.alpha,
        units=m,
        pool=facts.pool if level == "document" else None,
        evaluated=len(scores.offsets) - 1,
        candidates=candidates,
        vacuous_at=of.vacuous_at,
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
        shared: dict[str, Any] = {"assumption": assumption, "inequality": name, "pool": others, "candidates": 1}
        found = bound_mean(errors, message_bits=message_bits, delta=delta, m=m, places=np.arange(m), **shared)
        yield _statement(
            found, tolerance, level="example", metric="error", alpha=None, units=m, evaluated=m, vacuous_at=guess, **shared
        )


def _statement(found: Bound, tolerance: float, *, vacuous_at: float, **said: Any) -> Statement:
    """A bound as a certificate states it: with the tolerance on top, in the unit of `vacuous_at`."""
    value = float(found.bound + tolerance)
    parts = found.parts and Terms(**{name: float(part) for name, part in found.parts._asdict().items()})
    return Statement(
        empirical=found.empirical, bound=value, vacuous_at=vacuous_at, nonvacuous=value < vacuous_at, parts=parts, **said
    )


def _token_bound(of: Metric, inequality: str, scores: Scores, pilot: Scores, facts: Facts, *, candidates: int) -> Bound:
    """In the metric's unit. With all N tokens evaluated there is no second term, and the whole of delta is spent on the first."""
    losses, N = token_losses(scores, of, facts.vocab_size), facts.units["token"]
    n, mean = len(losses), float(losses.mean())
    nats = complexity_nats(facts.message_bits, facts.delta)
    drawn = (facts.message_bits, facts.delta, N)
    if inequality == "azuma":
        if n < N:
            parts = azuma_subsampled(mean, *drawn, n, candidates=candidates, width=of.width)
        else:
            parts = Parts(mean, azuma(mean, nats, N, width=of.width) - mean, 0.0)
        return Bound(parts.bound, mean, parts)
    guess_width = of.width if of.alpha is None else entropy_guess_width(of.alpha, facts.vocab_size)
    ranges: dict[str, Any] = {"low": of.low, "width": of.width, "guess_width": guess_width}
    guesses = expected_losses(scores, of)
    if n < N:
        on_pilot = token_losses(pilot, of, facts.vocab_size), expected_losses(pilot, of)
        value = freedman_subsampled(losses, guesses, *drawn, candidates=candidates, **ranges, pilot=on_pilot)
    else:
        value = freedman(losses, guesses, nats, **ranges, grid=betting_grid(N, nats))
    return Bound(value, mean, None)


def held_out(scores: Mapping[Level, Scores], levels: tuple[Level, ...], vocab_size: int) -> Iterator[HeldOut]:
    """The same metrics on documents of the test split. At token level every token of theirs weighs the same."""
    for level in levels:
        for of in metrics(vocab_size):
            if level == "token":
                losses = token_losses(scores["document"], of, vocab_size)
            else:
                losses = of.low + of.width * unit_losses(scores[level], of, vocab_size)
            yield HeldOut(level=level, metric=of.name, alpha=of.alpha, n=len(losses), value=float(losses.mean()), split=None)
