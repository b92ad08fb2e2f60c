"""The certificate: one typed model, from building to reading.

`schema.json` beside this module is its JSON Schema. This module knows nothing of how the numbers come about and imports no deep
learning library, so that reports and the command line read certificates at once.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_serializer, model_validator

from sublora.atomic import read_text, write_text
from sublora.errors import SubloraError

FORMAT = "sublora-certificate/3"
LARGEST_CERTIFICATE = 96 * 2**20  # bytes; enough for GPT-2 small at 5 bits a weight; a trained subspace's has a few thousandths

SEARCH = (
    "training",
    *(f"compression.{key}" for key in ("quantizer", "entropy_penalty", "scale")),
    *(f"compression.{key}" for key in ("finetune_steps", "finetune_learning_rate", "rate_penalty")),
    "notebooks",
    "counting.least",
    "subspace.lora_dropout",
    "bounds.batch_tokens",
)
"""Keys of `params` that say how the model was searched for and scored. No bound depends on them, and nobody can verify them."""

Count = Annotated[int, Field(ge=1, le=2**53)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]  # 32 years
LevelName = Literal["document", "sequence", "token", "position", "group", "example"]
BITS = ("bpd", "bpb")
AssumptionName = Literal["iid", "pool", "unseen", "martingale"]
ReferenceName = Literal["document", "stream", "base"]
SplitRule = Literal["permutation", "positions", "paper", "all"]
TokenizerOrigin = Literal["elsewhere", "pool"]
ConditionName = Annotated[
    Literal["base_independent"] | None,
    Field(
        description="base_independent: iid and martingale hold if the units were drawn independently of the public base (weights, "
        "tokenizer); null where no public base was made from data"
    ),
]


class Part(BaseModel):
    """Part of a certificate: no unknown keys, no silent conversions, no changes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The values without those keys where they are null: a certificate without a reference does not mention one."""
    return {key: value for key, value in values.items() if value is not None or key not in keys}


def _together(reference: str | None, value: float | None, name: str) -> None:
    if (reference is None) != (value is None):
        raise ValueError(f"reference and {name} belong together")


class Terms(Part):
    """The terms of the paper's inequality: their sum and the tolerance are the bound, unless no loss is so large."""

    empirical: Annotated[FiniteFloat, Field(description="the mean loss of the evaluated units")]
    complexity: Annotated[FiniteFloat, Field(description="the price of the message's bits, and of log2 J more")]
    subsampling: Annotated[FiniteFloat, Field(description="the price of evaluating a subsample; 0 if all units were evaluated")]


class Statement(Part):
    """One bound. Bits per token for metric `bpd`, per byte for `bpb`, shares for errors."""

    level: Annotated[LevelName, Field(description="the unit: document, sequence, token, position, group or example")]
    metric: Annotated[
        str,
        Field(description="bpd (bits per token), bpb (bits per byte), top<k>_error, or error (0-1 error of a classifier)"),
    ]
    assumption: Annotated[AssumptionName, Field(description="what is bounded, and under which assumption")]
    inequality: Annotated[str, Field(description="the inequality by which the bound was computed")]
    alpha: Annotated[Share | None, Field(description="smoothing weight; null for errors")]
    units: Annotated[Count, Field(description="m, the training units")]
    pool: Annotated[Count | None, Field(description="M, the units of the pool; null where there is none")]
    evaluated: Annotated[Count, Field(description="n, the training units that were evaluated")]
    candidates: Annotated[
        Count, Field(description="A, the messages compared on the evaluated units; 1 where all are evaluated, which costs nothing")
    ]
    nominal_tokens: Annotated[
        Count | None, Field(description="N0, the number of tokens that a bound for tokens is tuned for; null for other units")
    ]
    configurations: Annotated[
        int,
        Field(
            ge=1,
            description="J, what could have been chosen with the data in hand: configurations, or for unseen and pool, whose split "
            "comes after that, split seeds and base models; costs log2 J bits beside the message's",
        ),
    ]
    empirical: Annotated[FiniteFloat, Field(description="the mean loss of the evaluated units")]
    bound: Annotated[FiniteFloat, Field(description="with probability 1 - delta the bounded loss is at most this")]
    vacuous_at: Annotated[FiniteFloat, Field(description="the loss of guessing: a bound that is not below it says nothing")]
    nonvacuous: Annotated[bool, Field(description="bound < vacuous_at")]
    parts: Annotated[Terms | None, Field(description="the terms of the paper's inequality; null for the others")]
    reference: Annotated[
        ReferenceName | None,
        Field(description="the public reference with which the model's probabilities are mixed; absent for the uniform guess"),
    ] = None
    reference_empirical: Annotated[
        FiniteFloat | None,
        Field(
            description="the reference's own mean loss on the evaluated units: what zero bits achieve; of a code of counts as it "
            "is mixed over whole documents, with a share gamma of the uniform code, of a base by itself"
        ),
    ] = None
    gain: Annotated[
        FiniteFloat | None,
        Field(
            description="with probability 1 - delta the mixture's bounded loss is at least so much below the reference's on the "
            "same population, not below reference_empirical, which is of the evaluated units; a code of counts is meant with "
            "gamma of the uniform code, a base by itself; may be negative. Of inequalities betting and freedman beside a reference"
        ),
    ] = None

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        return _without(handler(self), "reference", "reference_empirical", "gain")

    @model_validator(mode="after")
    def _reference_is_whole(self):
        _together(self.reference, self.reference_empirical, "reference_empirical")
        if (self.gain is not None) != (self.reference is not None and self.inequality in ("betting", "freedman")):
            raise ValueError("gain belongs to betting and freedman beside a reference, and to no other bound")
        if self.reference is not None and self.metric not in BITS:
            raise ValueError(f"a reference is beside bits, not {self.metric}")
        return self

    @model_validator(mode="after")
    def _says_what_its_numbers_say(self):
        if self.nonvacuous != (self.bound < self.vacuous_at):
            raise ValueError("nonvacuous contradicts bound and vacuous_at")
        if self.assumption in ("pool", "unseen") and (self.pool is None or self.pool <= self.units):
            raise ValueError(f"assumption {self.assumption} needs a pool that is larger than units")
        if (self.level == "token") != (self.nominal_tokens is not None):
            raise ValueError("nominal_tokens belongs to bounds for tokens, and to no others")
        if self.metric in BITS and self.alpha is None:
            raise ValueError(f"metric {self.metric} needs an alpha")
        return self


class TestSetBound(Part):
    """What the held-out units prove by themselves (Langford 2005): by betting, at delta, without the message's bits."""

    __test__ = False  # pytest would take it for tests

    population: Annotated[
        Count | None,
        Field(description="units of the test split, or unseen examples, of which the measured ones are the first; null: none are"),
    ]
    iid: Annotated[
        FiniteFloat | None,
        Field(description="with probability 1 - delta a fresh unit's expected loss is at most this; pays for the J of iid bounds"),
    ]
    unseen: Annotated[
        FiniteFloat | None,
        Field(
            description="the same of the mean over the population, paying for the J of unseen bounds; where all of it was measured "
            "that is the value itself, and the tolerance"
        ),
    ]


class HeldOut(Part):
    """A loss measured on text that was kept apart. It enters no bound."""

    level: Annotated[LevelName, Field(description="the unit, as in a bound")]
    metric: Annotated[str, Field(description="what was measured, as in a bound")]
    alpha: Annotated[Share | None, Field(description="smoothing weight; null for errors")]
    n: Annotated[Count, Field(description="units measured")]
    value: Annotated[FiniteFloat, Field(description="the mean loss of these units")]
    split: Annotated[str | None, Field(description="which held-out examples, where there are several kinds")]
    reference: Annotated[ReferenceName | None, Field(description="the public reference, as in a bound")] = None
    reference_value: Annotated[FiniteFloat | None, Field(description="the reference's own mean loss of these units")] = None
    test_bound: Annotated[
        TestSetBound | None,
        Field(
            description="the test-set bound; absent for single tokens, for sequences, whose independence is an approximation, for "
            "other alphas than the message's, and in older files"
        ),
    ] = None

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        return _without(handler(self), "reference", "reference_value", "test_bound")

    @model_validator(mode="after")
    def _reference_is_whole(self):
        _together(self.reference, self.reference_value, "reference_value")
        return self

    @model_validator(mode="after")
    def _population_is_not_smaller(self):
        bound = self.test_bound
        if bound is not None and ((bound.population or self.n) < self.n or (bound.unseen is None) != (bound.population is None)):
            raise ValueError("test_bound.population is smaller than n, or does not belong to test_bound.unseen")
        return self


class GroupFacts(Part):
    """Groups of documents: the split drew them."""

    column: Annotated[str, Field(description="the column whose value a group's documents share")]
    training: Annotated[Count, Field(description="training groups")]
    sha256: Annotated[str, Field(description="SHA-256 of which document is of which group")]


class CorpusFacts(Part):
    """The data, and how the training split was drawn."""

    name: Annotated[str, Field(description="where the text comes from: the name of a corpus or of a task")]
    sha256: Annotated[str, Field(description="SHA-256 of the token store, or of all examples")]
    documents: Annotated[Count, Field(description="training documents or examples; with split positions all documents")]
    pool: Annotated[Count | None, Field(description="documents, groups, positions or examples of the pool")]
    tokens: Annotated[Count, Field(description="training tokens; with split positions the training positions")]
    vocab_size: Annotated[int, Field(ge=2, description="V, or the number of classes")]
    split: Annotated[
        SplitRule,
        Field(
            description="permutation: the first of a random order by split_seed; positions: the same of all tokens' "
            "positions; paper: openwebtext's; all: everything trains"
        ),
    ]
    unit: Annotated[str, Field(description="what a token is: byte, token; example for a classifier")]
    groups: Annotated[GroupFacts | None, Field(description="groups of documents; absent where the split drew documents")] = None
    prior: Annotated[
        Count | None,
        Field(description="documents removed at random before the split, which are in no part of it; absent where none were"),
    ] = None

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        return _without(handler(self), "groups", "prior")


class Windows(Part):
    """How documents longer than the model's context are read."""

    block: Annotated[Count, Field(description="tokens of a window")]
    stride: Annotated[Count, Field(description="tokens by which the window moves")]


class ReferencePublic(Part):
    """The public code that costs no bits. Every key is fixed beforehand, but for shortest, which the pool says."""

    name: Annotated[
        ReferenceName,
        Field(
            description="document: it adapts within each unit; stream: to all training text before, too; base: the public base "
            "model, whose weights have the SHA-256 `base_weights_sha256`"
        ),
    ]
    pseudo_counts: Annotated[
        list[Positive] | None, Field(description="pseudo-counts of its orders 0, 1, ...; absent for a base")
    ] = None
    distinct: Annotated[
        float | None,
        Field(
            ge=0,
            description="what each different token behind a context adds to its pseudo-count (orders above 0); absent for a base",
        ),
    ] = None
    start: Annotated[
        Literal["uniform", "characters"] | None,
        Field(
            description="what it expects before anything is read: all tokens alike, or the bytes of ASCII text; absent for a base"
        ),
    ] = None
    floor: Annotated[
        Share, Field(description="the uniform guess's share in each of its predictions; of a base's, in those of single tokens")
    ]
    tau: Annotated[Positive, Field(description="hoeffding, azuma and bounds of a subsample count no difference as less than -tau")]
    beta: Annotated[
        Share | None, Field(description="its share in the mixture over a whole document; null without such a level")
    ]
    gamma: Annotated[Share | None, Field(description="the uniform code's share beside it in that mixture; null as beta")]
    g: Annotated[
        list[FiniteFloat] | None,
        Field(
            description="what the offset f is where it is within c below the top T: a number, or what 1, loss - 4, l and l^2 are "
            "multiplied by, l = log2(length) - 8; null: f is T, or as beta"
        ),
    ]
    c: Annotated[FiniteFloat | None, Field(description="the most that the mixture's loss is above f; null as beta")]
    shortest: Annotated[Count | None, Field(description="tokens of the pool's shortest document; null as beta")]

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        return _without(handler(self), "pseudo_counts", "distinct", "start")

    @model_validator(mode="after")
    def _a_code_says_its_counts(self):
        if {self.pseudo_counts is None, self.distinct is None, self.start is None} != {self.name == "base"}:
            raise ValueError("pseudo_counts, distinct and start belong to a code of counts, and to no base")
        return self


class BytesPublic(Part):
    """What bits per byte stand on.

    A document's bits are divided by b, its bytes and one more. The tokenizer gives every document of the pool back byte for byte,
    and no document is cut. Beside a reference, g and c of the offset per byte are made of log2 257 where they are made of log2 V
    per token.
    """

    ratio: Annotated[
        dict[Literal["iid", "pool", "unseen"], Positive],
        Field(
            description="rho, the most tokens for each of b: the pool's for pool and unseen, a property of the tokenizer for iid, "
            "which is left out where none is proven. The loss is at most rho times the largest of a token",
            min_length=1,
        ),
    ]
    shortest: Annotated[Count, Field(description="b of the pool's document with the fewest bytes")]


class TextPublic(Part):
    """What the decoder and the reader of a language model's certificate may assume. Fixed before the split was drawn."""

    model_config = ConfigDict(title="language model")

    base: Annotated[str, Field(description="the kind of base model: gpt, transformers, or none; `params.model` has its settings")]
    base_weights_sha256: Annotated[
        str | None, Field(description="of the base model's weights; null where all weights are in the message")
    ]
    base_configuration_sha256: Annotated[
        str | None,
        Field(
            description="of the configuration that the base model has by itself, as the reference; absent where the base is not "
            "the reference"
        ),
    ] = None
    tokenizer: Annotated[str, Field(description="the tokenizer's name or place")]
    tokenizer_sha256: Annotated[
        str | None, Field(description="of the tokenizer's vocabulary and rules; null for bytes and gpt2, whose name says it")
    ]
    tokenizer_from: Annotated[
        TokenizerOrigin,
        Field(
            description="elsewhere: the tokenizer was made without this corpus, as the author says; pool: of it, so that iid and "
            "martingale are not stated"
        ),
    ]
    draw: Annotated[
        Literal["message", "beacon"] | None,
        Field(
            description="what the evaluated subsample was drawn from: the message's hash, or a public value that was fixed after "
            "this hash was published. Either way a statement with n < m trusts its maker's draw. null: all units were evaluated"
        ),
    ]
    beacon: Annotated[str | None, Field(description="that public value, in hexadecimal; null where it plays no part")]
    end_of_text: Annotated[int, Field(description="the token that ends a document")]
    condition: ConditionName
    windows: Annotated[Windows, Field(description="how long documents are read")]
    evaluated: Annotated[dict[str, Count | None], Field(description="n asked for at each level; null: all units")]
    pilot: Annotated[Share, Field(description="size of the subsample that chooses alpha and the bets, as a share of n")]
    alpha_grid: Annotated[list[Share], Field(description="the smoothing weights to choose from")]
    metrics: Annotated[list[str], Field(description="what is measured")]
    inequalities: Annotated[dict[str, list[str]], Field(description="the inequalities of each level")]
    assumptions: Annotated[dict[str, list[str]], Field(description="the assumptions of each level")]
    determinism: Annotated[
        dict[str, FiniteFloat],
        Field(description="by how much another machine may find bits and errors otherwise, a constant; added to every bound"),
    ]
    reference: Annotated[ReferencePublic | None, Field(description="the public reference; absent for the uniform guess")] = None
    bytes: Annotated[
        BytesPublic | None,
        Field(description="what bits per byte stand on; absent where they are not stated, as for bytes as tokens"),
    ] = None

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        return _without(handler(self), "base_configuration_sha256", "reference", "bytes")


class LabelPublic(Part):
    """What the decoder and the reader of a classifier's certificate may assume. Fixed before the split was drawn."""

    model_config = ConfigDict(title="classifier")

    base: Annotated[str, Field(description="the kind of base model: words, or transformers; `params.model` has its settings")]
    base_weights_sha256: Annotated[str, Field(description="of the base model's weights")]
    tokenizer_sha256: Annotated[str | None, Field(description="of the base model's tokenizer; null for a bag of words")]
    configuration_sha256: Annotated[str | None, Field(description="of the base model's configuration; null for a bag of words")]
    classes: Annotated[list[str], Field(min_length=2, description="the labels' names, by number")]
    condition: ConditionName
    arithmetic: Annotated[str, Field(description="the precision of the predictions")]
    metrics: Annotated[list[str], Field(description="what is measured")]
    inequalities: Annotated[dict[str, list[str]], Field(description="the inequalities under each assumption")]
    determinism: Annotated[
        dict[str, FiniteFloat],
        Field(description="by how much another machine may find bits and errors otherwise, a constant; added to every bound"),
    ]
    classes_from: Annotated[
        Literal["examples"] | None,
        Field(
            description="examples: the classes are the labels that the examples have, held-out ones included, so that iid holds "
            "if the source has no others; absent: they were fixed before"
        ),
    ] = None

    @model_serializer(mode="wrap")
    def _without_keys_of_others(self, handler):
        return _without(handler(self), "classes_from")


class PaperAccounting(Part):
    """The same model, its size counted as the paper counts it. Not certified."""

    certified: Annotated[Literal[False], Field(description="false: the size is an estimate, and the losses have no tolerance")]
    bits: Annotated[FiniteFloat, Field(description="the size of the message as the paper counts it")]
    bounds: Annotated[list[Statement], Field(description="the paper's bounds for that size, with the keys of bounds")]


class Environment(Part):
    """Where and when the certificate was made. Nobody can verify it."""

    sublora: Annotated[str, Field(description="version of this package")]
    python: Annotated[str, Field(description="version of Python")]
    torch: Annotated[str, Field(description="version of PyTorch")]
    transformers: Annotated[str, Field(description="version of transformers")]
    platform: Annotated[str, Field(description="the operating system")]
    device: Annotated[str, Field(description="the graphics card or processor")]
    dtype: Annotated[str, Field(description="the numbers that the model was scored with")]
    training_precision: Annotated[
        Literal["bf16", "no"] | None, Field(description="what `params.training.precision` auto came to; absent where it was set")
    ] = None
    seconds: Annotated[dict[str, Seconds], Field(description="how many seconds each stage took")]

    @model_serializer(mode="wrap")
    def _without_what_was_set(self, handler):
        return _without(handler(self), "training_precision")


class Certificate(Part):
    """Everything that a stranger needs to compute the bounds again."""

    format: Annotated[Literal["sublora-certificate/3"], Field(description="which keys the file has, and what they mean")]
    experiment: Annotated[str, Field(description="the experiment's name")]
    params: Annotated[
        dict[str, Any],
        Field(description=f"the experiment, as a params file has it; nobody can verify {', '.join(SEARCH)}, which no bound needs"),
    ]
    message: Annotated[str, Field(description="the model file, in base64")]
    message_bits: Annotated[Count, Field(description="K: 8 times the bytes of the model file")]
    message_sha256: Annotated[str, Field(description="SHA-256 of the model file")]
    public: Annotated[TextPublic | LabelPublic, Field(description="what the decoder and the reader may assume")]
    corpus: Annotated[CorpusFacts, Field(description="the data, and how the training split was drawn")]
    delta: Annotated[Share, Field(description="each statement holds with probability 1 - delta by itself")]
    alpha: Annotated[Share | None, Field(description="the message's smoothing weight; null for a classifier")]
    statements: Annotated[list[Statement], Field(alias="bounds", min_length=1, description="what is proven, one bound each")]
    held_out: Annotated[list[HeldOut], Field(description="losses on text that was kept apart; they enter no bound")]
    reference: Annotated[
        dict[str, dict[str, Any]] | None,
        Field(description="a classifier's usual scores on its validation sets; they enter no bound"),
    ]
    paper_accounting: Annotated[
        PaperAccounting, Field(description="the same model, its size counted as the paper counts it; not certified")
    ]
    environment: Annotated[Environment, Field(description="where and when the certificate was made; nobody can verify it")]
    certificate_sha256: Annotated[str, Field(description="SHA-256 of the canonical JSON of everything else")]

    @model_validator(mode="after")
    def _bounds_the_model_it_holds(self):
        if self.alpha is None:
            if not all(bound.alpha is None and bound.level == "example" for bound in self.statements):
                raise ValueError("alpha is null, but not every bound is of examples and without alpha")
        elif not any(bound.metric == "bpd" and bound.alpha == self.alpha for bound in self.statements):
            raise ValueError(f"no bound in bits has the message's alpha, {self.alpha}")
        return self

    @model_validator(mode="after")
    def _says_what_the_reference_is(self):
        said = self.public.reference if isinstance(self.public, TextPublic) else None
        found = {bound.reference for bound in self.statements} | {value.reference for value in self.held_out}
        if found - {None} != ({said.name} if said else set()):
            raise ValueError("public.reference is not the reference of bounds and held_out")
        stated = isinstance(self.public, TextPublic) and self.public.base_configuration_sha256 is not None
        if stated != (said is not None and said.name == "base"):
            raise ValueError("public.base_configuration_sha256 and a reference base belong together")
        return self

    @model_validator(mode="after")
    def _states_all_test_bounds_or_none(self):
        """None: it is of before there were test-set bounds."""
        bounded = [value for value in self.held_out if value.level not in ("token", "sequence") and value.metric != "bpb"]
        of_model = [value for value in bounded if value.alpha in (self.alpha, None)]
        stated = [value for value in self.held_out if value.test_bound is not None]
        if stated and stated != of_model:
            raise ValueError("test_bound is not stated of all held-out values of the model, or of another's")
        return self

    @model_validator(mode="after")
    def _says_what_bytes_groups_and_prior_documents_are(self):
        by_byte = isinstance(self.public, TextPublic) and self.public.bytes is not None
        if by_byte != any(bound.metric == "bpb" for bound in self.statements):
            raise ValueError("public.bytes and bounds of metric bpb belong together")
        if (self.corpus.groups is not None) != any(bound.level == "group" for bound in self.statements):
            raise ValueError("corpus.groups and bounds of level group belong together")
        asked = self.params.get("corpus")
        if self.corpus.prior != (asked.get("prior_documents") if isinstance(asked, dict) else None):
            raise ValueError("corpus.prior is not params.corpus.prior_documents")
        return self

    @model_validator(mode="after")
    def _counts_its_classes(self):
        if isinstance(self.public, LabelPublic):
            task, found, V = self.params.get("task"), len(self.public.classes), self.corpus.vocab_size
            if found != V:
                raise ValueError(f"public.classes has {found} names, but corpus.vocab_size is {V}")
            of_examples = isinstance(task, dict) and task.get("source") is not None and task.get("classes") is None
            if of_examples != (self.public.classes_from == "examples"):
                raise ValueError("public.classes_from is examples where params.task has a source without classes, and nowhere else")
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

    @property
    def message_bytes(self) -> bytes:
        """The model file."""
        return base64.b64decode(self.message)

    @property
    def bounds(self):
        """The statements about the certified model as a pandas DataFrame, headline first, with the held-out values."""
        from sublora.reporting.tables import bounds_frame

        return bounds_frame(self)

    def data(self) -> dict[str, Any]:
        """The certificate as plain data: what its file holds."""
        return self.model_dump(mode="json", by_alias=True)

    def save(self, path: str | os.PathLike) -> None:
        """Write the file atomically. Raises SubloraError when the certificate is too large to be read."""
        text = json.dumps(self.data(), indent=1, allow_nan=False) + "\n"
        if len(text) > LARGEST_CERTIFICATE:
            size = f"{len(text) >> 20} MiB, and no one reads more than {LARGEST_CERTIFICATE >> 20}"
            raise SubloraError(f"{path}: the certificate would have {size}; take fewer bits, or a smaller model")
        write_text(Path(path), text)

    def __repr__(self) -> str:
        return f"<certificate of {self.experiment}: {len(self.statements)} bounds>"

    __str__ = __repr__

    def _repr_markdown_(self) -> str:
        from sublora.reporting.display import certificate

        return certificate(self)


def digest(data: Mapping[str, Any], without: str = "certificate_sha256") -> str:
    """SHA-256 of the canonical JSON of all keys but `certificate_sha256`, or another."""
    rest = {key: value for key, value in data.items() if key != without}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_certificate(path: str | os.PathLike) -> Certificate:
    """Read a certificate and check its keys and types. Whether it is true is for `sublora verify` to say.

    Raises SubloraError: one line with the file, the key, and what to do.
    """
    return certificate_of(read_json(path), path)


def certificate_of(data: Mapping[str, Any], path: str | os.PathLike) -> Certificate:
    """The certificate that plain data is. path: named in errors. Raises SubloraError as `load_certificate`."""
    if data.get("format") != FORMAT:
        raise SubloraError(f"{path}: key 'format' is {data.get('format')!r:.60}, not {FORMAT!r}; make the run again")
    try:
        return Certificate.model_validate(data)
    except ValidationError as error:
        raise SubloraError(f"{path}: {complaint(error)}; make the run again") from None


def read_json(path: str | os.PathLike, what: str = "a certificate", cure: str = "make the run again") -> dict[str, Any]:
    """The data of a certificate's file, or of another `what`, unchecked. Raises SubloraError for a file that is none."""
    path, name = Path(path), what.removeprefix("a ")
    try:
        text = read_text(path, LARGEST_CERTIFICATE, what)
    except FileNotFoundError:
        make = "finish the run with `sublora run` and its params file" if name == "certificate" else cure
        raise SubloraError(f"{path}: no {name}; {make}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SubloraError(f"{path}: cannot read the {name} ({error}); {cure}") from None
    try:
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise SubloraError(f"{path}: not valid JSON ({error}); {cure}") from None
    if not isinstance(data, dict) or "format" not in data:
        raise SubloraError(f"{path}: key 'format' is missing, so this is not {what}; {cure}")
    return data


def json_schema() -> str:
    """The JSON Schema of a certificate's file, as text."""
    return json.dumps(Certificate.model_json_schema(by_alias=True), indent=1) + "\n"


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice!r:.60} is there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def complaint(error: ValidationError) -> str:
    """What is wrong with data that a model refused, in words: the first of it, by its key."""
    first, *others = error.errors()
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = {"missing": "is missing", "extra_forbidden": "is unknown"}.get(first["type"])
    message = message or first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return f"key {key!r:.120} {message}{more}" if key else f"{message}{more}"
