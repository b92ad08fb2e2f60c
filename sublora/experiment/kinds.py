"""The kinds of experiments. Each is one pydantic model that has exactly the groups it uses."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Tag, ValidationError, field_validator, model_serializer, model_validator
from pydantic.types import Discriminator

from sublora.errors import SubloraError
from sublora.experiment import groups
from sublora.experiment.groups import AsTuple, Group
from sublora.experiment.hints import explain

DEFAULT = "pretrain"
CORPORA = "corpora"
"""The folder of prepared corpora, beside those of runs."""


class _Named(Group):
    """What all experiments have."""

    name: str
    notebooks: Annotated[tuple[str, ...], AsTuple]

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, value):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(f"name {value!r:.120} must be letters, digits, '.', '_' and '-' (it names a folder)")
        if value.casefold() == CORPORA:
            raise ValueError(f"name {value!r} is reserved for the folder of prepared corpora; choose another")
        return value

    @field_validator("notebooks")
    @classmethod
    def _notebooks_are_steps(cls, value):
        if not value or len(set(value)) < len(value) or not all(re.fullmatch(r"\w[^/\\]*", name) for name in value):
            raise ValueError("must be a list of one or more names of notebooks, each once, without folder and .ipynb")
        return value

    def parameters(self) -> dict[str, Any]:
        """The experiment as plain data: what a params file, a notebook or a certificate holds."""
        return self.model_dump(mode="json")


class _OnText(_Named):
    """Experiments with a language model: documents are scored in windows."""

    corpus: groups.Corpus = groups.Corpus()
    bounds: groups.Bounds = groups.Bounds()
    reference: groups.Reference = groups.Reference()
    if TYPE_CHECKING:  # fields of each of them
        kind: str
        model: groups.Gpt | groups.Pretrained | groups.Counts

    @model_validator(mode="after")
    def _stride_is_within_the_block(self):
        if self.stride > self.model.block:
            raise ValueError(f"bounds.stride {self.stride} exceeds model.block {self.model.block}")
        return self

    @model_validator(mode="after")
    def _what_is_split_is_bounded(self):
        if (self.corpus.split == "positions") != ("position" in self.bounds.levels):
            raise ValueError("corpus.split positions and bounds.levels [position] go together; set both, or neither")
        training = getattr(self, "training", None)
        if self.corpus.split == "positions" and training is not None and training.sampling != "token":
            raise ValueError("training.sampling must be token for corpus.split positions: positions, not documents, weigh the same")
        if (self.corpus.group is not None) != ("group" in self.bounds.levels):
            raise ValueError("corpus.group and bounds.levels [group] go together; set both, or neither")
        return self

    @model_validator(mode="after")
    def _characters_are_bytes(self):
        if self.reference.start == "characters" and self.corpus.tokenizer != "bytes":
            raise ValueError(f"reference.start characters is for tokenizer bytes, not {self.corpus.tokenizer:.60}; remove it")
        return self

    @model_validator(mode="after")
    def _tokenizer_may_have_read_the_pool(self):
        if self.corpus.tokenizer_from == "pool" and (dependent := set(self.bounds.levels) - {"document", "position", "group"}):
            why = "bounds need a tokenizer made elsewhere, since they assume iid or martingale; take [document], or another one"
            raise ValueError(f"bounds.levels: {sorted(dependent)[0]} {why}")
        return self

    @model_validator(mode="after")
    def _reference_suits_the_levels(self):
        others, reference = set(self.bounds.levels) - {"token"}, self.reference
        if reference.name == "stream" and others:
            why = "depends on the other documents, so bounds speak of tokens alone; take levels [token]"
            raise ValueError(f"reference.name stream at level {sorted(others)[0]} {why}")
        if reference.name != "uniform" and "sequence" in self.bounds.levels:
            why = "pieces of one document are alike, and half of such a bound pays for no message; take level document"
            raise ValueError(f"reference.name {reference.name} at level sequence: {why}")
        if reference.name == "base" and not isinstance(self.model, groups.Pretrained):
            raise ValueError("reference.name base is the pretrained model of kinds finetune, zeroshot and round; take another")
        for key in () if others - {"position"} else ("beta", "gamma", "offset", "excess"):
            if getattr(reference, key) != groups.Reference.model_fields[key].default:
                raise ValueError(f"reference.{key} has no effect for levels [{self.bounds.levels[0]}]; remove it")
        return self

    @model_serializer(mode="wrap")
    def _what_has_an_effect(self, handler):
        """The uniform reference is no group: certificates of before there were others are as they were."""
        return {key: value for key, value in handler(self).items() if key != "reference" or self.reference.name != "uniform"}

    @property
    def needs_base(self) -> bool:
        """Whether losses depend on the weights of a pretrained model that are not in the message."""
        return self.kind in ("finetune", "zeroshot") or self.reference.name == "base"

    @property
    def stride(self) -> int:
        """How far the scoring window moves, in tokens."""
        return self.bounds.stride or max(1, self.model.block // 2)


def _film_fits(experiment):
    subspace = experiment.subspace
    named = dict.fromkeys(("sublora", "lora_b", "tinylora"), "LoRA has none") | {"biases": "here all are biases"}
    both, projector = subspace.parametrization == "lora_b+biases", subspace.projector
    if both and subspace.dimension is not None and not projector.startswith("film+"):
        better = "film+kron_qr" if projector == "film" else f"film+{projector}"
        raise ValueError(f"subspace.projector {projector} would mix biases and LoRA's weights; take {better}")
    if (why := named.get(subspace.parametrization)) and subspace.projector.startswith("film"):
        raise ValueError(f"subspace.projector {subspace.projector} moves norms and biases; {why}: take one without film")
    return experiment


class Pretrain(_OnText):
    """A GPT with random weights, trained in a subspace."""

    kind: Literal["pretrain"] = "pretrain"
    notebooks: Annotated[tuple[str, ...], AsTuple] = ("pretrain", "bounds")
    model: groups.Gpt = groups.Gpt()
    subspace: groups.Subspace = groups.Subspace()
    training: groups.Training = groups.Training()
    compression: groups.Compression = groups.Compression()

    @model_validator(mode="after")
    def _subspace_fits_the_model(self):
        used = self.subspace.model_dump()  # the keys that have an effect
        layers = self.model.linear_layers
        targets = used.get("targets", layers)
        if not targets or set(targets) - set(layers):
            raise ValueError(f"subspace.targets {list(targets)} must be one or more of {', '.join(layers)}")
        for key in ("rank", "blocks"):
            if used.get(key, 1) > self.model.width:
                raise ValueError(f"subspace.{key} {used[key]} exceeds model.width {self.model.width}")
        if used["parametrization"] == "kronecker" and used["blocks"] < 2:
            raise ValueError(f"subspace.blocks {used['blocks']}: a Kronecker product has at least 2 factors")
        return _film_fits(self)

    @model_validator(mode="after")
    def _layers_are_kept(self):
        if self.training.gradient_checkpointing:
            raise ValueError("training.gradient_checkpointing has no effect for kind pretrain; remove it")
        return self

    @model_validator(mode="after")
    def _residual_of_a_document_code(self):
        if self.model.residual and self.reference.name == "uniform":
            raise ValueError("model.residual needs reference.name document or stream, not uniform: it adds to a document code")
        return self


class Finetune(_OnText):
    """A public pretrained language model, fine-tuned in a subspace of its weights."""

    kind: Literal["finetune"]
    notebooks: Annotated[tuple[str, ...], AsTuple] = ("pretrain", "bounds")
    model: groups.Pretrained
    subspace: groups.FinetuneSubspace = groups.FinetuneSubspace()
    training: groups.Training = groups.Training()
    compression: groups.Compression = groups.Compression()

    @model_validator(mode="after")
    def _subspace_is_possible(self):
        return _film_fits(self)


class Round(_OnText):
    """A pretrained language model, all weights of which are rounded and coded."""

    kind: Literal["round"]
    notebooks: Annotated[tuple[str, ...], AsTuple] = ("pretrained",)
    model: groups.Pretrained
    rounding: groups.Rounding = groups.Rounding()


class Zeroshot(_OnText):
    """A public pretrained language model as it is: its message is one of zero coordinates."""

    kind: Literal["zeroshot"]
    notebooks: Annotated[tuple[str, ...], AsTuple] = ("pretrained",)
    model: groups.Pretrained


class Ngram(_OnText):
    """An n-gram model, all counts of which are coded."""

    kind: Literal["ngram"]
    notebooks: Annotated[tuple[str, ...], AsTuple] = ("pretrained",)
    model: groups.Counts = groups.Counts()
    counting: groups.Counting = groups.Counting()


class Classify(_Named):
    """A classifier, fine-tuned in a subspace."""

    kind: Literal["classify"]
    notebooks: Annotated[tuple[str, ...], AsTuple] = ("glue",)
    task: groups.Task = groups.Task()
    model: Annotated[
        Annotated[groups.Encoder, Tag("encoder")] | Annotated[groups.Words, Tag("words")],
        Discriminator(lambda value: "encoder" if _has(value, "source") else "words"),
    ] = groups.Words()
    subspace: groups.TaskSubspace = groups.TaskSubspace()
    training: groups.TaskTraining = groups.TaskTraining()
    compression: groups.Compression = groups.Compression()
    bounds: groups.TaskBounds = groups.TaskBounds()

    @model_validator(mode="before")
    @classmethod
    def _words_have_a_head_alone(cls, values):
        subspace = values.get("subspace", {})
        if _has(values.get("model", {}), "source") or not isinstance(subspace, Mapping):
            return values
        own = subspace.get("parametrization") in ("subspace", "full")  # of all weights, whatever the modules
        return {**values, "subspace": {**({} if own else {"modules": ("head",)}), **subspace}}

    @model_validator(mode="after")
    def _split_seeds_are_of_a_split(self):
        if self.task.train == 1 and self.bounds.split_seeds > 1:
            raise ValueError("bounds.split_seeds has no effect for task.train 1, where nothing is drawn; remove it")
        return self

    @model_validator(mode="after")
    def _encoders_read_two_texts(self):
        if isinstance(self.model, groups.Encoder) and self.task.source is not None and len(self.task.text) > 2:
            raise ValueError("task.text must be one or two columns for a model of transformers: its tokenizer reads no more")
        return self

    @model_validator(mode="after")
    def _levels_are_of_a_codebook(self):
        if self.compression.quantizer == "grid":
            raise ValueError("compression.quantizer grid is of language models: a classifier's message has a codebook")
        return self

    @model_validator(mode="after")
    def _words_have_no_attention(self):
        if isinstance(self.model, groups.Words) and self.subspace.adapts_attention:
            raise ValueError("subspace.modules: a bag of words has no attention; its modules are [head]")
        return self


OnText = Pretrain | Finetune | Round | Zeroshot | Ngram
Experiment = OnText | Classify
KINDS: dict[str, type[Experiment]] = {
    "pretrain": Pretrain, "finetune": Finetune, "round": Round, "ngram": Ngram, "classify": Classify,
    "zeroshot": Zeroshot,
}  # fmt: skip


def _has(value: Any, key: str) -> bool:
    return key in value if isinstance(value, Mapping) else hasattr(value, key)


def as_experiment(parameters: Mapping[str, Any], origin: str = "parameters") -> Experiment:
    """The experiment that plain data describes. Raises SubloraError: one line with `origin`, the key, and the nearest valid key."""
    kind = parameters.get("kind", DEFAULT)
    if not isinstance(kind, str) or kind not in KINDS:
        raise SubloraError(f"{origin}: key 'kind' is {kind!r:.60}; there are {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(dict(parameters))
    except ValidationError as error:
        clauses = dict.fromkeys(explain(each, kind, KINDS) for each in error.errors())
        raise SubloraError(f"{origin}: {'; '.join(clauses)}") from None
