"""Token-level bounds: tokens in a fixed order, which need not be independent.

Bounded is `(1/N) sum mu_i`, `mu_i = E[loss_i | the tokens before]`: the average, over the training contexts, of the
expected loss of the next token drawn afresh. The order of the stream is fixed without looking at content, loss i uses
tokens <= i only, and N is fixed in advance. Losses are in bits per token and lie in `[low, low + width]`; complexities are
nats. Each bound holds for every message at once with probability >= 1 - delta, is in bits, and is not clipped. Arguments out of
range raise SubloraError with the argument's name.
"""

import math

import numpy as np

from sublora.errors import SubloraError
from sublora.inequalities.independent import betting_grid, check_bets, check_count, check_nats, log_growth
from sublora.inequalities.smoothing import loss_range, scale_to_unit
from sublora.inequalities.subsampling import Parts, split_nats, upper_limit


def azuma(mean: float, nats: float, N: int, *, width: float) -> float:
    """`mean + width sqrt(nats/(2N))`: N tokens, N fixed in advance (Lotfi et al. 2024b, arXiv:2407.18158; Azuma 1967).

    `mean`: of the N losses, bits; `nats`: `complexity_nats(K, delta)`; `width`: Delta of `loss_range`, bits.
    """
    return _bits("mean", mean) + _bits("width", width, above=0.0) * math.sqrt(check_nats("nats", nats) / (2 * check_count("N", N)))


def azuma_subsampled(mean_n: float, message_bits: float, delta: float, N: int, n: int, *, candidates: int, width: float) -> Parts:
    """`mean_n + width (sqrt((K ln 2 + ln(1/(s delta)))/(2N)) + sqrt(ln(A/((1-s) delta))/(2n)))`, `s = n/(n+N)`; in bits.

    n of the N *tokens* (not documents) drawn uniformly without replacement by `subsample`; A = `candidates` as there.
    """
    first, second = split_nats(message_bits, delta, N, n, candidates=candidates)
    width = _bits("width", width, above=0.0)
    return Parts(_bits("mean_n", mean_n), width * math.sqrt(first / (2 * N)), width * math.sqrt(second / (2 * n)))


def entropy_guess_width(alpha: float, vocab_size: int) -> float:
    """`Delta (1 - alpha + alpha/V)` in bits: Delta' when the guess is the entropy of the smoothed prediction.

    The entropy is smallest when the model is certain, and then `a + Delta - Y` is exactly this; so it is an infimum
    over all possible contexts, as `freedman` needs.
    """
    _, width = loss_range(alpha, vocab_size)
    return width * (1.0 - alpha + alpha / vocab_size)


def freedman(
    losses: np.ndarray, guesses: np.ndarray, nats: float, *, low: float, width: float, guess_width: float, grid: np.ndarray
) -> float:
    """Least over s in the grid of `mean + D (B + ln G)/(s N) + D/(s N) sum v(s (Y_i - loss_i)/D)`, `v(x) = x - ln(1 + x)`.

    Fan, Grama & Liu 2015; Howard et al. 2021; Finzi et al. 2025, Theorem 3.1. D = `guess_width` >= `low + width - inf
    Y`, a constant, the infimum over all possible contexts (never over the sample): `entropy_guess_width`.
    `losses`: shape (N,), bits, in [low, low + width]; `guesses` Y: shape (N,), bits, each a function of the tokens
    before its own and of the message; clipped into [low + width - D, low + width], which keeps them predictable.
    `nats`: `complexity_nats(K, delta)`; choosing among J kinds of guesses adds ln J. `grid`: numbers s in (0, 0.999],
    shape (G,), fixed in advance: `betting_grid(N, nats)`. Holds at stopping times too.
    """
    losses, guesses = _tokens(losses, guesses, low=low, width=width, guess_width=guess_width)
    nats, grid, N = check_nats("nats", nats), check_bets(grid), losses.size
    # mean(loss) + D/(s N) sum (s x - ln(1 + s x)) = mean(Y) - D/(s N) sum ln(1 + s x), x = (Y - loss)/D >= -1
    logs = log_growth(1.0 + (guesses - losses) / guess_width, grid)
    bounds = guesses.mean() + guess_width * (nats + math.log(grid.size) - logs) / (grid * N)
    return float(bounds.min())


def freedman_subsampled(
    losses_n: np.ndarray,
    guesses_n: np.ndarray,
    message_bits: float,
    delta: float,
    N: int,
    *,
    candidates: int,
    low: float,
    width: float,
    guess_width: float,
    grid: np.ndarray | None = None,
    pilot: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """`freedman` from n of the N tokens: least over s of `D (K ln 2 + ln(G/(sigma delta)))/(s N) + UCL_s`, `sigma = n/(n+N)`.

    UCL_s is an upper limit (betting), complexity `ln(A G/((1-sigma) delta))`, of the mean over the N tokens of
    `W_i = Y_i - (D/s) ln(1 + s (Y_i - loss_i)/D)`, which lies in `[low, low + width + D (-ln(1-s)/s - 1)]`.
    n tokens drawn uniformly without replacement by `subsample`. `grid` defaults to `betting_grid(N, K ln 2 + ...)`.
    `pilot`: (losses, guesses) of the same model on tokens drawn independently of these, or None. With it only the s that does
    best on the pilot is tried, which is fixed when the n tokens are drawn: ln G leaves the subsample's complexity (it stays in the
    first, because the pilot is made of training tokens).
    """
    losses_n, guesses_n = _tokens(losses_n, guesses_n, low=low, width=width, guess_width=guess_width)
    first, second = split_nats(message_bits, delta, N, losses_n.size, candidates=candidates)
    grid = betting_grid(N, first) if grid is None else check_bets(grid)
    first += math.log(grid.size)

    def limit(losses: np.ndarray, guesses: np.ndarray, s: float, nats: float) -> float:
        w = guesses - (guess_width / s) * np.log1p(s * (guesses - losses) / guess_width)
        span = width + guess_width * (-math.log1p(-s) / s - 1.0)
        return guess_width * first / (s * N) + low + span * upper_limit(scale_to_unit(w, low=low, width=span), nats)

    if pilot is None:
        return float(min(limit(losses_n, guesses_n, s, second + math.log(grid.size)) for s in grid))
    tried = _tokens(*pilot, low=low, width=width, guess_width=guess_width)
    # as if the pilot were n tokens: its mean wealth stands for what the certifying tokens will show
    best = min(grid, key=lambda s: limit(*tried, s, second * tried[0].size / losses_n.size))
    return float(limit(losses_n, guesses_n, best, second))


def _bits(name: str, value: float, above: float = -math.inf) -> float:
    if not (math.isfinite(value) and value > above):
        raise SubloraError(f"{name}: {value!r} is not a finite number of bits above {above}")
    return float(value)


def _tokens(
    losses: np.ndarray, guesses: np.ndarray, *, low: float, width: float, guess_width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Checked losses, and guesses clipped into `[low + width - guess_width, low + width]`; both float64 rows, bits."""
    _bits("width", width, above=0.0)
    if not 0.0 < guess_width <= width:
        raise SubloraError(f"guess_width: {guess_width!r} is not in (0, {width!r}]; use entropy_guess_width")
    losses = low + width * scale_to_unit(losses, low=low, width=width)
    guesses = np.asarray(guesses, dtype=np.float64)
    if losses.ndim != 1 or guesses.shape != losses.shape:
        raise SubloraError(f"guesses: shape {guesses.shape} is not the losses' {losses.shape}; give one guess per token")
    if not np.isfinite(guesses).all():
        raise SubloraError("guesses: a value is NaN or infinite; a guess is a finite number of bits")
    return losses, np.clip(guesses, low + width - guess_width, low + width)
