"""What a message is made of, in bytes, for people to look at."""

import pandas as pd

from sublora.compression.codebooks import FORMATS, pack_codebook
from sublora.compression.coder import shortest
from sublora.compression.grid import encode_grid
from sublora.message.body import Gridded, Message


def fields(data: bytes, message: Message) -> pd.DataFrame:
    """The header, codebook and symbols (or steps and symbols in one) of a message: bytes, first byte, and shares in percent."""
    coded = message.coded
    if isinstance(coded, Gridded):
        symbols = len(encode_grid(coded.steps, coded.integers, coded.shapes))
        sizes = {"header": len(data) - symbols, "steps and symbols": symbols}
    else:
        codebook, symbols = len(pack_codebook(coded.codebook, len(FORMATS))[1]), len(shortest(coded.symbols, coded.codebook)[1])
        sizes = {"header": len(data) - symbols - codebook, "codebook": codebook, "symbols": symbols}
    table = pd.DataFrame({"part": list(sizes), "bytes": list(sizes.values())})
    table["from byte"] = table["bytes"].cumsum().shift(fill_value=0)
    table["percent"] = 100 * table["bytes"] / len(data)
    return table
