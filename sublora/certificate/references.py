"""Statements beside a public reference: in bits, of the message's own smoothing weight, in two parts (`inequalities.reference`)."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sublora.certificate.schema import AssumptionName, HeldOut, Statement
from sublora.certificate.statements import (
    Facts,
    Metric,
    azuma_from_mean,
    bits_of_nats,
    charged_bits,
    freedman_bound,
    metric,
    reachable,
    statement,
    tolerance,
)
from sublora.certificate.statements import assumptions as assumptions_of
from sublora.experiment import Level, OnText
from sublora.experiment import Reference as Settings
from sublora.inequalities.independent import LARGEST_BET, betting, betting_grid, complexity_nats
from sublora.inequalities.martingale import freedman
from sublora.inequalities.means import Bound
from sublora.inequalities.reference import HALF, Reference, bound_difference, bound_offset, of_tokens, of_whole_units
from sublora.inequalities.smoothing import smoothed_bits
from sublora.inequalities.unseen import betting_unseen
from sublora.models.references.document import FLOOR
from sublora.scoring.reference import Population
from sublora.scoring.scores import Scores

SINGLE: tuple[Level, ...] = ("token", "position")
"""Levels whose units are single tokens, each of which is mixed by itself; the others' units are mixed as wholes."""
INEQUALITIES: dict[Level, tuple[str, ...]] = {
    "document": ("hoeffding", "betting"),
    "sequence": ("hoeffding", "betting"),
    "token": ("azuma", "freedman"),
    "position": ("hoeffding", "betting"),
}
FEW_BETS = np.array([2.0, 5.0, 12.0])
"""Times sqrt(nats/m): about the best bets where losses spread by a twelfth to a half of their range."""
TIGHT = ("betting", "freedman")
"""The inequalities whose statements have the certified gain, too."""
SHORTEST: dict[Level, int] = {"document": 2, "sequence": 1}
"""Under iid: the fewest tokens that a unit has by construction (a token and the end of text; a last piece may have one)."""


def listed(levels: Iterable[Level], tokenizer_from: str | None) -> Iterator[tuple[Level, AssumptionName, str]]:
    """(level, assumption, inequality) of every statement beside a reference, in order."""
    for level in levels:
        for assumption in assumptions_of(level, tokenizer_from):
            for inequality in INEQUALITIES[level]:
                yield level, assumption, inequality


def rules(experiment: OnText, vocab_size: int, shortest: int) -> dict[str, Any]:
    """What the reference is, as `public` has it, or nothing. shortest: tokens of the pool's shortest document."""
    settings, wholes = experiment.reference, dict.fromkeys(("beta", "gamma", "g", "c", "shortest"))
    if settings.name == "uniform":
        return {}
    if set(experiment.bounds.levels) - set(SINGLE):
        c = _whole(settings, vocab_size, shortest, np.zeros(1), np.ones(1)).excess
        offset = settings.f
        g = [HALF * math.log2(vocab_size)] if offset == "half" else None if offset == "reference" else list(offset)
        wholes = {"beta": settings.beta, "gamma": settings.gamma, "g": g, "c": c, "shortest": shortest}
    code: dict[str, Any] = {"pseudo_counts": list(settings.pseudo_counts), "distinct": settings.distinct, "start": settings.start}
    if settings.name == "base":
        code = {}
    return {"reference": {"name": settings.name, **code, "floor": FLOOR, "tau": settings.tau, **wholes}}


def least_tokens(level: Level, assumption: AssumptionName, shortest: int) -> int:
    """The fewest tokens of any unit that the statement speaks of. shortest: of the pool's documents."""
    if level in SINGLE:
        return 1
    return shortest if assumption in ("pool", "unseen") else SHORTEST[level]


def code_of(level: Level, of: Metric, facts: Facts, nats: np.ndarray, lengths: np.ndarray, *, least: int) -> Reference:
    """What the code says of units, from `ln q` and the number of tokens of each. least: `least_tokens`."""
    if level in SINGLE:
        assert of.alpha is not None
        return of_tokens(nats, vocab_size=facts.vocab_size, alpha=of.alpha, floor=FLOOR)
    return _whole(facts.reference, facts.vocab_size, least, nats, lengths)


def _whole(settings: Settings, vocab_size: int, least: int, nats: np.ndarray, lengths: np.ndarray) -> Reference:
    keys: dict[str, Any] = {"beta": settings.beta, "gamma": settings.gamma, "offset": settings.f, "excess": settings.excess}
    return of_whole_units(nats, lengths, vocab_size=vocab_size, shortest=least, **keys)


class _Units(NamedTuple):
    """Evaluated units: the mixture's losses, bits per token, beside what the code says of them."""

    losses: np.ndarray
    code: Reference
    places: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        return np.minimum(self.losses - self.code.offsets, self.code.excess)

    def from_the_top(self) -> "_Units":
        """With f = T."""
        return self._replace(code=self.code.as_offset())


def _evaluated(level: Level, of: Metric, scores: Scores, facts: Facts, least: int) -> _Units:
    if level in SINGLE:
        bits, nats = bits_of_nats(scores.log_probability), scores.reference
    else:
        assert of.alpha is not None
        bits, nats = _sums(scores, of.alpha, facts.vocab_size)
    code = code_of(level, of, facts, nats, np.diff(scores.offsets), least=least)
    return _Units(code.mixture(bits), code, scores.places)


@functools.lru_cache(maxsize=2)  # every statement asks for those of the scores and of the pilot
def _sums(scores: Scores, alpha: float, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(bits by the smoothed model, ln q) of each document or sequence."""
    first = scores.offsets[:-1]
    bits = np.add.reduceat(smoothed_bits(scores.log_probability, alpha, vocab_size), first)
    return bits, np.add.reduceat(scores.reference, first, dtype=np.float64)


def all_bounds(
    training: Mapping[Level, Scores], pilot: Mapping[Level, Scores], facts: Facts, tolerant: bool = True
) -> Iterator[Statement]:
    """Every statement beside the reference; none where that is the uniform guess."""
    if facts.reference.name != "uniform":
        for level, assumption, inequality in listed(training, facts.tokenizer_from):
            of_level: dict[str, Any] = {"scores": training[level], "pilot": pilot[level], "facts": facts, "tolerant": tolerant}
            yield bound(level, facts.alpha, assumption, inequality, **of_level)


def bound(
    level: Level,
    alpha: float,
    assumption: AssumptionName,
    inequality: str,
    *,
    scores: Scores,
    pilot: Scores,
    facts: Facts,
    tolerant: bool = True,
) -> Statement:
    """One statement: the limit of the code's offset, of all m units and without K, and of the difference, each at delta/2.

    The gain is a statement of its own, at all of delta. pilot, tolerant: as `statements.bound` has them.
    """
    of, m, n, V = metric("bpd", alpha, facts.vocab_size), facts.units[level], len(scores.offsets) - 1, facts.vocab_size
    J, population = reachable(assumption, facts.configurations, facts.split_seeds), facts.populations[level]
    least = least_tokens(level, assumption, population.shortest)
    units, tried = (_evaluated(level, of, each, facts, least) for each in (scores, pilot))
    candidates = facts.compared(alpha, n == m)
    paid = facts._replace(message_bits=charged_bits(facts.message_bits, J))
    half, free = paid._replace(delta=facts.delta / 2), (charged_bits(0.0, J), facts.delta / 2)
    by: dict[str, Any] = {"level": level, "assumption": assumption, "inequality": inequality, "candidates": candidates}
    shared: dict[str, Any] = {"assumption": assumption, "message_bits": free[0], "delta": free[1], "pool": facts.pool}
    if facts.reference.name == "base" and level == "token":
        freely = paid._replace(message_bits=free[0], delta=free[1])
        offset = _base_token_offset(units, tried, facts=freely, candidates=candidates)
    elif facts.reference.name == "base":
        once: dict[str, Any] = {"least": None if level in SINGLE else least, "m": m, "candidates": candidates}
        offset = _base_offset(scores, pilot, facts.reference, V, **once, **shared)
    elif level == "position":
        offset = _position_offset(population, V, **shared)
    elif level in SINGLE:
        offset = _token_offset(population, V, facts.nominal, free[0] + facts.nominal_bits, free[1])
    else:
        offset = _offset(population, facts.reference, V, least=least, **shared)
    difference = _difference(units, tried, of, facts=half, **by)
    found = Bound(offset + difference, float(units.losses.mean()), None)
    gain = None
    if inequality in TIGHT and level in SINGLE:
        gain = -_difference(units, tried, of, facts=paid, **by)
    elif inequality in TIGHT:
        price = -math.log2(facts.reference.beta) * _shortness(population, least=least, **shared)
        if units.code.excess > 0.0:
            difference = _difference(units.from_the_top(), tried.from_the_top(), of, facts=half, **by)
        gain = -difference - price
    return statement(
        found,
        tolerant,
        units.code.largest,
        level=level,
        metric=of.name,
        assumption=assumption,
        inequality=inequality,
        alpha=alpha,
        units=m,
        pool=facts.pool if level in ("document", "position") else None,
        nominal_tokens=facts.nominal if level == "token" else None,
        evaluated=n,
        candidates=candidates,
        configurations=J,
        vacuous_at=of.vacuous_at,
        reference=facts.reference.name,
        reference_empirical=float(units.code.own.mean()),
        gain=None if gain is None else gain - tolerant * tolerance("bpd"),
    )


def _difference(
    units: _Units,
    tried: _Units,
    of: Metric,
    *,
    level: Level,
    assumption: AssumptionName,
    inequality: str,
    candidates: int,
    facts: Facts,
) -> float:
    """The limit of the mean difference, in bits per token, at all of facts.delta. facts: with the bits to be charged."""
    D, code, tau = units.differences, units.code, facts.reference.tau
    paid: dict[str, Any] = {"facts": facts, "candidates": candidates}
    if inequality in ("azuma", "freedman"):
        return min(_token_difference(D, tried.differences, inequality, of=of, code=code, **paid), code.excess)
    return bound_difference(
        D,
        excess=code.excess,
        largest=code.largest,
        tau=tau,
        inequality=inequality,
        assumption=assumption,
        message_bits=facts.message_bits,
        delta=facts.delta,
        m=facts.units[level],
        pool=facts.pool,
        candidates=candidates,
        places=units.places,
        pilot=(tried.differences, tried.places),
    )


def _token_difference(
    D: np.ndarray, pilot: np.ndarray, inequality: str, *, of: Metric, code: Reference, facts: Facts, candidates: int
) -> float:
    """Azuma for max(D, -tau), or freedman with the guess 0, than which no difference is more than c above."""
    tau, least = facts.reference.tau, code.excess - code.largest
    if inequality == "azuma":
        clipped = of._replace(low=-tau, width=code.excess + tau)
        return azuma_from_mean(float(np.maximum(D, -tau).mean()), len(D), clipped, facts, candidates=candidates).bound
    guesses, on_pilot = np.zeros(D.size), (pilot, np.zeros(pilot.size))
    ranges = {"low": least, "width": code.largest, "guess_width": code.excess}
    return freedman_bound(D, guesses, on_pilot, ranges, facts, candidates=candidates, one_inner=True)


def _base_token_offset(units: _Units, tried: _Units, *, facts: Facts, candidates: int) -> float:
    """`_base_offset` of single tokens of a stream: freedman for the base's own loss (THEORY 15.4)."""
    top, drawn = units.code.largest - units.code.excess, tried.code.offsets
    guesses, on_pilot = np.zeros(units.places.size), (drawn, np.zeros(drawn.size))
    ranges = {"low": 0.0, "width": top, "guess_width": top}
    return min(freedman_bound(units.code.own, guesses, on_pilot, ranges, facts, candidates=candidates, one_inner=True), top)


@functools.lru_cache(maxsize=16)  # the same for every inequality and smoothing weight
def _base_offset(
    scores: Scores,
    pilot: Scores,
    settings: Settings,
    V: int,
    *,
    least: int | None,
    m: int,
    **shared: Any,
) -> float:
    """The limit of the mean offset where the base is the reference: from the n evaluated units, since it is not scored on all m.

    The base is one public hypothesis: no K. The n were drawn after the message was fixed, and the base long before; each of the A
    messages that are compared has a draw of its own, so the subsample's term pays for A as that of the difference does (THEORY 5).
    Of documents and sequences f is the top T (15.5); of positions (least: None) it is the base's own loss.
    shared: assumption, message_bits, delta, pool and candidates.
    """

    def offsets(of: Scores) -> tuple[np.ndarray, float]:
        if least is None:
            code = of_tokens(of.reference, vocab_size=V, alpha=0.5, floor=FLOOR)
            return code.own, code.largest - code.excess
        nats = np.add.reduceat(of.reference, of.offsets[:-1], dtype=np.float64)
        code = _whole(settings, V, least, nats, np.diff(of.offsets))
        return code.offsets, code.largest

    (f, largest), (tried, _) = offsets(scores), offsets(pilot)
    return bound_offset(f, largest=largest, m=m, places=scores.places, pilot=(tried, pilot.places), **shared)


@functools.lru_cache(maxsize=16)  # the same for every inequality and smoothing weight
def _offset(
    population: Population, settings: Settings, V: int, *, least: int, assumption: str, message_bits: float, delta: float, pool: int
) -> float:
    """The limit of the mean offset of documents or sequences."""
    code = _whole(settings, V, least, population.nats, population.lengths)
    shared: dict[str, Any] = {"assumption": assumption, "message_bits": message_bits, "delta": delta, "pool": pool}
    return bound_offset(code.offsets, largest=code.largest, **shared)


@functools.lru_cache(maxsize=16)
def _shortness(population: Population, *, least: int, assumption: str, message_bits: float, delta: float, pool: int) -> float:
    """The limit of the mean of 1/L."""
    shared: dict[str, Any] = {"assumption": assumption, "message_bits": message_bits, "delta": delta, "pool": pool}
    return bound_offset(1.0 / population.lengths, largest=1.0 / least, **shared)


@functools.lru_cache(maxsize=2)
def _token_offset(population: Population, V: int, nominal: int, bits: float, delta: float) -> float:
    """Freedman for the code's own loss of every token, with the guess 0."""
    nats, top = complexity_nats(bits, delta), math.log2(V / FLOOR)
    losses = of_tokens(population.nats, vocab_size=V, alpha=0.5, floor=FLOOR).own
    guesses = np.broadcast_to(0.0, losses.shape)
    return freedman(losses, guesses, nats, low=0.0, width=top, guess_width=top, grid=betting_grid(nominal, nats))


@functools.lru_cache(maxsize=2)
def _position_offset(population: Population, V: int, *, assumption: str, message_bits: float, delta: float, pool: int) -> float:
    """The limit of the mean of the code's own loss: betting with `FEW_BETS`, since there may be tens of millions of positions."""
    top, nats, m = math.log2(V / FLOOR), complexity_nats(message_bits, delta), population.nats.size
    values = of_tokens(population.nats, vocab_size=V, alpha=0.5, floor=FLOOR).own / top
    bets = np.minimum(LARGEST_BET, FEW_BETS * math.sqrt(nats / m))
    return top * (betting_unseen(values, nats, bets, M=pool) if assumption == "unseen" else betting(values, nats, bets))


def held_out(scores: Mapping[Level, Scores], levels: Iterable[Level], facts: Facts) -> Iterator[HeldOut]:
    """The mixture's loss on documents of the test split, and the code's own. A stream's code reads each as if it came next."""
    if facts.reference.name == "uniform":
        return
    for level in levels:
        losses, own = held_out_losses(scores, level, facts)
        said: dict[str, Any] = {"level": level, "metric": "bpd", "alpha": facts.alpha, "n": len(losses), "split": None}
        said |= {"reference": facts.reference.name, "reference_value": float(own.mean())}
        yield HeldOut(value=float(losses.mean()), **said)


def held_out_losses(scores: Mapping[Level, Scores], level: Level, facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """(the mixture's loss, the code's own) of each held-out unit, in bits per token: float64 (units,). Needs a reference."""
    of = metric("bpd", facts.alpha, facts.vocab_size)
    units = _evaluated(level, of, scores["document" if level == "token" else level], facts, 1)
    return units.losses, units.code.own
