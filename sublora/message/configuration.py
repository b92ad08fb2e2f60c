"""The configuration of a pretrained model, in front of a message: another one makes another model of the same weights.

    bytes      field
    1-5        total length in bytes, as a canonical varint
    1          format, 0x45: fields, then a message of another format
    for each field, tags ascending:
      varint   tag: 1 configuration (2 to 5 are reserved: reference, beta, offset, direction)
      varint   length in bytes
               the configuration: number of characters as a varint, then the characters of its JSON text (`coder`, adaptive)
    1          0
    the rest   the message, without its length

The text has one form: ASCII, sorted keys, no spaces, whole numbers without a point. `models.pretrained` says which keys.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from sublora.compression.coder import decode_symbols, encode_symbols
from sublora.message.frame import MessageError, Reader, only_form, prefixed, varint

FORMAT, TAG = 0x45, 1
CHARACTERS, LONGEST = 128, 2**16


def configured(configuration: Mapping[str, Any] | None, message: bytes) -> bytes:
    """The message behind a configuration; the message itself where there is none."""
    if configuration is None:
        return message
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":")).encode()
    field = varint(len(text)) + encode_symbols(np.frombuffer(text, np.uint8), CHARACTERS)
    return prefixed(bytes([FORMAT]) + varint(TAG) + varint(len(field)) + field + varint(0) + Reader(message).rest())


def unwrapped(data: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """The inverse of `configured`. Raises MessageError for anything that it cannot have made."""
    reader = Reader(data)
    if not data[reader.position :].startswith(bytes([FORMAT])):
        return None, data
    reader.byte()
    if (tag := reader.varint()) != TAG:
        raise MessageError(f"the message has field {tag} where the configuration must be: it needs another version of sublora")
    end = reader.varint() + reader.position
    if not 0 < (size := reader.varint()) <= LONGEST:
        raise MessageError(f"the message's configuration has {size:,} characters; there are 1 to {LONGEST:,}")
    try:
        text = decode_symbols(reader.take(end - reader.position), size, CHARACTERS).tobytes()
        configuration = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("the message's configuration is no JSON text") from None
    if (tag := reader.varint()) != 0:
        raise MessageError(f"the message has field {tag}: it needs a later version of sublora")
    if not isinstance(configuration, dict):
        raise MessageError("the message's configuration is no group of keys")
    message = prefixed(reader.rest())
    only_form(data, lambda: configured(configuration, message))
    return configuration, message
