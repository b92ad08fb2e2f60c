"""Counting n-grams: a language model without a network, whose message holds the counts of the training documents."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sublora.experiment import ALPHA_GRID, BASES, Ngram
from sublora.message.ngram import NGramMessage, bucketed, encode_ngrams
from sublora.models.ngrams import count_ngrams, fitted, pruned
from sublora.problems.text import DocumentProblem, smallest_promise

FITTED = 2**18
"""Tokens, about, of the training documents from which the pseudo-counts are chosen."""


@dataclass
class NgramProblem(DocumentProblem):
    """A language model's problem whose message holds counts."""

    experiment: Ngram
    _seconds = 0.0

    def train(self, folder: Path) -> tuple[None, pd.DataFrame]:
        """Nothing is trained: (None, an empty log)."""
        return None, pd.DataFrame()

    def compress(self, folder: Path, model: None = None) -> tuple[bytes, pd.DataFrame]:
        """(the message of the way to count with the smallest promised bound, the table of all ways): `smallest_promise`.

        folder: each way keeps its scores in a folder of its own. Raises SubloraError for counts that no message may hold.
        """
        began, counting, store = time.monotonic(), self.experiment.counting, self.store
        documents = [store.document(i) for i in self.split.train]
        few = np.concatenate(documents[: 1 + int(np.searchsorted(np.cumsum(store.lengths[self.split.train]), FITTED))])
        longest = self.experiment.model.orders + 1
        layers = count_ngrams(np.concatenate(documents), store.eot, store.vocab_size, longest, min(counting.least))

        def counted(place: Path, least: int, base: int) -> tuple[bytes, DocumentProblem]:
            buckets = bucketed(pruned(layers, least), least, base)
            message = NGramMessage(ALPHA_GRID[0], BASES.index(base), (0,) * longest, buckets)
            chosen = fitted(message.counted(), few, store.eot, store.vocab_size)
            return encode_ngrams(message._replace(pseudo_counts=chosen), store.vocab_size), self

        ways, columns = list(itertools.product(counting.least, counting.bases)), ("least", "base")
        message, _, table = smallest_promise(ways, counted, folder / "ways", columns=columns, what="quantize")
        self._seconds = time.monotonic() - began
        return message, table

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of the counting, if it was done here."""
        return {"quantize": self._seconds}

    def _base_sha256(self) -> None:
        """None: all counts are in the message."""
        return None
