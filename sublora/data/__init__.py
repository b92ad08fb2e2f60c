"""From a corpus to token ids on disk: documents, tokenizers, the token store, and the split of the pool."""

from sublora.data.corpora import documents
from sublora.data.split import Split, draw_split, split_of
from sublora.data.store import TokenStore, build_store, find_store, prepare, store_path, write_store
from sublora.data.tokenizers import Tokenizer, get_tokenizer, tokenizer_of

__all__ = [
    "Split", "TokenStore", "Tokenizer", "build_store", "documents", "draw_split", "find_store", "get_tokenizer", "prepare",
    "split_of", "store_path", "write_store",
]  # fmt: skip
