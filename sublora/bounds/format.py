"""The certificate's format: reading a file that anyone may have written.

This module knows the shape of a certificate and nothing of how its numbers come about, so that a report can read certificates
without a deep learning library.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from sublora.errors import SubloraError

FORMAT = "sublora-certificate/1"
LARGEST_CERTIFICATE = 96 * 2**20  # bytes; enough for GPT-2 small at 5 bits a weight; a trained subspace's has a few thousandths

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
    alpha: Share | None  # null: a classifier, whose predictions are not smoothed
    bounds: Annotated[list[_Bound], Field(min_length=1)]
    held_out: list[_HeldOut]
    paper_accounting: _PaperAccounting
    environment: _Environment

    @model_validator(mode="after")
    def _bounds_the_model_it_holds(self):
        if self.alpha is None:
            if not all(bound.alpha is None and bound.level == "example" for bound in self.bounds):
                raise ValueError("alpha is null, but not every bound is of examples and without alpha")
        elif not any(bound.metric == "bpd" and bound.alpha == self.alpha for bound in self.bounds):
            raise ValueError(f"no bound in bits has the message's alpha, {self.alpha}")
        return self

    @model_validator(mode="after")
    def _counts_its_message(self):
        try:
            message = base64.b64decode(self.message, validate=True)
        except binascii.Error:
            raise ValueError("message is not base64") from None
        if self.message_bits != 8 * len(message):
            raise ValueError(f"message_bits {self.message_bits} is not 8 times the message's {len(message)} bytes")
        if self.message_sha256 != hashlib.sha256(message).hexdigest():
            raise ValueError("the message does not have the SHA-256 that message_sha256 states: it was altered")
        return self


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


def message_of(certificate: Mapping[str, Any]) -> bytes:
    """The model file of a certificate that `load_certificate` has accepted."""
    return base64.b64decode(certificate["message"])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _first_complaint(error: ValidationError) -> str:
    first, *others = error.errors()
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return f"key {key!r} {message}{more}" if key else f"{message}{more}"
