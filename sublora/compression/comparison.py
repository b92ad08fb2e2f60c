"""Rate against distortion: every quantizer, number of levels and coder on the same coordinates."""

import heapq
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sublora.compression.codebooks import pack_codebook, shortened_codebook
from sublora.compression.coder import CODERS, encode_symbols, entropy_bits
from sublora.compression.quantizers import QUANTIZERS, quantize

LEVELS = (2, 3, 4, 5, 7, 9, 11, 15)
COLUMNS = ("quantizer", "levels", "coder", "entropy_bits", "payload_bits", "codebook_bits", "bits_per_coordinate", "distortion")


def rate_distortion(
    values: np.ndarray, quantizers: Sequence[str] = QUANTIZERS, levels: Sequence[int] = LEVELS, penalty: float = 0.05
) -> pd.DataFrame:
    """One row for each quantizer, number of levels and coder (a message's four, and huffman for comparison): `COLUMNS`.

    values: trained coordinates (d,); penalty: of ecsq, variances that a bit per coordinate is worth. entropy_bits is the empirical
    entropy of all symbols; payload and codebook are whole bytes, in bits; bits_per_coordinate is their sum over d; distortion the
    mean squared error in variances of the values. levels are those that remain: a quantizer may need fewer than it was offered.
    """
    rows = []
    for quantizer in quantizers:
        for offered in levels:
            codebook, symbols = quantize(values, quantizer, offered, penalty)
            if quantizer != "normal_float":  # whose levels are two numbers already
                codebook = shortened_codebook(codebook)
            distortion = float(np.mean((values - codebook.astype(np.float64)[symbols]) ** 2) / np.var(values))
            extra = 8 * len(pack_codebook(codebook)[1])
            payloads = {coder: 8 * len(encode_symbols(symbols, len(codebook), coder, codebook)) for coder in CODERS}
            for coder, bits in {**payloads, "huffman": huffman_bits(symbols, len(codebook))}.items():
                rate = (bits + extra) / len(values)
                rows.append((quantizer, len(codebook), coder, entropy_bits(symbols), bits, extra, rate, distortion))
    return pd.DataFrame(rows, columns=list(COLUMNS)).drop_duplicates(["quantizer", "levels", "coder"], ignore_index=True)


def huffman_bits(symbols: np.ndarray, levels: int) -> int:
    """Size, in bits of whole bytes, of a Huffman code (Huffman 1952) of `symbols` (d,): 5 bits a level for the length of its word;
    the words. Each merge of the two rarest symbols makes the words of all that it joins one bit longer."""
    counts = [count for count in np.bincount(symbols).tolist() if count]
    heapq.heapify(counts)
    bits = 5 * levels
    while len(counts) > 1:
        merged = heapq.heappop(counts) + heapq.heappop(counts)
        bits += merged
        heapq.heappush(counts, merged)
    return -(-bits // 8) * 8
