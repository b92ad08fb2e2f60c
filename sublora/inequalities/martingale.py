"""Token-level bounds: tokens in a fixed order, each drawn by a source given those before it.

Bounded is `(1/N) sum mu_i`, `mu_i = E[loss_i | the tokens before]`: the average, over the training contexts, of the expected loss
of the next token drawn afresh. This needs a source; of the other documents of a pool it says little. The order of the stream is
fixed without looking at content, and loss i uses tokens <= i only. Losses are in bits per token and lie in `[low, low + width]`;
complexities are nats. Each bound holds for every message at once with probability >= 1 - delta, is in bits, and is not clipped.
Arguments out of range raise SubloraError with the argument's name.

**N is a stopping time**: it is the length of m drawn documents, and a document ends where it likes. So the bounds are tuned for a
nominal number N0. It is fixed before the corpus is read, or it is `2^j`, which N decides (`nearest_nominal`), for `NOMINAL_BITS`
more message bits. s = `share` is fixed in advance (`token_share`). Proof:

1. `exp(l sum (mu - loss) - l^2 width^2 N/8)`, l fixed, is a supermartingale from 1, like freedman's product: at N the mean is <= 1.
2. So for any message and j (prior 2^-K, 2^-5) it exceeds exp(B), B at s delta, with probability <= s delta: the first event.
3. Given stream, message and j, n of the tokens are a uniform draw: their limit fails with probability <= (1-s) delta, whatever j.
4. The sum is delta, for s is a constant. Were s = n/(n + 2^j), it would move with N: the mass of 1. could lie on streams with a
   large s and that of 3. on all others, and the sum would exceed delta.
5. Whether N > n shows at the end only: where n tokens were asked for, the first event has s delta even if all N are evaluated.
"""

import math

import numpy as np

from sublora.errors import SubloraError
from sublora.inequalities.independent import betting_grid, check_bets, check_count, check_nats, log_growth
from sublora.inequalities.smoothing import loss_range, scale_to_unit
from sublora.inequalities.subsampling import INNER_BETS, Parts, best_bet, split_nats, upper_limit

NOMINAL_BITS = 5
"""What it costs to choose N0 = 2^j, j in 0..31, after looking."""


PIECE = 2**20
"""Tokens looked at together."""


def nearest_nominal(N: int) -> int:
    """`2^j`, j in 0..31, nearest to N by ratio: N0 where none was fixed. It costs `NOMINAL_BITS` of message."""
    return 2 ** min(31, round(math.log2(check_count("N", N))))


def token_share(n: int, *, nominal: int | None) -> float:
    """`n/(n + N0)`: the share of delta for the stream, where n tokens are asked for; N0 = 2^31, whatever j, if none was fixed."""
    return check_count("n", n) / (n + check_count("nominal", 2**31 if nominal is None else nominal))


def azuma(mean: float, nats: float, N: int, *, width: float, nominal: int) -> float:
    """`mean + nats/(l N) + l width^2/8`, `l = sqrt(8 nats/(N0 width^2))`: N tokens, a stopping time; N0 = `nominal` fixed.

    With N0 = N, for an N fixed in advance: `mean + width sqrt(nats/(2N))` (Lotfi et al. 2024b, arXiv:2407.18158; Azuma 1967).
    `mean`: of the N losses, bits; `nats`: `complexity_nats(K, delta)`; `width`: Delta of `loss_range`, bits.
    """
    root = math.sqrt(check_count("nominal", nominal))
    gap = _bits("width", width, above=0.0) * math.sqrt(check_nats("nats", nats) / 8) * (root / check_count("N", N) + 1 / root)
    return _bits("mean", mean) + gap


def azuma_subsampled(
    mean_n: float, message_bits: float, delta: float, N: int, n: int, *, candidates: int, width: float, nominal: int, share: float
) -> Parts:
    """`azuma` at complexity `K ln 2 + ln(1/(s delta))`, and `width sqrt(ln(A/((1-s) delta))/(2n))` for the subsample; in bits.

    n of the N *tokens* (not documents) drawn uniformly without replacement by `subsample`; A = `candidates` as there.
    `message_bits`: with `NOMINAL_BITS` where they are due; s = `share`: `token_share(n, ...)`.
    """
    first, second = split_nats(message_bits, delta, N, n, candidates=candidates, share=share)
    complexity = azuma(0.0, first, N, width=width, nominal=nominal)
    return Parts(_bits("mean_n", mean_n), complexity, width * math.sqrt(second / (2 * n)))


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
    shape (G,), fixed in advance: `betting_grid(N0, nats)`. N may be a stopping time.

    It can exceed `azuma`, at large `nats` or where the model is wrong about itself. So the statement `freedman` of a certificate is
    the smaller of the two, each at delta/2.
    """
    losses, guesses = np.asarray(losses), np.asarray(guesses)
    nats, grid, N = check_nats("nats", nats), check_bets(grid), losses.size
    logs, guessed = np.zeros(grid.size), 0.0
    for start in range(0, max(N, 1), PIECE):  # a stream may have billions of tokens
        piece = slice(start, start + PIECE)
        checked, expected = _tokens(losses[piece], guesses[piece], low=low, width=width, guess_width=guess_width)
        # mean(loss) + D/(s N) sum (s x - ln(1 + s x)) = mean(Y) - D/(s N) sum ln(1 + s x), x = (Y - loss)/D >= -1
        logs += log_growth(1.0 + (expected - checked) / guess_width, grid)
        guessed += expected.sum() / N
    bounds = guessed + guess_width * (nats + math.log(grid.size) - logs) / (grid * N)
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
    nominal: int,
    share: float,
    grid: np.ndarray | None = None,
    pilot: tuple[np.ndarray, np.ndarray] | None = None,
    one_inner: bool = False,
) -> float:
    """`freedman` from n of the N tokens: least over s of `D (K ln 2 + ln(G/(sigma delta)))/(s N) + UCL_s`, sigma = `share`.

    UCL_s is an upper limit (betting), complexity `ln(A G/((1-sigma) delta))`, of the mean over the N tokens of
    `W_i = Y_i - (D/s) ln(1 + s (Y_i - loss_i)/D)`, which lies in `[low, low + width + D (-ln(1-s)/s - 1)]`.
    n tokens drawn uniformly without replacement by `subsample`. `grid` defaults to `betting_grid(N0, K ln 2 + ...)`.
    `pilot`: (losses, guesses) of the same model on tokens drawn independently of these, or None. With it only the s that does
    best on the pilot is tried, which is fixed when the n tokens are drawn: ln G leaves the subsample's complexity (it stays in the
    first, because the pilot is made of training tokens). `one_inner`: so is the one bet of UCL_s, in place of a mixture of 12
    (statements without a reference keep that: they are as certificates have them).
    """
    losses_n, guesses_n = _tokens(losses_n, guesses_n, low=low, width=width, guess_width=guess_width)
    first, second = split_nats(message_bits, delta, N, losses_n.size, candidates=candidates, share=share)
    grid = betting_grid(nominal, first) if grid is None else check_bets(grid)
    first += math.log(grid.size)

    def scaled(losses: np.ndarray, guesses: np.ndarray, s: float) -> tuple[np.ndarray, float]:
        w = guesses - (guess_width / s) * np.log1p(s * (guesses - losses) / guess_width)
        span = width + guess_width * (-math.log1p(-s) / s - 1.0)
        return scale_to_unit(w, low=low, width=span), span

    def limit(losses: np.ndarray, guesses: np.ndarray, s: float, nats: float, bets: np.ndarray | None = None) -> float:
        w, span = scaled(losses, guesses, s)
        return guess_width * first / (s * N) + low + span * upper_limit(w, nats, bets)

    if pilot is None:
        return float(min(limit(losses_n, guesses_n, s, second + math.log(grid.size)) for s in grid))
    tried = _tokens(*pilot, low=low, width=width, guess_width=guess_width)
    # as if the pilot were n tokens: its mean wealth stands for what the certifying tokens will show
    as_if = second * tried[0].size / losses_n.size
    best = min(grid, key=lambda s: limit(*tried, s, as_if))
    if not one_inner:
        return float(limit(losses_n, guesses_n, best, second))
    w, _ = scaled(*tried, best)
    inner = best_bet(w, upper_limit(w, as_if), betting_grid(losses_n.size, second, INNER_BETS))
    return float(limit(losses_n, guesses_n, best, second, inner))


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
