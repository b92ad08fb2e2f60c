"""Prediction smoothing (Lotfi et al. 2024a): a loss with a known range, per token and per document.

Arguments out of range raise SubloraError with the argument's name. Empty arrays are refused where a mean is taken of them.
"""

import math

import numpy as np

from sublora.errors import SubloraError

ROUNDING = 1e-9  # what float64 may leave outside a range; anything further out is an error, never clipped


def loss_range(alpha: float, vocab_size: int) -> tuple[float, float]:
    """Range of the smoothed loss `-log2((1-alpha) p + alpha/V)`, p in [0, 1]: it lies in `[a, a + Delta]`.

    Returns `(a, Delta)` in bits per token: `a = -log2(1 - alpha + alpha/V)`, `Delta = log2(1 + (1-alpha) V/alpha)`
    (Lotfi et al. 2024a, arXiv:2312.17173, section 4). `vocab_size` counts the real tokens, never a padded matrix.
    """
    if not 0.0 < alpha < 1.0:
        raise SubloraError(f"alpha: {alpha!r} is not in (0, 1); choose a smoothing weight strictly between 0 and 1")
    if isinstance(vocab_size, bool) or vocab_size != int(vocab_size) or vocab_size < 2:
        raise SubloraError(f"vocab_size: {vocab_size!r} is not an integer >= 2; give the number of real tokens")
    return -math.log2(1.0 - alpha + alpha / vocab_size), math.log2(1.0 + (1.0 - alpha) * vocab_size / alpha)


def smoothed_bits(log_probability_nats: np.ndarray, alpha: float, vocab_size: int) -> np.ndarray:
    """Smoothed loss of each token, `-log2((1-alpha) p + alpha/V)`, in bits; float64, same shape as the input.

    `log_probability_nats`: ln p of the right token under the unsmoothed model, any shape. `p` is clipped to [0, 1]; a
    value that is not a probability at all (NaN, +-inf) counts as the largest loss, `a + Delta`. The result lies in
    `[a, a + Delta]` of `loss_range`, exactly.
    """
    low, width = loss_range(alpha, vocab_size)
    logs = np.asarray(log_probability_nats, dtype=np.float64)
    usable = np.isfinite(logs)
    # ln p > 0 is float32 rounding of p = 1; exp of the minimum with 0 is the clip to [0, 1] without overflow
    probability = np.exp(np.minimum(np.where(usable, logs, 0.0), 0.0))
    bits = -np.log2((1.0 - alpha) * probability + alpha / vocab_size)
    return np.where(usable, np.clip(bits, low, low + width), low + width)


def topk_errors(rank: np.ndarray, k: int) -> np.ndarray:
    """Top-k error of each token, 0.0 or 1.0 (float64), same shape as `rank`.

    `rank` is `#{v != x : not z_v < z_x}`, the number of other tokens whose logit is not below the right one's: ties
    and NaN count against the model. The error is 1 unless `rank < k`, so a NaN rank is an error too.
    """
    if k < 1:
        raise SubloraError(f"k: {k} is below 1; no token is among the first {k}")
    ranks = np.asarray(rank)
    if (ranks < 0).any():
        raise SubloraError("rank: negative; a rank counts the other tokens that are not below the right one")
    return np.logical_not(ranks < k).astype(np.float64)


def document_means(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mean over the tokens of each document: float64, shape (documents,), in the unit of `values`.

    `values`: shape (tokens,), not empty; `offsets`: shape (documents + 1,), `offsets[0] = 0 < ... < offsets[-1] = tokens`: document
    i is `values[offsets[i]:offsets[i + 1]]`.
    """
    values, offsets = np.asarray(values, dtype=np.float64), np.asarray(offsets)
    lengths = np.diff(offsets)
    if lengths.size == 0 or offsets[0] != 0 or offsets[-1] != values.size:
        raise SubloraError(f"offsets: they do not run from 0 to {values.size}, the number of values")
    if (lengths <= 0).any():
        raise SubloraError(f"offsets: document {int(np.argmax(lengths <= 0))} has no tokens; remove it before scoring")
    return np.add.reduceat(values, offsets[:-1]) / lengths


def scale_to_unit(losses: np.ndarray, *, low: float, width: float) -> np.ndarray:
    """`(losses - low) / width`, float64 in [0, 1], same shape: what the inequalities take.

    `losses` must lie in `[low, low + width]` (bits, from `loss_range`); float64 rounding of a mean, up to 1e-9 of the
    width, is clipped, anything further out raises SubloraError, as do NaN and a width that is not positive.
    """
    if not (math.isfinite(low) and math.isfinite(width) and width > 0.0):
        raise SubloraError(f"width: range [{low!r}, {low!r} + {width!r}] is not an interval")
    scaled = (np.asarray(losses, dtype=np.float64) - low) / width
    if scaled.size == 0:
        raise SubloraError("losses: empty; there is nothing to bound")
    if not ((scaled >= -ROUNDING) & (scaled <= 1.0 + ROUNDING)).all():
        raise SubloraError(f"losses: a value is NaN or outside [{low:g}, {low + width:g}]; check its range")
    return np.clip(scaled, 0.0, 1.0)
