"""A pretrained language model as it is: nothing is trained, and the message has no coordinates."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sublora.experiment import ALPHA_GRID, Zeroshot
from sublora.message import configured
from sublora.message.unchanged import encode_unchanged
from sublora.problems.text import DocumentProblem, smallest_promise


@dataclass
class ZeroshotProblem(DocumentProblem):
    """A language model's problem whose message says which public model is meant, and no more."""

    experiment: Zeroshot

    def train(self, folder: Path) -> tuple[None, pd.DataFrame]:
        """Nothing is trained: (None, an empty log)."""
        return None, pd.DataFrame()

    def compress(self, folder: Path, model: None = None) -> tuple[bytes, pd.DataFrame]:
        """(the message, a table of one row: what the pilot units promise)."""
        message = configured(self.experiment.model.architecture, encode_unchanged(ALPHA_GRID[0]))
        found, _, table = smallest_promise([()], lambda place: (message, self), folder / "ways", columns=(), what="promise")
        return found, table

    def seconds(self, folder: Path) -> dict[str, float]:
        """Nothing took time."""
        return {}
