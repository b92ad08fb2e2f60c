"""What is written down while training: a CSV file for people and programs, TensorBoard events for watching."""

from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from sublora.atomic import write_text
from sublora.own import note

COLUMNS = ["phase", "step", "train_loss", "validation_loss", "learning_rate", "tokens_per_second", "seconds"]
"""Losses in bits per token; `train_loss` is the mean since the row before; `seconds` of work since the phase began."""


class MetricsLog:
    """The rows of one phase in `folder/metrics.csv`, beside those of other phases."""

    def __init__(self, folder: Path, phase: str, start: int):
        """Drop this phase's rows after step `start`: they are about to be made again."""
        self.path, self.phase = folder / "metrics.csv", phase
        rows = pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=COLUMNS)
        mine = rows["phase"] == phase
        self.others = rows[~mine]
        self.rows = rows[mine & (rows["step"] <= start)].to_dict("records")
        note(folder / "tensorboard" / phase, "events.out.tfevents.*")
        self.writer = SummaryWriter(str(folder / "tensorboard" / phase), purge_step=start + 1)

    def append(self, step: int, *values: float) -> None:
        """Add one row (the values of COLUMNS from `train_loss` on) and write the file anew."""
        self.rows.append(dict(zip(COLUMNS, (self.phase, step, *values), strict=True)))
        frames = [frame for frame in (self.others, self.frame()) if len(frame)]
        write_text(self.path, pd.concat(frames).to_csv(index=False))
        for name in COLUMNS[2:-1]:
            self.writer.add_scalar(name, self.rows[-1][name], step)

    @property
    def seconds(self) -> float:
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def frame(self) -> pd.DataFrame:
        """The rows of this phase."""
        return pd.DataFrame(self.rows, columns=COLUMNS)


def training_seconds(folder: Path) -> dict[str, float]:
    """Wall time of each phase that `folder/metrics.csv` knows of."""
    rows = pd.read_csv(folder / "metrics.csv")
    return rows.groupby("phase", sort=False)["seconds"].max().to_dict()
