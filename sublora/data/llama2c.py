"""The tokenizers of small pretrained Llamas, in the binary format of llama2.c (karpathy, MIT)."""

import struct
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers

from sublora.errors import SubloraError, errors_named

BEGIN, BYTES = 1, 3  # ids of the token that begins a text and of the first single byte
PIECES = BYTES + 256  # id of the first piece of text
EARLY = [chr(byte) for byte in range(256)]
"""How the first files of the format wrote single bytes: each as the character of its number, which a piece of text may be, too."""


def load_llama2c_tokenizer(path: str | Path) -> tuple[Tokenizer, int]:
    """(byte-pair tokenizer, id of the token that begins a text, and so ends the one before).

    A file has for each token a score and its text; pairs are merged greedily, those first whose union has the best score. As in
    training, a space goes before a text. Files of before the format named single bytes (`EARLY`) are read, too.
    Raises SubloraError naming the file when it is not one.
    """
    path, pieces, scores = Path(path), [], []
    with errors_named(f"{path}: cannot read it", "give a llama2.c tokenizer"):
        data = path.read_bytes()
    position = 4
    try:
        while position < len(data):
            score, length = struct.unpack_from("<fi", data, position)
            position += 8
            (piece,) = struct.unpack_from(f"{length}s", data, position)
            pieces.append(piece.decode())
            scores.append(score)
            position += length
    except (struct.error, UnicodeDecodeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "is cut, or has an impossible length"
        raise SubloraError(f"{path}: not a llama2.c tokenizer: token {len(pieces)} {why}") from None
    if len(pieces) < PIECES:
        raise SubloraError(f"{path}: not a llama2.c tokenizer: {len(pieces)} tokens are fewer than all bytes need")
    if pieces[BYTES:PIECES] == EARLY:
        pieces[BYTES:PIECES] = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
    if len(vocabulary) < len(pieces):
        raise SubloraError(f"{path}: not a llama2.c tokenizer: a token is there twice")
    best_first = sorted(range(PIECES, len(pieces)), key=lambda i: -scores[i])
    splits = ((pieces[i][:at], pieces[i][at:]) for i in best_first for at in range(1, len(pieces[i])))
    merges = [(left, right) for left, right in splits if left in vocabulary and right in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token=pieces[0]))
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer, BEGIN
