"""What a bit of message costs in bits of loss: the weight under which training minimizes the promised bound.

It steers the search, which is free, and is no part of any claim: the gap is freedman's, for losses that are their mean plus or
minus one deviation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

BETS = np.geomspace(1e-4, 0.999, 400)


class Pricing(NamedTuple):
    """A statement's facts. m: its units (of a pool's unseen part: m·(M-m)/M of M); nats: of complexity beside the message's.

    width: from the mean loss to the width of a unit's loss above its guess, in bits (with a reference, of the difference to it).
    tokens: whether units are tokens, not sequences. sd: how far the units' values spread, in bits, where validation cannot tell.
    """

    m: float
    nats: float
    width: Callable[[float], float]
    tokens: bool = False
    sd: float | None = None


def gap(bits: float, sd: float, m: float, width: float, nats: float = 0.0) -> float:
    """Least over bets s of `D (B/m - ln(1 - s²sd²/D²)/2)/s`: how far the bound of a message of so many bits is above the mean.

    B = bits·ln 2 + nats, D = `width`. Freedman's bound (`inequalities.martingale`) for losses of guess ± sd; betting's is near it.
    """
    ratio = min(sd / width, 1.0)
    growth = -np.log1p(-((BETS * ratio) ** 2)) / 2
    return float((width * ((bits * math.log(2) + nats) / m + growth) / BETS).min())


def price(bits: float, sd: float, m: float, width: float, nats: float = 0.0) -> float:
    """Bits of loss for each bit of message: the finite difference of `gap` between bits·.95 and bits·1.05."""
    low, high = (gap(bits * share, sd, m, width, nats) for share in (0.95, 1.05))
    return (high - low) / (0.1 * bits)


class BitsPenalty:
    """What training adds to the loss, in bits: `price` for each of the message's estimated bits.

    estimate: differentiable, a scalar. With `pricing`, every validation prices the bits anew (`revalue`).
    """

    def __init__(self, estimate: Callable[[], torch.Tensor], price: float, pricing: Pricing | None = None):
        self.estimate, self.price, self.pricing = estimate, price, pricing

    def __call__(self) -> torch.Tensor:
        """The penalty, a scalar."""
        return self.price * self.estimate()

    @torch.no_grad()
    def revalue(self, mean: float, sequences: float, tokens: float) -> float:
        """What the message adds to the loss at a validation, comparable between validations: the gap, or the penalty.

        mean: validation loss; sequences, tokens: deviations of the units' losses; all in bits.
        """
        bits = max(float(self.estimate()), 1.0)
        if self.pricing is None:
            return self.price * bits
        m, nats, width, of_tokens, sd = self.pricing
        facts = sd or (tokens if of_tokens else sequences), m, max(width(mean), 1e-3), nats
        self.price = price(bits, *facts)
        return gap(bits, *facts)
