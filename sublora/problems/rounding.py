"""Rounding a pretrained language model: every weight becomes a few bits of the message, and nothing is trained."""

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sublora.experiment import ALPHA_GRID, Round
from sublora.message.whole import encode_whole
from sublora.models import Subspace, base_model
from sublora.problems.text import DocumentProblem
from sublora.progress import progress_bar

COLUMNS = ("bits", "scales", "message_bits", "alpha", "empirical", "gap", "bound", "seconds")


@dataclass
class RoundingProblem(DocumentProblem):
    """A language model's problem whose message holds all weights of a pretrained model."""

    experiment: Round

    def train(self, folder: Path) -> tuple[None, pd.DataFrame]:
        """Nothing is trained: (None, an empty log)."""
        return None, pd.DataFrame()

    def compress(self, folder: Path, model: Subspace | None = None) -> tuple[bytes, pd.DataFrame]:
        """(the message of the way to round with the smallest promised bound, the table of all ways).

        Everything tried is in the message, and pilot units are drawn independently of those that certify (`promised`), so choosing
        costs nothing. folder: each way keeps its scores in a folder of its own. The table has `COLUMNS`; empirical, gap and bound,
        in bits per token, are promises at the best alpha.
        Raises SubloraError for a model that cannot be loaded or coded.
        """
        rounding = self.experiment.rounding
        pretrained = base_model(self.experiment.model, self.store.vocab_size)
        ways = [(bits, scales) for bits in rounding.bits for scales in rounding.scales]
        rows: list[tuple] = []
        best: tuple[float, bytes] | None = None
        with progress_bar(total=len(ways), desc="quantize", unit="way") as progress:
            for bits, scales in ways:
                began = time.monotonic()
                data = encode_whole(dict(pretrained.named_parameters()), bits, ALPHA_GRID[0], rows=scales == "row")
                entries = self.promised(data, folder / "ways" / f"{bits}-{scales}")
                entry = min(entries, key=lambda entry: entry.bound)
                gap, seconds = entry.bound - entry.empirical, time.monotonic() - began
                rows.append((bits, scales, 8 * len(data), entry.alpha, entry.empirical, gap, entry.bound, seconds))
                if best is None or entry.bound < best[0]:
                    best = entry.bound, data
                progress.update()
        self._seconds = sum(row[-1] for row in rows)
        assert best is not None
        return best[1], pd.DataFrame(rows, columns=list(COLUMNS))

    def seconds(self, folder: Path) -> dict[str, float]:
        """Wall time of the rounding, if it was done here."""
        return {"quantize": getattr(self, "_seconds", 0.0)}

    def _base_sha256(self) -> None:
        """None: all weights are in the message."""
        return None
