"""Compression: quantizers, adaptation to the levels, and entropy coding."""

from sublora.compression.aware import Quantized
from sublora.compression.coder import decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.compression.compress import quantize_and_adapt
from sublora.compression.quantizers import QUANTIZERS, nearest, quantize

__all__ = [
    "QUANTIZERS",
    "Quantized",
    "decode_symbols",
    "encode_symbols",
    "entropy_bits",
    "nearest",
    "quantize",
    "quantize_and_adapt",
    "shortest",
]
