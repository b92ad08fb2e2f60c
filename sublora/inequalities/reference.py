"""A public reference: a message pays only for what its model adds to a public code, which costs no bits.

Losses are those of a mixture with the code, so that at each unit `loss <= f + c`, where the offset f is a function of the code
alone. `R(loss) = R(f) + R(D)`, `D = loss - f <= c`: the limit of R(D) has all of K and one half of delta, that of R(f) has neither
message nor subsample and the other half. All losses are in bits per token. Arguments out of range raise SubloraError.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from sublora.inequalities.means import bound_mean
from sublora.inequalities.smoothing import document_means, scale_to_unit

Offset = Literal["half", "reference"] | tuple[float, ...]
HALF = 0.5
"""The default offset, as a share of log2 V; c is half of it, unless it is set."""


class Reference(NamedTuple):
    """What a public code says of some units; float64 (units,) where it is an array.

    own: its loss; lengths: tokens, or b where losses are per byte; weight: its share in the mixture; offsets: f; excess: c;
    largest: F. The mixture's loss is at most `own + log2(1/weight)/length`, and that is at most `f + c`; loss and f lie in [0, F].
    """

    own: np.ndarray
    lengths: np.ndarray
    weight: float
    offsets: np.ndarray
    excess: float
    largest: float

    def above(self) -> np.ndarray:
        """T: the most that the mixture loses beside the code alone, `own + log2(1/weight)/length`."""
        return self.own - math.log2(self.weight) / self.lengths

    def mixture(self, bits: np.ndarray) -> np.ndarray:
        """The mixture's loss, `-log2[(1-w) 2^-bits + w 2^-(own length)]/length`, in logs. bits: of each unit by the model, >= 0."""
        model = math.log1p(-self.weight) - math.log(2.0) * np.asarray(bits, np.float64)
        code = math.log(self.weight) - math.log(2.0) * self.own * self.lengths
        return np.clip(-np.logaddexp(model, code) / (math.log(2.0) * self.lengths), 0.0, self.above())

    def as_offset(self) -> "Reference":
        """The same with f = T and c = 0: the difference is what the mixture adds to the code, and the price of mixing."""
        return self._replace(offsets=self.above(), excess=0.0)


class PerByte(NamedTuple):
    """For bits per byte (section 10): b of each unit, rho, and the uniform guess of a byte in bits, of which the offset is made."""

    sizes: np.ndarray
    ratio: float
    guess: float


def of_groups(losses: np.ndarray, code: Reference, members: np.ndarray | None) -> tuple[np.ndarray, Reference]:
    """The means over the documents of each group, `members` as in `Scores`; as they are where there are none.

    Everything that is bounded is linear in loss, f, own loss and 1/length, so a group's are the means of its documents'.
    """
    if members is None or not members.size:
        return losses, code
    lengths = 1.0 / document_means(1.0 / np.asarray(code.lengths, np.float64), members)
    own, offsets = document_means(code.own, members), document_means(code.offsets, members)
    return document_means(losses, members), code._replace(own=own, lengths=lengths, offsets=offsets)


def of_whole_units(
    nats: np.ndarray,
    lengths: np.ndarray,
    *,
    vocab_size: int,
    beta: float,
    gamma: float,
    shortest: int,
    offset: Offset,
    excess: float | None = None,
    by_byte: PerByte | None = None,
) -> Reference:
    """Documents or sequences, mixed as wholes with `q' = (1-gamma) q + gamma V^-length`; beta is the share of q'.

    nats: ln q of each; shortest: the fewest tokens that any unit of the population can have, never the sample's. offset half:
    `f = clip(g, T - c, T)` with `g = log2(V)/2`; four numbers: with g their sum times `1, own - 4, l, l^2`, `l = log2(length) - 8`;
    reference: `f = T`, c = 0. excess: c, by default `log2(V)/4`. `F = log2 V + log2(1/(beta gamma))/shortest`.
    by_byte: losses are per byte. Then b takes the place of lengths outside of `V^-length`, and of shortest; the guess of a byte
    that of log2 V in g and c; `F = rho log2 V + log2(1/(beta gamma))/shortest`.
    """
    uniform, lengths = math.log2(vocab_size), np.asarray(lengths, np.float64)
    guarded = np.logaddexp(math.log1p(-gamma) + np.minimum(nats, 0.0), math.log(gamma) - lengths * math.log(vocab_size))
    largest = uniform * (1.0 if by_byte is None else by_byte.ratio) - math.log2(beta * gamma) / shortest
    if by_byte is not None:
        uniform, lengths = by_byte.guess, np.asarray(by_byte.sizes, np.float64)
    found = Reference(-guarded / math.log(2.0) / lengths, lengths, beta, lengths, 0.0, largest).as_offset()
    if offset == "reference":
        return found
    excess, guess = HALF / 2 * uniform if excess is None else excess, HALF * uniform
    if offset != "half":
        long = np.log2(lengths) - 8
        guess = np.stack([np.ones_like(long), found.own - 4, long, long**2], axis=1) @ np.array(offset)
    return found._replace(offsets=np.clip(guess, np.maximum(found.offsets - excess, 0.0), found.offsets), excess=excess)


def of_tokens(nats: np.ndarray, *, vocab_size: int, alpha: float, floor: float) -> Reference:
    """Single tokens, each probability mixed by itself: f is the code's own loss, `c = log2(1/alpha)`, `F = log2(V/floor) + c`.

    nats: ln q of each, q at least floor/V. alpha: the share of q. The offsets are at most F - c.
    """
    excess = -math.log2(alpha)
    own = -np.clip(np.asarray(nats, np.float64), math.log(floor / vocab_size), 0.0) / math.log(2.0)
    return Reference(own, np.ones(own.size), alpha, own, excess, math.log2(vocab_size / floor) + excess)


def bound_difference(
    differences: np.ndarray,
    *,
    excess: float,
    largest: float,
    tau: float,
    inequality: str,
    m: int,
    pilot: tuple[np.ndarray, np.ndarray] | None = None,
    **drawn: Any,
) -> float:
    """`bound_mean` of `D = loss - f` in [-F, c], in bits, at the delta that is given; at most c.

    hoeffding, and any inequality where n < m, bound the mean of `max(D, -tau)`: it is above that of D, and its range is c + tau.
    tau is fixed beforehand. pilot: (differences, places). Everything else as in `bound_mean`.
    """
    least = -tau if inequality == "hoeffding" or differences.size < m else -largest
    width = excess - least

    def scaled(values: np.ndarray) -> np.ndarray:
        return scale_to_unit(np.maximum(values, least), low=least, width=width)

    tried = pilot and (scaled(pilot[0]), pilot[1])
    found = bound_mean(scaled(differences), inequality=inequality, m=m, pilot=tried, one_inner=True, **drawn)
    return min(found.unscaled(least, width).bound, excess)


def bound_offset(
    offsets: np.ndarray,
    *,
    largest: float,
    m: int | None = None,
    places: np.ndarray | None = None,
    pilot: tuple[np.ndarray, np.ndarray] | None = None,
    **drawn: Any,
) -> float:
    """Betting on `f` in [0, F] of all m units, in the split's order: in bits, at the delta and bits that are given (no K).

    m: how many there are, if f is known of n of them only, which were drawn after f was fixed; then places, pilot (offsets, places)
    and `candidates` as in `bound_mean`, all of the same draw as that of the message which f stands beside.
    drawn: assumption, message_bits, delta, pool, as in `bound_mean`.
    """

    def scaled(values: np.ndarray) -> np.ndarray:
        return scale_to_unit(values, low=0.0, width=largest)

    units: dict[str, Any] = {"m": m or offsets.size, "places": np.arange(offsets.size) if places is None else places}
    if pilot is not None:
        units |= {"pilot": (scaled(pilot[0]), pilot[1]), "one_inner": True}
    return bound_mean(scaled(offsets), inequality="betting", **units, **drawn).unscaled(0.0, largest).bound
