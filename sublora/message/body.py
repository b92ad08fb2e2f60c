"""What the messages of trained coordinates end with: levels and symbols, by the shortest of the coders."""

from typing import NamedTuple

import numpy as np

from sublora.compression.codebooks import pack_codebook, packed_size, unpack_codebook
from sublora.compression.coder import CODERS, decode_symbols, entropy_bits, shortest
from sublora.errors import SubloraError
from sublora.message.frame import MessageError, Reader


class Coded(NamedTuple):
    """Quantized coordinates. codebook: float16 (L,), ascending; symbols: integers (d,) in [0, L)."""

    codebook: np.ndarray
    symbols: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """w, float32 (d,)."""
        return self.codebook.astype(np.float32)[self.symbols]


def pack(coded: Coded) -> tuple[int, int, bytes]:
    """(index of the coder, index of the codebook's format, the bytes: L, the levels, the symbols).

    Raises SubloraError for levels that are not distinct finite 16-bit floats, or fewer than two.
    """
    codebook = np.asarray(coded.codebook, np.float16)
    if not np.isfinite(codebook).all() or not (np.diff(codebook) > 0).all():
        raise SubloraError(f"compression.levels: the {len(codebook)} levels are not distinct finite 16-bit floats; use fewer")
    if len(codebook) < 2:
        raise SubloraError("compression.levels: all coordinates have fallen onto one level; train longer, or use more levels")
    coder, payload = shortest(coded.symbols, codebook)
    format, levels = pack_codebook(codebook)
    return CODERS.index(coder), format, bytes([len(codebook)]) + levels + payload


def unpack(reader: Reader, coder: int, format: int, dimension: int) -> Coded:
    """The inverse of `pack`: reads the rest of the message. Raises MessageError for anything that `pack` cannot have made."""
    if coder >= len(CODERS):
        raise MessageError(f"the message names coder {coder}; there are {len(CODERS)}")
    levels = reader.byte()
    if levels < 2:
        raise MessageError(f"the message has {levels} quantization levels, fewer than 2")
    try:
        codebook = unpack_codebook(format, reader.take(packed_size(format, levels)), levels)
        return Coded(codebook, decode_symbols(reader.rest(), dimension, levels, CODERS[coder], codebook))
    except MessageError:
        raise
    except ValueError as error:
        raise MessageError(f"the message cannot be decoded: {error}") from None


def check_dimension(dimension: int, most: int) -> None:
    """Raises MessageError for a number of coordinates outside 1 to `most`, before anything is decoded."""
    if not 1 <= dimension <= most:
        raise MessageError(f"the message has {dimension:,} coordinates; the model has at most {most:,}")


def published_bits(coded: Coded, hyperparameter_bits: int = 7) -> float:
    """Size of the model in bits as the paper counts it: an estimate for comparison, not certified.

    C + 2·log2 C + the hyperparameters' bits, with C = ⌈d·H⌉ + 1 for the symbols, 16 bits a level and ⌈log2 d⌉ bits for each
    level's count (Lotfi et al. 2024a, released code; 7 bits are its default for hyperparameters).
    """
    d, levels = len(coded.symbols), len(coded.codebook)
    size = np.ceil(entropy_bits(coded.symbols)) + 1 + levels * (16 + np.ceil(np.log2(d)))
    return float(size + 2 * np.log2(size) + hyperparameter_bits)
