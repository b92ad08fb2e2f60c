"""Rounding a pretrained language model: every weight becomes a few bits of the message, and nothing is trained."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sublora.experiment import ALPHA_GRID, Round
from sublora.message import configured
from sublora.message.whole import encode_whole
from sublora.models import base_model
from sublora.problems.text import DocumentProblem, smallest_promise


@dataclass
class RoundingProblem(DocumentProblem):
    """A language model's problem whose message holds all weights of a pretrained model."""

    experiment: Round
    _seconds = 0.0

    def train(self, folder: Path) -> tuple[None, pd.DataFrame]:
        """Nothing is trained: (None, an empty log)."""
        return None, pd.DataFrame()

    def compress(self, folder: Path, model: None = None) -> tuple[bytes, pd.DataFrame]:
        """(the message of the way to round with the smallest promised bound, the table of all ways): `smallest_promise`.

        folder: each way keeps its scores in a folder of its own. Raises SubloraError for a model that cannot be loaded or coded.
        """
        rounding = self.experiment.rounding
        pretrained = base_model(self.experiment.model, self.store.vocab_size)

        def rounded(place: Path, bits: int, scales: str) -> tuple[bytes, DocumentProblem]:
            message = encode_whole(dict(pretrained.named_parameters()), bits, ALPHA_GRID[0], rows=scales == "row")
            return configured(self.experiment.model.architecture, message), self

        ways, columns = list(itertools.product(rounding.bits, rounding.scales)), ("bits", "scales")
        message, _, table = smallest_promise(ways, rounded, folder / "ways", columns=columns, what="quantize")
        self._seconds = float(table["seconds"].sum())
        return message, table

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of the rounding, if it was done here."""
        return {"quantize": self._seconds}

    def _base_sha256(self) -> str | None:
        """None: all weights are in the message, unless the base is the reference."""
        return super()._base_sha256() if self.experiment.needs_base else None
