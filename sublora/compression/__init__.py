"""Compression: quantizers, entropy coding, and the message, a byte string that is a model."""

from sublora.compression.coder import decode_symbols, encode_symbols, entropy_bits
from sublora.compression.compress import compress
from sublora.compression.message import Message, MessageError, decode, encode, published_bits, rebuild
from sublora.compression.quantizers import CODEBOOKS, Quantized, kmeans_codebook, nearest, uniform_codebook

__all__ = [
    "CODEBOOKS",
    "Message",
    "MessageError",
    "Quantized",
    "compress",
    "decode",
    "decode_symbols",
    "encode",
    "encode_symbols",
    "entropy_bits",
    "kmeans_codebook",
    "nearest",
    "published_bits",
    "rebuild",
    "uniform_codebook",
]
