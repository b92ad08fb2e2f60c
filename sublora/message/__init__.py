"""Messages: byte strings that are models. A format a module, and one `decode` for all of them."""

from sublora.message.body import Coded, Gridded, published_bits
from sublora.message.configuration import configured, unwrapped
from sublora.message.frame import MessageError
from sublora.message.hypothesis import CODECS, Hypothesis, decode, message_settings, read_configuration, with_alpha
