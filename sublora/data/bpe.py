"""Training a byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) by Hugging Face `tokenizers`."""

import os
import shutil
import tempfile
from pathlib import Path

import tokenizers

from sublora.data.corpora import documents
from sublora.errors import SubloraError, cannot_write
from sublora.experiment import Corpus
from sublora.own import TEMPORARY

END = "<|endoftext|>"
LEAST = 257
"""All bytes and the end of text: with these, every text has tokens."""


def train_bpe(corpus: Corpus, vocab_size: int, out: Path) -> int:
    """Write a tokenizer of the corpus's documents to the new folder `out`; returns its number of tokens, at most `vocab_size`.

    `corpus.tokenizer: ./folder` reads it. Documents come one after the other, and the library counts words on all cores: memory
    grows with the number of different words alone. The folder is there when it is whole: what was interrupted begins anew.
    Raises SubloraError for a size below `LEAST`, for a folder that is there, and for documents that cannot be read.
    """
    if vocab_size < LEAST:
        raise SubloraError(f"--vocab-size {vocab_size}: a byte-level tokenizer has at least {LEAST} tokens")
    if out.exists():
        raise SubloraError(f"{out}: is there already; choose another folder with --out")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(documents(corpus), trainer)
    from transformers import PreTrainedTokenizerFast  # slow to import

    whole = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, clean_up_tokenization_spaces=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(TEMPORARY, f".{out.name}.", out.parent))
        try:
            whole.save_pretrained(made)
            made.chmod(0o755)
            os.rename(made, out)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise cannot_write(out, error) from None
    return len(whole)
