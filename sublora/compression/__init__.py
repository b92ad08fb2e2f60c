"""Compression: quantizers, entropy coding, and the message, a byte string that is a model."""

from sublora.compression.aware import Quantized
from sublora.compression.coder import decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.compression.compress import compress
from sublora.compression.message import Message, MessageError, decode, encode, published_bits, rebuild
from sublora.compression.model_file import ModelFile, decode_model, refuse_large_model, with_alpha
from sublora.compression.quantizers import QUANTIZERS, nearest, quantize

__all__ = [
    "Message",
    "MessageError",
    "ModelFile",
    "QUANTIZERS",
    "Quantized",
    "compress",
    "decode",
    "decode_model",
    "decode_symbols",
    "encode",
    "encode_symbols",
    "entropy_bits",
    "nearest",
    "published_bits",
    "quantize",
    "rebuild",
    "refuse_large_model",
    "shortest",
    "with_alpha",
]
