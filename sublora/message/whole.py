"""A whole pretrained model as one message, for token-level bounds: every weight is rounded to 2 to 8 bits and coded.

    bytes      field
    1-5        total length in bytes, as a canonical varint
    1          format, 0x57
    1          low 4 bits: bits of a weight, 2 to 8; 0x10 if every row of a matrix has a scale of its own; 0x20 to 0xE0: index of
               the smoothing weight in `experiment.ALPHA_GRID`
    for each tensor, in the order of the model's parameters:
      vectors  float16, big-endian: norms and biases, few and delicate
      others   the scale, or one for each row, float16; length of the payload as a varint; the payload (`coder`, adaptive)

A weight is scale × an integer in [-(2^(bits-1) - 1), 2^(bits-1) - 1]. Of the scales that give the same weights, it is the positive
one with the smallest integers, and 2^-24 where all are zero. As in `message.language`, no message is the beginning of another,
every bit counts, what a message says has one form, and there is no checksum. The shapes follow from the configuration, which stands
in front (`message.configuration`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from sublora.compression.coder import decode_symbols, encode_symbols
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID
from sublora.message.frame import MessageError, Reader, alpha_index, only_form, prefixed, varint

FORMAT = 0x57
ROWS = 0x10
SMALLEST, LARGEST = np.float16(2.0**-24), 65504.0
"""The least and the most positive 16-bit float."""
CLIPS = np.linspace(0.4, 1.0, 25)
"""Shares of the largest weight that the largest level may stand for; the one with the least squared error is taken."""


def encode_whole(tensors: Mapping[str, torch.Tensor], bits: int, alpha: float, rows: bool = False) -> bytes:
    """The message of a model's `named_parameters`, `bits` a weight, one scale a tensor or, with `rows`, a row.

    Raises SubloraError for bits outside 2 to 8, an alpha that is not in the grid, and weights that are not finite 16-bit floats.
    """
    if bits not in range(2, 9):
        raise SubloraError(f"bits: {bits!r} is not an integer from 2 to 8")
    body = bytes([FORMAT, bits | ROWS * rows | alpha_index(alpha) << 5])
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().double().numpy()
        if not (np.abs(values) <= LARGEST).all():
            raise SubloraError(f"{name}: has weights that are not finite 16-bit floats")
        if values.ndim < 2:
            body += (values + 0.0).astype(">f2").tobytes()
            continue
        matrix = values.reshape(len(values), -1) if rows else values.reshape(1, -1)
        scales, integers = _rounded(matrix, 2 ** (bits - 1) - 1)
        payload = encode_symbols(integers.ravel() + 2 ** (bits - 1) - 1, 2**bits - 1)
        body += scales.astype(">f2").tobytes() + varint(len(payload)) + payload
    return prefixed(body)


def decode_whole(data: bytes, shapes: Sequence[tuple[str, torch.Size]]) -> tuple[dict[str, torch.Tensor], float]:
    """(tensors float32 by name, alpha) that `data` is, for a model with these parameters. Time and memory are those of the model.

    Raises MessageError, saying what is wrong, for anything that `encode_whole` cannot have made.
    """
    reader, (bits, rows) = Reader(data, FORMAT), settings(data)
    alpha = ALPHA_GRID[reader.byte() >> 5]
    tensors = {}
    for name, shape in shapes:
        if len(shape) < 2:
            tensors[name] = torch.from_numpy(_floats(reader, shape.numel())).view(shape)
            continue
        scales = _floats(reader, shape[0] if rows else 1)
        payload = reader.take(reader.varint())
        try:
            symbols = decode_symbols(payload, shape.numel(), 2**bits - 1)
        except ValueError as error:
            raise MessageError(f"the message cannot be decoded: {name}: {error}") from None
        only_form(payload, lambda: encode_symbols(symbols, 2**bits - 1))  # noqa: B023  called at once
        integers = symbols.astype(np.int64).reshape(len(scales), -1) - (2 ** (bits - 1) - 1)
        if not np.array_equal(scales, _one_form(scales.astype(np.float16), integers)[0]):
            raise MessageError(f"the message has a scale of {name} that is not the one it is written with: it was altered")
        tensors[name] = torch.from_numpy(integers.astype(np.float32) * scales[:, None]).view(shape)
    if reader.position != len(data):
        raise MessageError(f"the message has {len(data) - reader.position:,} bytes more than the model needs")
    return tensors, alpha


def settings(data: bytes) -> tuple[int, bool]:
    """(bits of a weight, whether each row has a scale) of a message. Raises MessageError for bits outside 2 to 8."""
    byte = Reader(data, FORMAT).byte()
    if (bits := byte & 15) not in range(2, 9):
        raise MessageError(f"the message has {bits} bits a weight, not 2 to 8")
    return bits, bool(byte & ROWS)


def whole_with_alpha(data: bytes, alpha: float) -> bytes:
    """The same model with another smoothing weight of the grid. Raises MessageError if `data` is no whole model's message."""
    reader = Reader(data, FORMAT)
    byte = reader.byte()
    return data[: reader.position - 1] + bytes([byte & 31 | alpha_index(alpha) << 5]) + data[reader.position :]


@torch.no_grad()
def rebuild_whole(data: bytes, model: nn.Module) -> float:
    """Write what `data` says into the parameters of `model`, which gives the architecture; returns alpha."""
    parameters = dict(model.named_parameters())
    tensors, alpha = decode_whole(data, [(name, parameter.shape) for name, parameter in parameters.items()])
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
    return alpha


def _rounded(matrix: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(scales float16 (r,), integers (r, c) in [-top, top]) for `matrix` (r, c): for each row the clip with the least error."""
    largest = np.abs(matrix).max(1)
    best, chosen = np.full(len(matrix), np.inf), np.ones(len(matrix), np.float16)
    for clip in CLIPS:
        scales = np.maximum(np.float16(clip * largest / top), SMALLEST)
        wide = scales.astype(np.float64)[:, None]
        errors = ((wide * np.clip(np.rint(matrix / wide), -top, top) - matrix) ** 2).sum(1)
        better = errors < best
        best, chosen = np.where(better, errors, best), np.where(better, scales, chosen)
    return _one_form(chosen, np.clip(np.rint(matrix / chosen.astype(np.float64)[:, None]), -top, top).astype(np.int64))


def _one_form(scales: np.ndarray, integers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scales float16 (r,), integers (r, c)) with the same products: of all that have them, those with the smallest integers."""
    scales, integers = abs(scales), integers * np.sign(scales).astype(np.int64)[:, None]
    for row, divisor in enumerate(np.gcd.reduce(integers, axis=1)):
        if divisor == 0:
            scales[row] = SMALLEST
        for factor in range(1, divisor):
            scale = float(scales[row]) * int(divisor) / factor  # exact, or no 16-bit float
            if scale <= LARGEST and np.float16(scale) * np.float64(factor) == float(scales[row]) * int(divisor):
                scales[row], integers[row] = scale, integers[row] // divisor * factor
                break
    return scales, integers


def _floats(reader: Reader, count: int) -> np.ndarray:
    values = np.frombuffer(reader.take(2 * count), ">f2").astype(np.float32)
    if not np.isfinite(values).all() or (np.signbit(values) & (values == 0)).any():
        raise MessageError("a scale or weight of the message is not a finite number, or is a negative zero")
    return values
