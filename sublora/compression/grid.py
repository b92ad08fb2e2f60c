"""Matrices of integers in few bytes: binary decisions, each with a probability that adapts to what was coded before.

A model's coordinates fall into groups, matrices (R, C). Each has a step, one byte (`STEPS`), and its numbers are integer multiples
of it. In one stream: a bit for `mixed`; for each group whether it is all zero, else the step; for each row of several whether it
is all zero; then every integer as: is it 0, is it 1, ... up to 15, the rest in Elias's gamma code; and a sign.

    plain   one adaptive probability for each decision (Krichevsky & Trofimov 1981), the same in all groups
    mixed   seven: of all groups, of the group, after the neighbours to the left, above, after the means of row and column so far,
            after both; mixed by weights that are learnt on the way (logistic mixing: Mahoney 2005)

The shorter is sent, and no table. Every number is an integer, so that all machines compute the same probabilities. Whatever the
bytes, they decode to integers; whether they are those that `encode_grid` writes is for the decoder of the message to see.
"""

import decimal
import functools
from collections.abc import Sequence

import numba
import numpy as np

Shapes = Sequence[tuple[int, int]]
"""Rows and columns of each group; the coordinates are its rows, one group after the other."""

STEPS = np.ldexp(8.0 + np.arange(256) % 8, np.arange(256) // 8 - 28)
"""All steps, ascending: eight to an octave, from 3e-8 to 120. A multiple of fewer than 2^15 is exact in float32."""

LARGEST = 2**15 - 1
"""No integer is larger."""

_ODD = (1, 9, 5, 11, 3, 13, 7, 15)  # of 8 + m
UNARY, PREFIX, INPUTS, LEVELS, SLOTS = 16, 16, 7, 32, 32
LEAST = 32  # of 2^16: the least probability of a decision


def canonical(step: int, integers: np.ndarray) -> tuple[int, np.ndarray]:
    """The largest step (index) and the integers with the same products; (0, zeros) for zeros.

    So a message has one form: the same numbers as multiples of other steps would be another message of the same model.
    """
    common = int(np.gcd.reduce(integers, initial=0))
    if not common:
        return 0, np.zeros_like(integers)
    whole = (8 + step % 8) * common
    twos = (whole & -whole).bit_length() - 1
    best = max((odd, m) for m, odd in enumerate(_ODD) if (whole >> twos) % odd == 0)
    exponent = step // 8 + twos - ((8 + best[1]) // best[0]).bit_length() + 1
    exponent, halved = min(exponent, 31), max(0, exponent - 31)
    numerator = (integers // common).astype(np.int64) * (whole >> twos) // best[0] << halved
    return 8 * exponent + best[1], numerator.astype(integers.dtype)


def encode_grid(steps: np.ndarray, integers: np.ndarray, shapes: Shapes) -> bytes:
    """The stream. steps: indices into `STEPS` (G,), integers: (d,), in the form of `canonical`.

    Raises ValueError for integers beyond ±`LARGEST`, and for shapes that do not hold them.
    """
    integers = np.ascontiguousarray(integers, np.int64)
    if sum(rows * columns for rows, columns in shapes) != len(integers) or len(shapes) != len(steps):
        raise ValueError("the groups' shapes do not hold the integers")
    if len(integers) and abs(integers).max() > LARGEST:
        raise ValueError(f"an integer is beyond ±{LARGEST:,}")
    return min((_encode(mixed, steps, integers, shapes) for mixed in (False, True)), key=len)


def decode_grid(payload: bytes, shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """(steps uint8 (G,), integers int64 (d,)) that a stream says."""
    steps, integers = np.zeros(len(shapes), np.int64), np.zeros(sum(r * c for r, c in shapes), np.int64)
    data = np.frombuffer(payload + bytes(1), np.uint8)
    _walk(True, False, (steps, integers, np.array(shapes, np.int64).reshape(-1, 2)), data.copy(), _tables())
    return steps.astype(np.uint8), integers


def _encode(mixed: bool, steps: np.ndarray, integers: np.ndarray, shapes: Shapes) -> bytes:
    size, coded = (
        1024 + len(integers) + 4 * len(steps),
        (steps.astype(np.int64), integers, np.array(shapes, np.int64).reshape(-1, 2)),
    )
    while True:
        buffer = np.zeros(size, np.uint8)
        used = _walk(False, mixed, coded, buffer, _tables())
        if used >= 0:
            return buffer[:used].tobytes().rstrip(b"\0")
        size *= 4


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(ln(p/(1-p)) of 4,096 probabilities, in 256ths; its inverse from -2,047 to 2,047, of 2^16). Exact decimal arithmetic."""
    with decimal.localcontext(decimal.Context(prec=20)):
        half, one = decimal.Decimal("0.5"), decimal.Decimal(1)
        stretch = [int((256 * ((i + half) / (4096 - i - half)).ln()).to_integral_value()) for i in range(4096)]
        squash = [int((65536 / (one + (-decimal.Decimal(x) / 256).exp())).to_integral_value()) for x in range(-2047, 2048)]
    return np.array(stretch, np.int64), np.array(squash, np.int64)


@numba.njit(cache=True, error_model="numpy")  # no check for divisions by zero: there are none
def _code(bit, p, stream):
    """Codes a bit that is one with probability p/2^16. coder: the interval's ends in 48 bits, the decoder's window, the place."""
    coder, buffer, decoding = stream
    width = coder[1] - coder[0]
    middle = coder[0] + (width >> 16) * p + (((width & 65535) * p) >> 16)
    if decoding:
        bit = 1 if coder[2] <= middle else 0
    if bit:
        coder[1] = middle
    else:
        coder[0] = middle + 1
    while (coder[0] ^ coder[1]) >> 40 == 0:
        if decoding:
            following = buffer[coder[3]] if coder[3] < len(buffer) else 0
            coder[2] = ((coder[2] & 0xFFFFFFFFFF) << 8) | following
        else:
            buffer[coder[3]] = coder[1] >> 40
        coder[3] += 1
        coder[0] = (coder[0] & 0xFFFFFFFFFF) << 8
        coder[1] = ((coder[1] & 0xFFFFFFFFFF) << 8) | 255
    return bit


@numba.njit(cache=True, error_model="numpy")
def _decide(bit, slot, contexts, learnt, stream):
    """Codes a bit by what is known of its slot in the contexts, and learns."""
    chances, counts, weights, inputs, stretch, squash = learnt
    used = len(chances)
    mixed = used > 1
    p = chances[0, contexts[0], slot] >> 16
    if mixed:
        total = 0
        for i in range(used):
            inputs[i] = stretch[chances[i, contexts[i], slot] >> 20]
            total += weights[slot, i] * inputs[i]
        p = squash[min(max(total >> 16, -2047), 2047) + 2047]
    p = min(max(p, LEAST), 65536 - LEAST)
    bit = _code(bit, p, stream)
    error = ((bit << 16) - p) * 6
    for i in range(used):
        if mixed:
            weights[slot, i] += (inputs[i] * error + (1 << 19)) >> 20
        seen = counts[i, contexts[i], slot]
        chance = chances[i, contexts[i], slot]
        chances[i, contexts[i], slot] = chance + (((bit << 32) - chance) * 2) // (2 * seen + (3 if mixed else 4))
        if seen < (255 if mixed else 1023):
            counts[i, contexts[i], slot] = seen + 1
    return bit


@numba.njit(cache=True, error_model="numpy")
def _level(value):
    """0, 1, 2, 3, then two levels an octave, below 24."""
    if value < 4:
        return value
    bits = 0
    while value >> bits > 3:
        bits += 1
    return min(23, 2 * bits + (value >> bits))


@numba.njit(cache=True, error_model="numpy")
def _walk(decoding, mixed, coded, buffer, tables):
    """Writes the stream into `buffer` and returns its length, or -1 if there is no room; or reads it, filling steps, integers."""
    steps, integers, shapes = coded
    coder = np.array([0, (1 << 48) - 1, 0, 0], np.int64)
    if decoding:
        for i in range(6):
            coder[2] = (coder[2] << 8) | (buffer[i] if i < len(buffer) else 0)
        coder[3] = 6
    stream, half = (coder, buffer, decoding), 1 << 15
    mixed = _code(1 if mixed else 0, half, stream) == 1
    used = INPUTS if mixed else 1
    chances = np.full((used, LEVELS * LEVELS, SLOTS), 1 << 31, np.int64)
    counts = np.zeros((used, LEVELS * LEVELS, SLOTS), np.int64)
    weights = np.full((SLOTS, INPUTS), 65536 * 2 // 7, np.int64)
    contexts, rows_seen = np.zeros(INPUTS, np.int64), np.zeros((2, 2), np.int64)
    learnt = (chances, counts, weights, np.zeros(INPUTS, np.int64), *tables)
    begin = 0
    for group in range(len(shapes)):
        rows, columns = shapes[group]
        some = 0
        if not decoding:
            for i in range(begin, begin + rows * columns):
                if integers[i] != 0:
                    some = 1
                    break
        some = _code(some, half, stream)
        if some == 0:
            begin += rows * columns
            continue
        step = 0
        for place in range(7, -1, -1):
            step = 2 * step + _code((steps[group] >> place) & 1, half, stream)
        steps[group] = step
        if mixed:
            chances[1], counts[1] = 1 << 31, 0
        above, sums, earlier, before = np.zeros(columns + 2, np.int64), np.zeros(columns, np.int64), 0, 1
        for row in range(rows):
            first = begin + row * columns
            if rows > 1:
                some = 0
                if not decoding:
                    for i in range(first, first + columns):
                        if integers[i] != 0:
                            some = 1
                            break
                total = rows_seen[before, 0] + rows_seen[before, 1]
                p = (65536 * (2 * rows_seen[before, 1] + 1)) // (2 * total + 2)
                some = _code(some, min(max(p, LEAST), 65536 - LEAST), stream)
                rows_seen[before, some] += 1
                before = some
                if some == 0:
                    above[:] = 0
                    continue
            left, left2, inside = 0, 0, 0
            for column in range(columns):
                if mixed:
                    mean = _level(8 * inside // max(column, 1)) if column else 24
                    age = 0 if column < 4 else 1 if column < 16 else 2
                    over = _level(8 * sums[column] // max(earlier, 1)) if earlier else 24
                    contexts[2] = min(2 * left + left2, 31) if column else LEVELS
                    contexts[3] = min(2 * above[column + 1] + above[column] + above[column + 2], 31)
                    contexts[4] = mean + LEVELS * age
                    contexts[5] = over + LEVELS * (0 if earlier < 4 else 1 if earlier < 16 else 2)
                    contexts[6] = mean + LEVELS * over
                value = abs(integers[first + column])
                size = 0
                while size < UNARY:
                    more = 1 if value > size else 0
                    if _decide(more, size, contexts, learnt, stream) == 0:
                        break
                    size += 1
                if size == UNARY:
                    rest, bits = value - UNARY + 1, 0
                    while bits < PREFIX - 1:
                        more = 1 if rest >> (bits + 1) else 0
                        if _decide(more, UNARY + bits, contexts, learnt, stream) == 0:
                            break
                        bits += 1
                    number = 1
                    for place in range(bits - 1, -1, -1):
                        number = 2 * number + _code((rest >> place) & 1, half, stream)
                    size = UNARY - 1 + number
                if size:
                    negative = _code(1 if integers[first + column] < 0 else 0, half, stream)
                    if decoding:
                        integers[first + column] = -size if negative else size
                left2, left = left, size
                inside += size
                sums[column] += size
                if not decoding and coder[3] + 64 > len(buffer):
                    return -1
            earlier += 1
            for column in range(columns):
                above[column + 1] = min(abs(integers[first + column]), 64)
            above[0] = 0
        begin += rows * columns
    if decoding:
        return 0
    return _end(coder, buffer)


@numba.njit(cache=True, error_model="numpy")
def _end(coder, buffer):
    """The fewest bytes that, with zeros behind them, lie in the interval."""
    for kept in range(7):
        shift = 48 - 8 * kept
        value = ((coder[0] + (1 << shift) - 1) >> shift) << shift
        if value <= coder[1]:
            for place in range(kept):
                buffer[coder[3] + place] = (value >> (40 - 8 * place)) & 255
            return coder[3] + kept
    return coder[3]
