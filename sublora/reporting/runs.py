"""Runs as the report sees them: a certificate that has been checked, and the training log beside it."""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from sublora.errors import SubloraError

FORMAT = "sublora-certificate/1"
LARGEST_CERTIFICATE = 64 * 2**20  # bytes; a certificate is small enough to mail
RUN_FILES = ("certificate.json", "params.yaml", "metrics.csv")  # a folder with any of these is a run, if unfinished
METRICS_COLUMNS = ("step", "phase", "train_loss", "validation_loss")

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class _Shape(BaseModel):
    """Part of a certificate: the keys the report reads. Other keys are allowed: they speak to others."""

    model_config = ConfigDict(strict=True, extra="allow", populate_by_name=True)


class _Bound(_Shape):
    level: Literal["document", "sequence", "token", "example"]
    metric: str
    assumption: Literal["iid", "pool", "unseen", "martingale"]
    inequality: str
    alpha: Share | None
    units: Count
    pool: Count | None
    evaluated: Count
    candidates: Count
    empirical: FiniteFloat
    bound: FiniteFloat
    vacuous_at: FiniteFloat
    nonvacuous: bool
    parts: dict[str, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _says_what_its_numbers_say(self):
        if self.nonvacuous != (self.bound < self.vacuous_at):
            raise ValueError("nonvacuous contradicts bound and vacuous_at")
        if self.assumption in ("pool", "unseen") and (self.pool is None or self.pool <= self.units):
            raise ValueError(f"assumption {self.assumption} needs a pool that is larger than units")
        return self


class _HeldOut(_Shape):
    level: str
    metric: str
    alpha: Share | None
    n: Count
    value: FiniteFloat


class _Corpus(_Shape):
    name: str
    sha256: str
    documents: Count
    pool: Count | None
    tokens: Count
    vocab_size: Annotated[int, Field(ge=2)]
    split: str
    unit: str


class _PaperAccounting(_Shape):
    note: str
    bits: FiniteFloat
    bounds: list[_Bound]


class _Environment(_Shape):
    seconds: dict[str, FiniteFloat]


class _Certificate(_Shape):
    format: Literal["sublora-certificate/1"]
    experiment: str
    params: dict[str, Any]
    message: str
    message_bits: Count
    message_sha256: str
    public: dict[str, Any]
    corpus: _Corpus
    delta: Share
    alpha: Share
    bounds: Annotated[list[_Bound], Field(min_length=1)]
    held_out: list[_HeldOut]
    paper_accounting: _PaperAccounting
    environment: _Environment

    @model_validator(mode="after")
    def _bounds_the_model_it_holds(self):
        if not any(bound.metric == "bpd" and bound.alpha == self.alpha for bound in self.bounds):
            raise ValueError(f"no bound in bits has the message's alpha, {self.alpha}")
        return self

    @model_validator(mode="after")
    def _counts_its_message(self):
        try:
            size = len(base64.b64decode(self.message, validate=True))
        except binascii.Error:
            raise ValueError("message is not base64") from None
        if self.message_bits != 8 * size:
            raise ValueError(f"message_bits {self.message_bits} is not 8 times the message's {size} bytes")
        return self


@dataclass(frozen=True)
class Run:
    """One finished run: its folder, its checked certificate, and its training log (None where there is none)."""

    name: str
    path: Path
    certificate: Mapping[str, Any]
    metrics: pd.DataFrame | None


def load_certificate(path: str | os.PathLike) -> dict[str, Any]:
    """Read a certificate and check that it has the keys and types the report needs.

    Whether it is true is for `sublora verify` to say.

    Raises SubloraError: one line with the file, the key, and what to do.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_CERTIFICATE:
            limit = f"{LARGEST_CERTIFICATE >> 20} MiB"
            raise SubloraError(f"{path}: larger than {limit}, so it is not a certificate; remove it")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise SubloraError(f"{path}: no certificate; finish the run with `sublora run` and its params file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SubloraError(f"{path}: cannot read the certificate ({error}); make the run again") from None
    try:
        certificate = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SubloraError(f"{path}: not valid JSON ({error}); make the run again") from None
    if not isinstance(certificate, dict) or "format" not in certificate:
        raise SubloraError(f"{path}: key 'format' is missing, so this is not a certificate; make the run again")
    if certificate["format"] != FORMAT:
        raise SubloraError(f"{path}: key 'format' is {certificate['format']!r:.60}, not {FORMAT!r}; make the run again")
    try:
        _Certificate.model_validate(certificate)
    except ValidationError as error:
        raise SubloraError(f"{path}: {_first_complaint(error)}; make the run again") from None
    return certificate


def load_runs(*folders: str | os.PathLike) -> tuple[list[Run], list[str]]:
    """Every run in `folders` (`<folder>/<name>/certificate.json`), by name, and one line for each thing left out.

    Nothing here raises: a certificate that cannot be read is skipped, and the second list says which and why.
    """
    runs, skipped = [], []
    for path in sorted(child for folder in folders if Path(folder).is_dir() for child in Path(folder).iterdir()):
        if not any((path / name).exists() for name in RUN_FILES):
            continue  # prepared corpora lie in the same folder
        try:
            certificate = load_certificate(path / "certificate.json")
        except SubloraError as error:
            skipped.append(str(error))
            continue
        metrics = None
        try:
            metrics = load_metrics(path / "metrics.csv")
        except SubloraError as error:
            skipped.append(str(error))
        runs.append(Run(path.name, path, certificate, metrics))
    return runs, skipped


def load_metrics(path: str | os.PathLike) -> pd.DataFrame:
    """A training log: one row a logged step, losses in bits per token. Raises SubloraError when it is not one."""
    try:
        metrics = pd.read_csv(path)
    except FileNotFoundError:
        raise SubloraError(f"{path}: no training log, so this run's loss curve is left out") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise SubloraError(f"{path}: not a training log ({reason}); its loss curve is left out") from None
    absent = [column for column in METRICS_COLUMNS if column not in metrics]
    if absent:
        raise SubloraError(f"{path}: column {absent[0]!r} is missing, so this run's loss curve is left out")
    for column in ("step", "train_loss", "validation_loss"):
        if not pd.api.types.is_numeric_dtype(metrics[column]):
            raise SubloraError(f"{path}: column {column!r} holds text, so this run's loss curve is left out")
    return metrics


def runs_for_pages() -> tuple[list[Run], list[str]]:
    """`some_runs` of the folder that SUBLORA_RUNS names, or `../runs` beside the report's project."""
    return some_runs(os.environ.get("SUBLORA_RUNS", "../runs"))


def some_runs(folder: str | os.PathLike) -> tuple[list[Run], list[str]]:
    """`load_runs`, but raises SubloraError when there is no readable run at all."""
    runs, skipped = load_runs(folder)
    if not runs:
        reasons = f" ({len(skipped)} unreadable; the first: {skipped[0]})" if skipped else ""
        raise SubloraError(f"{folder}: no finished run{reasons}; run `sublora run params/quick.yaml` first")
    return runs, skipped


def headline_run(runs: list[Run]) -> Run:
    """The run the report opens with: `quick` where it is there, else the first."""
    return next((run for run in runs if run.name == "quick"), runs[0])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _first_complaint(error: ValidationError) -> str:
    first, *others = error.errors()
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return f"key {key!r} {message}{more}" if key else f"{message}{more}"
