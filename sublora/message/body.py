"""What the messages of trained coordinates have in common: LoRA's settings; levels and symbols, by the shortest of the coders."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import ValidationError

from sublora.compression.codebooks import EARLY_FORMATS, pack_codebook, packed_size, unpack_codebook
from sublora.compression.coder import CODERS, decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.compression.grid import STEPS, Shapes
from sublora.errors import SubloraError
from sublora.experiment import LAYERS
from sublora.experiment.groups import Group
from sublora.experiment.groups import Subspace as SubspaceSettings
from sublora.message.frame import MessageError, Reader, only_form, varint
from sublora.models import Subspace

Settings = TypeVar("Settings", bound=Group)


class Coded(NamedTuple):
    """Quantized coordinates. codebook: float16 (L,), ascending; symbols: integers (d,) in [0, L)."""

    codebook: np.ndarray
    symbols: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """w, float32 (d,)."""
        return self.codebook.astype(np.float32)[self.symbols]


class Gridded(NamedTuple):
    """Coordinates that are multiples of their group's step (`compression.grid`).

    steps: indices (G,); integers: (d,); shapes: rows and columns of each group.
    """

    steps: np.ndarray
    integers: np.ndarray
    shapes: Shapes

    @property
    def coordinates(self) -> np.ndarray:
        """w, float32 (d,), exact."""
        sizes = [rows * columns for rows, columns in self.shapes]
        return (np.repeat(STEPS[np.asarray(self.steps, np.int64)], sizes) * self.integers).astype(np.float32)

    @property
    def codebook(self) -> np.ndarray:
        """The levels that the coordinates have, float32 (L,), ascending."""
        return np.unique(self.coordinates)

    @property
    def symbols(self) -> np.ndarray:
        """Each coordinate's level in `codebook`, int64 (d,)."""
        return np.searchsorted(self.codebook, self.coordinates)


@dataclass(frozen=True)
class Message:
    """What the bytes say: a parametrization, a smoothing weight of the grid, and the quantized coordinates.

    layers: the names that the base model's layers have, which are public.
    """

    subspace: SubspaceSettings
    alpha: float
    coded: Coded | Gridded
    layers: tuple[str, ...] = LAYERS


def mask_of(message: Message) -> int:
    """The targets' bits. Raises SubloraError for a target that is no layer."""
    layers, targets = message.layers, set(message.layers if message.subspace.targets == ("all",) else message.subspace.targets)
    if unknown := targets - set(layers):
        raise SubloraError(f"subspace.targets: {sorted(unknown)[0]!r} is none of {', '.join(layers)}")
    return sum(1 << layers.index(target) for target in targets)


def targets_of(mask: int, layers: tuple[str, ...]) -> tuple[str, ...]:
    """The layers that a mask names. Raises MessageError for bits beyond them."""
    if mask >> len(layers):
        raise MessageError(f"the message names layers by {mask.bit_length()} bits; the model has {len(layers)}")
    return tuple(layer for bit, layer in enumerate(layers) if mask >> bit & 1)


def pack(coded: Coded, formats: int = EARLY_FORMATS) -> tuple[int, int, bytes]:
    """(index of the coder, index of the codebook's format, the bytes: L, the levels, the symbols).

    formats: how many of the codebook's formats may be used.

    A function of the coordinates alone: levels that none of them has are left out, and zero has no sign.
    Raises SubloraError for levels that are not distinct finite 16-bit floats.
    """
    codebook = np.asarray(coded.codebook, np.float16) + np.float16(0)
    if not np.isfinite(codebook).all() or not (np.diff(codebook) > 0).all():
        raise SubloraError(f"compression.levels: the {len(codebook)} levels are not distinct finite 16-bit floats; use fewer")
    used, symbols = np.unique(coded.symbols, return_inverse=True)
    codebook = codebook[used]
    coder, payload = shortest(symbols, codebook)
    format, levels = pack_codebook(codebook, formats)
    return CODERS.index(coder), format, bytes([len(codebook)]) + levels + payload


def unpack(reader: Reader, coder: int, format: int, dimension: int) -> Coded:
    """The inverse of `pack`: reads the rest of the message. Raises MessageError for what is none.

    Whether `pack` makes these very bytes is for the whole message's decoder to see; the symbols are compared here, at little cost.
    """
    if coder >= len(CODERS):
        raise MessageError(f"the message names coder {coder}; there are {len(CODERS)}")
    levels = reader.byte()
    if levels < 1:
        raise MessageError("the message has no quantization levels")
    try:
        codebook = unpack_codebook(format, reader.take(packed_size(format, levels)), levels)
        symbols = decode_symbols(payload := reader.rest(), dimension, levels, CODERS[coder], codebook)
        only_form(payload, lambda: encode_symbols(symbols, levels, CODERS[coder], codebook))
        return Coded(codebook, symbols)
    except MessageError:
        raise
    except ValueError as error:
        raise MessageError(f"the message cannot be decoded: {error}") from None


def read_dimension(reader: Reader, most: int) -> int:
    """d, the number of coordinates. Raises MessageError for one outside 1 to `most`, before anything is decoded."""
    return checked_dimension(reader.varint(), most)


def checked_dimension(dimension: int, most: int) -> int:
    """`dimension`. Raises MessageError for one outside 1 to `most`."""
    if not 1 <= dimension <= most:
        raise MessageError(f"the message has {dimension:,} coordinates; the model has at most {most:,}")
    return dimension


def lora_fields(subspace: SubspaceSettings) -> bytes:
    """LoRA's rank and alpha, which the settings make an integer."""
    return varint(subspace.rank) + varint(int(subspace.lora_alpha))


def read_lora(reader: Reader) -> dict[str, Any]:
    """The settings that `lora_fields` wrote, without dropout: it is no part of the decoded model."""
    return {"rank": reader.varint(), "lora_alpha": float(reader.varint()), "lora_dropout": 0.0}


def stated(group: type[Settings], values: Mapping[str, Any]) -> Settings:
    """The settings that a message states. Raises MessageError for those that no experiment can have."""
    try:
        return group.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise MessageError(f"the message states an impossible {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@torch.no_grad()
def with_coordinates(make: Callable[[], Subspace], coded: Coded | Gridded) -> Subspace:
    """The model that `make` returns, at these coordinates, in evaluation mode. Raises MessageError where they do not fit it."""
    try:
        subspace = make()
    except SubloraError as error:
        raise MessageError(f"the message does not fit the base model: {error}") from None
    if subspace.coordinates.numel() != len(coded.coordinates):
        raise MessageError(f"the message has {len(coded.coordinates):,} coordinates, the model {subspace.coordinates.numel():,}")
    subspace.coordinates.copy_(torch.from_numpy(coded.coordinates))
    return subspace.eval()


def published_bits(coded: Coded | Gridded) -> float:
    """Size of the model in bits as the paper counts it: an estimate for comparison, not certified.

    C + 2·log2 C + 7 bits for hyperparameters, with C = ⌈d·H⌉ + 1 for the symbols, 16 bits a level and ⌈log2 d⌉ bits for each
    level's count (Lotfi et al. 2024a, released code).
    """
    d, levels = len(coded.symbols), len(coded.codebook)
    size = np.ceil(entropy_bits(coded.symbols)) + 1 + levels * (16 + np.ceil(np.log2(d)))
    return float(size + 2 * np.log2(size) + 7)
