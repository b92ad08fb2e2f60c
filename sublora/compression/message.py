"""The message: a byte string that is a model.

    bytes      field
    1-5        total length of the message in bytes, as a canonical varint (7 bits a byte, low bits first)
    1          format, 0x52
    1          low 3 bits: parametrization, 0 sublora, 1 lora, 2 subspace, 3 full, 4 kronecker, 5 monarch, 6 and 7 these two in a
               subspace; high 5 bits: index of the projector in `models.projectors.PROJECTORS`, 0 where there is none
    varint     d, the number of coordinates
    varint     seed of the projector, and of the initial weights of LoRA or of structured layers
    [varint    LoRA's rank                                              only for sublora and lora
     varint]   LoRA's alpha, an integer
    [varint]   number of blocks or factors                              only for kronecker and monarch
    [1]        layers they are on, a bit each: q k v proj up down head  only for these four
    1          low 3 bits: index of the smoothing weight in `config.ALPHA_GRID`; next 2: of the coder in `coder.CODERS`;
               high 3: of the codebook's format in `codebooks.FORMATS`
    1          L, the number of quantization levels, 2 to 255
    4 to 2L    the levels (`codebooks`): 16-bit floats, strictly ascending and finite
    the rest   the d symbols (`coder`)

A message states its own length first and is rejected at any other, so no message is the beginning of another: the set of messages
is prefix-free, Kraft's inequality holds, and 2^(-8·bytes) is a prior over models (THEORY: Lotfi et al. 2024a, section 3). Every
bit counts, the length field too. There is no checksum: a changed byte makes another model, or none, and a certificate holds the
message's SHA-256, which costs nothing. What is not in the message (architecture, initial weights, tokenizer) is public: fixed
before the training split was drawn.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import ValidationError

from sublora import config
from sublora.compression.codebooks import FORMATS, pack_codebook, packed_size, unpack_codebook
from sublora.compression.coder import CODERS, decode_symbols, entropy_bits, shortest
from sublora.compression.fields import MessageError, Reader, prefixed, varint
from sublora.errors import SubloraError
from sublora.models import Subspace, build, model_weights
from sublora.models.projectors import PROJECTORS

FORMAT = 0x52
IN_A_SUBSPACE = {"kronecker": 6, "monarch": 7}
TARGETS = ("q", "k", "v", "proj", "up", "down", "head")


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
    if len(codebook) < 2:
        raise SubloraError("compression.levels: all coordinates have fallen onto one level; train longer, or use more levels")
    coder, payload = shortest(message.symbols, codebook)
    format, levels = pack_codebook(codebook)
    body = bytes([FORMAT, _kind(subspace)]) + varint(len(message.symbols)) + varint(subspace.seed)
    if subspace.parametrization in ("sublora", "lora"):
        if subspace.lora_alpha != int(subspace.lora_alpha):
            raise SubloraError(f"subspace.lora_alpha {subspace.lora_alpha} must be an integer, to be in the message")
        body += varint(subspace.rank) + varint(int(subspace.lora_alpha))
    if subspace.parametrization in IN_A_SUBSPACE:
        body += varint(subspace.blocks)
    if subspace.parametrization not in ("subspace", "full"):
        unknown = set(subspace.targets) - set(TARGETS)
        if unknown:
            raise SubloraError(f"subspace.targets: {sorted(unknown)[0]!r} is none of {', '.join(TARGETS)}")
        body += bytes([sum(1 << TARGETS.index(target) for target in set(subspace.targets))])
    choices = config.ALPHA_GRID.index(message.alpha) | CODERS.index(coder) << 3 | format << 5
    body += bytes([choices, len(codebook)]) + levels + payload
    return prefixed(body)


def _kind(subspace: config.Subspace) -> int:
    """The byte that names parametrization and projector."""
    kind = config.PARAMETRIZATIONS.index(subspace.parametrization)
    if subspace.dimension is None:
        return kind
    return IN_A_SUBSPACE.get(subspace.parametrization, kind) | PROJECTORS.index(subspace.projector) << 3


def decode(data: bytes, most: int) -> Message:
    """The message that `data` is; `most` bounds d, and with it time and memory, before anything is decoded.

    Raises MessageError, saying what is wrong, for anything that `encode` cannot have made.
    """
    reader = Reader(data)
    if (found := reader.byte()) != FORMAT:
        raise MessageError(f"unknown message format {found:#04x}; this version of sublora reads {FORMAT:#04x}")
    values = _parametrization(reader.byte())
    parametrization, dimension, values["seed"] = values["parametrization"], reader.varint(), reader.varint()
    if not 1 <= dimension <= most:
        raise MessageError(f"the message has {dimension:,} coordinates; the model has at most {most:,}")
    values["dimension"] = dimension if values.pop("subspace") else None
    if parametrization in ("sublora", "lora"):
        values["rank"], values["lora_alpha"] = reader.varint(), float(reader.varint())
    if parametrization in IN_A_SUBSPACE:
        values["blocks"] = reader.varint()
    if parametrization not in ("subspace", "full"):
        mask = reader.byte(1 << len(TARGETS), "layers")
        values["targets"] = tuple(target for bit, target in enumerate(TARGETS) if mask >> bit & 1)
    choices, levels = reader.byte(len(FORMATS) << 5, "codebook format"), reader.byte()
    alpha, coder, format = config.ALPHA_GRID[choices & 7], CODERS[choices >> 3 & 3], choices >> 5
    if levels < 2:
        raise MessageError(f"the message has {levels} quantization levels, fewer than 2")
    try:
        codebook = unpack_codebook(format, reader.take(packed_size(format, levels)), levels)
        symbols = decode_symbols(reader.rest(), dimension, levels, coder, codebook)
    except ValueError as error:
        raise MessageError(f"the message cannot be decoded: {error}") from None
    try:
        subspace = config.Subspace(lora_dropout=0.0, **values)
    except ValidationError as error:
        raise MessageError(f"the message has an impossible {error.errors()[0]['loc'][0]}") from None
    return Message(subspace, alpha, codebook, symbols)


def _parametrization(byte: int) -> dict[str, str | bool]:
    """What the byte of `_kind` says: parametrization, projector, and whether it is used (subspace)."""
    kind, projector = byte & 7, byte >> 3
    names = {number: name for name, number in IN_A_SUBSPACE.items()}
    name = names.get(kind) or config.PARAMETRIZATIONS[kind]
    subspace = kind in names or name in ("sublora", "subspace")
    if projector >= len(PROJECTORS) or (projector and not subspace):
        raise MessageError(f"the message names projector {projector}, which there is not (for {name})")
    return {"parametrization": name, "projector": PROJECTORS[projector], "subspace": subspace}


def largest_dimension(model: config.Model, vocab_size: int) -> int:
    """No parametrization trains more weights than this: LoRA of a rank up to the width has at most twice the model's."""
    return 2 * model_weights(model, vocab_size)


def rebuild(data: bytes, model: config.Model, vocab_size: int) -> tuple[Subspace, Message]:
    """The model that `data` is, from these bytes and public facts alone; in evaluation mode, its weights written out.

    Raises MessageError when the bytes are not a message for this architecture.
    """
    message = decode(data, largest_dimension(model, vocab_size))
    if max(message.subspace.rank, message.subspace.blocks) > model.width:
        raise MessageError(f"the message has a LoRA rank or a number of blocks beyond any use at width {model.width}")
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
