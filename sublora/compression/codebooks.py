"""A codebook in few bytes: six formats, all numbers big-endian, the size known from the format and L.

    format    bytes      what is stored
    0         2L         every level, float16
    1         4          equal steps: the first level and the step, float16
    2         4          normal-float: mean and deviation, float16, of the public `normal_levels`
    3         2 + L      a scale, float16, and each level's int8 multiple of it
    4         2⌊L/2⌋     symmetric: the positive levels, float16, and their negatives; zero too where L is odd
    5         2          a step, float16, and its symmetric multiples: halves 1, 3, ... where L is even (messages since 0x53)

Every format gives float16 levels, and every sum and product is exact before it is rounded to one: all machines agree.
"""

import numpy as np

from sublora.compression.quantizers import line, normal_levels

FORMATS = ("each", "steps", "normal", "bytes", "symmetric", "symmetric steps")
"""Names of the formats 0 to 5, which are their indices in a message."""

EARLY_FORMATS = 5
"""So many of them were there for the message formats 0x52 and 0x47."""

QUIETLY = np.errstate(over="ignore", invalid="ignore")
"""What overflows is infinite or no number, and refused by `_checked`."""


def packed_size(format: int, levels: int) -> int:
    """Bytes of a codebook of `levels` levels in a format. Raises ValueError for an unknown format."""
    if not 0 <= format < len(FORMATS):
        raise ValueError(f"codebook format {format} is unknown; there are 0 to {len(FORMATS) - 1}")
    return (2 * levels, 4, 4, 2 + levels, levels // 2 * 2, 2)[format]


@QUIETLY
def pack_codebook(codebook: np.ndarray, formats: int = EARLY_FORMATS) -> tuple[int, bytes]:
    """(format, bytes): the shortest that `unpack_codebook` makes exactly `codebook` of, float16 (L,) strictly ascending.

    formats: how many of the formats may be used.
    """
    codebook = _checked(codebook)
    levels = len(codebook)
    packed = (
        _float16(*codebook),
        _pack_line(codebook, np.arange(levels)),
        _pack_line(codebook, normal_levels(levels)),
        _pack_multiples(codebook),
        _float16(*codebook[(levels + 1) // 2 :]) if np.array_equal(codebook, -codebook[::-1]) else None,
        _pack_symmetric_steps(codebook),
    )
    found = [(format, data) for format, data in enumerate(packed[:formats]) if data is not None]
    return min(found, key=lambda found: len(found[1]))


@QUIETLY
def unpack_codebook(format: int, data: bytes, levels: int) -> np.ndarray:
    """The codebook, float16 (L,). Raises ValueError for a wrong size, or levels that are not finite and strictly ascending."""
    if len(data) != packed_size(format, levels):
        raise ValueError(f"a codebook of {levels} levels in format {format} has {packed_size(format, levels)} bytes")
    if format == 3:
        return _checked(_multiples(np.frombuffer(data[:2], ">f2")[0], np.frombuffer(data[2:], np.int8)))
    numbers = np.frombuffer(data, ">f2").astype(np.float16)
    if format == 0:
        return _checked(numbers)
    if format == 5:
        return _checked(_halves(numbers[0], levels))
    if format == 4:
        return _checked(np.concatenate([-numbers[::-1], np.zeros(levels % 2, np.float16), numbers]))
    return _checked(line(numbers[0], numbers[1], np.arange(levels) if format == 1 else normal_levels(levels)))


@QUIETLY
def shortened_codebook(codebook: np.ndarray) -> np.ndarray:
    """`codebook` float16 (L,) with its levels rounded to multiples of a scale (format 3), if that takes fewer bytes.

    The scale, of those that use more than half of the bytes, has the least squared error. A codebook stays as it is where levels
    would merge, or are not finite and distinct (which `message.encode` names).
    """
    if not _ascending(codebook):
        return codebook
    values = codebook.astype(np.float64)
    scales = [(np.float16(abs(values).max() / top), top) for top in range(127, 63, -1)]
    rounded = [_multiples(scale, np.clip(np.rint(values / scale), -top, top)) for scale, top in scales if scale > 0]
    rounded = [choice for choice in rounded if _ascending(choice)]
    if not rounded:
        return codebook
    best = min(rounded, key=lambda choice: ((choice.astype(np.float64) - values) ** 2).sum())
    return min(codebook, best, key=lambda choice: len(pack_codebook(choice)[1]))


def _pack_line(codebook: np.ndarray, places: np.ndarray) -> bytes | None:
    """(offset, slope) with float16(offset + slope·places) = codebook. For each slope that fits the ends, the offsets that every
    level allows are an interval; if it holds a 16-bit float, then the one nearest to its middle is one, or where two are equally
    near, the other may be."""
    if len(codebook) == 1:
        return None
    values = codebook.astype(np.float64)
    below, above = (np.nextafter(codebook, np.float16(end)).astype(np.float64) for end in (-np.inf, np.inf))
    low, high = np.maximum((below + values) / 2, -65520), np.minimum((above + values) / 2, 65520)
    reach = places[-1] - places[0]
    least, most = np.clip([(low[-1] - high[0]) / reach, (high[-1] - low[0]) / reach], 0, 65504).astype(np.float16)
    slopes = np.arange(least.view(np.uint16), int(most.view(np.uint16)) + 1, dtype=np.uint16).view(np.float16)
    shifts = slopes.astype(np.float64)[:, None] * places
    middles = ((low - shifts).max(1) + (high - shifts).min(1)) / 2
    nearest = middles.astype(np.float16)
    for offsets in (nearest, np.nextafter(nearest, np.float16(-np.inf)), np.nextafter(nearest, np.float16(np.inf))):
        fits = ((offsets.astype(np.float64)[:, None] + shifts).astype(np.float16) == codebook).all(1)
        if fits.any():
            return _float16(offsets[fits][0], slopes[fits][0])
    return None


def _pack_multiples(codebook: np.ndarray) -> bytes | None:
    """(scale, multiples): the scale is within one step of the largest level's quotient by its multiple, which is tried."""
    values = codebook.astype(np.float64)
    for top in range(1, 128):
        quotient = np.float16(abs(values).max() / top)
        for scale in (quotient, np.nextafter(quotient, np.float16(0)), np.nextafter(quotient, np.float16(np.inf))):
            if 0 < scale < np.inf:
                multiples = np.clip(np.rint(values / np.float64(scale)), -127, 127).astype(np.int8)
                if np.array_equal(_multiples(scale, multiples), codebook):
                    return _float16(scale) + multiples.tobytes()
    return None


def _pack_symmetric_steps(codebook: np.ndarray) -> bytes | None:
    """The step is within one of the largest level's quotient by its place, which is tried."""
    if len(codebook) == 1:
        return None
    quotient = np.float16(codebook[-1] / np.float64((len(codebook) - 1) / 2))
    tried = (quotient, np.nextafter(quotient, np.float16(0)), np.nextafter(quotient, np.float16(np.inf)))
    return next((_float16(step) for step in tried if np.array_equal(_halves(step, len(codebook)), codebook)), None)


def _halves(step: np.float16, levels: int) -> np.ndarray:
    return (np.float64(step) * (np.arange(levels) - (levels - 1) / 2)).astype(np.float16) + np.float16(0)


def _multiples(scale: np.float16, multiples: np.ndarray) -> np.ndarray:
    return (np.float64(scale) * multiples).astype(np.float16)


def _float16(*numbers: np.float16) -> bytes:
    return np.array(numbers, ">f2").tobytes()


def _ascending(codebook: np.ndarray) -> bool:
    return bool(len(codebook) and np.isfinite(codebook).all() and (codebook[1:] > codebook[:-1]).all())


def _checked(codebook: np.ndarray) -> np.ndarray:
    codebook = np.asarray(codebook, np.float16)
    if not _ascending(codebook):
        raise ValueError("codebook: the levels must be finite 16-bit floats, strictly ascending")
    return codebook
