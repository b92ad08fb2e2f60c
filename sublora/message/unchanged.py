"""The message of a pretrained model as it is: no coordinates, so that little more than its configuration is paid for.

    bytes      field
    1-5        total length in bytes, as a canonical varint
    1          format, 0x5A
    1          index of the smoothing weight in `experiment.ALPHA_GRID`

The configuration of the pretrained model stands in front (`message.configuration`); its weights are public.
"""

from sublora.experiment import ALPHA_GRID
from sublora.message.frame import Reader, alpha_index, only_form, prefixed

FORMAT = 0x5A


def encode_unchanged(alpha: float) -> bytes:
    """The bytes of the message. Raises SubloraError for an alpha that is not in the grid."""
    return prefixed(bytes([FORMAT, alpha_index(alpha)]))


def decode_unchanged(data: bytes) -> float:
    """The smoothing weight. Raises MessageError for anything that `encode_unchanged` cannot have made."""
    alpha = ALPHA_GRID[Reader(data, FORMAT).byte(len(ALPHA_GRID), "smoothing weight")]
    only_form(data, lambda: encode_unchanged(alpha))
    return alpha
