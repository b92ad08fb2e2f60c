"""What all messages are made of: numbers of few bytes, and a length in front, so that no message is the beginning of another."""

from collections.abc import Callable

from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID

VARINT_BYTES = 5
"""Numbers up to 2^35 - 1: no message is longer, no dimension larger."""


class MessageError(SubloraError):
    """The bytes are not a message."""


def varint(number: int) -> bytes:
    """A number in 7 bits a byte, low bits first. Raises SubloraError for negative ones and those above 2^35 - 1."""
    if not 0 <= number < 1 << 7 * VARINT_BYTES:
        raise SubloraError(f"{number:,} is too large for a message (at most {(1 << 7 * VARINT_BYTES) - 1:,})")
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def alpha_index(alpha: float) -> int:
    """The number by which messages name a smoothing weight. Raises SubloraError for one that is not in the grid."""
    if alpha not in ALPHA_GRID:
        raise SubloraError(f"alpha {alpha} is not in the grid {ALPHA_GRID}")
    return ALPHA_GRID.index(alpha)


def prefixed(body: bytes) -> bytes:
    """`body` behind the length of the whole, which counts itself."""
    size = len(body) + 1
    while len(prefix := varint(size)) + len(body) != size:
        size = len(prefix) + len(body)
    return prefix + body


def only_form(data: bytes, again: Callable[[], bytes]) -> None:
    """Raises MessageError unless `again`, which encodes what was decoded of `data`, gives the same bytes.

    Else one model would have many messages, and each would draw another subsample.
    """
    try:
        same = again() == data
    except SubloraError:
        same = False
    if not same:
        raise MessageError("the message has another form than what it says is written in: it was altered, or padded")


class Reader:
    """Takes fields off a message; never reads beyond its end. Raises MessageError for another length, or another format."""

    def __init__(self, data: bytes, format: int | None = None):
        self.data, self.position = data, 0
        if (size := self.varint()) != len(data):
            counts = f"it has {size:,} bytes, but there are {len(data):,}"
            raise MessageError(f"the message says that {counts}: it is truncated or extended")
        if format is not None and (found := self.byte()) != format:
            raise MessageError(f"the message has format {found:#04x}, not {format:#04x}")

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.position:
            raise MessageError("the message ends within a field: it is truncated")
        self.position += size
        return self.data[self.position - size : self.position]

    def byte(self, limit: int = 256, what: str = "byte") -> int:
        value = self.take(1)[0]
        if value >= limit:
            raise MessageError(f"the message names {what} {value}; there are {limit}")
        return value

    def varint(self) -> int:
        """A number. Raises MessageError for one that has no end or is not in its shortest form."""
        number = 0
        for index, byte in enumerate(self.data[self.position : self.position + VARINT_BYTES]):
            number |= (byte & 127) << 7 * index
            if byte < 128:
                if byte == 0 and index:
                    raise MessageError("a number of the message is not in its shortest form")
                self.position += index + 1
                return number
        raise MessageError("the message is truncated or not a message: a number has no end")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)


class Bits:
    """Fields of single bits, the high bit first."""

    def __init__(self) -> None:
        self.value, self.size = 1, 0

    def put(self, value: int, size: int) -> None:
        self.value, self.size = self.value << size | value, self.size + size

    def number(self, number: int) -> None:
        """A number: 6 bits for its length, and all but its first bit. Raises SubloraError as `varint`."""
        varint(number)
        size = number.bit_length()
        self.put(size, 6)
        self.put(number & ~(1 << size >> 1), max(size - 1, 0))

    def bytes(self) -> bytes:
        """All of it, with zeros to the end of the last byte."""
        padding = -self.size % 8
        size = (self.size + padding) // 8
        return (self.value << padding & (1 << 8 * size) - 1).to_bytes(size, "big")


class BitReader:
    """Takes what `Bits` wrote off a message. Raises MessageError at the message's end, and for what `Bits` does not write."""

    def __init__(self, reader: Reader):
        self.reader, self.value, self.size = reader, 0, 0

    def take(self, size: int) -> int:
        while self.size < size:
            self.value, self.size = self.value << 8 | self.reader.byte(), self.size + 8
        self.size -= size
        taken, self.value = self.value >> self.size, self.value & (1 << self.size) - 1
        return taken

    def number(self) -> int:
        size = self.take(6)
        if size > 7 * VARINT_BYTES:
            raise MessageError(f"a number of the message has {size} bits; {7 * VARINT_BYTES} are the most")
        return 1 << size - 1 | self.take(size - 1) if size else 0

    def end(self) -> None:
        if self.value:
            raise MessageError("the message has bits where its last byte of fields is filled with zeros")
