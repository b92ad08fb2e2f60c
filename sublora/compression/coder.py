"""Entropy coding of symbols: four coders, each a header and a Dirichlet prior over the levels' probabilities.

All symbols go through one range coder (`constriction`'s, Bamler 2022) with probabilities (count + prior)/(total + priors' sum),
counts being those of the symbols before the present block: the decoder learns as it reads. The first 32 blocks are single
symbols, later ones are a 32nd of what has been seen, so that a long message needs few model updates. The coders differ in the
prior, and in what their headers say of it:

    adaptive    no header; 1/2 for each level (Krichevsky & Trofimov 1981): some (L-1)/2·log2(d) bits above the entropy
    static      4 bits for the size N of a grid, log2(N) bits a level: the probabilities' square roots, and nothing is learnt
    laplace     16 bits: location, scale and strength of a prior that is a Laplace distribution's mass of each level's cell
    gaussian    the same of a normal distribution

A coded message is the shortest byte string that lies in the range coder's last interval, zeros behind its end. It is a function of
the symbols and levels alone, on every machine: headers, too, are chosen by operations that IEEE 754 rounds correctly (`_exp`,
`_log`), and by sums that are exact. So a decoder can encode again, and refuse what an encoder does not write.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

import constriction
import numpy as np

Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform
RangeDecoder = constriction.stream.queue.RangeDecoder
RangeEncoder = constriction.stream.queue.RangeEncoder

CODERS = ("adaptive", "static", "laplace", "gaussian")
"""In the order of their indices in a message."""

GRIDS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362)
"""Sizes of the static coder's grid. The best for d symbols is about sqrt(d·largest probability/3)."""

LOCATIONS = 64
"""Centres of the laplace and gaussian priors, from the lowest level to the highest."""

SCALES = tuple((16 + m) / 16 * 2.0**-e for e in range(8) for m in range(16))
"""Their scales, in spans of the codebook."""

STRENGTHS = tuple(4.0**k for k in range(1, 8)) + (2.0**40,)
"""How many symbols they count for; with the last, nothing is learnt."""

LN2 = 0.6931471805599453

UNIT = 2.0**-16
"""Priors are multiples of it. So their sums are exact in whatever order a machine adds, and the models of the encoder and of
every decoder are the same to the last bit."""


def encode_symbols(symbols: np.ndarray, levels: int, coder: str = "adaptive", codebook: np.ndarray | None = None) -> bytes:
    """Code `symbols` (d,), integers in [0, levels), levels ≤ 255; `codebook` (L,) ascending, for laplace and gaussian.

    Raises ValueError for a symbol outside, an unknown coder, or a codebook that is missing or not ascending.
    """
    _check(coder, levels, codebook)
    symbols = np.asarray(symbols, np.int64)
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < levels:
        raise ValueError(f"symbols must be in [0, {levels})")
    if levels == 1:
        return b""
    header = iter(_header(coder, np.bincount(symbols, minlength=levels), codebook))
    encoder = RangeEncoder()

    def write(size: int) -> int:
        value = next(header)
        encoder.encode(value, Uniform(size))
        return value

    _write(encoder, symbols, _prior(coder, levels, codebook, write))
    return _shortest_payload(encoder)


def decode_symbols(
    payload: bytes, size: int, levels: int, coder: str = "adaptive", codebook: np.ndarray | None = None
) -> np.ndarray:
    """The `size` symbols (uint8) coded in `payload`. Raises ValueError for a payload that decodes to none.

    Other payloads than `encode_symbols` writes may decode to the same symbols; who decodes compares.
    """
    _check(coder, levels, codebook)
    if levels == 1:
        if payload:
            raise ValueError("the coded symbols are invalid: one level needs no bytes")
        return np.zeros(size, np.uint8)
    decoder = _decoder(payload)
    try:
        return _read(decoder, size, _prior(coder, levels, codebook, lambda size: decoder.decode(Uniform(size))))
    except AssertionError:  # constriction's word for data outside the coder's interval
        raise ValueError("the coded symbols are invalid") from None


def encode_groups(groups: Iterable[tuple[np.ndarray, int]]) -> bytes:
    """Code groups of symbols, (symbols (n,), levels) each, one behind the other in one payload; each is coded as by `adaptive`."""
    encoder = RangeEncoder()
    for symbols, levels in groups:
        if levels > 1:
            _write(encoder, symbols.astype(np.int64), np.full(levels, 0.5))
    return _shortest_payload(encoder)


class GroupDecoder:
    """Reads the groups of a payload of `encode_groups`, in their order. Other payloads may decode to the same symbols."""

    def __init__(self, payload: bytes):
        self.decoder = _decoder(payload)

    def read(self, size: int, levels: int) -> np.ndarray:
        """The next group: `size` symbols (uint8). Raises ValueError for a payload that decodes to none."""
        if levels == 1:
            return np.zeros(size, np.uint8)
        try:
            return _read(self.decoder, size, np.full(levels, 0.5))
        except AssertionError:
            raise ValueError("the coded symbols are invalid") from None


def shortest(symbols: np.ndarray, codebook: np.ndarray) -> tuple[str, bytes]:
    """(name of the coder, payload): the shortest of the four payloads of `symbols` (d,); the first coder's where equal."""
    payloads = {coder: encode_symbols(symbols, len(codebook), coder, codebook) for coder in CODERS}
    coder = min(payloads, key=lambda name: len(payloads[name]))
    return coder, payloads[coder]


def entropy_bits(symbols: np.ndarray) -> float:
    """d·H: the empirical entropy of all symbols together, in bits."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _check(coder: str, levels: int, codebook: np.ndarray | None) -> None:
    if coder not in CODERS:
        raise ValueError(f"coder {coder!r} is none of {', '.join(CODERS)}")
    if not 1 <= levels <= 255:
        raise ValueError(f"levels must be from 1 to 255, not {levels}")
    if coder in ("laplace", "gaussian"):
        if codebook is None or len(codebook) != levels:
            raise ValueError(f"codebook: coder {coder!r} needs the {levels} levels themselves")
        if not np.isfinite(codebook).all() or not (np.diff(codebook) > 0).all():
            raise ValueError("codebook: the levels must be finite and strictly ascending")


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < size:
        end = min(size, begin + max(1, begin // 32))
        yield begin, end
        begin = end


def _write(encoder: constriction.stream.queue.RangeEncoder, symbols: np.ndarray, prior: np.ndarray) -> None:
    counts = np.zeros(len(prior))
    for begin, end in _blocks(len(symbols)):
        encoder.encode(symbols[begin:end].astype(np.int32), _model(counts, prior))
        counts += np.bincount(symbols[begin:end], minlength=len(prior))


def _decoder(payload: bytes) -> constriction.stream.queue.RangeDecoder:
    return RangeDecoder(np.frombuffer(payload + bytes(-len(payload) % 4 + 8), dtype=">u4").astype(np.uint32))


def _read(decoder: constriction.stream.queue.RangeDecoder, size: int, prior: np.ndarray) -> np.ndarray:
    symbols, counts = np.empty(size, np.uint8), np.zeros(len(prior))
    for begin, end in _blocks(size):
        symbols[begin:end] = decoder.decode(_model(counts, prior), end - begin)
        counts += np.bincount(symbols[begin:end], minlength=len(prior))
    return symbols


def _model(counts: np.ndarray, prior: np.ndarray) -> constriction.stream.model.Categorical:
    return Categorical((counts + prior) / (counts.sum() + prior.sum()), perfect=False)


def _prior(coder: str, levels: int, codebook: np.ndarray | None, field: Callable[[int], int]) -> np.ndarray:
    """The prior (L,), in multiples of `UNIT`. `field(size)` writes or reads the header's next integer, which is below `size`."""
    if coder == "adaptive":
        return np.full(levels, 0.5)
    if coder == "static":
        grid = GRIDS[field(len(GRIDS))]
        return _static_prior(np.array([field(grid) for _ in range(levels)]))
    assert codebook is not None  # `_check`
    return _shape_prior(coder, codebook, field(LOCATIONS), field(len(SCALES)), STRENGTHS[field(len(STRENGTHS))])


def _header(coder: str, counts: np.ndarray, codebook: np.ndarray | None) -> list[int]:
    """The integers of the header with which symbols of these `counts` (L,) are shortest."""
    if coder == "static" and counts.any():
        shares = np.sqrt(counts / counts.max())
        roots = [np.rint(shares * (grid - 1)).astype(int) for grid in GRIDS]
        tables = np.rint(len(counts) * _log(np.array(GRIDS, np.float64)) / UNIT)
        best = int(np.argmin(tables + _cost(counts, np.array([_static_prior(each) for each in roots]))))
        return [best, *roots[best].tolist()]
    if coder in ("laplace", "gaussian") and counts.any():
        assert codebook is not None  # `_check`
        return _shape_header(coder, counts, codebook.astype(np.float64))
    return [0] * (len(counts) + 1)


def _cost(counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Nats for symbols of these `counts` (L,) under Dirichlet `prior` (..., L), learning after each symbol, in units of 2^-16.

    Each level's part is rounded to a whole number, so their sum is exact in whatever order a machine adds.
    """
    total = prior.sum(-1)
    levels = np.rint((_log_gamma(prior + counts) - _log_gamma(prior)) / UNIT).sum(-1)
    return np.rint((_log_gamma(total + counts.sum()) - _log_gamma(total)) / UNIT) - levels


# exp and log by additions, multiplications and divisions: a library's own may differ between machines in the last digit


def _exp(x: np.ndarray) -> np.ndarray:
    """exp of x in [-700, 700], to 2 units in the last place."""
    powers = np.rint(x / LN2)
    rest = (x - powers * 0.693147180369123816490) - powers * 1.90821492927058770002e-10  # ln 2 in two parts
    series = np.ones_like(rest)
    for k in range(14, 0, -1):
        series = 1 + series * rest / k
    return np.ldexp(series, powers.astype(np.int64))


def _log(x: np.ndarray) -> np.ndarray:
    """ln of positive x, to some units in the last place."""
    part, power = np.frexp(x)
    small = part < 0.7071067811865476
    part, power = np.where(small, 2 * part, part), power - small
    s = (part - 1) / (part + 1)
    series = np.zeros_like(s)
    for k in range(21, 0, -2):
        series = series * (s * s) + 1 / k
    return power * LN2 + 2 * s * series


def _log_gamma(x: np.ndarray) -> np.ndarray:
    """ln Γ of positive x, by Stirling's series at x + 8."""
    product, z = x, x + 8
    for k in range(1, 8):
        product = product * (x + k)
    series = (1 / 12 - (1 / 360 - 1 / (1260 * z * z)) / (z * z)) / z
    return (z - 0.5) * _log(z) - z + 0.9189385332046727 + series - _log(product)


# static: a grid over square roots, in which an equal step costs the same at every probability (Fisher's metric)


def _static_prior(roots: np.ndarray) -> np.ndarray:
    # A root of zero may be a rare level, not an absent one: a sixteenth of the first step's probability.
    return np.where(roots > 0, roots.astype(np.float64) ** 2, 1 / 16) * 2.0**24


# laplace, gaussian: the mass of each level's cell, which ends half-way to its neighbours


def _shape_prior(coder: str, codebook: np.ndarray, location: Any, scale: Any, strength: float) -> np.ndarray:
    """Mass of each level's cell (..., L) in multiples of `UNIT`, at least one of them, times `strength`.

    location, scale: indices, integers or arrays (...).
    """
    levels = codebook.astype(np.float64)
    span = levels[-1] - levels[0]
    centre = levels[0] + span * (np.asarray(location)[..., None] / (LOCATIONS - 1))
    cumulative = _CUMULATIVE[coder](((levels[1:] + levels[:-1]) / 2 - centre) / (span * np.array(SCALES)[scale][..., None]))
    masses = np.diff(cumulative, prepend=0.0, append=1.0)
    return np.maximum(np.rint(masses / UNIT), 1) * UNIT * strength


def _shape_header(coder: str, counts: np.ndarray, levels: np.ndarray) -> list[int]:
    """Location and scale about those of the moments, which are exact, with the strength that suits them."""
    shares = [Fraction(int(count), int(counts.sum())) for count in counts]
    places = [(Fraction(level) - Fraction(levels[0])) / (Fraction(levels[-1]) - Fraction(levels[0])) for level in levels.tolist()]
    mean = sum(share * place for share, place in zip(shares, places, strict=True))
    power = 1 if coder == "laplace" else 2
    moment = float(sum(share * abs(place - mean) ** power for share, place in zip(shares, places, strict=True)))
    spread = max(moment if power == 1 else np.sqrt(moment), 1e-9)
    location = round(mean * (LOCATIONS - 1))
    scale = min(range(len(SCALES)), key=lambda b: max(SCALES[b] / spread, spread / SCALES[b]))
    locations = np.arange(max(0, location - 3), min(LOCATIONS, location + 4))
    scales = np.arange(max(0, scale - 8), min(len(SCALES), scale + 9))
    priors = _shape_prior(coder, levels, *np.meshgrid(locations, scales, indexing="ij"), 1.0)
    costs = np.array([_cost(counts, priors * strength) for strength in STRENGTHS])
    strength, a, b = np.unravel_index(costs.argmin(), costs.shape)
    return [int(locations[a]), int(scales[b]), int(strength)]


def _laplace(z: np.ndarray) -> np.ndarray:
    """Cumulative Laplace distribution."""
    tail = 0.5 * _exp(-np.minimum(abs(z), 40.0))
    return np.where(z < 0, tail, 1 - tail)


def _gaussian(z: np.ndarray) -> np.ndarray:
    """Cumulative normal distribution to 7.5e-8 (Abramowitz & Stegun 1964, 26.2.17)."""
    x = np.minimum(abs(z), 9.0)
    t = 1 / (1 + 0.2316419 * x)
    series = ((((1.330274429 * t - 1.821255978) * t + 1.781477937) * t - 0.356563782) * t + 0.319381530) * t
    tail = _exp(-x * x / 2) * 0.3989422804014327 * series
    return np.where(z < 0, tail, 1 - tail)


_CUMULATIVE = {"laplace": _laplace, "gaussian": _gaussian}


def _shortest_payload(encoder: constriction.stream.queue.RangeEncoder) -> bytes:
    """The shortest bytes that decode to what was encoded; read as a binary fraction, they lie in the encoder's interval."""
    words, (produced, (lower, width)) = encoder.get_compressed(), encoder.pos()
    inside = int.from_bytes(words.astype(">u4").tobytes(), "big") << 32 * (produced + 2 - len(words))
    low = inside - (inside - int(lower)) % 2**64  # the encoder keeps the last 64 bits of its interval's lower end
    for bits in (64, 56, 48, 40, 32):  # the interval is from 2^32 to 2^64 wide, so the last of these steps is in it for certain
        steps = -(-low >> bits)
        if steps << bits < low + int(width):
            break
    return steps.to_bytes(4 * produced + 8 - bits // 8, "big").rstrip(b"\0")
