"""What one params file says: an `Experiment`, validated and immutable.

A params file is YAML data with the experiment's name, the notebooks it runs in order, and one group of settings for each room.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sublora.errors import SubloraError

ALPHA_GRID = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5)
"""Smoothing weights fixed in advance (Lotfi et al. 2024a, released code); a message names one by its index."""

TOP_K = (*range(1, 11), 50, 100)
"""The k of all top-k errors (Lotfi et al. 2024a, released code); those not below the vocabulary's size are left out."""

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Group(BaseModel):
    """A group of settings: no unknown keys, no silent conversions, no changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Corpus(Group):
    """Which documents, how they become tokens, and how the training split is drawn. Everything here is public."""

    source: str = "python-stdlib"  # python-stdlib | text | file | openwebtext | the name of a Hugging Face data set
    path: str | None = None  # text: a folder of files; file: a .jsonl, .csv, .tsv or .parquet file (also .xz, .gz, .bz2)
    field: str = "text"  # the column or key that holds a document's text
    subset: str | None = None  # Hugging Face: the data set's configuration name
    tokenizer: str = "bytes"  # bytes | gpt2 | a `transformers` tokenizer (./folder, or owner/name on the hub) | llama2.c's (.bin)
    max_documents: Count | None = None  # keep a fixed uniform sample of the pool, for trials
    train: Share = 0.75  # shares of the documents; what remains after train and validation is the test split
    validation: Share = 0.02
    split_seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("tokenizer")
    @classmethod
    def _tokenizer_is_a_name(cls, value):
        if value in ("bytes", "gpt2") or "/" in value or value.endswith(".bin"):
            return value
        raise ValueError("must be bytes, gpt2, ./a-folder, owner/name on the hub, or a llama2.c tokenizer (.bin)")

    @model_validator(mode="after")
    def _shares_leave_a_test_split(self):
        if self.train + self.validation >= 1:
            raise ValueError("train + validation must be below 1, so that a test split remains")
        return self


class Model(Group):
    """The architecture preset and the seed of its initial weights. Public: nothing here may depend on the training split."""

    layers: Count = 4
    heads: Count = 4
    width: Count = 128
    block: Count = 128  # context length in tokens
    bias: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    embedding_std: Annotated[float, Field(gt=0)] = 0.02  # initial scale of the token and position embeddings
    weight_std: Annotated[float, Field(gt=0)] = 0.02  # initial scale of all other weight matrices

    @model_validator(mode="after")
    def _heads_divide_width(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self


PARAMETRIZATIONS = ("sublora", "lora", "subspace", "full", "kronecker", "monarch")
PROJECTORS = ("kron_qr", "kron", "kron_qr3", "kron3", "kron_one_sided", "dense", "dense_qr", "sparse", "fastfood", "film")
"""Names of `models.projectors`, in the order in which a message counts them; there `film+NAME` follows, for each but the last."""


class Subspace(Group):
    """How many numbers describe a model, and how they become weights (the message names all of it)."""

    parametrization: Literal[PARAMETRIZATIONS] = "sublora"
    projector: Literal[(*PROJECTORS, *(f"film+{name}" for name in PROJECTORS[:-1]))] = "kron_qr"  # where there is a dimension
    dimension: Count | None = 961  # d, the number of trained coordinates; null for lora and full, which train all of theirs
    blocks: Count = 4  # monarch: the number of blocks; kronecker: the number of factors
    rank: Count = 4
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    targets: tuple[str, ...] = ("q", "v", "head")
    seed: Annotated[int, Field(ge=0)] = 137

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists_are_tuples(cls, values):
        if isinstance(values, Mapping) and isinstance(values.get("targets"), list):
            values = {**values, "targets": tuple(values["targets"])}
        return values

    @model_validator(mode="after")
    def _dimension_belongs_to_a_subspace(self):
        random_subspace = self.parametrization in ("sublora", "subspace")
        if self.parametrization in ("kronecker", "monarch"):
            return self
        if random_subspace and self.dimension is None:
            raise ValueError(f"dimension is needed for parametrization {self.parametrization}")
        if not random_subspace and self.dimension is not None:
            raise ValueError(f"dimension must be null for parametrization {self.parametrization}, which trains all of its weights")
        return self


class Training(Group):
    """The search. Free of charge: it may use any data, and none of it is in the message."""

    steps: Count = 1500
    batch: Count = 64  # sequences a step, over all devices
    accumulation: Count = 1  # a step's batch is cut into this many parts
    sampling: Literal["document", "token"] = "document"  # weigh every document, or every token, equally
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    min_learning_rate: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 100
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    validate_every: Count = 250  # steps between validations; each writes a checkpoint
    validation_documents: Count = 256
    precision: Literal["auto", "no", "bf16"] = "auto"
    compile: Literal["auto", "yes", "no"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists_are_tuples(cls, values):
        if isinstance(values, Mapping) and isinstance(values.get("betas"), list):
            values = {**values, "betas": tuple(values["betas"])}
        return values

    @model_validator(mode="after")
    def _parts_divide_batch(self):
        if self.batch % self.accumulation:
            raise ValueError(f"batch {self.batch} is not divisible by accumulation {self.accumulation}")
        return self


class Compression(Group):
    """From coordinates to bytes. The message names the quantizer, its levels and the coder."""

    quantizer: Literal["uniform", "kmeans", "normal_float", "ecsq"] = "kmeans"
    entropy_penalty: Annotated[float, Field(ge=0)] = 0.02  # ecsq: variances of a coordinate that a bit of its entropy is worth
    levels: Annotated[int, Field(ge=2, le=255)] = 11
    finetune_steps: Annotated[int, Field(ge=0)] = 0  # steps of quantization-aware training before coding
    finetune_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    rate_penalty: Annotated[float, Field(ge=0)] = 0.0  # bits of loss for each bit of a coordinate's entropy while fine-tuning


Level = Literal["document", "sequence", "token"]


class Bounds(Group):
    """What is certified. All of it is fixed before the training split is drawn."""

    delta: Share = 0.05
    levels: tuple[Level, ...] = ("document",)  # which units; the first is the one that alpha is chosen for
    documents: Count | None = 10_000  # n, the evaluated subsample; null: all m
    sequences: Count | None = 10_000  # the same at sequence level
    tokens: Count | None = 50_000  # the same at token level
    pilot: Share = 0.1  # an independent subsample for choosing alpha and the bets, as a share of n
    held_out_documents: Count = 2_000
    stride: Count | None = None  # how far the window moves in documents longer than the block, in tokens; null: half the block
    batch_tokens: Annotated[int, Field(ge=1, le=2**20)] = 4096  # in a forward pass; a GPU is faster with more

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists_are_tuples(cls, values):
        if isinstance(values, Mapping) and isinstance(values.get("levels"), list):
            values = {**values, "levels": tuple(values["levels"])}
        return values

    @model_validator(mode="after")
    def _levels_are_distinct(self):
        if not self.levels or len(set(self.levels)) < len(self.levels):
            raise ValueError("levels must be one or more of document, sequence and token, each once")
        return self


FOR_TASKS = ("sublora", "lora")
"""Parametrizations of a task's classifier: LoRA's weights and the head's, in a random subspace or each a coordinate."""


class Task(Group):
    """A GLUE task and the classifier that is fine-tuned on it. What is no search is public, or in the message."""

    name: str = "sst2"  # functions (needs no file) | cola | sst2 | mrpc | qqp | mnli | qnli | rte | wnli
    path: str | None = None  # the local training file; null: from the hub (functions: from the installed packages)
    validation: str | None = None  # the local validation file; null: beside the training file
    train: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the training file to train on, drawn at random; 1: all, iid only
    split_seed: Annotated[int, Field(ge=0)] = 0
    model: str = "gpt2"  # small (a bag of hashed words), or any AutoModelForSequenceClassification by name or local folder
    load_pretrained: bool = True  # false: the model's architecture with random weights
    model_seed: Annotated[int, Field(ge=0, le=2**28 - 1)] = 0  # of what is random in the base model (in the message)
    modules: tuple[Literal["attention", "head"], ...] = ("attention", "head")  # attention: LoRA on it; head: its own weights
    max_length: Count = 128  # tokens of an example; what is longer is cut
    buckets: Annotated[int, Field(ge=2, le=2**20)] = 4096  # small: hashed words (in the message)
    hashes: Annotated[int, Field(ge=1, le=16)] = 1  # small: buckets of a word (in the message)
    prefix: Annotated[int, Field(ge=1, le=127)] = 20  # small: letters of a word that count (in the message)
    epochs: Count = 5  # these five are the search, in place of training's settings of the same names
    batch: Count = 32
    accumulation: Count = 1
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5  # falls linearly to zero
    warmup: Annotated[int, Field(ge=0)] = 0  # steps

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists_are_tuples(cls, values):
        if isinstance(values, Mapping) and isinstance(values.get("modules"), list):
            values = {**values, "modules": tuple(values["modules"])}
        return values

    @model_validator(mode="after")
    def _consistent(self):
        if self.batch % self.accumulation:
            raise ValueError(f"batch {self.batch} is not divisible by accumulation {self.accumulation}")
        if self.modules not in (("attention", "head"), ("attention",), ("head",)):
            raise ValueError("modules must be [attention, head], [attention] or [head]")
        if self.model == "small" and self.modules != ("head",):
            raise ValueError("the small model has no attention: its modules are [head]")
        return self


class Pretrained(Group):
    """A causal language model trained elsewhere, every weight of which is rounded and coded: in place of model's sizes, subspace,
    training and compression. Of the ways listed here the message names the one that pilot units choose."""

    source: str  # a dense AutoModelForCausalLM by folder or hub name, or a llama2.c checkpoint (.bin)
    bits: tuple[Annotated[int, Field(ge=2, le=8)], ...] = (3, 4, 5)  # of a weight, to choose from
    scales: tuple[Literal["tensor", "row"], ...] = ("tensor", "row")  # one scale for a matrix or for each row, to choose from
    architecture: dict[str, Any] | None = None  # its configuration; null: what `source` says, and a certificate then states

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists_are_tuples(cls, values):
        if isinstance(values, Mapping):
            lists = {key: tuple(value) for key in ("bits", "scales") if isinstance(value := values.get(key), list)}
            values = {**values, **lists}
        return values

    @model_validator(mode="after")
    def _something_to_choose_from(self):
        for key in ("bits", "scales"):
            if not (choices := getattr(self, key)) or len(set(choices)) < len(choices):
                raise ValueError(f"{key} must be a list of one or more choices, each once")
        return self


class Experiment(Group):
    """One params file: one experiment."""

    name: str
    notebooks: tuple[str, ...] = ("pretrain", "bounds")
    corpus: Corpus = Corpus()
    model: Model = Model()
    subspace: Subspace = Subspace()
    training: Training = Training()
    compression: Compression = Compression()
    bounds: Bounds = Bounds()
    task: Task | None = None  # fine-tuning: in place of corpus and model
    pretrained: Pretrained | None = None  # a model trained elsewhere; of `model`, only the block is then its own

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists_are_tuples(cls, values):
        if isinstance(values, Mapping) and isinstance(values.get("notebooks"), list):
            values = {**values, "notebooks": tuple(values["notebooks"])}
        return values

    @model_validator(mode="after")
    def _consistent(self):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(f"name {self.name!r} must be letters, digits, '.', '_' and '-' (it names a folder)")
        if self.stride > self.model.block:
            raise ValueError(f"bounds.stride {self.stride} exceeds model.block {self.model.block}")
        if "glue" in self.notebooks and self.task is None:
            raise ValueError("notebook glue needs the group task, with the name of a GLUE task and, for a local file, its path")
        if "pretrained" in self.notebooks and self.pretrained is None:
            raise ValueError("notebook pretrained needs the group pretrained, with the source of a model")
        if self.pretrained and self.notebooks != ("pretrained",):
            raise ValueError("group pretrained needs notebooks: [pretrained], and no other")
        if self.task and self.pretrained:
            raise ValueError("task and pretrained exclude each other: a classifier's base model is task.model")
        if self.task and self.subspace.parametrization not in FOR_TASKS:
            raise ValueError(f"subspace.parametrization must be {' or '.join(FOR_TASKS)} for a task")
        return self

    @property
    def stride(self) -> int:
        """How far the scoring window moves, in tokens."""
        return self.bounds.stride or max(1, self.model.block // 2)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any], origin: str = "parameters") -> "Experiment":
        """Validate plain data. Raises SubloraError: one line with `origin`, the key, and the nearest valid key."""
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            raise SubloraError(f"{origin}: " + "; ".join(_explain(e) for e in error.errors())) from None

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Experiment":
        """Read a params file. Raises SubloraError when it cannot be read, is not YAML data, or says something invalid."""
        try:
            values = yaml.safe_load(Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SubloraError(f"{path}: cannot read the params file ({error}); give the path of a YAML file") from None
        except yaml.YAMLError as error:
            raise SubloraError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(values, dict):
            raise SubloraError(f"{path}: a params file holds keys and values, at least `name: ...`")
        return cls.from_parameters(values, str(path))

    def parameters(self) -> dict[str, Any]:
        """The experiment as plain data: what a params file, a notebook or a certificate holds."""
        return self.model_dump(mode="json")


def _explain(error: Mapping[str, Any]) -> str:
    """One pydantic error as a clause that names the key and, for a misspelt one, the nearest valid key."""
    *groups, key = error["loc"] or ("",)
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = Experiment.model_fields
        for group in groups:
            optional = {"task": Task, "pretrained": Pretrained}
            fields = (optional.get(group) or fields[group].annotation).model_fields
        nearest = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)[0]
        return f"unknown key {where!r}; did you mean {'.'.join([*map(str, groups), nearest])!r}?"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "float_type" and re.fullmatch(r"[0-9.+-]+e[+-]?[0-9]+", str(error["input"])):
        message += "; YAML reads this as text, write it with a point and a sign, as 1.0e-3"
    if not error["loc"]:
        return message
    if error["type"] == "missing":
        return f"key {where!r} is missing"
    return f"key {where!r}: {message}" + ("" if isinstance(error["input"], dict) else f" (got {error['input']!r})")
