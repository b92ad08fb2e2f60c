"""What the messages of trained coordinates have in common: LoRA's settings; levels and symbols, by the shortest of the coders."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import ValidationError

from sublora.compression.codebooks import pack_codebook, packed_size, unpack_codebook
from sublora.compression.coder import CODERS, decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.errors import SubloraError
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


def pack(coded: Coded) -> tuple[int, int, bytes]:
    """(index of the coder, index of the codebook's format, the bytes: L, the levels, the symbols).

    A function of the coordinates alone: levels that none of them has are left out, and zero has no sign.
    Raises SubloraError for levels that are not distinct finite 16-bit floats.
    """
    codebook = np.asarray(coded.codebook, np.float16) + np.float16(0)
    if not np.isfinite(codebook).all() or not (np.diff(codebook) > 0).all():
        raise SubloraError(f"compression.levels: the {len(codebook)} levels are not distinct finite 16-bit floats; use fewer")
    used, symbols = np.unique(coded.symbols, return_inverse=True)
    codebook = codebook[used]
    coder, payload = shortest(symbols, codebook)
    format, levels = pack_codebook(codebook)
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
    if not 1 <= (dimension := reader.varint()) <= most:
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
def with_coordinates(make: Callable[[], Subspace], coded: Coded) -> Subspace:
    """The model that `make` returns, at these coordinates, in evaluation mode. Raises MessageError where they do not fit it."""
    try:
        subspace = make()
    except SubloraError as error:
        raise MessageError(f"the message does not fit the base model: {error}") from None
    if subspace.coordinates.numel() != len(coded.symbols):
        raise MessageError(f"the message has {len(coded.symbols):,} coordinates, the model {subspace.coordinates.numel():,}")
    subspace.coordinates.copy_(torch.from_numpy(coded.coordinates))
    return subspace.eval()


def published_bits(coded: Coded) -> float:
    """Size of the model in bits as the paper counts it: an estimate for comparison, not certified.

    C + 2·log2 C + 7 bits for hyperparameters, with C = ⌈d·H⌉ + 1 for the symbols, 16 bits a level and ⌈log2 d⌉ bits for each
    level's count (Lotfi et al. 2024a, released code).
    """
    d, levels = len(coded.symbols), len(coded.codebook)
    size = np.ceil(entropy_bits(coded.symbols)) + 1 + levels * (16 + np.ceil(np.log2(d)))
    return float(size + 2 * np.log2(size) + 7)
