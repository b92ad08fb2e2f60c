"""The message of a language model: a byte string that is a model.

    part       field
    1-5 bytes  total length of the message in bytes, as a canonical varint (7 bits a byte, low bits first)
    1 byte     format, 0x53 (0x52: `message.early`)
    1 byte     low 3 bits: index of the smoothing weight in `experiment.ALPHA_GRID`; next 3 and, above them, the high bit:
               parametrization, 0 sublora, 1 lora, 2 subspace, 3 full, 4 kronecker, 5 monarch, 6 and 7 these two in a subspace,
               8 lora_b, 9 biases, 10 tinylora, 11 to 13 these three in a subspace, 14 lora_b+biases, 15 its LoRA in a
               subspace; the bit that is left: how coordinates are coded, 0 multiples of steps, 1 levels of a codebook
    bits       index of the projector in `models.projectors.PROJECTORS`, 5 bits                     only where there is one
               d, the number of coordinates                                  (numbers: 6 bits for their length, then all but the
               seed of projector and initial weights: 1 for 137, or 0 and a number      first bit); not for full, 9 and 10
               rank, a number; LoRA's alpha, a number, not for tinylora                for sublora, lora, lora_b(+biases), tinylora
               number of blocks or factors                                                          only for kronecker and monarch
               number of tokens with a bias, 0 for all; the first one, and how far each next is     only for biases, +biases
               layers they are on, a bit each: q k v proj up down head                  not for subspace, full and biases
               or, of a pretrained model, the names of its linear layers in alphabetical order (`models.layer_names`)
               index of the coder in `coder.CODERS`, 2 bits; of the codebook's format, 3 bits       only for levels of a codebook
               zeros to the end of the byte
    the rest   steps and integers (`compression.grid`), or L, one byte, the levels (`codebooks`), the d symbols (`coder`)

The coordinates' groups, and so the steps' places, follow from the model (`Subspace.groups`), which is public but for these fields.

A message states its own length first and is rejected at any other, so no message is the beginning of another: the set of messages
is prefix-free, Kraft's inequality holds, and 2^(-8·bytes) is a prior over models (Lotfi et al. 2024a, section 3). Every
bit counts, the length field too. What a message says has one form: decoded and encoded again it is the same bytes, or refused.
There is no checksum: a changed byte makes another model, or none, and a certificate holds the message's SHA-256, which is free.
What is not in the message (architecture of a random model, initial weights, tokenizer) is public: fixed before the training split
was drawn. The configuration of a pretrained model stands in front (`message.configuration`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sublora.compression.codebooks import FORMATS
from sublora.compression.grid import Shapes, canonical, decode_grid, encode_grid
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, LAYERS, PARAMETRIZATIONS, Gpt, Pretrained
from sublora.experiment import Subspace as SubspaceSettings
from sublora.message import early
from sublora.message.body import (
    Coded,
    Gridded,
    Message,
    checked_dimension,
    mask_of,
    pack,
    stated,
    targets_of,
    unpack,
    with_coordinates,
)
from sublora.message.frame import BitReader, Bits, MessageError, Reader, alpha_index, only_form, prefixed
from sublora.models import Subspace, base_model, layer_names, model_weights, parametrize
from sublora.models.projectors import PROJECTORS

FORMAT = 0x53
ALONE = {name: number for number, name in enumerate(PARAMETRIZATIONS[:6])}
ALONE |= {"lora_b": 8, "biases": 9, "tinylora": 10, "lora_b+biases": 14}
IN_A_SUBSPACE = {**early.IN_A_SUBSPACE, "lora_b": 11, "biases": 12, "tinylora": 13, "lora_b+biases": 15}
WITH_ALPHA = ("sublora", "lora", "lora_b", "lora_b+biases")
WITHOUT_LAYERS = ("subspace", "full", "biases")
SEED = SubspaceSettings.model_fields["seed"].default


class Header(NamedTuple):
    """What a message says before its coordinates. rest: reads these; levels: (coder, format) of a codebook, None for steps."""

    subspace: SubspaceSettings
    alpha: float
    dimension: int
    levels: tuple[int, int] | None
    rest: Reader


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises SubloraError for what the format cannot say."""
    subspace, name, bits = message.subspace, message.subspace.parametrization, Bits()
    kind = ALONE[name]
    if subspace.dimension is not None:
        kind = IN_A_SUBSPACE.get(name, kind)
        bits.put(PROJECTORS.index(subspace.projector), 5)
    bits.number(len(message.coded.coordinates))
    if _seeded(name, subspace.dimension is not None):
        bits.put(int(subspace.seed == SEED), 1)
        if subspace.seed != SEED:
            bits.number(subspace.seed)
    if name in (*WITH_ALPHA, "tinylora"):
        bits.number(subspace.rank)
    if name in WITH_ALPHA:
        bits.number(int(subspace.lora_alpha))
    if name in early.IN_A_SUBSPACE:
        bits.number(subspace.blocks)
    if "biases" in name:
        _put_tokens(bits, subspace.tokens)
    if name not in WITHOUT_LAYERS:
        bits.put(mask_of(message), len(message.layers))
    first = alpha_index(message.alpha) | (kind & 7) << 3 | (kind >> 3) << 7
    if isinstance(message.coded, Gridded):
        return prefixed(bytes([FORMAT, first]) + bits.bytes() + _pack_grid(message.coded))
    coder, format, rest = pack(message.coded, len(FORMATS))
    bits.put(coder, 2)
    bits.put(format, 3)
    return prefixed(bytes([FORMAT, first | 64]) + bits.bytes() + rest)


def _seeded(name: str, projected: bool) -> bool:
    """Whether anything in a parametrization is drawn from the message's seed."""
    return projected or name not in ("full", "biases", "tinylora")


def _put_tokens(bits: Bits, tokens: str | tuple[int, ...]) -> None:
    if tokens == "end":
        raise SubloraError("subspace.tokens end: a message names tokens by their ids")
    ids = () if isinstance(tokens, str) else tokens
    bits.number(len(ids))
    for before, token in zip((-1, *ids), ids, strict=False):
        bits.number(token - before - 1)


def _take_tokens(bits: BitReader, most: int) -> str | tuple[int, ...]:
    if not (count := bits.number()):
        return "all"
    if count > most:
        raise MessageError(f"the message has biases of {count:,} tokens; the model has at most {most:,}")
    ids = [-1]
    for _ in range(count):
        ids.append(ids[-1] + 1 + bits.number())
    return tuple(ids[1:])


def _pack_grid(coded: Gridded) -> bytes:
    ends = np.cumsum([rows * columns for rows, columns in coded.shapes])[:-1]
    try:
        groups = [canonical(int(step), part) for step, part in zip(coded.steps, np.split(coded.integers, ends), strict=True)]
        return encode_grid(np.array([step for step, _ in groups]), np.concatenate([part for _, part in groups]), coded.shapes)
    except ValueError as error:
        raise SubloraError(f"compression.quantizer grid: {error}; has training diverged?") from None


def read(data: bytes, most: int, layers: tuple[str, ...] = LAYERS) -> Header:
    """The fields before the coordinates; `most` bounds d, and with it time and memory, before anything is decoded.

    layers: the names of the base model's layers. Raises MessageError for fields that `encode` cannot have written.
    """
    if Reader(data).byte() == early.FORMAT:
        message = early.decode(data, most, layers)
        return Header(message.subspace, message.alpha, len(message.coded.coordinates), None, Reader(data))
    reader = Reader(data, FORMAT)
    first = reader.byte()
    bits, kind = BitReader(reader), first >> 3 & 7 | first >> 7 << 3
    names = {number: name for name, number in IN_A_SUBSPACE.items()}
    alone = {number: name for name, number in ALONE.items()}
    parametrization = names.get(kind) or alone[kind]
    values: dict[str, Any] = {"parametrization": parametrization}
    projected = kind in names or parametrization in ("sublora", "subspace")
    if projected:
        if (projector := bits.take(5)) >= len(PROJECTORS):
            raise MessageError(f"unknown projector {projector} for {parametrization}")
        values["projector"] = PROJECTORS[projector]
    dimension = checked_dimension(bits.number(), most)
    if projected:
        values["dimension"] = dimension
    if _seeded(parametrization, projected):
        values["seed"] = SEED if bits.take(1) else bits.number()
    if parametrization in (*WITH_ALPHA, "tinylora"):
        values["rank"] = bits.number()
    if parametrization in WITH_ALPHA:
        values |= {"lora_alpha": float(bits.number()), "lora_dropout": 0.0}
    if parametrization in early.IN_A_SUBSPACE:
        values["blocks"] = bits.number()
    if "biases" in parametrization:
        values["tokens"] = _take_tokens(bits, most)
    if parametrization not in WITHOUT_LAYERS:
        values["targets"] = targets_of(bits.take(len(layers)), layers)
    levels = (bits.take(2), bits.take(3)) if first & 64 else None
    bits.end()
    return Header(stated(SubspaceSettings, values), ALPHA_GRID[first & 7], dimension, levels, reader)


def decode(
    data: bytes, most: int, layers: tuple[str, ...] = LAYERS, shapes: Callable[[SubspaceSettings], Shapes] | None = None
) -> Message:
    """The message that `data` is. most, layers: as for `read`.

    shapes: from the parametrization to the coordinates' groups, which the model has; None: one row. A message of a codebook needs
    none. Raises MessageError, saying what is wrong, for anything that `encode` cannot have made.
    """
    if Reader(data).byte() == early.FORMAT:
        return early.decode(data, most, layers)
    header = read(data, most, layers)
    coded: Coded | Gridded
    if header.levels is None:
        groups = [(1, header.dimension)] if shapes is None else shapes(header.subspace)
        if (size := sum(rows * columns for rows, columns in groups)) != header.dimension:
            raise MessageError(f"the message has {header.dimension:,} coordinates, the model {size:,}")
        coded = Gridded(*decode_grid(header.rest.rest(), groups), groups)
    else:
        coded = unpack(header.rest, *header.levels, header.dimension)
    message = Message(header.subspace, header.alpha, coded, layers)
    only_form(data, lambda: encode(message))
    return message


def with_alpha(data: bytes, alpha: float, most: int, layers: tuple[str, ...]) -> bytes:
    """The same message with another smoothing weight; of the coordinates nothing is read. Raises as `read`."""
    if Reader(data).byte() == early.FORMAT:
        return early.encode(replace(early.decode(data, most, layers), alpha=alpha))
    read(data, most, layers)
    reader = Reader(data, FORMAT)
    place = reader.position
    return data[:place] + bytes([data[place] & 0xF8 | alpha_index(alpha)]) + data[place + 1 :]


def largest_dimension(model: Gpt | Pretrained, vocab_size: int) -> int:
    """No parametrization trains more weights than this: LoRA of a rank up to the width has at most twice the model's."""
    return 2 * model_weights(model, vocab_size)


def rebuild(data: bytes, model: Gpt | Pretrained, vocab_size: int, local_only: bool = False) -> tuple[Subspace, Message]:
    """The model that `data` is, from these bytes and public facts alone; in evaluation mode.

    local_only: a pretrained base is not downloaded.
    Raises MessageError when the bytes are not a message for this base model; SubloraError when the base cannot be had here.
    """
    most, layers = largest_dimension(model, vocab_size), layer_names(model)
    header = read(data, most, layers)
    if isinstance(model, Gpt) and header.subspace.model_dump().get("blocks", 0) > model.width:
        raise MessageError(f"the message has {header.subspace.blocks:,} blocks, beyond any use at width {model.width}")
    base = base_model(model, vocab_size, local_only)
    try:
        subspace = parametrize(base, model, header.subspace)
    except SubloraError as error:
        raise MessageError(f"the message does not fit the base model: {error}") from None
    message = decode(data, most, layers, lambda _: subspace.groups)
    return with_coordinates(lambda: subspace, message.coded), message
