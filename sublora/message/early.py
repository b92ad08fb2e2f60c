"""Format 0x52, which kept certificates have: read, and written again to compare. New messages have `message.language`'s.

    bytes      field
    1-5        total length of the message in bytes, as a canonical varint (7 bits a byte, low bits first)
    1          format, 0x52
    1          low 3 bits: parametrization, 0 sublora, 1 lora, 2 subspace, 3 full, 4 kronecker, 5 monarch, 6 and 7 these two in a
               subspace; high 5 bits: index of the projector in `models.projectors.PROJECTORS`, 0 where there is none
    varint     d, the number of coordinates
    [varint]   seed of the projector, and of the initial weights of LoRA or of structured layers; not for full
    [varint    LoRA's rank                                              only for sublora and lora
     varint]   LoRA's alpha, an integer
    [varint]   number of blocks or factors                              only for kronecker and monarch
    [varint]   layers they are on, a bit each: q k v proj up down head  only for these four
               or, of a pretrained model, the names of its linear layers in alphabetical order (`models.layer_names`)
    1          low 3 bits: index of the smoothing weight in `experiment.ALPHA_GRID`; next 2: of the coder in `coder.CODERS`;
               high 3: of the codebook's format in `codebooks.FORMATS`
    1          L, the number of quantization levels, 1 to 255
    0 to 2L    the levels (`codebooks`): 16-bit floats, strictly ascending and finite
    the rest   the d symbols (`coder`)
"""

from typing import Any

from sublora.compression.codebooks import EARLY_FORMATS
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, LAYERS, PARAMETRIZATIONS
from sublora.experiment import Subspace as SubspaceSettings
from sublora.message.body import Coded, Message, lora_fields, mask_of, pack, read_dimension, read_lora, stated, targets_of, unpack
from sublora.message.frame import MessageError, Reader, alpha_index, only_form, prefixed, varint
from sublora.models.projectors import PROJECTORS

FORMAT = 0x52
IN_A_SUBSPACE = {"kronecker": 6, "monarch": 7}
KNOWN = PARAMETRIZATIONS[:6]


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises SubloraError for what the format cannot say."""
    subspace, alpha = message.subspace, alpha_index(message.alpha)
    if subspace.parametrization not in KNOWN:
        raise SubloraError(f"parametrization {subspace.parametrization} came after format {FORMAT:#04x}")
    assert isinstance(message.coded, Coded)  # steps came with `message.language`
    coder, format, rest = pack(message.coded)
    body = bytes([FORMAT, _kind(subspace)]) + varint(len(message.coded.symbols))
    if subspace.parametrization != "full":
        body += varint(subspace.seed)
    if subspace.parametrization in ("sublora", "lora"):
        body += lora_fields(subspace)
    if subspace.parametrization in IN_A_SUBSPACE:
        body += varint(subspace.blocks)
    if subspace.parametrization not in ("subspace", "full"):
        body += varint(mask_of(message))
    return prefixed(body + bytes([alpha | coder << 3 | format << 5]) + rest)


def _kind(subspace: SubspaceSettings) -> int:
    """The byte that names parametrization and projector."""
    kind = PARAMETRIZATIONS.index(subspace.parametrization)
    if subspace.dimension is None:
        return kind
    return IN_A_SUBSPACE.get(subspace.parametrization, kind) | PROJECTORS.index(subspace.projector) << 3


def decode(data: bytes, most: int, layers: tuple[str, ...] = LAYERS) -> Message:
    """The message that `data` is; `most` bounds d, and with it time and memory, before anything is decoded.

    layers: the names of the base model's layers.
    Raises MessageError, saying what is wrong, for anything that `encode` cannot have made.
    """
    reader = Reader(data, FORMAT)
    projector, kind = divmod(reader.byte(), 8)
    names = {number: name for name, number in IN_A_SUBSPACE.items()}
    parametrization = names.get(kind) or PARAMETRIZATIONS[kind]
    projected = kind in names or parametrization in ("sublora", "subspace")
    if projector >= len(PROJECTORS) or (projector and not projected):
        raise MessageError(f"unknown projector {projector} for {parametrization}")
    dimension = read_dimension(reader, most)
    values: dict[str, Any] = {"parametrization": parametrization}
    if parametrization != "full":
        values["seed"] = reader.varint()
    if projected:
        values |= {"dimension": dimension, "projector": PROJECTORS[projector]}
    if parametrization in ("sublora", "lora"):
        values |= read_lora(reader)
    if parametrization in IN_A_SUBSPACE:
        values["blocks"] = reader.varint()
    if parametrization not in ("subspace", "full"):
        values["targets"] = targets_of(reader.varint(), layers)
    choices = reader.byte(EARLY_FORMATS << 5, "codebook format")
    coded = unpack(reader, choices >> 3 & 3, choices >> 5, dimension)
    message = Message(stated(SubspaceSettings, values), ALPHA_GRID[choices & 7], coded, layers)
    only_form(data, lambda: encode(message))
    return message

