"""The comparison: a typed statement of how the losses of two certified models differ, from building to reading.

This module knows nothing of how the numbers come about and imports no deep learning library, as `certificate.schema`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError, model_serializer, model_validator

from sublora.atomic import write_text
from sublora.certificate.schema import (
    AssumptionName,
    Count,
    LevelName,
    Part,
    Share,
    complaint,
    digest,
    read_json,
)
from sublora.errors import SubloraError

FORMAT = "sublora-comparison/1"
UnitsFrom = Literal["training", "held-out"]
Form = Literal["interval", "mixture"]
MetricName = Literal["bpd", "bpb", "error"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Compared(Part):
    """One of the models."""

    experiment: Annotated[str, Field(description="the name of its experiment")]
    certificate_sha256: Annotated[Sha256, Field(description="the digest of its certificate")]
    message_sha256: Annotated[Sha256, Field(description="SHA-256 of its message")]
    message_bits: Annotated[Count, Field(description="K of its message")]


class PairedStatement(Part):
    """What is proven about the mean of D = loss of the first model - loss of the other; negative: the first is better.

    interval: of the two models. mixture: of the first one mixed with the other over whole units, in equal shares, beside the other;
    one-sided, and far tighter where losses have a wide range.
    """

    form: Annotated[Form, Field(description="interval: of the two models; mixture: of the first one mixed with the other")]
    metric: Annotated[
        Literal["bpb"] | None, Field(description="bpb: in bits per byte; absent where it is the comparison's own metric")
    ] = None
    assumption: Annotated[AssumptionName, Field(description="what is bounded, and under which assumption")]
    population: Annotated[
        Count | None,
        Field(description="units whose mean is bounded: of the pool, not trained on, or of the test split; null for iid"),
    ]
    evaluated: Annotated[Count, Field(description="n, the units that both models were scored on")]
    units: Annotated[Count | None, Field(description="m, the training units; null from held-out ones")]
    message_bits: Annotated[FiniteFloat, Field(ge=0, description="bits that the pair pays; 0 from held-out units")]
    configurations: Annotated[int, Field(ge=1, description="J, what could have been chosen for the pair; costs its log2 in bits")]
    candidates: Annotated[Count, Field(description="A, the pairs compared on such a subsample; 1 where all units are scored")]
    mean: Annotated[FiniteFloat, Field(description="the mean of D on the scored units")]
    lower: Annotated[FiniteFloat | None, Field(description="lower limit of D's mean; null for the one-sided mixture")]
    upper: Annotated[FiniteFloat, Field(description="upper limit of D's mean")]
    log_e: Annotated[
        FiniteFloat | None,
        Field(
            description="natural logarithm of the e-value against a mean difference of 0 (mixture: against one of 0 or more); "
            "null from training units, and where all units of the test split were scored"
        ),
    ]
    decided: Annotated[
        bool | None, Field(description="whether Holm's procedure over the listed comparisons decides so at delta; null as log_e")
    ]

    @model_serializer(mode="wrap")
    def _without_the_usual_metric(self, handler):
        return {key: value for key, value in handler(self).items() if key != "metric" or value is not None}

    @model_validator(mode="after")
    def _is_an_interval(self):
        if (self.lower is None) != (self.form == "mixture"):
            raise ValueError("lower belongs to form interval")
        if self.lower is not None and self.lower > self.upper:
            raise ValueError("lower is above upper")
        if (self.log_e is None) != (self.decided is None):
            raise ValueError("log_e and decided belong together")
        if (self.population is None) != (self.assumption == "iid"):
            raise ValueError("population belongs to unseen and pool")
        return self


class ComparedPair(Part):
    """The first model beside one other."""

    other: Annotated[Compared, Field(description="the model that the first one is compared with")]
    statements: Annotated[list[PairedStatement], Field(min_length=1, description="what is proven, one limit or two each")]


class Comparison(Part):
    """Everything that is needed, beside the certificates and their data, to compute the limits again."""

    format: Annotated[Literal["sublora-comparison/1"], Field(description="which keys the file has, and what they mean")]
    set_of: Annotated[UnitsFrom, Field(description="the units that the limits come from")]
    level: Annotated[LevelName, Field(description="the unit")]
    metric: Annotated[
        Literal["bpd", "error"],
        Field(description="bpd: bits per token, smoothed or mixed as each certificate has it; error: 0-1 error"),
    ]
    unit: Annotated[str, Field(description="what a token is: byte, token; example for classifiers")]
    corpus: Annotated[str, Field(description="where the text comes from")]
    corpus_sha256: Annotated[Sha256, Field(description="of the token store, or of all examples")]
    delta: Annotated[
        Share, Field(description="each statement holds with probability 1 - delta; from held-out units all J of a kind do at once")
    ]
    comparisons: Annotated[Count, Field(description="J, the pairs listed here; from held-out units each side has delta/(2J)")]
    share: Annotated[Share, Field(description="the other model's share in the mixture")]
    tau: Annotated[
        Annotated[FiniteFloat, Field(gt=0)] | None,
        Field(
            description="from a subsample of training units, no difference of the mixture counts as less than minus this: "
            "that of the certificates where each pair is a model and its base, else 1; absent for errors, and in older files (1)"
        ),
    ] = None
    tolerance: Annotated[
        FiniteFloat, Field(ge=0, description="by how much another machine may find a mean otherwise; every limit has it on top")
    ]
    condition: Annotated[
        Literal["base_independent"] | None,
        Field(description="base_independent: a certificate has this condition for iid; absent where none has"),
    ] = None
    classes_from: Annotated[
        Literal["examples"] | None,
        Field(description="examples: the classes are the labels that the examples have, as the certificates say; absent elsewhere"),
    ] = None
    first: Annotated[Compared, Field(description="the model that is compared")]
    pairs: Annotated[list[ComparedPair], Field(min_length=1, description="the others, as they were listed beforehand")]
    comparison_sha256: Annotated[Sha256, Field(description="SHA-256 of the canonical JSON of everything else")]

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        optional = {"condition", "classes_from", "tau"}
        return {key: value for key, value in handler(self).items() if value is not None or key not in optional}

    @model_validator(mode="after")
    def _counts_its_pairs(self):
        if self.comparisons != len(self.pairs):
            raise ValueError(f"comparisons is {self.comparisons}, but {len(self.pairs)} pairs are listed")
        stated = [statement for pair in self.pairs for statement in pair.statements]
        if any((statement.units is None) != (self.set_of == "held-out") for statement in stated):
            raise ValueError("units belongs to limits from training units")
        return self

    def data(self) -> dict[str, Any]:
        """The comparison as plain data: what its file holds."""
        return self.model_dump(mode="json")

    def save(self, path: str | os.PathLike) -> None:
        """Write the file atomically."""
        write_text(Path(path), json.dumps(self.data(), indent=1, allow_nan=False) + "\n")


def sealed(data: Mapping[str, Any]) -> Comparison:
    """The comparison that plain data is, with its digest."""
    return Comparison.model_validate({**data, "comparison_sha256": digest(data, "comparison_sha256")})


def load_comparison(path: str | os.PathLike) -> Comparison:
    """Read a comparison and check its keys, types and digest. Whether it is true is for `sublora compare --verify` to say.

    Raises SubloraError: one line with the file, the key, and what to do.
    """
    data = read_json(path, "a comparison", "make it with `sublora compare`")
    if data.get("format") != FORMAT:
        raise SubloraError(f"{path}: key 'format' is {data.get('format')!r:.60}, not {FORMAT!r}; make it with `sublora compare`")
    try:
        found = Comparison.model_validate(data)
    except ValidationError as error:
        raise SubloraError(f"{path}: {complaint(error)}; make it again with `sublora compare`") from None
    if found.comparison_sha256 != digest(data, "comparison_sha256"):
        raise SubloraError(f"{path}: it was altered after it was made; make it again with `sublora compare`")
    return found
