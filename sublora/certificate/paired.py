"""From the losses of two models on the same units to the statements of a comparison (`inequalities.paired`)."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sublora.certificate.comparison import Form, MetricName, PairedStatement
from sublora.certificate.schema import AssumptionName
from sublora.certificate.statements import tolerance
from sublora.inequalities.paired import (
    ALONE,
    SHARE,
    TAU,
    Interval,
    Mixed,
    from_held_out,
    from_training,
    holm,
    log_e_two_sided,
    log_e_value,
    mixed_with,
    mixture_from_held_out,
    mixture_from_training,
    of_units,
)


class Losses(NamedTuple):
    """Of some units, (n,): one model's losses (bits per token or byte, or 0-1 errors), L, and the units' places in the split.

    L: their tokens, or b where losses are per byte. members: where units are groups, values and L are of documents, and group i has
    the documents members[i] to members[i+1].
    """

    values: np.ndarray
    lengths: np.ndarray
    places: np.ndarray
    members: np.ndarray = ALONE

    @property
    def n(self) -> int:
        """How many units there are."""
        return len(self.members) - 1 if self.members.size else self.values.size

    def less(self, other: "Losses") -> np.ndarray:
        """D of each unit: this model's loss less the other's."""
        return of_units(self.values - other.values, self.members)


class Measured(NamedTuple):
    """What one model loses on the units of a comparison.

    pilot: on units of an independent draw, or None; ranges: (least, largest) loss under each assumption; shortest: the least L of
    any document that each assumption speaks of; all_lengths: L of all m training units in the split's order (of a group: one over
    the mean of its documents' 1/L); populations: how many units each assumption but iid speaks of; single: a unit is one token;
    metric: bpd or bpb (bits per token or byte), or error (0-1).
    """

    losses: Losses
    pilot: Losses | None
    ranges: Mapping[AssumptionName, tuple[float, float]]
    shortest: Mapping[AssumptionName, int]
    all_lengths: np.ndarray
    populations: Mapping[AssumptionName, int]
    single: bool = False
    metric: MetricName = "bpd"

    @property
    def errors(self) -> bool:
        """Whether losses are errors."""
        return self.metric == "error"


class Terms(NamedTuple):
    """What the statements of a pair share. bits: what the pair pays for its messages; configurations: J of each assumption;
    candidates: A; comparisons: how many pairs are listed; pool: M, of training units; tau: of the mixture from training units."""

    held_out: bool
    delta: float
    bits: float
    configurations: Mapping[AssumptionName, int]
    candidates: int
    comparisons: int
    pool: int
    tau: float = TAU


def paired_statements(first: Measured, second: Measured, terms: Terms, slack: float = 1.0) -> Iterator[PairedStatement]:
    """Every statement of a pair: under each assumption the interval, and for bits the one-sided mixture.

    slack: how often the tolerance of both models' means is in each limit; 0: what is proven on this machine. `decided` is a matter
    of all pairs (`decisions`), and false here.
    """
    for assumption in first.ranges:
        for form in ("interval", "mixture"):
            if form == "interval" or not first.errors:
                yield _statement(form, assumption, first, second, terms=terms, slack=slack)


def decisions(pairs: Sequence[Sequence[PairedStatement]], delta: float) -> list[list[PairedStatement]]:
    """The statements of all listed pairs, each with what Holm's procedure decides at delta: over the pairs, for each form and
    assumption by itself."""
    decided = [list(statements) for statements in pairs]
    for column in range(len(decided[0])):
        found = [(row, log_e) for row, each in enumerate(pairs) if (log_e := each[column].log_e) is not None]
        for (row, _), verdict in zip(found, holm([log_e for _, log_e in found], delta), strict=True):
            decided[row][column] = decided[row][column].model_copy(update={"decided": verdict})
    return decided


def _statement(
    form: Form, assumption: AssumptionName, first: Measured, second: Measured, *, terms: Terms, slack: float
) -> PairedStatement:
    population, n, J = first.populations.get(assumption), first.losses.n, terms.configurations[assumption]
    exact, step = terms.held_out and population == n, slack * 2 * tolerance("error" if first.errors else "bpd")
    shared: dict[str, Any] = {"delta": terms.delta}
    paid = terms.bits + math.log2(J)
    if terms.held_out:
        shared |= {"comparisons": terms.comparisons, "bits": math.log2(J), "population": population}
    else:
        m, places = first.all_lengths.size, first.losses.places
        shared |= {"assumption": assumption, "message_bits": paid, "m": m, "pool": terms.pool, "places": places}
        shared["candidates"] = terms.candidates
        shared |= {"tau": terms.tau} if form == "mixture" else {}
    make = _interval if form == "interval" else _mixture
    mean, limits, largest, log_e = make(first, second, assumption, shared, held_out=terms.held_out, step=step, J=J)
    return PairedStatement(
        form=form,
        metric="bpb" if first.metric == "bpb" else None,
        assumption=assumption,
        population=population,
        evaluated=n,
        units=None if terms.held_out else first.all_lengths.size,
        message_bits=0.0 if terms.held_out else terms.bits,
        configurations=J,
        candidates=1 if terms.held_out or n == first.all_lengths.size else terms.candidates,
        mean=mean,
        lower=None if form == "mixture" else max(limits.lower - step, largest.lower),
        upper=min(limits.upper + step, largest.upper),
        log_e=log_e() if terms.held_out and not exact else None,
        decided=False if terms.held_out and not exact else None,
    )


def _interval(
    first: Measured, second: Measured, assumption: AssumptionName, shared: dict[str, Any], *, held_out: bool, step: float, J: int
) -> tuple[float, Interval, Interval, Any]:
    """(the mean, its limits, the limits of D itself, the e-value's logarithm when it is asked for)."""
    (low, high), (least, most) = first.ranges[assumption], second.ranges[assumption]
    of: dict[str, Any] = {"low": low - most, "high": high - least}
    D = first.losses.less(second.losses)
    if held_out:
        found = from_held_out(D, **of, **shared)
    else:
        tried = None
        if first.pilot is not None and second.pilot is not None:
            tried = (first.pilot.less(second.pilot), first.pilot.places)
        found = from_training(D, **of, pilot=tried, **shared)
    by = {"delta": shared["delta"], "bits": math.log2(J), "step": step}
    return float(D.mean()), found, Interval(of["low"], of["high"]), functools.partial(log_e_two_sided, D, **of, **by)


def _mixture(
    first: Measured, second: Measured, assumption: AssumptionName, shared: dict[str, Any], *, held_out: bool, step: float, J: int
) -> tuple[float, Interval, Interval, Any]:
    """The same of the first model mixed with the second. Its e-value is against "the mixture is not better"."""
    shortest = first.shortest[assumption]
    of: dict[str, Any] = {"high": second.ranges[assumption][1], "shortest": shortest, "single": first.single}

    def mixed(one: Losses, two: Losses) -> Mixed:
        return mixed_with(one.values, two.values, one.lengths, **of, members=one.members)

    found, pilot = mixed(first.losses, second.losses), None
    if held_out:
        upper = mixture_from_held_out(found, shortest=shortest, **shared)
    else:
        if first.pilot is not None and second.pilot is not None:
            pilot = mixed(first.pilot, second.pilot), first.pilot.places
        by: dict[str, Any] = {"shortest": shortest, "charged": math.log2(J), "pilot": pilot}
        upper = mixture_from_training(found, first.all_lengths, **by, **shared)
    most = -math.log2(SHARE) / shortest
    log_e = functools.partial(
        log_e_value, -(found.differences + found.price), least=-most, delta=shared["delta"], bits=math.log2(J), step=step
    )
    return found.mean, Interval(-math.inf, upper), Interval(-math.inf, most), log_e
