"""What is written down while training: a CSV file for people and programs, TensorBoard events for watching."""

import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from sublora.atomic import write_text
from sublora.errors import cannot_write
from sublora.own import note

COLUMNS = ["phase", "step", "train_loss", "validation_loss", "learning_rate", "tokens_per_second", "seconds"]
"""Losses in bits per token; `train_loss` is the mean since the row before; `seconds` of work since the phase began."""


class MetricsLog:
    """The rows of one phase in `folder/metrics.csv`, beside those of other phases."""

    def __init__(self, folder: Path, phase: str, start: int):
        """Drop this phase's rows after step `start`: they are about to be made again."""
        self.path, self.phase = folder / "metrics.csv", phase
        note(self.path)  # before it is read: what stands there may not be the run's
        rows = pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=COLUMNS)
        mine = rows["phase"] == phase
        self.others = rows[~mine]
        self.rows = rows[mine & (rows["step"] <= start)].to_dict("records")
        self.writer = _Events(folder / "tensorboard" / phase, start + 1)

    def append(self, step: int, *values: float) -> None:
        """Add one row (the values of COLUMNS from `train_loss` on) and write the file anew."""
        self.rows.append(dict(zip(COLUMNS, (self.phase, step, *values), strict=True)))
        frames = [frame for frame in (self.others, self.frame()) if len(frame)]
        write_text(self.path, pd.concat(frames).to_csv(index=False))
        scalars = [Summary.Value(tag=name, simple_value=self.rows[-1][name]) for name in COLUMNS[2:-1]]
        self.writer.write(step=step, summary=Summary(value=scalars))

    @property
    def seconds(self) -> float:
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def frame(self) -> pd.DataFrame:
        """The rows of this phase."""
        return pd.DataFrame(self.rows, columns=COLUMNS)


class _Events:
    """TensorBoard's events in a new file, written at once: its own writer is a thread that tells nobody of a full disk."""

    def __init__(self, folder: Path, purge_step: int):
        now = time.time()
        self.path = folder / f"events.out.tfevents.{now:.6f}.{os.getpid()}"
        note(self.path)
        self.write(file_version="brain.Event:2")
        self.write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, **event: Any) -> None:
        """Append one event. Raises SubloraError where that is impossible."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                RecordWriter(file).write(Event(wall_time=time.time(), **event).SerializeToString())
        except OSError as error:
            raise cannot_write(self.path, error) from error


def training_seconds(folder: Path) -> dict[str, float]:
    """Wall time of each phase that `folder/metrics.csv` knows of."""
    rows = pd.read_csv(folder / "metrics.csv")
    return rows.groupby("phase", sort=False)["seconds"].max().to_dict()
