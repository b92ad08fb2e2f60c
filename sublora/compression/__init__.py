"""Compression: quantizers, adaptation to the levels, and entropy coding."""

from sublora.compression.aware import OnGrid, Quantized, quantize_and_adapt
from sublora.compression.coder import decode_symbols, encode_symbols, entropy_bits, shortest
from sublora.compression.quantizers import QUANTIZERS, nearest, quantize
