"""Entropy coding of symbols with an adaptive model: no table travels, the decoder learns the frequencies as it reads.

Symbol probabilities are (count + 1/2)/(total + L/2) (Krichevsky & Trofimov 1981) over the symbols before the present block; the
first 32 blocks are single symbols, later ones are a 32nd of what has been seen. So a long message needs few model
updates, and costs about (L-1)/2·log2(d) bits more than its empirical entropy. The range coder is `constriction`'s
(Bamler 2022); its last bytes are dropped where the decoder, which reads zeros behind the end, does without them.
"""

from collections.abc import Iterator

import constriction
import numpy as np

Categorical = constriction.stream.model.Categorical
RangeDecoder = constriction.stream.queue.RangeDecoder
RangeEncoder = constriction.stream.queue.RangeEncoder


def encode_symbols(symbols: np.ndarray, levels: int) -> bytes:
    """Code `symbols` (d,), integers in [0, levels), levels ≤ 255. Raises ValueError for a symbol outside."""
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < levels:
        raise ValueError(f"symbols must be in [0, {levels})")
    encoder = RangeEncoder()
    counts = np.zeros(levels)
    for begin, end in _blocks(len(symbols)):
        encoder.encode(symbols[begin:end].astype(np.int32), _model(counts))
        counts += np.bincount(symbols[begin:end], minlength=levels)
    payload = encoder.get_compressed().astype(">u4").tobytes()
    while payload and _decodes_to(payload[:-1], symbols, levels):
        payload = payload[:-1]
    return payload


def decode_symbols(payload: bytes, size: int, levels: int) -> np.ndarray:
    """The `size` symbols (uint8) coded in `payload`. Raises ValueError when no encoder can have made it."""
    words = np.frombuffer(payload + bytes(-len(payload) % 4 + 8), dtype=">u4").astype(np.uint32)
    decoder = RangeDecoder(words)
    symbols = np.empty(size, np.uint8)
    counts = np.zeros(levels)
    for begin, end in _blocks(size):
        try:
            symbols[begin:end] = decoder.decode(_model(counts), end - begin)
        except AssertionError:
            raise ValueError("the coded symbols are invalid") from None
        counts += np.bincount(symbols[begin:end], minlength=levels)
    return symbols


def entropy_bits(symbols: np.ndarray) -> float:
    """d·H: the empirical entropy of all symbols together, in bits."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _decodes_to(payload: bytes, symbols: np.ndarray, levels: int) -> bool:
    try:
        return np.array_equal(decode_symbols(payload, len(symbols), levels), symbols)
    except ValueError:
        return False


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < size:
        end = min(size, begin + max(1, begin // 32))
        yield begin, end
        begin = end


def _model(counts: np.ndarray) -> Categorical:
    return Categorical((counts + 0.5) / (counts.sum() + len(counts) / 2), perfect=False)
