"""Tables that are kept as csv: what the benchmarks measured, in the folder of results, and training logs."""

import io
import os
from pathlib import Path

import pandas as pd

from sublora.atomic import read_text
from sublora.errors import SubloraError

LARGEST = 64 * 2**20  # bytes of a table
COVERAGE = ("level", "assumption", "inequality", "world", "units", "evaluated", "hypotheses", "message_bits", "delta", "trials",
            "violations", "standard_error", "twin", "twin_violations", "gap_ratio")  # fmt: skip
COMPRESSION = ("quantizer", "levels", "coder", "entropy_bits", "payload_bits", "codebook_bits", "bits_per_coordinate",
               "distortion", "message_bits", "alpha", "empirical", "bound")  # fmt: skip
PROJECTORS = ("projector", "weights", "coordinates", "build_seconds", "matvec_seconds", "backward_seconds", "megabytes")
DETERMINISM = ("model", "metric", "change", "largest", "mean", "units")
GPU = ("part", "method", "compiled", "quantity", "value", "device")
TABLES = {
    "coverage": (COVERAGE, "run `make coverage`"),
    "compression": (COMPRESSION, "run `make compression`"),
    "saving": (("way", "levels", "message_bits", "validation_loss"), "run `python benchmarks/saving.py`"),
    "projectors": (PROJECTORS, "run `python benchmarks/projectors.py --csv results/projectors.csv`"),
    "determinism": (DETERMINISM, "run `make determinism`"),
    "gpu": (GPU, "no measurement on a GPU exists yet: none could be had. `make gpu` makes it"),
    "table1-grid": (("method", "rank", "dimension", "levels", "message_bits", "alpha", "empirical", "bound", "vacuous_at"),
                    "run `python benchmarks/table1.py`"),
}  # fmt: skip
"""The columns of each table in the folder of results, and what to do where it is not there."""
WORDS = {"phase", "level", "assumption", "inequality", "world", "twin", "quantizer", "coder", "way", "projector", "method"}
WORDS |= {"model", "metric", "change", "part", "quantity", "device"}
"""The columns that hold text; all others hold numbers."""


def load_table(path: str | os.PathLike, columns: tuple[str, ...], advice: str) -> pd.DataFrame:
    """A csv with these columns. Raises SubloraError naming the file, the column that is wrong, and the advice."""
    try:
        frame = pd.read_csv(io.StringIO(read_text(path, LARGEST, "a table")))
    except SubloraError:
        raise
    except FileNotFoundError:
        raise SubloraError(f"{path}: no such table; {advice}") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise SubloraError(f"{path}: not a table ({' '.join(str(error).split())}); {advice}") from None
    for column in columns:
        if column not in frame:
            raise SubloraError(f"{path}: column {column!r} is missing; {advice}")
        if column not in WORDS and not pd.api.types.is_numeric_dtype(frame[column]):
            raise SubloraError(f"{path}: column {column!r} holds text; {advice}")
    return frame


def load_metrics(path: str | os.PathLike) -> pd.DataFrame:
    """A training log: one row a logged step, losses in bits per token. Raises SubloraError when it is not one."""
    return load_table(path, ("step", "phase", "train_loss", "validation_loss"), "this run's loss curve is left out")


def results_folder() -> Path:
    """Where what is kept lies: the folder that SUBLORA_RESULTS names, or `../results` beside the report's project."""
    return Path(os.environ.get("SUBLORA_RESULTS", "../results"))


def table_for_pages(name: str) -> tuple[pd.DataFrame, list[str]]:
    """A table from the folder of results, by its name in `TABLES`; or one without rows, and why."""
    columns, advice = TABLES[name]
    try:
        return load_table(results_folder() / f"{name}.csv", columns, advice), []
    except SubloraError as error:
        return pd.DataFrame(columns=list(columns)), [str(error)]
