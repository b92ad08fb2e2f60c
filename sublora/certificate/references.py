"""Statements beside a public reference: in bits, of the message's own smoothing weight, in two parts (`inequalities.reference`)."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sublora.certificate.schema import AssumptionName, HeldOut, Statement
from sublora.certificate.statements import (
    BITS,
    BY_BYTE,
    BYTE_GUESS,
    POOLED,
    Facts,
    Metric,
    azuma_from_mean,
    bits_of_nats,
    charged_bits,
    freedman_bound,
    held_out_assumptions,
    metric,
    of_bytes,
    of_facts,
    per_byte,
    reachable,
    statement,
    test_set_bound,
    tolerance,
)
from sublora.certificate.statements import assumptions as assumptions_of
from sublora.experiment import Level, OnText
from sublora.experiment import Reference as Settings
from sublora.inequalities.independent import LARGEST_BET, betting, betting_grid, complexity_nats
from sublora.inequalities.martingale import freedman
from sublora.inequalities.means import Bound
from sublora.inequalities.reference import (
    HALF,
    PerByte,
    Reference,
    bound_difference,
    bound_offset,
    of_groups,
    of_tokens,
    of_whole_units,
)
from sublora.inequalities.smoothing import document_means, smoothed_bits
from sublora.inequalities.unseen import betting_unseen
from sublora.models.references.document import FLOOR
from sublora.scoring.reference import Population, with_floor
from sublora.scoring.scores import Scores

SINGLE: tuple[Level, ...] = ("token", "position")
"""Levels whose units are single tokens, each of which is mixed by itself; the others' units are mixed as wholes."""
INEQUALITIES: dict[Level, tuple[str, ...]] = {
    "document": ("hoeffding", "betting"),
    "token": ("azuma", "freedman"),
    "position": ("hoeffding", "betting"),
    "group": ("hoeffding", "betting"),
}
"""None of sequences: pieces of one document are alike, and the limits of the offset and of the price pay for no message."""
FEW_BETS = np.array([2.0, 5.0, 12.0])
"""Times sqrt(nats/m): about the best bets where losses spread by a twelfth to a half of their range."""
TIGHT = ("betting", "freedman")
"""The inequalities whose statements have the certified gain, too."""
SHORTEST: dict[Level, int] = {"document": 2, "group": 2}
"""Under iid: the fewest tokens that a document has by construction (a token and the end of text), and its b, too (a byte and one
more)."""


def listed(levels: Iterable[Level], facts: Facts) -> Iterator[tuple[Level, Metric, AssumptionName, str]]:
    """(level, metric, assumption, inequality) of every statement beside a reference, in order."""
    for level in levels:
        by_token = metric("bpd", facts.alpha, facts.vocab_size)
        rows = [(by_token, assumption) for assumption in assumptions_of(level, facts.tokenizer_from)]
        for of, assumption in (*rows, *((of, name) for of, name in of_bytes(facts, level) if of.alpha == facts.alpha)):
            for inequality in INEQUALITIES[level]:
                yield level, of, assumption, inequality


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


def share_of_base(level: Level, reference: Settings) -> float:
    """The share that q has in the code that the model is mixed with: 1 for a code of counts, which has the uniform guess in it.

    A gain is over q. Of a base by itself it is less than over the mixed one by log2 of this for each unit.
    """
    if reference.name != "base":
        return 1.0
    return 1.0 - (FLOOR if level in SINGLE else reference.gamma)


def least_tokens(level: Level, assumption: AssumptionName, shortest: int) -> int:
    """The fewest tokens (of bits per byte: the least b) of any unit that the statement speaks of. shortest: of the pool's
    documents."""
    if level in SINGLE:
        return 1
    return shortest if assumption in ("pool", "unseen") else SHORTEST[level]


def code_of(
    level: Level,
    of: Metric,
    facts: Facts,
    nats: np.ndarray,
    lengths: np.ndarray,
    *,
    least: int,
    sizes: np.ndarray | None = None,
    ratio: float = 1.0,
) -> Reference:
    """What the code says of units (of a group: of its documents), from `ln q` and the number of tokens of each. least:
    `least_tokens`.

    sizes, ratio: b of each, and rho of the statement, for bits per byte.
    """
    if level in SINGLE:
        assert of.alpha is not None
        nats = with_floor(nats, facts.vocab_size) if facts.reference.name == "base" else nats
        return of_tokens(nats, vocab_size=facts.vocab_size, alpha=of.alpha, floor=FLOOR)
    by_byte = None if of.name == "bpd" or sizes is None else PerByte(sizes, ratio, BYTE_GUESS)
    return _whole(facts.reference, facts.vocab_size, least, nats, lengths, by_byte=by_byte)


def _whole(
    settings: Settings, vocab_size: int, least: int, nats: np.ndarray, lengths: np.ndarray, *, by_byte: PerByte | None = None
) -> Reference:
    keys: dict[str, Any] = {"beta": settings.beta, "gamma": settings.gamma, "offset": settings.f, "excess": settings.excess}
    return of_whole_units(nats, lengths, vocab_size=vocab_size, shortest=least, by_byte=by_byte, **keys)


class _Units(NamedTuple):
    """Evaluated units: the mixture's losses, bits per token, beside what the code says of them.

    own: the reference's own loss. That of a code of counts is `code.own`: the uniform code is in it. A base's is its own alone.
    """

    losses: np.ndarray
    code: Reference
    places: np.ndarray
    own: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        return np.minimum(self.losses - self.code.offsets, self.code.excess)

    def from_the_top(self) -> "_Units":
        """With f = T."""
        return self._replace(code=self.code.as_offset())


def _evaluated(level: Level, of: Metric, scores: Scores, facts: Facts, least: int, *, ratio: float = 1.0) -> _Units:
    if level in SINGLE:
        bits, nats = bits_of_nats(scores.log_probability), scores.reference
    else:
        assert of.alpha is not None
        bits, nats = _sums(scores, of.alpha, facts.vocab_size)
    code = code_of(level, of, facts, nats, np.diff(scores.offsets), least=least, sizes=scores.sizes, ratio=ratio)
    own = code.own
    if facts.reference.name == "base":
        alone = -nats / math.log(2.0) / code.lengths
        own = np.where(np.isfinite(alone), alone, own)  # what it gives no probability counts as guessed
    own = document_means(own, scores.members) if scores.members.size else own
    losses, code = of_groups(code.mixture(bits), code, scores.members)
    return _Units(losses, code, scores.places, own)


@functools.lru_cache(maxsize=2)  # every statement asks for those of the scores and of the pilot
def _sums(scores: Scores, alpha: float, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(bits by the smoothed model, ln q) of each document."""
    first = scores.offsets[:-1]
    bits = np.add.reduceat(smoothed_bits(scores.log_probability, alpha, vocab_size), first)
    return bits, np.add.reduceat(scores.reference, first, dtype=np.float64)


def all_bounds(
    training: Mapping[Level, Scores], pilot: Mapping[Level, Scores], facts: Facts, tolerant: bool = True
) -> Iterator[Statement]:
    """Every statement beside the reference; none where that is the uniform guess."""
    if facts.reference.name != "uniform":
        for level, of, assumption, inequality in listed(training, facts):
            of_level: dict[str, Any] = {"scores": training[level], "pilot": pilot[level], "facts": facts, "tolerant": tolerant}
            yield bound(level, facts.alpha, assumption, inequality, **of_level, name=of.name)


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
    name: str = "bpd",
) -> Statement:
    """One statement, in bits per token or, by `name`, per byte: the limit of the code's offset, of all m units and without K, and
    of the difference, each at delta/2.

    The gain is a statement of its own, at all of delta: over the code as it is mixed, with a share of the uniform code, or over a
    base by itself (`share_of_base`). pilot, tolerant: as `statements.bound` has them.
    """
    m, n, V, ratio = facts.units[level], scores.units, facts.vocab_size, facts.ratios.get(assumption, 1.0)
    of = per_byte(alpha, V, ratio) if name == "bpb" else metric("bpd", alpha, V)
    J, population = reachable(assumption, facts.configurations, facts.split_seeds), facts.populations[level]
    least = least_tokens(level, assumption, population.fewest if name == "bpb" else population.shortest)
    units, tried = (_evaluated(level, of, each, facts, least, ratio=ratio) for each in (scores, pilot))
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
        once["ratio"] = ratio if name == "bpb" else None
        offset = _base_offset(scores, pilot, facts.reference, V, **once, **shared)
    elif level == "position":
        offset = _position_offset(population, V, **shared)
    elif level in SINGLE:
        offset = _token_offset(population, V, facts.nominal, free[0] + facts.nominal_bits, free[1])
    else:
        offset = _offset(population, facts.reference, V, least=least, ratio=ratio if name == "bpb" else None, **shared)
    difference = _difference(units, tried, of, facts=half, **by)
    found = Bound(offset + difference, float(units.losses.mean()), None)
    gain = None
    if inequality in TIGHT and level in SINGLE:
        gain = math.log2(share_of_base(level, facts.reference)) - _difference(units, tried, of, facts=paid, **by)
    elif inequality in TIGHT:
        weight = facts.reference.beta * share_of_base(level, facts.reference)
        price = -math.log2(weight) * _shortness(population, least=least, by_byte=name == "bpb", **shared)
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
        pool=facts.pool if level in POOLED else None,
        nominal_tokens=facts.nominal if level == "token" else None,
        evaluated=n,
        candidates=candidates,
        configurations=J,
        vacuous_at=of.vacuous_at,
        reference=facts.reference.name,
        reference_empirical=float(units.own.mean()),
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
    """`_base_offset` of single tokens of a stream: freedman for the base's own loss."""
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
    ratio: float | None,
    m: int,
    **shared: Any,
) -> float:
    """The limit of the mean offset where the base is the reference: from the n evaluated units, since it is not scored on all m.

    The base is one public hypothesis: no K. The n were drawn after the message was fixed, and the base long before; each of the A
    messages that are compared has a draw of its own, so the subsample's term pays for A as that of the difference does.
    Of documents f is the top T; of positions (least: None) it is the base's own loss. ratio: rho, for bits per
    byte.
    shared: assumption, message_bits, delta, pool and candidates.
    """

    def offsets(of: Scores) -> tuple[np.ndarray, float]:
        if least is None:
            code = of_tokens(with_floor(of.reference, V), vocab_size=V, alpha=0.5, floor=FLOOR)
            return code.own, code.largest - code.excess
        nats = np.add.reduceat(of.reference, of.offsets[:-1], dtype=np.float64)
        by_byte = None if ratio is None else PerByte(of.sizes, ratio, BYTE_GUESS)
        code = _whole(settings, V, least, nats, np.diff(of.offsets), by_byte=by_byte)
        _, code = of_groups(code.own, code, of.members)
        return code.offsets, code.largest

    (f, largest), (tried, _) = offsets(scores), offsets(pilot)
    return bound_offset(f, largest=largest, m=m, places=scores.places, pilot=(tried, pilot.places), **shared)


@functools.lru_cache(maxsize=16)  # the same for every inequality and smoothing weight
def _offset(
    population: Population,
    settings: Settings,
    V: int,
    *,
    least: int,
    ratio: float | None,
    assumption: str,
    message_bits: float,
    delta: float,
    pool: int,
) -> float:
    """The limit of the mean offset of documents or groups. ratio: rho, for bits per byte."""
    by_byte = None
    if ratio is not None:
        assert population.sizes is not None
        by_byte = PerByte(population.sizes, ratio, BYTE_GUESS)
    code = _whole(settings, V, least, population.nats, population.lengths, by_byte=by_byte)
    _, code = of_groups(code.own, code, population.members)
    shared: dict[str, Any] = {"assumption": assumption, "message_bits": message_bits, "delta": delta, "pool": pool}
    return bound_offset(code.offsets, largest=code.largest, **shared)


@functools.lru_cache(maxsize=16)
def _shortness(
    population: Population, *, least: int, by_byte: bool, assumption: str, message_bits: float, delta: float, pool: int
) -> float:
    """The limit of the mean of 1/L, or of 1/b."""
    lengths = population.sizes if by_byte else population.lengths
    assert lengths is not None
    shortness = 1.0 / lengths if population.members is None else document_means(1.0 / lengths, population.members)
    shared: dict[str, Any] = {"assumption": assumption, "message_bits": message_bits, "delta": delta, "pool": pool}
    return bound_offset(shortness, largest=1.0 / least, **shared)


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


def held_out(
    scores: Mapping[Level, Scores], levels: Iterable[Level], facts: Facts, population: int, tolerant: bool = True
) -> Iterator[HeldOut]:
    """The mixture's loss on documents of the test split, and the code's own. A stream's code reads each as if it came next.

    population, tolerant: as `statements.held_out` has them.
    """
    if facts.reference.name == "uniform":
        return
    for level, name in measured(levels, facts):
        losses, own = held_out_losses(scores, level, facts, name)
        proven = None
        names = held_out_assumptions(level, facts.tokenizer_from)
        if names and name == "bpd":
            ranges = {assumed: (0.0, largest(level, assumed, facts)) for assumed in names}
            shared: dict[str, Any] = {"population": population, "tolerant": tolerant, **of_facts(facts)}
            proven = test_set_bound(losses, ranges, "bpd", **shared)
        said: dict[str, Any] = {"level": level, "metric": name, "alpha": facts.alpha, "n": len(losses), "split": None}
        said |= {"reference": facts.reference.name, "reference_value": float(own.mean()), "test_bound": proven}
        yield HeldOut(value=float(losses.mean()), **said)


def measured(levels: Iterable[Level], facts: Facts) -> list[tuple[Level, str]]:
    """(level, metric) of the values measured on held-out units beside a reference, in order."""
    return [(level, name) for level in levels for name in BITS if name == "bpd" or (facts.ratios and level in BY_BYTE)]


def largest(level: Level, assumption: AssumptionName, facts: Facts, name: str = "bpd") -> float:
    """F: the largest loss of the mixture, in bits per token or, by `name`, per byte, of any unit that the statement speaks of."""
    population, ratio, V = facts.populations[level], facts.ratios.get(assumption, 1.0), facts.vocab_size
    of = per_byte(facts.alpha, V, ratio) if name == "bpb" else metric("bpd", facts.alpha, V)
    fewest = least_tokens(level, assumption, population.fewest if name == "bpb" else population.shortest)
    return code_of(level, of, facts, np.zeros(1), np.ones(1), least=fewest, sizes=np.ones(1), ratio=ratio).largest


def unit_losses(scores: Scores, level: Level, facts: Facts, name: str = "bpd") -> tuple[np.ndarray, np.ndarray]:
    """(the mixture's loss, the reference's own) of each unit, in bits per token or, by `name`, per byte: float64 (units,).

    Needs a reference.
    """
    of, ratio = metric("bpd", facts.alpha, facts.vocab_size), facts.ratios.get("pool", 1.0)
    of = per_byte(facts.alpha, facts.vocab_size, ratio) if name == "bpb" else of
    units = _evaluated(level, of, scores, facts, 1, ratio=ratio)
    return units.losses, units.own


def held_out_losses(
    scores: Mapping[Level, Scores], level: Level, facts: Facts, name: str = "bpd"
) -> tuple[np.ndarray, np.ndarray]:
    """`unit_losses` of the held-out units; at token level of their documents' tokens."""
    return unit_losses(scores["document" if level == "token" else level], level, facts, name)
