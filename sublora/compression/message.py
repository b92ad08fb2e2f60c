"""The message: a byte string that is a model.

    bytes      field
    1-4        total length of the message in bytes, as a canonical varint (7 bits a byte, low bits first)
    1          format, 0x51
    2          CRC-16 (CCITT) of all other bytes, big-endian
    1          parametrization: 0 sublora, 1 lora, 2 subspace, 3 full
    varint     d, the number of coordinates
    varint     seed of LoRA's initial weights and of the projector
    [varint    LoRA's rank                                              only for
     varint    LoRA's alpha, an integer                                 sublora
     1]        layers it is on, a bit each: q k v proj up down head     and lora
    1          index of the smoothing weight in `config.ALPHA_GRID`
    1          L, the number of quantization levels, 2 to 255
    2L         the levels, float16, big-endian, strictly ascending and finite
    the rest   the d symbols (`coder`)

A message states its own length first and is rejected at any other, so no message is the beginning of another: the set of messages
is prefix-free, Kraft's inequality holds, and 2^(-8·bytes) is a prior over models (THEORY: Lotfi et al. 2024a, section 3). Every
bit counts, the length field and the checksum too. What is not in the message (architecture, initial weights, tokenizer) is
public: fixed before the training split was drawn.
"""

import binascii
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import ValidationError

from sublora import config
from sublora.compression.coder import decode_symbols, encode_symbols, entropy_bits
from sublora.errors import SubloraError
from sublora.models import Subspace, build, model_weights

FORMAT = 0x51
PARAMETRIZATIONS = ("sublora", "lora", "subspace", "full")
TARGETS = ("q", "k", "v", "proj", "up", "down", "head")
VARINT_BYTES = 4
"""Numbers up to 2^28 - 1: no message is longer, no dimension larger."""


class MessageError(SubloraError):
    """The bytes are not a message."""


@dataclass(frozen=True)
class Message:
    """What the bytes say. codebook: float16 (L,), ascending; symbols: integers (d,) in [0, L)."""

    subspace: config.Subspace
    alpha: float
    codebook: np.ndarray
    symbols: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """w, float32 (d,)."""
        return self.codebook.astype(np.float32)[self.symbols]

    def with_alpha(self, alpha: float) -> "Message":
        """The same model with another smoothing weight of the grid: another hypothesis, of the same length."""
        return replace(self, alpha=alpha)


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises SubloraError for what the format cannot say."""
    subspace, codebook = message.subspace, np.asarray(message.codebook, np.float16)
    if message.alpha not in config.ALPHA_GRID:
        raise SubloraError(f"alpha {message.alpha} is not in the grid {config.ALPHA_GRID}")
    if not np.isfinite(codebook).all() or not (np.diff(codebook) > 0).all():
        raise SubloraError(f"compression.levels: the {len(codebook)} levels are not distinct finite 16-bit floats; use fewer")
    body = bytes([FORMAT]) + b"\0\0" + bytes([PARAMETRIZATIONS.index(subspace.parametrization)])
    body += _varint(len(message.symbols)) + _varint(subspace.seed)
    if subspace.parametrization in ("sublora", "lora"):
        if subspace.lora_alpha != int(subspace.lora_alpha):
            raise SubloraError(f"subspace.lora_alpha {subspace.lora_alpha} must be an integer, to be in the message")
        unknown = set(subspace.targets) - set(TARGETS)
        if unknown:
            raise SubloraError(f"subspace.targets: {sorted(unknown)[0]!r} is none of {', '.join(TARGETS)}")
        body += _varint(subspace.rank) + _varint(int(subspace.lora_alpha))
        body += bytes([sum(1 << TARGETS.index(target) for target in set(subspace.targets))])
    body += bytes([config.ALPHA_GRID.index(message.alpha), len(codebook)])
    body += codebook.astype(">f2").tobytes() + encode_symbols(message.symbols, len(codebook))
    size = len(body) + 1
    while len(prefix := _varint(size)) + len(body) != size:
        size = len(prefix) + len(body)
    checksum = binascii.crc_hqx(prefix + body, 0xFFFF).to_bytes(2, "big")
    return prefix + body[:1] + checksum + body[3:]


def decode(data: bytes, largest_dimension: int) -> Message:
    """The message that `data` is; `largest_dimension` bounds d, and with it time and memory, before anything is decoded.

    Raises MessageError, saying what is wrong, for anything that `encode` cannot have made.
    """
    size, begin = _read_varint(data, 0)
    if size != len(data):
        raise MessageError(f"the message says that it has {size:,} bytes, but there are {len(data):,}: it is truncated or extended")
    reader = _Reader(data, begin)
    if (found := reader.byte()) != FORMAT:
        raise MessageError(f"unknown message format {found:#04x}; this version of sublora reads {FORMAT:#04x}")
    checksum = int.from_bytes(reader.take(2), "big")
    if binascii.crc_hqx(data[: begin + 1] + b"\0\0" + data[begin + 3 :], 0xFFFF) != checksum:
        raise MessageError("the checksum of the message is wrong: at least one byte was changed")
    parametrization = PARAMETRIZATIONS[reader.byte(len(PARAMETRIZATIONS), "parametrization")]
    dimension, seed = reader.varint(), reader.varint()
    if not 1 <= dimension <= largest_dimension:
        raise MessageError(f"the message has {dimension:,} coordinates; the model has at most {largest_dimension:,}")
    values = {"parametrization": parametrization, "seed": seed, "lora_dropout": 0.0}
    values["dimension"] = dimension if parametrization in ("sublora", "subspace") else None
    if parametrization in ("sublora", "lora"):
        values["rank"], values["lora_alpha"] = reader.varint(), float(reader.varint())
        mask = reader.byte(1 << len(TARGETS), "layers")
        values["targets"] = tuple(target for bit, target in enumerate(TARGETS) if mask >> bit & 1)
    alpha = config.ALPHA_GRID[reader.byte(len(config.ALPHA_GRID), "smoothing weight")]
    levels = reader.byte()
    if levels < 2:
        raise MessageError(f"the message has {levels} quantization levels, fewer than 2")
    codebook = np.frombuffer(reader.take(2 * levels), dtype=">f2").astype(np.float16)
    if not np.isfinite(codebook).all() or not (np.diff(codebook) > 0).all():
        raise MessageError("the levels of the message are not ascending finite numbers")
    try:
        symbols = decode_symbols(reader.rest(), dimension, levels)
    except ValueError as error:
        raise MessageError(f"the message cannot be decoded: {error}") from None
    try:
        subspace = config.Subspace(**values)
    except ValidationError as error:
        raise MessageError(f"the message has an impossible {error.errors()[0]['loc'][0]}") from None
    return Message(subspace, alpha, codebook, symbols)


def rebuild(data: bytes, model: config.Model, vocab_size: int) -> tuple[Subspace, Message]:
    """The model that `data` is, from these bytes and public facts alone; in evaluation mode, its weights written out.

    Raises MessageError when the bytes are not a message for this architecture.
    """
    # No parametrization trains more weights than this: LoRA of a rank up to the width has at most twice the model's.
    message = decode(data, largest_dimension=2 * model_weights(model, vocab_size))
    if message.subspace.rank > model.width:
        raise MessageError(f"the message has LoRA rank {message.subspace.rank:,}, beyond any use at width {model.width}")
    try:
        subspace = build(model, message.subspace, vocab_size)
    except SubloraError as error:
        raise MessageError(f"the message does not fit the architecture: {error}") from None
    if subspace.coordinates.numel() != len(message.symbols):
        raise MessageError(f"the message has {len(message.symbols):,} coordinates, the model {subspace.coordinates.numel():,}")
    with torch.no_grad():
        subspace.coordinates.copy_(torch.from_numpy(message.coordinates))
    return subspace.eval(), message


def published_bits(message: Message, hyperparameter_bits: int = 7) -> float:
    """Size of the model in bits as the publication counts it: an estimate for comparison, not certified.

    C + 2·log2 C + the hyperparameters' bits, with C = ⌈d·H⌉ + 1 for the symbols, 16 bits a level and ⌈log2 d⌉ bits for each
    level's count (Lotfi et al. 2024a, released code; 7 bits are its default for hyperparameters).
    """
    d, levels = len(message.symbols), len(message.codebook)
    size = np.ceil(entropy_bits(message.symbols)) + 1 + levels * (16 + np.ceil(np.log2(d)))
    return float(size + 2 * np.log2(size) + hyperparameter_bits)


def _varint(number: int) -> bytes:
    if not 0 <= number < 1 << 7 * VARINT_BYTES:
        raise SubloraError(f"{number:,} is too large for a message (at most {(1 << 7 * VARINT_BYTES) - 1:,})")
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = 0
    for index in range(VARINT_BYTES):
        if position + index >= len(data):
            break
        byte = data[position + index]
        number |= (byte & 127) << 7 * index
        if byte < 128:
            if byte == 0 and index:
                raise MessageError("a number of the message is not in its shortest form")
            return number, position + index + 1
    raise MessageError("the message is truncated or not a message: a number has no end")


class _Reader:
    """Takes fields off the front of a message."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position

    def take(self, size: int) -> bytes:
        if self.position + size > len(self.data):
            raise MessageError("the message ends within its header: it is truncated")
        self.position += size
        return self.data[self.position - size : self.position]

    def byte(self, limit: int = 256, what: str = "byte") -> int:
        value = self.take(1)[0]
        if value >= limit:
            raise MessageError(f"the message names {what} {value}; there are {limit}")
        return value

    def varint(self) -> int:
        number, self.position = _read_varint(self.data, self.position)
        return number

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)
