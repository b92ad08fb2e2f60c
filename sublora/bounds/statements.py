"""Every bound that a certificate lists: one function builds the whole list, so that nothing can be forgotten or left uncharged."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from sublora.bounds.levels import bound_mean
from sublora.bounds.martingale import azuma_tokens, entropy_guess_width, freedman_tokens
from sublora.bounds.scoring import Scores
from sublora.bounds.smoothing import document_means, loss_range, scale_to_unit, smoothed_bits, topk_errors
from sublora.config import ALPHA_GRID, TOP_K

FOR_UNITS = ("hoeffding", "kl", "empirical_bernstein", "betting")
INEQUALITIES = {"document": FOR_UNITS, "sequence": FOR_UNITS, "token": ("azuma", "freedman")}
ASSUMPTIONS = {"document": ("iid", "pool", "unseen"), "sequence": ("iid",), "token": ("martingale",)}
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
        return Metric(name, alpha, *loss_range(alpha, vocab_size), math.log2(vocab_size))
    unfinished = Metric(name, None, 0.0, 1.0, 0.0)
    return unfinished._replace(vacuous_at=1 - unfinished.k / vocab_size)


def metrics(vocab_size: int) -> list[Metric]:
    """All metrics that a certificate lists."""
    bits = [metric("bpd", alpha, vocab_size) for alpha in ALPHA_GRID]
    return bits + [metric(f"top{k}_error", None, vocab_size) for k in TOP_K if k < vocab_size]


def token_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Loss of each token, float64 (tokens,), in [low, low + width] of the metric."""
    if of.name == "bpd":
        return smoothed_bits(scores.log_probability, of.alpha, vocab_size)
    return topk_errors(scores.rank, of.k)


_UNIT_LOSSES: WeakKeyDictionary[Scores, dict[tuple[Metric, int], np.ndarray]] = WeakKeyDictionary()


def unit_losses(scores: Scores, of: Metric, vocab_size: int) -> np.ndarray:
    """Mean loss of each unit's tokens, scaled to [0, 1]: float64 (units,), not to be written to.

    Computed once for each metric, since every inequality asks for them.
    """
    known = _UNIT_LOSSES.setdefault(scores, {})
    if (of, vocab_size) not in known:
        losses = scale_to_unit(document_means(token_losses(scores, of, vocab_size), scores.offsets), of.low, of.width)
        losses.flags.writeable = False
        known[of, vocab_size] = losses
    return known[of, vocab_size]


def expected_losses(scores: Scores, of: Metric) -> np.ndarray:
    """The loss that the model itself expects of each token, from what it predicts: float64 (tokens,), in the metric's unit."""
    if of.name == "bpd":
        return scores.expected_bits[:, ALPHA_GRID.index(of.alpha)].astype(np.float64)
    return 1.0 - scores.expected_hits[:, TOP_K.index(of.k)].astype(np.float64)


class Facts(NamedTuple):
    """What all bounds of a certificate share. message_bits: K; alpha: the message's; units: m of each level; pool: M documents."""

    message_bits: float
    alpha: float
    vocab_size: int
    delta: float
    units: Mapping[str, int]
    pool: int


def all_bounds(training: Mapping[str, Scores], pilot: Mapping[str, Scores], facts: Facts) -> Iterator[dict[str, Any]]:
    """Every bound: each level, metric and alpha, by each inequality, under each assumption that the level admits.

    The message holds one alpha, chosen on the pilot: its bounds have A = 1. The rows of the other alphas are other messages of
    the same length, scored on the same units; since a reader may prefer any of them, each is charged for all (A = 8).
    """
    for level, scores in training.items():
        for of in metrics(facts.vocab_size):
            for assumption in ASSUMPTIONS[level]:
                for inequality in inequalities_for(level, assumption, len(scores.offsets) - 1, facts.units[level]):
                    yield bound(level, of, assumption, inequality, scores, pilot[level], facts)


def inequalities_for(level: str, assumption: str, n: int, m: int) -> tuple[str, ...]:
    """Those inequalities that hold for a level under an assumption when n of its m units are evaluated."""
    needs_all_units = () if assumption == "iid" and n == m else ("empirical_bernstein",)
    return tuple(name for name in INEQUALITIES[level] if name not in needs_all_units)


def bound(
    level: str,
    of: Metric,
    assumption: str,
    inequality: str,
    scores: Scores,
    pilot: Scores,
    facts: Facts,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """One entry of a certificate's list. pilot: scores on units drawn independently of those of `scores`."""
    m, n = facts.units[level], len(scores.offsets) - 1
    candidates = 1 if of.alpha in (None, facts.alpha) else len(ALPHA_GRID)
    if level == "token":
        values = _token_bound(of, inequality, scores, pilot, facts, m, candidates)
    else:
        values = _unit_bound(of, assumption, inequality, scores, pilot, facts, m, candidates)
    empirical, value, parts = values
    value += tolerance
    entry = {
        "level": level,
        "metric": of.name,
        "assumption": assumption,
        "inequality": inequality,
        "alpha": of.alpha,
        "units": m,
        "pool": facts.pool if level == "document" else None,
        "evaluated": n,
        "candidates": candidates,
        "empirical": empirical,
        "bound": value,
        "vacuous_at": of.vacuous_at,
        "nonvacuous": value < of.vacuous_at,
    }
    return entry if parts is None else {**entry, "parts": dict(zip(("empirical", "complexity", "subsampling"), parts, strict=True))}


def _unit_bound(
    of: Metric, assumption: str, inequality: str, scores: Scores, pilot: Scores, facts: Facts, m: int, candidates: int
) -> tuple[float, float, tuple[float, ...] | None]:
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
    of: Metric, inequality: str, scores: Scores, pilot: Scores, facts: Facts, m: int, candidates: int
) -> tuple[float, float, tuple[float, ...] | None]:
    losses = token_losses(scores, of, facts.vocab_size)
    common = (facts.message_bits, facts.delta, m, candidates)
    if inequality == "azuma":
        parts = azuma_tokens(float(losses.mean()), len(losses), *common, of.width)
        return parts.empirical, parts.bound, tuple(parts)
    guess_width = entropy_guess_width(of.alpha, facts.vocab_size) if of.name == "bpd" else of.width
    pilots = token_losses(pilot, of, facts.vocab_size), expected_losses(pilot, of)
    value = freedman_tokens(losses, expected_losses(scores, of), *common, of.low, of.width, guess_width, pilots)
    return float(losses.mean()), value, None


def held_out(scores: Mapping[str, Scores], levels: tuple[str, ...], vocab_size: int) -> Iterator[dict[str, Any]]:
    """The same metrics on documents of the test split. At token level every token of theirs weighs the same."""
    for level in levels:
        for of in metrics(vocab_size):
            if level == "token":
                losses = token_losses(scores["document"], of, vocab_size)
            else:
                losses = of.low + of.width * unit_losses(scores[level], of, vocab_size)
            yield {"level": level, "metric": of.name, "alpha": of.alpha, "n": len(losses), "value": float(losses.mean())}
