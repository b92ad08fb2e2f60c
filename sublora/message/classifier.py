"""The message of a fine-tuned classifier: a byte string that is, with the public base model, the whole classifier.

    bytes      field
    1-5        total length of the message in bytes, as a canonical varint (`message.language`)
    1          format, 0x47
    1          low bit: parametrization, 0 sublora, 1 lora; next 2: modules, 1 attention, 2 head, 3 both, or 0: the base's own
               weights, and the parametrization is 0 subspace, 1 full; high 5: index of the projector in
               `models.projectors.PROJECTORS`, 0 where there is none
    varint     d, the number of coordinates
    [varint]   seed of the projector and of LoRA's first matrices      only where there are such
    varint     seed of what is random in the base model
    [varint    LoRA's rank                                              only with attention
     varint]   LoRA's alpha, an integer
    [varint    number of buckets                                        only for the small model
     1         buckets of a word
     1]        letters of a word that count
    1          low 3 bits: index of the coder in `coder.CODERS`; high 5: of the codebook's format in `codebooks.FORMATS`
    1          L, the number of quantization levels, 1 to 255
    0 to 2L    the levels (`codebooks`)
    the rest   the d symbols (`coder`)

As in `message.language`, the length comes first and is checked, so the set of messages is prefix-free, and every bit counts.
What is not here is public: the task with its classes, the model's name with its pretrained weights, max_length.
The head has as many rows as the task has classes (a bag of words one less). Their number and order are a function of the settings,
or of all examples of the source, never of those drawn to train on: pool and unseen need no more. For iid they are fixed
if the source has no other labels, which the certificate then says (`classes_from`).
"""

from dataclasses import dataclass
from typing import Any

from sublora.compression.codebooks import EARLY_FORMATS
from sublora.experiment import Encoder, TaskSubspace, Words
from sublora.message.body import Coded, lora_fields, pack, read_dimension, read_lora, stated, unpack, with_coordinates
from sublora.message.frame import MessageError, Reader, only_form, prefixed, varint
from sublora.models import Subspace
from sublora.models.classifiers import LARGEST_HEAD, base_sha256s, classifier_base, classifier_in_subspace
from sublora.models.projectors import PROJECTORS

FORMAT = 0x47
PARAMETRIZATIONS = ("sublora", "lora", "subspace", "full")
MODULES = (("attention",), ("head",), ("attention", "head"))


@dataclass(frozen=True)
class ClassifierMessage:
    """What the bytes say. model: the public base with the message's choices; coded: the quantized coordinates."""

    model: Words | Encoder
    subspace: TaskSubspace
    coded: Coded


def encode(message: ClassifierMessage) -> bytes:
    """The bytes of a message. Raises SubloraError for what the format cannot say."""
    model, subspace = message.model, message.subspace
    coder, format, rest = pack(message.coded)
    projector = 0 if subspace.dimension is None else PROJECTORS.index(subspace.projector)
    own, low = divmod(PARAMETRIZATIONS.index(subspace.parametrization), 2)
    kind = low | (0 if own else MODULES.index(subspace.modules) + 1) << 1 | projector << 3
    body = bytes([FORMAT, kind]) + varint(len(message.coded.symbols))
    if "seed" in subspace.model_dump():
        body += varint(subspace.seed)
    body += varint(model.seed)
    if subspace.adapts_attention:
        body += lora_fields(subspace)
    if isinstance(model, Words):
        body += varint(model.buckets) + bytes([model.hashes, model.prefix])
    return prefixed(body + bytes([coder | format << 3]) + rest)


def decode(data: bytes, public: Words | Encoder, most: int) -> ClassifierMessage:
    """The message that `data` is, on top of the public base; what the message says replaces what `public` says.

    most: bounds d before anything is decoded. Raises MessageError for anything that `encode` cannot have made.
    """
    reader = Reader(data, FORMAT)
    kind = reader.byte()
    modules, projector = kind >> 1 & 3, kind >> 3
    parametrization = PARAMETRIZATIONS[(kind & 1) + (0 if modules else 2)]
    projected = parametrization in ("sublora", "subspace")
    if projector >= len(PROJECTORS) or (projector and not projected):
        raise MessageError(f"unknown projector {projector} for {parametrization}")
    dimension = read_dimension(reader, most)
    values: dict[str, Any] = {"parametrization": parametrization}
    if modules:
        values["modules"] = MODULES[modules - 1]
    if projected or "attention" in values.get("modules", ()):
        values["seed"] = reader.varint()
    choices: dict[str, Any] = {"seed": reader.varint()}
    if projected:
        values |= {"dimension": dimension, "projector": PROJECTORS[projector]}
    if "attention" in values.get("modules", ()):
        values |= read_lora(reader)
    if isinstance(public, Words):
        choices |= {"buckets": reader.varint(), "hashes": reader.byte(), "prefix": reader.byte()}
    how = reader.byte(EARLY_FORMATS << 3)
    coded = unpack(reader, how & 7, how >> 3, dimension)
    model = stated(type(public), {**public.model_dump(), **choices})
    message = ClassifierMessage(model, stated(TaskSubspace, values), coded)
    only_form(data, lambda: encode(message))
    return message


def rebuild(
    data: bytes, public: Words | Encoder, labels: int, max_length: int, local_only: bool = False
) -> tuple[Subspace, ClassifierMessage, dict[str, str | None]]:
    """(classifier, message, `base_sha256s` of the base model), from these bytes and public facts alone; in evaluation mode.

    local_only: nothing is downloaded. Raises MessageError when the bytes are not a message for this base model.
    """
    # How many coordinates there may be is public: a short message can claim, and take, hundreds of megabytes.
    base = None if isinstance(public, Words) else classifier_base(public, labels, max_length, local_only)
    message = decode(data, public, LARGEST_HEAD if base is None else 2 * _weights(base))
    if isinstance(message.model, Words) and (labels - 1) * (message.model.buckets + 1) > LARGEST_HEAD:
        raise MessageError(f"the message has {message.model.buckets:,} buckets, too many for {labels:,} classes")
    if base is None or message.model.seed != public.seed:
        base = classifier_base(message.model, labels, max_length, local_only)
    sha256s = base_sha256s(base)
    return with_coordinates(lambda: classifier_in_subspace(base, message.subspace), message.coded), message, sha256s


def _weights(base: Any) -> int:
    return sum(parameter.numel() for parameter in base.parameters())
