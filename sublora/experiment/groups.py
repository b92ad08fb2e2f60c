"""The groups of settings that params files are made of. Each group is validated and immutable."""

import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from sublora.experiment.packages import WHEELS, pinned

ALPHA_GRID = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5)
"""Smoothing weights fixed in advance (Lotfi et al. 2024a, released code). A message names one by its index."""

STREAM_COUNTS = (100.0, 20.0, 12.0, 10.0, 6.0)
"""A stream's pseudo-counts of the orders 0 to 4, where none are set. They were chosen on 2 MB of functions of Python's standard
library, of which they make 1.81 bits a byte, and 1.71 behind 1.4 MB."""
DOCUMENT_COUNTS = (30.0, 5.0, 3.0, 2.0)
"""A document code's, of the orders 0 to 3."""
BASES = (2, 3, 4, 8)
"""Counts of n-grams are rounded to powers of one of these. A message names one by its index."""

TOP_K = (*range(1, 11), 50, 100)
"""The k of all top-k errors (Lotfi et al. 2024a, released code). Those not below the vocabulary size are left out."""

Parametrization = Literal[
    "sublora", "lora", "subspace", "full", "kronecker", "monarch", "lora_b", "biases", "tinylora", "lora_b+biases"
]
PARAMETRIZATIONS: tuple[Parametrization, ...] = get_args(Parametrization)
"""The order is part of the message format: new names go to the end."""

_PLAIN = ("kron_qr", "kron", "kron_qr3", "kron3", "kron_one_sided", "dense", "dense_qr", "sparse", "fastfood")
PROJECTORS = (*_PLAIN, "film", *(f"film+{name}" for name in _PLAIN))
"""Names of `models.projectors`. The order is part of the message format (a message holds an index): new names go to the end."""

LAYERS = ("q", "k", "v", "proj", "up", "down", "head")
"""The GPT's linear layers. The order is part of the message format, too."""

RECURRENT_LAYERS = ("input", "hidden", "head")
"""Those of a recurrent network: from a layer's input to its gates, from its state to its gates, and the output layer."""

OWN_TOKENIZERS = ("bytes", "bits", "gpt2")
"""Tokenizers that everybody knows were made without a corpus of ours."""

SOURCES = ("python-packages", "python-stdlib", "text", "file", "exact", "openwebtext")
"""Where documents may come from, beside the hub."""

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=2**53)]  # all of them are exact in JSON
Tried = Annotated[int, Field(ge=1, le=2**48)]  # of choices; a certificate states a few times as many
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # all that torch tells apart: a larger one is another message of the same model
AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""YAML and JSON have lists where settings have tuples."""


def _must(be: str, condition: Callable[[Any], bool]) -> AfterValidator:
    """The validator that demands `condition` of a value."""

    def checked(value: Any) -> Any:
        if not condition(value):
            raise ValueError(f"must be {be}")
        return value

    return AfterValidator(checked)


_Choices = _must("a list of one or more choices, each once", lambda values: 0 < len(values) == len(set(values)))
_Projector = Annotated[str, _must(f"one of {', '.join(PROJECTORS)}", lambda value: value in PROJECTORS)]
_Tokenizer = Annotated[
    str,
    _must(
        "bytes, bits, gpt2, ./a-folder, owner/name on the hub, a llama2.c tokenizer (.bin), or a GGUF file",
        lambda value: value in OWN_TOKENIZERS or "/" in value or value.endswith((".bin", ".gguf")),
    ),
]
_Hex = Annotated[
    str,
    AfterValidator(str.lower),
    _must("32 to 128 hexadecimal digits, of even number", re.compile("(?:[0-9a-f]{2}){16,64}").fullmatch),
]
_Modules = _must("[attention, head], [attention] or [head]", (("attention", "head"), ("attention",), ("head",)).__contains__)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


_Day = Annotated[str, _must("a day, as YYYY-MM-DD", _is_day)]
_Package = Annotated[
    str,
    _must(
        f"one of {', '.join(WHEELS)}, or name==version --hash=sha256:HEX of a wheel",
        lambda value: pinned(value) is not None,
    ),
]
_Source = Annotated[
    str,
    _must(
        f"{', '.join(SOURCES)}, or owner/name of a Hugging Face data set",
        lambda value: value in SOURCES or "/" in value,
    ),
]


_SPLIT_ON = ("file", "blank-line", "regex:")
_LONGEST_PATTERN = 200  # characters


def _split_on(value: str) -> str:
    """The value, without white space in front of a pattern, which RE2 must take: it matches in time linear in the text."""
    name, colon, pattern = value.partition(":")
    pattern = pattern.lstrip()
    if name + colon not in _SPLIT_ON or colon and not 0 < len(pattern) <= _LONGEST_PATTERN:
        raise ValueError(f"must be file, blank-line, or regex:PATTERN of at most {_LONGEST_PATTERN} characters, as regex:^Chapter")
    if pattern:
        import pyarrow as pa  # slow to import, and only a pattern needs it
        import pyarrow.compute as pc

        try:
            pc.match_substring_regex(pa.array([""]), pattern)
        except pa.ArrowInvalid as error:
            reason = str(error).removeprefix("Invalid regular expression: ")
            raise ValueError(f"RE2 does not take the pattern: {reason}") from None
    return name + colon + pattern


class Group(BaseModel):
    """A group of settings: no unknown keys, no silent conversions, no changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    _dumps_all: ClassVar[bool] = True  # so that every key may be set to its default

    @model_validator(mode="after")
    def _what_is_set_has_an_effect(self):
        for key, cause in self._without_effect().items():
            by_itself = self._dumps_all and getattr(self, key) == type(self).model_fields[key].default
            if key in self.model_fields_set and not by_itself:
                raise ValueError(f"{key} has no effect for {cause}; remove it")
        return self

    def _without_effect(self) -> dict[str, str]:
        """The keys that nothing depends on, each with the cause."""
        return {}

    @field_validator("*")
    @classmethod
    def _text_is_text(cls, value):
        """NUL ends a path for the system, and lone surrogates cannot be written: libraries raise what they like on both."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
                raise ValueError("must be text without NUL and lone surrogates")
        return value


class Exact(Group):
    """A language that is drawn from a seed and whose entropy is known (`data.exact`)."""

    language: Literal["linear", "updates", "primes"] = "linear"
    bits: Annotated[int, Field(ge=2, le=64)] = 20  # of x, and of y = A x; of each prime
    nonzeros: Annotated[int, Field(ge=0, le=1024)] = 10  # ones of A beyond a permutation's; updates: its changed entries
    documents: Annotated[int, Field(ge=3, le=2**20)] = 20_000
    seed: Seed = 0  # of A and of the documents
    _dumps_all: ClassVar[bool] = False

    @model_validator(mode="after")
    def _possible(self):
        if self.language == "primes" and not 3 <= self.bits <= 16:
            raise ValueError("bits must be 3 to 16 for language primes")
        if self.language != "primes" and self.nonzeros > self.bits * (self.bits - 1) // 2:
            raise ValueError(f"nonzeros must be at most bits (bits - 1)/2 = {self.bits * (self.bits - 1) // 2}")
        return self

    def _without_effect(self) -> dict[str, str]:
        return {"nonzeros": "language primes"} if self.language == "primes" else {}

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        return {key: value for key, value in handler(self).items() if key not in self._without_effect()}


class Corpus(Group):
    """Which documents, how they become tokens, and how the training split is drawn. Everything here is public."""

    # | python-stdlib | text | file | exact | openwebtext | owner/name of a Hugging Face data set
    source: _Source = "python-packages"
    exact: Exact | None = None  # exact: which language; null: its defaults
    packages: Annotated[tuple[_Package, ...], AsTuple, _Choices] | None = None  # python-packages: wheels; null: all of `WHEELS`
    path: str | None = None  # text: a folder of files; file: a .jsonl, .csv, .tsv or .parquet file (also .xz, .gz, .bz2)
    # text: where a document begins: file | blank-line: paragraphs | regex:PATTERN: each line in which RE2 finds the pattern
    split_on: Annotated[str, AfterValidator(_split_on)] = "file"
    field: str = "text"  # the column or key of a document's text
    # the column of a document's group (customer, author, repository): groups are drawn and bounded; null: documents
    group: str | None = None
    subset: str | None = None  # Hugging Face: the data set's configuration
    tokenizer: _Tokenizer = (
        # bits: of text of 0 and 1
        "bytes"  # bytes | bits | gpt2 | one of `transformers` (./folder, owner/name on the hub) | llama2.c's (.bin) | a GGUF file's
    )
    end_of_text: str | None = None  # the special token that ends documents, such as <|endoftext|>; null: the tokenizer's own
    # where a tokenizer that is neither bytes nor gpt2 was made: elsewhere, without this corpus | pool, of it: no iid, no martingale
    tokenizer_from: Literal["elsewhere", "pool"] | None = None
    # each document's tokens are shuffled within windows of so many, in an order that the document alone fixes; null: as they are
    shuffle: Annotated[int, Field(ge=2)] | None = None
    max_documents: Count | None = None  # keep a fixed uniform sample of the pool, for trials
    prior_documents: Count | None = None  # so many, drawn at random, leave the pool before the split; what they make is public
    # seeded: of documents | positions: of all tokens, each to be predicted from what truly precedes it | paper: openwebtext's own
    split: Literal["seeded", "positions", "paper"] = "seeded"
    train: Share = 0.75  # shares of the documents or positions; the rest after train and validation is the test split
    validation: Share = 0.02
    split_seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _packages_are_stated(cls, values):
        """So that a certificate names them."""
        embedded = isinstance(values, dict) and values.get("source", "python-packages") == "python-packages"
        return {**values, "packages": tuple(WHEELS)} if embedded and values.get("packages") is None else values

    @model_validator(mode="before")
    @classmethod
    def _the_language_is_stated(cls, values):
        drawn = isinstance(values, dict) and values.get("source") == "exact" and values.get("exact") is None
        return {**values, "exact": Exact()} if drawn else values

    @model_validator(mode="after")
    def _paper_splits_openwebtext(self):
        if self.split == "paper" and self.source != "openwebtext":
            raise ValueError(f"split paper is of openwebtext, not of source {self.source}; remove it")
        if self.group is not None and self.split != "seeded":
            raise ValueError(f"group needs split seeded, which draws groups; split {self.split} does not")
        return self

    @model_validator(mode="after")
    def _prior_documents_leave_a_pool_of_documents(self):
        if self.prior_documents is not None and self.split != "seeded":
            raise ValueError(f"prior_documents goes with split seeded, not with {self.split}; remove it")
        if self.prior_documents is not None and self.group is not None:
            raise ValueError("prior_documents goes without group: it removes documents, not groups; remove one of them")
        return self

    @model_validator(mode="after")
    def _shares_leave_a_test_split(self):
        if self.train + self.validation >= 1:
            raise ValueError("train + validation must be below 1, so that a test split remains")
        return self

    @model_validator(mode="after")
    def _tokenizers_origin_is_said(self):
        if self.tokenizer not in OWN_TOKENIZERS and self.tokenizer_from is None:
            raise ValueError(f"tokenizer_from is needed for tokenizer {self.tokenizer:.80}: elsewhere, or pool")
        return self

    @model_validator(mode="after")
    def _files_are_named(self):
        if self.source in ("text", "file") and self.path is None:
            raise ValueError(f"path is needed for source {self.source}: a {'folder' if self.source == 'text' else 'file'}")
        return self

    def _without_effect(self) -> dict[str, str]:
        functions = ("path", "field", "group", "subset")
        keys = {"text": ("field", "group", "subset"), "file": ("subset",)}
        keys |= dict.fromkeys(("python-packages", "python-stdlib", "exact"), functions)
        of_one = {"packages": "python-packages", "split_on": "text", "exact": "exact"}
        unused = (*keys.get(self.source, ()), *(key for key, source in of_one.items() if source != self.source))
        drawn = ("train", "validation", "split_seed") if self.split == "paper" else ()
        public = {"tokenizer_from": f"tokenizer {self.tokenizer}"} if self.tokenizer in OWN_TOKENIZERS else {}
        if self.tokenizer in OWN_TOKENIZERS or self.tokenizer.endswith(".bin"):
            public["end_of_text"] = f"tokenizer {self.tokenizer}, which has one"
        return public | dict.fromkeys(unused, f"source {self.source}") | dict.fromkeys(drawn, "split paper")

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        """Certificates and checkpoints of before there were these keys are as they were."""
        effective = {key: value for key, value in handler(self).items() if key not in self._without_effect()}
        later = {"group": None, "end_of_text": None, "prior_documents": None, "split_on": "file", "shuffle": None}
        return {key: value for key, value in effective.items() if key not in later or value != later[key]}

    @property
    def pattern(self) -> str | None:
        """What the line that begins a document must match, where `split_on` says so."""
        return self.split_on.partition(":")[2] or None


class Gpt(Group):
    """A language model with random weights: a GPT or a recurrent network, its sizes, the seed of its weights, and how it reads.

    Public: nothing here may depend on the training split.
    """

    layers: Count = 4
    heads: Count = 4
    width: Count = 128
    block: Count = 128  # context length in tokens
    bias: bool = False
    seed: Seed = 0
    embedding_std: Annotated[float, Field(gt=0)] = 0.02  # initial scale of the token and position embeddings
    weight_std: Annotated[float, Field(gt=0)] = 0.02  # initial scale of all other weight matrices
    rotary: bool = False  # rotary positions, in place of a learned vector for each
    # whether a learned multiple of ln q of a document code (the reference; beside a stream's code the default) is added
    residual: bool = False
    architecture: Literal["gpt", "gru", "lstm"] = "gpt"
    direction: Literal["forward", "backward", "permutation"] = "forward"  # permutation: of the places within each block
    permutation_seed: Seed = 0
    _dumps_all: ClassVar[bool] = False

    def _without_effect(self) -> dict[str, str]:
        of_gpt = {} if self.architecture == "gpt" else dict.fromkeys(("heads", "rotary"), f"architecture {self.architecture}")
        return of_gpt | ({} if self.direction == "permutation" else {"permutation_seed": f"direction {self.direction}"})

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        """Checkpoints and certificates of before there were these keys are as they were."""
        later = {"architecture": "gpt", "direction": "forward", "residual": False, "rotary": False}
        effective = {key: value for key, value in handler(self).items() if key not in self._without_effect()}
        return {key: value for key, value in effective.items() if key not in later or value != later[key]}

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """The names of its linear maps, in the order of a message's bits."""
        return LAYERS if self.architecture == "gpt" else RECURRENT_LAYERS

    @model_validator(mode="after")
    def _heads_divide_width(self):
        if self.architecture == "gpt" and self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.rotary and self.width // self.heads % 2:
            raise ValueError(f"rotary needs heads of an even width, not {self.width // self.heads} (width / heads)")
        return self


class Counts(Group):
    """An n-gram model: all of it is counts, and all of them are in the message."""

    orders: Annotated[int, Field(ge=1, le=5)] = 3  # the longest context, in tokens; shorter ones come into it, too
    block: Count = 32  # the longest window, in tokens


class Pretrained(Group):
    """A public pretrained causal language model."""

    source: str  # a dense AutoModelForCausalLM by folder or hub name, a llama2.c checkpoint (.bin), or a GGUF file (.gguf)
    block: Count = 128  # the longest window that it reads, in tokens
    architecture: dict[str, Any] | None = None  # its configuration; null: what `source` says. It is in the message
    public_since: _Day | None = None  # the day on which its weights were published, as YYYY-MM-DD: a claim that nobody can verify

    @model_serializer(mode="wrap")
    def _what_is_said(self, handler):
        """Certificates of before there was a day are as they were."""
        return {key: value for key, value in handler(self).items() if key != "public_since" or value is not None}


class Words(Group):
    """A classifier's base without pretrained weights: a bag of hashed words. All of it is in the message."""

    buckets: Annotated[int, Field(ge=2, le=2**20)] = 4096  # hashed words
    hashes: Annotated[int, Field(ge=1, le=16)] = 1  # buckets of a word
    prefix: Annotated[int, Field(ge=1, le=127)] = 20  # letters of a word that count
    seed: Annotated[int, Field(ge=0, le=2**28 - 1)] = 0


class Encoder(Group):
    """A classifier's base: any AutoModelForSequenceClassification."""

    source: str  # a local folder or hub name
    architecture: dict[str, Any] | None = None  # its configuration; null: what `source` says. It is in the message
    load_pretrained: bool = True  # false: the architecture with random weights
    seed: Annotated[int, Field(ge=0, le=2**28 - 1)] = 0  # of the random weights, the new head's at least; in the message


_LORA = ("rank", "lora_alpha", "lora_dropout")
_NOT_USED = {
    "sublora": ("blocks",),
    "lora": ("blocks", "projector"),
    "subspace": (*_LORA, "targets", "blocks"),
    "full": (*_LORA, "targets", "blocks", "projector", "seed"),
    "kronecker": _LORA,
    "monarch": _LORA,
    "lora_b": ("blocks",),
    "biases": (*_LORA, "targets", "blocks"),
    "tinylora": ("lora_alpha", "lora_dropout", "blocks"),
    "lora_b+biases": ("blocks",),
}
_IF_PROJECTED = ("biases", "tinylora")
"""Parametrizations in which nothing is random but a projector."""


TokenId = Annotated[int, Field(ge=0, lt=2**22)]
_Ascending = _must("ascending ids of tokens, one or more", lambda ids: ids and list(ids) == sorted(set(ids)))


class Subspace(Group):
    """How many numbers describe a model, and how they become weights. The message names all of it.

    Without a parametrization it is the kind's, in a subspace of 961 dimensions if no other is given.
    """

    parametrization: Parametrization = "sublora"
    projector: _Projector = "kron_qr"  # where there is a dimension
    dimension: Count | None = None  # d, the number of trained coordinates; null: each trainable weight is one
    blocks: Count = 4  # monarch: the number of blocks; kronecker: the number of factors
    rank: Count = 4
    lora_alpha: Annotated[float, Field(gt=0), _must("an integer, to be in the message", lambda value: value == int(value))] = 32.0
    lora_dropout: Fraction = 0.1
    targets: Annotated[tuple[str, ...], AsTuple] = ("q", "v", "head")
    # biases, lora_b+biases: on the logits of which tokens | end: of the one that ends documents | all | their ids, ascending
    tokens: Literal["end", "all"] | Annotated[tuple[TokenId, ...], AsTuple, _Ascending] = "end"
    seed: Seed = 137
    _dumps_all: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, values):
        return {"dimension": 961, **values} if isinstance(values, dict) and "parametrization" not in values else values

    @model_validator(mode="after")
    def _consistent(self):
        if self.parametrization in ("sublora", "subspace") and self.dimension is None:
            raise ValueError(f"dimension is needed for parametrization {self.parametrization}")
        if self.parametrization in ("lora", "full") and self.dimension is not None:
            raise ValueError(f"dimension must be null for parametrization {self.parametrization}, which trains all of its weights")
        return self

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        return {key: value for key, value in handler(self).items() if key not in self._without_effect()}

    def _without_effect(self) -> dict[str, str]:
        unused = [*_NOT_USED[self.parametrization], *["tokens"] * ("biases" not in self.parametrization)]
        found = dict.fromkeys(unused, f"parametrization {self.parametrization}")
        if self.parametrization in _IF_PROJECTED and self.dimension is None:
            found |= dict.fromkeys(("projector", "seed"), f"parametrization {self.parametrization} without a dimension")
        return found


class FinetuneSubspace(Subspace):
    """The same for a pretrained model: its own weights, or LoRA on its linear layers."""

    parametrization: Parametrization = "subspace"
    targets: Annotated[tuple[str, ...], AsTuple, _Choices] = ("all",)  # linear layers by the last part of their names; all: each

    @model_validator(mode="after")
    def _base_is_kept(self):
        if self.parametrization in ("kronecker", "monarch"):
            why = "layers would take the place of the base model's, and what those have learnt would be lost"
            others = [name for name in PARAMETRIZATIONS if name not in ("kronecker", "monarch")]
            raise ValueError(f"{self.parametrization} {why}; take one of {', '.join(others)}")
        return self


class TaskSubspace(FinetuneSubspace):
    """The same for a classifier: its own weights, or LoRA's on the attention and the head's own.

    Without a parametrization it is sublora where a dimension is given, else lora.
    """

    modules: Annotated[tuple[str, ...], AsTuple, _Modules] = ("attention", "head")  # LoRA on it; its own weights

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, values):
        given = isinstance(values, dict) and values.get("dimension") is not None
        return {"parametrization": "sublora" if given else "lora", **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _no_language_models(self):
        if self.parametrization in PARAMETRIZATIONS[6:]:
            raise ValueError(f"parametrization {self.parametrization} is for language models; take sublora, lora, subspace or full")
        return self

    @property
    def adapts_attention(self) -> bool:
        """Whether there is LoRA on the attention."""
        return self.parametrization in ("sublora", "lora") and "attention" in self.modules

    def _without_effect(self) -> dict[str, str]:
        found = {**super()._without_effect(), **dict.fromkeys(("targets", "blocks"), "kind classify")}
        if self.parametrization in ("subspace", "full"):
            return {**found, "modules": f"parametrization {self.parametrization}, which moves all weights"}
        unused = _LORA if self.dimension is not None else (*_LORA, "seed")
        return found if self.adapts_attention else {**found, **dict.fromkeys(unused, "modules [head]")}


class _Search(Group):
    """What every training has. The search is free of charge: it may use any data, and none of it is in the message."""

    batch: Count = 64  # sequences or examples a step, over all devices
    accumulation: Count = 1  # a step's batch is cut into this many parts, or more where that leaves out padding
    betas: Annotated[tuple[Fraction, Fraction], AsTuple] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["auto", "no", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, and on a CPU where it measures faster
    compile: Literal["auto", "yes", "no"] = "auto"
    seed: Seed = 0

    @model_validator(mode="after")
    def _parts_divide_batch(self):
        if self.batch % self.accumulation:
            raise ValueError(f"batch {self.batch} is not divisible by accumulation {self.accumulation}")
        return self


class Training(_Search):
    """How a language model is trained."""

    _dumps_all: ClassVar[bool] = False
    steps: Count = 1500
    sampling: Literal["document", "token"] = "document"  # weigh every document, or every token, equally
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    min_learning_rate: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] | None = None  # steps; null: a tenth of the steps, at most 100
    # behind the warm-up: one cosine down | restarts: cosines of `period` steps | constant, then `cooldown` steps of a line down
    schedule: Literal["cosine", "restarts", "constant"] = "cosine"
    period: Count | None = None  # steps; null: a quarter of all
    shrink: Annotated[float, Field(gt=0, le=1)] = 0.85  # what each restart multiplies the rate by
    cooldown: Count | None = None  # steps; null: a fifth of all. A file `cool-down` in the run's folder starts it at once
    validate_every: Count | None = None  # steps between validations, each of which writes a checkpoint; null: a sixth of the steps
    validation_documents: Count = 256  # with corpus.split positions: so many windows
    # finetune: whether layers are computed again on the way back, which takes a third more time, and far less memory
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _within_the_steps(self):
        for key in ("warmup", "validate_every", "period", "cooldown"):
            if (value := getattr(self, key) or 0) > self.steps:
                raise ValueError(f"{key} {value} exceeds the {self.steps} steps; leave it out, and it scales with steps")
        return self

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        """Certificates of before there were these keys are as they were."""
        later = {"gradient_checkpointing": False, "schedule": "cosine"}
        effective = {key: value for key, value in handler(self).items() if key not in self._without_effect()}
        return {key: value for key, value in effective.items() if key not in later or value != later[key]}

    def _without_effect(self) -> dict[str, str]:
        others = {"restarts": ("period", "shrink"), "constant": ("cooldown",)}
        return {key: f"schedule {self.schedule}" for name, keys in others.items() if name != self.schedule for key in keys}


class TaskTraining(_Search):
    """How a classifier is trained."""

    epochs: Count = 5
    batch: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5  # falls linearly to zero
    warmup: Annotated[int, Field(ge=0)] = 0  # steps
    validate_every: Count | None = None  # steps between validations; null: a sixth of the steps
    watched_examples: Count = 256  # training examples whose loss is logged


class Compression(Group):
    """From coordinates to bytes. The message names the quantizer, its levels and the coder."""

    quantizer: Literal["uniform", "kmeans", "normal_float", "ecsq", "grid"] = "kmeans"  # grid: multiples of a step for each matrix
    entropy_penalty: Annotated[float, Field(ge=0)] = 0.02  # ecsq, grid: variances of a coordinate that a bit of it is worth
    levels: Annotated[int, Field(ge=1, le=255)] = 11
    scale: Literal["tensor", "model"] = "tensor"  # grid: a step for each matrix; one for all
    finetune_steps: Annotated[int, Field(ge=0)] = 0  # steps of quantization-aware training before coding
    finetune_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    # while fine-tuning, bits of loss for each bit of a coordinate's entropy; auto: what the promised bound pays for it
    rate_penalty: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"

    def _without_effect(self) -> dict[str, str]:
        unused = ["finetune_learning_rate"] if self.finetune_steps == 0 else []
        if not self.finetune_steps and self.rate_penalty != 0:  # 0 was the default, and kept certificates have it
            unused.append("rate_penalty")
        other = [*["entropy_penalty"] * (self.quantizer not in ("ecsq", "grid")), *["levels"] * (self.quantizer == "grid")]
        other += ["scale"] * (self.quantizer != "grid")
        return dict.fromkeys(other, f"quantizer {self.quantizer}") | dict.fromkeys(unused, "finetune_steps 0")

    @model_serializer(mode="wrap")
    def _a_grid_has_no_number_of_levels(self, handler):
        values = {key: value for key, value in handler(self).items() if key != "scale" or value != "tensor"}  # as it was without
        return {key: value for key, value in values.items() if key != "levels" or self.quantizer != "grid"}


class Rounding(Group):
    """How all weights of a pretrained model are rounded. Pilot units choose among these ways, and the message names the choice."""

    bits: Annotated[tuple[Annotated[int, Field(ge=2, le=8)], ...], AsTuple, _Choices] = (3, 4, 5)  # of a weight
    scales: Annotated[tuple[Literal["tensor", "row"], ...], AsTuple, _Choices] = ("tensor", "row")  # for a matrix; for each row


_Base = Annotated[int, _must(f"one of {', '.join(map(str, BASES))}", BASES.__contains__)]


class Counting(Group):
    """How n-grams are counted. Pilot units choose among these ways, and the message holds what is counted."""

    least: Annotated[tuple[Count, ...], AsTuple, _Choices] = (100, 1000, 10_000)  # rarer n-grams are dropped
    bases: Annotated[tuple[_Base, ...], AsTuple, _Choices] = (2, 4)  # counts are rounded to powers of it


Level = Literal["document", "sequence", "token", "position", "group"]


class Bounds(Group):
    """What is certified. All of it is fixed before the training split is drawn."""

    delta: Share = 0.05
    configurations: Tried = 2**20  # J: settings that could have been chosen with the data in hand; iid, martingale pay log2 J bits
    # how many split seeds, times base models, could have been chosen after a look at the data; unseen and pool pay their log2
    split_seeds: Tried = 1
    candidates: Tried = 1  # A: how many certificates are compared by their subsamples before one is chosen
    levels: Annotated[tuple[Level, ...], AsTuple, _Choices] = ("document",)  # which units; alpha is chosen for the first
    documents: Count | None = 10_000  # n, the evaluated subsample; null: all m
    sequences: Count | None = 10_000  # the same at sequence level
    tokens: Count | None = 50_000  # the same at token level
    positions: Count | None = 50_000  # the same at position level
    groups: Count | None = 1_000  # the same at group level, each with all of its documents
    nominal_tokens: Count | None = None  # N0, about the number of training tokens, set before they are read; null: 5 more bits
    beacon: _Hex | None = None  # a public value, fixed after the message's hash was published, from which the n are drawn
    pilot: Share = 0.1  # an independent subsample for choosing alpha and the bets, as a share of n
    held_out_documents: Count = 2_000
    held_out_positions: Count = 50_000  # at position level, instead
    held_out_groups: Count = 200  # at group level, instead
    stride: Count | None = None  # how far the window moves in documents longer than the block, in tokens; null: half the block
    batch_tokens: Annotated[int, Field(ge=1, le=2**20)] = 4096  # in a forward pass; a GPU is faster with more

    @model_serializer(mode="wrap")
    def _groups_where_they_are(self, handler):
        """Certificates of before there were groups are as they were."""
        return {key: value for key, value in handler(self).items() if not key.endswith("groups") or "group" in self.levels}

    @model_validator(mode="after")
    def _positions_and_groups_are_alone(self):
        for level in ("position", "group"):
            if level in self.levels and len(self.levels) > 1:
                why = f"since its split draws {level}s, not documents"
                raise ValueError(f"levels: {level} goes with no other, {why}; take [{level}]")
        return self

    def _without_effect(self) -> dict[str, str]:
        levels = f"levels [{', '.join(self.levels)}]"
        unused = [f"{level}s" for level in get_args(Level) if level not in self.levels]
        found = dict.fromkeys([*unused, *["nominal_tokens"] * ("tokens" in unused)], levels)
        split = next((level for level in ("position", "group") if level in self.levels), "document")  # what the split draws
        found |= dict.fromkeys((f"held_out_{other}s" for other in ("document", "position", "group") if other != split), levels)
        if split == "position":  # then nothing is iid
            found["configurations"] = levels
        if split == "document" and "documents" in unused:
            found["split_seeds"] = levels
        drawn = any(getattr(self, f"{level}s") for level in self.levels)
        return found if drawn else found | dict.fromkeys(("candidates", "beacon"), "levels whose units are all evaluated")


_PseudoCount = Annotated[float, Field(gt=0, le=2**20)]


class Reference(Group):
    """The public code that losses are compared with, and mixed with; it costs no bits. All of it is fixed beforehand.

    A stream's code is no function of a document, so it is for levels [token] only.
    """

    # document: adapts within each; stream: to all training text before; base: the pretrained model that the message starts from
    name: Literal["uniform", "document", "stream", "base"] = "uniform"
    # of its orders 0, 1, ...; of a stream by default `STREAM_COUNTS`
    pseudo_counts: Annotated[tuple[_PseudoCount, ...], AsTuple, Field(min_length=1, max_length=8)] = DOCUMENT_COUNTS
    # document: what each different token behind a context adds to its pseudo-count
    distinct: Annotated[float, Field(ge=0, le=2**20)] = 0.0
    start: Literal["uniform", "characters"] = "uniform"  # document: before anything is read; characters: bytes of ASCII text
    beta: Share = 0.5  # its share in the mixture over a whole document
    gamma: Share = 0.0625  # the uniform code's share in that
    # f: half of log2 V, but at most c below the top | the top | the same with a sum of 1, loss - 4, l, l^2, l = log2(length) - 8
    offset: Literal["half", "reference"] | Annotated[tuple[float, float, float, float], AsTuple] = "half"
    excess: Annotated[float, Field(gt=0)] | None = None  # c; null: a quarter of log2 V
    tau: Annotated[float, Field(gt=0)] = 1.0  # hoeffding, azuma, and bounds of a subsample: no difference counts as less than -tau
    _dumps_all: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _a_stream_has_more_orders(cls, values):
        return {"pseudo_counts": STREAM_COUNTS, **values} if isinstance(values, dict) and values.get("name") == "stream" else values

    def _without_effect(self) -> dict[str, str]:
        keys = [key for key in type(self).model_fields if key != "name"]
        if self.name == "uniform":
            return dict.fromkeys(keys, "reference uniform")
        if self.name == "base":  # f = T, c = 0
            return dict.fromkeys(("pseudo_counts", "distinct", "start", "offset", "excess"), "reference base")
        found = {"excess": "offset reference"} if self.offset == "reference" else {}
        return found if self.name == "document" else {**found, "distinct": "reference stream", "start": "reference stream"}

    @property
    def f(self) -> Literal["half", "reference"] | tuple[float, float, float, float]:
        """The offset of documents: beside a base it is the top."""
        return "reference" if self.name == "base" else self.offset

    @property
    def of_document(self) -> tuple[tuple[float, ...], float, str]:
        """What a document's code is made of (`models.references.DocumentCode`)."""
        return self.pseudo_counts, self.distinct, self.start

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        return {key: value for key, value in handler(self).items() if key not in self._without_effect()}


class TaskBounds(Group):
    """What is certified of a classifier: its 0-1 error."""

    delta: Share = 0.05
    configurations: Tried = 2**20  # J, as for language models
    split_seeds: Tried = 1  # the same


TASKS = ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli", "functions")
_Task = Annotated[str, _must(f"one of {', '.join(TASKS)} (stsb is regression, without a 0-1 error to bound)", TASKS.__contains__)]


TABLES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")
"""Suffixes of files with labelled examples; all but the last may be packed (.xz, .gz, .bz2)."""
_TABLE = re.compile(r".+\.(?:parquet|(?:jsonl|json|csv|tsv|txt)(?:\.(?:xz|gz|bz2))?)", re.DOTALL)
_Examples = Annotated[
    str,
    _must(
        f"a file ({', '.join(TABLES)}, also .xz, .gz, .bz2), or owner/name of a Hugging Face data set",
        lambda value: is_table(value) or re.fullmatch(r"[\w.-]+/[\w.-]+", value),
    ),
]


def is_table(source: str) -> bool:
    """Whether a task's source is a file by its name; else it is a data set on the hub."""
    return _TABLE.fullmatch(source) is not None


def class_name(label: Any) -> str:
    """The name of a label's class: 1, 1.0, "1" and "1.0" are of class 1, true and "True" of class True, other text of its own.

    Files of one task then have the same classes, whatever their format. Raises ValueError for a label that is no name of a class.
    """
    if not isinstance(label, str | int | float) or (isinstance(label, float) and label != label // 1):
        kind = "a number with a fraction" if isinstance(label, float) else f"of type {type(label).__name__}"
        raise ValueError(f"a label is text, a whole number or a boolean, not {kind}")
    text = str(int(label)) if isinstance(label, float) else str(label)
    return text[:-2] if re.fullmatch(r"-?[0-9]+\.0", text) else text


_Classes = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(map(class_name, value)) if isinstance(value, list | tuple) else value),
    _must("a list of two or more classes, each once", lambda values: 1 < len(values) == len(set(values)) and "" not in values),
]


class Task(Group):
    """Labelled examples: which, and how the training split is drawn. Everything here is public."""

    name: _Task = "sst2"  # a task of GLUE; functions needs no file
    path: str | None = None  # the local training file; null: from the hub (functions: from pinned packages)
    source: _Examples | None = None  # in place of name and path: a table file, or owner/name on the hub, of one's own task
    text: Annotated[tuple[str, ...], AsTuple, _Choices] = ("text",)  # source: the columns of the text, one or more
    label: str = "label"  # source: the column of the label
    # source: the classes in the order of their numbers, if they were fixed before the examples were seen; null: the labels that the
    # source has, whole numbers by value, then the others by code point
    classes: _Classes | None = None
    others: Literal["refuse", "leave_out"] = "refuse"  # with classes: the rows with another label
    # the local validation file; null: beside the training file. source: a file, or a split on the hub; null: a part is held out
    validation: str | None = None
    held_out: Share = 0.1  # source without validation: share of the examples that is held out, drawn at random
    train: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the other examples to train on, drawn at random; 1: all, iid only
    split_seed: Seed = 0
    max_length: Count = 128  # tokens of an example; what is longer is cut

    @property
    def draws_held_out(self) -> bool:
        """Whether a part of the source's examples validates."""
        return self.source is not None and self.validation is None

    @model_validator(mode="after")
    def _columns_differ(self):
        if self.source is not None and self.label in self.text:
            raise ValueError(f"label {self.label!r:.60} is a column of text, too; the answer must not be in the text")
        return self

    @model_validator(mode="after")
    def _name_or_source(self):
        others = ("name", "path") if self.source is not None else ("text", "label", "classes", "others", "held_out")
        if both := [key for key in others if key in self.model_fields_set]:
            raise ValueError(f"{both[0]} has no effect {'beside' if self.source is not None else 'without'} source; remove it")
        return self

    def _without_effect(self) -> dict[str, str]:
        drawn = self.train < 1 or self.draws_held_out
        found = {} if drawn else {"split_seed": "train 1, where nothing is drawn"}
        if self.source is not None:
            found |= {} if self.classes is not None else {"others": "classes null"}
            return found | ({} if self.draws_held_out else {"held_out": "a validation file"})
        if self.name == "functions":
            return found | dict.fromkeys(("path", "validation"), "task functions, which reads no file")
        return found | ({"validation": "a null path"} if self.path is None else {})

    @model_serializer(mode="wrap")
    def _one_way_or_the_other(self, handler):
        """Certificates of named tasks are as they were before there were others."""
        named, own = ("name", "path"), ("source", "text", "label", "classes", "others", "held_out")
        without = (*named, *([] if self.draws_held_out else ["held_out"])) if self.source is not None else own
        without = (*without, *["others"] * (self.others == "refuse"))
        return {key: value for key, value in handler(self).items() if key not in without}
