"""What a certificate says: which of its statements the report shows, what may stand beside them, and how a number is written.

Every number in tables, figures and sentences is rounded up in its last digit (`number`), so that a printed bound is still true.
"""

import decimal
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from sublora.certificate.schema import Certificate, HeldOut, Statement

ASSUMPTIONS = ("unseen", "iid", "pool", "martingale")  # in the order they are shown
INEQUALITIES = ("binomial_tail", "betting", "hoeffding", "kl", "empirical_bernstein", "freedman", "azuma")
# The headline takes the first assumption and the first inequality of these lists that a certificate has. The order is fixed in
# advance, because the smallest of several bounds is not itself a bound at the stated confidence.

MAIN_INEQUALITIES = {
    "document": ("betting", "hoeffding"),
    "sequence": ("betting", "hoeffding"),
    "token": ("freedman", "azuma"),
    "position": ("betting", "hoeffding"),
    "group": ("betting", "hoeffding"),
    "example": ("binomial_tail", "kl", "hoeffding"),
}
"""For each level a tight inequality and the paper's: what a figure shows when it cannot show all."""
SHOWN_K = (1, 10, 100)
"""The top-k errors that a table shows; a certificate has more."""

VACUOUS = "vacuous"
HELD_OUT_ESTIMATES = ("iid", "unseen")
"""The assumptions whose bounded quantity a held-out value estimates; a pool's mean contains the training set."""


def certified(certificate: Certificate) -> list[Statement]:
    """The statements about the certified model, headline first, then by metric, assumption and inequality.

    Those at another alpha than the message's are about other models, and left out. Those beside a public reference come first.
    """
    chosen = [bound for bound in certificate.statements if bound.alpha in (certificate.alpha, None)]
    return sorted(chosen, key=lambda b: (b.level != "document", _metric_order(b.metric), b.reference is None, _headline_order(b)))


def uniform(certificate: Certificate) -> list[Statement]:
    """`certified` without those beside a reference: for pages that show no reference's value, without which they say too much."""
    return [bound for bound in certified(certificate) if bound.reference is None]


def first(certificate: Certificate, assumption: str) -> Statement | None:
    """The first of `certified` on the main metric under an assumption, beside a reference if there is one; or None."""
    metric = main_metric(certificate)
    return next((b for b in certified(certificate) if (b.assumption, b.metric) == (assumption, metric)), None)


def statement(
    certificate: Certificate, assumption: str, metric: str | None = None, inequality: str | None = None
) -> Statement | None:
    """The statement under one assumption, or None; on the main metric and by the first inequality, unless others are named.

    One with the uniform guess: `uniform`.
    """
    metric = metric or main_metric(certificate)
    found = [bound for bound in uniform(certificate) if (bound.assumption, bound.metric) == (assumption, metric)]
    return next((bound for bound in found if inequality in (None, bound.inequality)), None)


def headline(certificate: Certificate) -> Statement:
    """The statement a certificate opens with: bits, beside the reference, unseen documents, betting, as far as it has them."""
    return certified(certificate)[0]


def main_metric(certificate: Certificate) -> str:
    """The metric a certificate is about: `bpd` of a language model, `error` of a classifier."""
    return headline(certificate).metric


def bits_per_byte(certificate: Certificate) -> Statement | None:
    """The first of `certified` in bits per byte, of whole documents or groups; None where there is none."""
    metric = "bpd" if certificate.corpus.unit == "byte" else "bpb"
    found = (b for b in certified(certificate) if (b.metric, b.level in ("document", "group")) == (metric, True))
    return next(found, None)


def guess_name(bound: Statement) -> str:
    """The value below which a bound says something, in words."""
    return "the commonest label" if bound.level == "example" else "the uniform guess"


def held_out_value(certificate: Certificate, bound: Statement) -> float | None:
    """The held-out value that estimates what `bound` bounds: same level, metric, alpha. None for pool, martingale.

    If there are several, the one of the `split` that the bound's assumption names, else the first.
    """
    found = held_out(certificate, bound)
    return None if found is None else found.value


def held_out(certificate: Certificate, bound: Statement) -> HeldOut | None:
    """What was measured of what `bound` bounds, and what that proves by itself: see `held_out_value`."""
    if bound.assumption not in HELD_OUT_ESTIMATES:
        return None
    key = (bound.level, bound.metric, bound.alpha, bound.reference)
    found = [h for h in certificate.held_out if (h.level, h.metric, h.alpha, h.reference) == key]
    return min(found, key=lambda h: h.split != bound.assumption, default=None)


def verdict(bound: Statement, held_out: float | None) -> str:
    """`better` (than guessing), `vacuous`, or `contradicted` by the held-out value, which should almost never happen."""
    if held_out is not None and held_out > bound.bound:
        return "contradicted"
    return "better" if bound.nonvacuous else VACUOUS


def verdicts(certificate: Certificate, bounds: Mapping[str, Statement | None]) -> str:
    """The verdict on several bounds that share a row of a table: one word where they agree, else one for each name."""
    words = {name: verdict(b, held_out_value(certificate, b)) for name, b in bounds.items() if b is not None}
    if len(set(words.values())) > 1:
        return ", ".join(f"{name}: {word}" for name, word in words.items())
    return next(iter(words.values()), "–")


def in_percent(metric: str) -> bool:
    """Whether a metric is an error, shown in percent, rather than bits."""
    return metric.endswith("error")


def rounded_up(value: float, decimals: int = 2) -> float:
    """The smallest decimal with so many places that is not below `value`; infinity, which has none, as it is."""
    if not math.isfinite(value):
        return value
    step, enough = decimal.Decimal(1).scaleb(-decimals), decimal.Context(prec=400)  # digits of the largest float
    return float(decimal.Decimal(repr(float(value))).quantize(step, decimal.ROUND_CEILING, enough))


def number(value: float, decimals: int = 2) -> str:
    """A measured or proven number as every page, table and figure writes it: rounded up."""
    return f"{rounded_up(value, decimals):,.{decimals}f}"


def gain(bound: Statement) -> str | None:
    """What the message is proven to add to the reference, rounded down; `none`, if that is nothing: zero bits are better."""
    return None if bound.gain is None else _gain(bound.gain)


def _gain(value: float) -> str:
    return number(least) if (least := -rounded_up(-value)) > 0 else "none"


def mixed_in(certificate: Certificate, bound: Statement) -> str:
    """What of the uniform guess is in the reference's own value and under the gain, behind a space; empty where nothing is.

    A code of counts is mixed with it over whole documents, and its numbers are those of the mixed code. A base's are its own.
    """
    said = getattr(certificate.public, "reference", None)
    if said is None or said.gamma is None or bound.reference == "base" or bound.level in ("token", "position"):
        return ""
    share = Fraction(said.gamma).limit_denominator(10_000)
    return f" mixed with {share if share == Fraction(said.gamma) else f'{said.gamma:g}'} of the uniform guess"


def gain_in_words(bound: Statement | None, value: float | None = None) -> str:
    """The gain as a figure writes it behind a bound beside a reference; empty for others, and where the inequality has none.

    value: the gain itself, where there is no statement.
    """
    gained = (None if value is None else _gain(value)) if bound is None else gain(bound)
    return "" if gained is None else ", no gain: zero bits are better" if gained == "none" else f", gain {gained}"


def largest_loss(bound: Statement) -> float:
    """The largest value that the bounded loss can take: 1 for an error, log2(V/alpha) bits for a smoothed log loss.

    In bits per byte, and beside a reference, a bound is never stated above it, and here it is infinity.
    """
    if in_percent(bound.metric):
        return 1.0
    if bound.alpha is None or bound.reference or bound.metric == "bpb":
        return math.inf
    return bound.vacuous_at - math.log2(bound.alpha)


def possible(bound: Statement) -> float:
    """The bound, or the largest loss where that is smaller: no number that a reader sees is above what the loss can be."""
    return min(bound.bound, largest_loss(bound))


def written(bound: Statement, decimals: int = 2) -> str:
    """The bound itself, in bits or percent without the unit; `vacuous` where no loss can exceed what would be written."""
    scale = 100 if in_percent(bound.metric) else 1
    largest = scale * largest_loss(bound)
    return VACUOUS if rounded_up(scale * bound.bound, decimals) >= largest else scaled(bound, bound.bound, decimals)


def scaled(bound: Statement, value: float, decimals: int = 2) -> str:
    """Any other loss on the scale of a bound, in bits or percent without the unit: a training value, a held-out value, a guess."""
    return number(value * (100 if in_percent(bound.metric) else 1), decimals)


def metric_name(certificate: Certificate, metric: str) -> str:
    """A metric in words: `bits per byte`, `top-1 error`, `0-1 error`."""
    names = {"error": "0-1 error", "bpd": f"bits per {certificate.corpus.unit}", "bpb": "bits per byte"}
    return names.get(metric) or metric.replace("_", " ").replace("top", "top-")


def units_name(certificate: Certificate, level: str) -> tuple[str, str]:
    """What one unit of a level is, and several, in words."""
    document = "Python function" if certificate.corpus.name in ("python-packages", "python-stdlib") else "document"
    name = {"document": document, "token": certificate.corpus.unit}.get(level, level)
    return name, name + "s"


def level_prefix(level: str) -> str:
    """What goes before the name of a bound: nothing for documents, the usual units, and for examples, which have no others."""
    return "" if level in ("document", "example") else f"{level} level: "


class Shown(NamedTuple):
    """A statement as tables, texts and figures show it. Its numbers have no unit; `held_out` is None where nothing was measured."""

    metric: str
    speaks_of: str
    inequality: str
    training: str
    bound: str
    held_out: str | None
    guess: str
    verdict: str
    percent: str  # "%" or ""
    unit: str  # "%" or " bits per byte"
    reference: str | None  # what the public reference costs without any message; None for the uniform guess
    reference_held_out: str | None
    gain: str | None


def shown(certificate: Certificate, bound: Statement) -> Shown:
    """The statement as it is shown."""
    metric, apart = metric_name(certificate, bound.metric), held_out(certificate, bound)
    truth, own = (apart.value, apart.reference_value) if apart else (None, None)
    percent = "%" if in_percent(bound.metric) else ""
    return Shown(
        metric,
        level_prefix(bound.level) + bound.assumption,
        bound.inequality.replace("_", " "),
        scaled(bound, bound.empirical),
        written(bound),
        None if truth is None else scaled(bound, truth),
        scaled(bound, bound.vacuous_at),
        verdict(bound, truth),
        percent,
        percent or f" {metric}",
        None if bound.reference_empirical is None else scaled(bound, bound.reference_empirical),
        None if own is None else scaled(bound, own),
        gain(bound),
    )


def with_unit(text: str, unit: str) -> str:
    """A number with its unit; a word, such as `vacuous`, stands alone."""
    return text + unit if text[-1].isdigit() else text


def _metric_order(metric: str) -> tuple[int, int]:
    digits = "".join(character for character in metric if character.isdigit())
    return (metric != "bpd", int(digits or 0))


def _headline_order(bound: Statement) -> tuple[int, int]:
    return _index(ASSUMPTIONS, bound.assumption), _index(INEQUALITIES, bound.inequality)


def _index(order: tuple[str, ...], name: str) -> int:
    return order.index(name) if name in order else len(order)
