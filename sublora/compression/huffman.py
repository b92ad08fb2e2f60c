"""Huffman coding (Huffman 1952), for comparison: whole bits for every symbol. No message uses it."""

import constriction
import numpy as np

Decoder = constriction.symbol.huffman.DecoderHuffmanTree
Encoder = constriction.symbol.huffman.EncoderHuffmanTree

LENGTH_BITS = 5


def encode_huffman(symbols: np.ndarray, levels: int) -> bytes:
    """Code `symbols` (d,), integers in [0, levels): 5 bits a level for the length of its word, 0 for an unused one; the words."""
    counts = np.bincount(symbols, minlength=levels)
    used = np.flatnonzero(counts)
    shares = np.maximum(counts[used] / counts.sum(), 2.0**-20)  # so that no word is longer than 31 bits
    lengths = np.zeros(levels, int)
    if len(used):
        tree = Encoder(shares)
        lengths[used] = [max(1, _word(tree, [index])[1]) for index in range(len(used))]
        # Powers of two have a Huffman tree with just these lengths, so the decoder can build the same one.
        packed, size = _word(Encoder(2.0 ** -lengths[used]), np.searchsorted(used, symbols).tolist())
    else:
        packed, size = np.zeros(0, np.uint32), 0
    words = np.unpackbits(packed.astype("<u4").view(np.uint8), bitorder="little")[:size]
    table = np.unpackbits(lengths.astype(np.uint8)[:, None], axis=1)[:, -LENGTH_BITS:]
    return np.packbits(np.concatenate([table.ravel(), words])).tobytes()


def decode_huffman(payload: bytes, size: int, levels: int) -> np.ndarray:
    """The `size` symbols (uint8) of `encode_huffman`'s `payload`. Raises ValueError when it ends too early or has no words."""
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    table, words = np.split(bits, [LENGTH_BITS * levels])
    if len(table) < LENGTH_BITS * levels:
        raise ValueError("the Huffman table is cut short")
    lengths = table.reshape(levels, LENGTH_BITS) @ (1 << np.arange(LENGTH_BITS)[::-1])
    used = np.flatnonzero(lengths)
    if size and not len(used):
        raise ValueError("the Huffman table is empty")
    packed = np.packbits(words, bitorder="little").tobytes()
    decoder = constriction.symbol.QueueDecoder(np.frombuffer(packed + bytes(-len(packed) % 4), "<u4").astype(np.uint32))
    tree = Decoder(2.0 ** -lengths[used]) if size else None
    return used[np.array([decoder.decode_symbol(tree) for _ in range(size)], int)].astype(np.uint8)


def _word(tree: constriction.symbol.huffman.EncoderHuffmanTree, indices: list[int]) -> tuple[np.ndarray, int]:
    words = constriction.symbol.QueueEncoder()
    for index in indices:
        words.encode_symbol(index, tree)
    return words.get_compressed_and_bitrate()
