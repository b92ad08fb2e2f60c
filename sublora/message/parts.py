"""What a message is made of, in bytes, for people to look at."""

import pandas as pd

from sublora.compression.codebooks import pack_codebook
from sublora.compression.coder import shortest
from sublora.message.language import Message


def fields(data: bytes, message: Message) -> pd.DataFrame:
    """The header, codebook and symbols of a message of a trained subspace: bytes, first byte, and shares in percent."""
    codebook = len(pack_codebook(message.coded.codebook)[1])
    symbols = len(shortest(message.coded.symbols, message.coded.codebook)[1])
    sizes = {"header": len(data) - symbols - codebook, "codebook": codebook, "symbols": symbols}
    table = pd.DataFrame({"part": list(sizes), "bytes": list(sizes.values())})
    table["from byte"] = table["bytes"].cumsum().shift(fill_value=0)
    table["percent"] = 100 * table["bytes"] / len(data)
    return table
