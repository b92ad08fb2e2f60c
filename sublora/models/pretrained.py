"""Pretrained models: the dense causal language models of `transformers`, or a checkpoint of llama2.c."""

import contextlib
import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from sublora.data.gguf import is_gguf
from sublora.errors import SubloraError, errors_named, one_line
from sublora.models.gguf import model_folder
from sublora.models.llama2c import load_llama2c
from sublora.models.loading import MOST, load_config, load_weights, refuse_family, refuse_infinite
from sublora.models.lora import linear_shapes
from sublora.models.output import Read, Rest, in_pieces
from sublora.progress import silence_transformers

FAMILIES = tuple(
    """
    apertus arcee biogpt bloom cohere cohere2 exaone4 falcon gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neo
    gpt_neox gpt_neox_japanese gptj granite helium llama mamba ministral mistral nemotron olmo olmo2 olmo3 opt persimmon
    phi phi3 qwen2 qwen3 seed_oss smollm3 stablelm starcoder2 xglm
    """.split()
)
"""Types of configuration that are built: decoders that take time and memory as their sizes say, without experts, whose choice by
rounded numbers would make one message two models. A stranger's certificate names its type, so the list is closed."""
UNSAID = tuple(
    """
    architectures auto_map dtype torch_dtype transformers_version use_cache quantization_config name_or_path
    id2label label2id num_labels problem_type finetuning_task task_specific_params
    output_attentions output_hidden_states return_dict gradient_checkpointing
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    chunk_size_feed_forward pretraining_tp reorder_and_upcast_attn slow_but_exact
    attention_softmax_in_fp32 scale_attention_softmax_in_fp32 residual_in_fp32
    """.split()
)
"""Keys of a configuration that change nothing about the function that the weights compute in float32. Nor does any dropout."""
UNSAID_BY_CAUSAL = tuple(
    """
    bos_token_id eos_token_id pad_token_id decoder_start_token_id is_decoder is_encoder_decoder add_cross_attention
    init_std rescale_prenorm_residual time_step_floor time_step_init_scheme time_step_max time_step_min time_step_scale
    max_window_layers use_associative_scan use_mambapy
    """.split()
)
"""Keys that change nothing more where the model is causal and all of its weights are given: each is the type's default."""
UNSAID_BY_TYPE = {
    "biogpt": "layer_norm_eps",
    "exaone4": "sliding_window_pattern",
    "gemma3_text": "attn_logit_softcapping",
    "gpt_bigcode": "num_key_value_heads",
    "gpt_neo": "attention_layers",
    "mamba": "expand",
    "smollm3": "no_rope_layer_interval",
}
"""A key that a type has and does not use, or that another key makes."""
LEARNT_POSITIONS = ("biogpt", "gpt2", "gpt_bigcode", "gpt_neo", "opt")
"""Types with a weight for each position. The others compute positions, and their longest window is advice."""
ROPE: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": None},
    "llama3": dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")),
    "yarn": dict.fromkeys(("factor", "original_max_position_embeddings", "attention_factor", "mscale", "mscale_all_dim"))
    | {"beta_fast": 32, "beta_slow": 1, "truncate": True},
}
"""Types of rotary positions, and what each reads, with its default. `dynamic` is `default` up to the longest window; `longrope`
makes a prediction depend on the length of the window, so it is refused."""
CAUSAL = 1e-3
"""How much a probability may change when a later token does: rounding of large logits."""
TRIED = 2**33
"""About how many weights times tokens of a window are computed to try that: seconds on one core."""

NOT_CAUSAL = "model.source: predictions depend on tokens after them or on their number, so it is not a causal language model"


class Causal(nn.Module):
    """A model of `transformers` as a map from token ids (batch, time) to logits (batch, time, V).

    V is that of the tokenizer: some models have rows for more tokens, only so that sizes are round. block_size: tokens of the
    longest window that it reads.
    """

    base: Any  # of one of the many classes of `transformers`
    reads_pieces = True

    def __init__(self, base: Any, vocab_size: int, block_size: int):
        """Raises SubloraError when the model has fewer tokens, or reads shorter windows."""
        super().__init__()
        self.base, self.vocab_size, self.block_size = base.eval(), vocab_size, block_size
        self.rows = base.config.vocab_size  # of its output layer
        if (tokens := base.config.vocab_size) < vocab_size:
            raise SubloraError(f"corpus.tokenizer: it has {vocab_size:,} tokens, the model {tokens:,}; take the model's own")
        if base.config.model_type in (*LEARNT_POSITIONS, "gptj"):  # gptj has a table
            _refuse_longer(base.config, block_size)

    def forward(self, tokens: torch.Tensor, *, read: Read | None = None, rows: torch.Tensor | None = None) -> Any:
        """Logits; with `read` what it says of them, a piece at a time, at the places `rows` (`models.output.in_pieces`)."""
        if read is None:
            return self.base(input_ids=tokens, use_cache=False).logits[..., : self.vocab_size]
        said = self.base.base_model(input_ids=tokens, use_cache=False)
        rest = Rest(self.base, said, self.vocab_size)
        return in_pieces(rest, (said.last_hidden_state,), read, rows, vocab_size=self.base.config.vocab_size)

    def compute_layers_again(self) -> None:
        """While training, keep the inputs of layers alone, and compute the layers again on the way back.

        Raises SubloraError for a family whose layers cannot be. They have then the weights that they have now: what
        `transformers` itself does would take the base's, since `torch.func.functional_call` lends weights for one call only.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        layers: list[Any] = [each for each in self.base.modules() if isinstance(each, GradientCheckpointingLayer)]
        if not layers:
            kind = self.base.config.model_type
            raise SubloraError(f"training.gradient_checkpointing: models of type {kind} cannot do without; remove it")
        for layer in layers:
            layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, _again

    @torch.no_grad()
    def check_causal(self) -> None:
        """Raises SubloraError for a model that looks at the tokens it is to predict, or their number, or cannot be computed."""
        weights = sum(parameter.numel() for parameter in self.parameters())
        time, random = min(self.block_size, max(64, min(1024, TRIED // weights))), torch.Generator().manual_seed(0)
        tokens, others = torch.randint(self.vocab_size, (2, 1, time), generator=random)
        knowns = [known for known in (1, time // 2, time - 1) if known]
        rows = torch.cat([tokens, *(torch.cat([tokens[:, :known], others[:, known:]], dim=1) for known in knowns)])
        with _impossible_named():
            probabilities = self(rows).softmax(-1)
            alone = [self(tokens[:, :known]).softmax(-1)[0] for known in knowns]
        if not probabilities.isfinite().all():
            raise SubloraError("model.source: it computes numbers that are not finite in float32; give another model")
        for known, changed, short in zip(knowns, probabilities[1:], alone, strict=True):
            for other in (changed[:known], short):
                if not torch.allclose(other, probabilities[0, :known], rtol=0, atol=CAUSAL):
                    raise SubloraError(NOT_CAUSAL)


class _Called(nn.Module):
    """A layer as `transformers` calls it, for `functional_call`."""

    def __init__(self, layer: nn.Module, call: Callable[..., Any]):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, *inputs: Any) -> Any:
        return self.call(*inputs)


def _again(call: functools.partial, *inputs: Any) -> Any:
    """What a layer's `forward` (`call`, whose first argument is the layer) returns; computed again for the gradients."""
    layer = call.args[0]
    called, weights = _Called(layer, call), {f"layer.{name}": weight for name, weight in layer.named_parameters()}
    return checkpoint(lambda *given: functional_call(called, weights, given), *inputs, use_reentrant=False)


def load_causal(
    source: str, vocab_size: int, block_size: int, local_only: bool = False, *, stated: Mapping[str, Any] | None = None
) -> Causal:
    """The model in a folder, on the hub, in a llama2.c file (.bin) or a GGUF file, in float32. No code of the model's own is run.

    stated: its configuration, in place of the folder's. local_only: nothing is downloaded.
    Raises SubloraError for one that cannot be loaded, is not causal or of other sizes (`Causal`), or learnt more than parameters;
    for weights that are not all and only those of the configuration (`load_weights`), or not finite.
    """
    if source.endswith(".bin"):
        base = load_llama2c(source)
        _refuse_longer(base.config, block_size)
        refuse_infinite(base.named_parameters(), f"model.source: {source!r}")
    else:
        from transformers import AutoModelForCausalLM  # here, because importing it takes seconds

        folder = str(model_folder(source, FAMILIES)) if is_gguf(source) else source
        found = load_config(folder, local_only)
        refuse_family(found, FAMILIES, f"model.source: {source!r:.200}")
        _refuse_longer(found, block_size)
        config = _config(_stated(found) if stated is None else stated)
        base = load_weights(AutoModelForCausalLM, folder, config, local_only)
    model = Causal(base, vocab_size, block_size)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    # Files may say more than a certificate states. The model is what its architecture and its parameters make.
    made_of = blank_causal(stated or architecture(model), vocab_size, block_size)
    weights, nothing = model.state_dict(), torch.empty(0)
    with errors_named(f"model.source: {source!r}: its weights do not fit the configuration", "use the model that is meant"):
        made_of.load_state_dict({name: weights[name] for name in parameters}, strict=False)
    made = made_of.state_dict()
    for name in {**weights, **made}:
        if not torch.equal(weights.get(name, nothing), made.get(name, nothing)):
            why = f"has learnt {name}, which is no parameter of the model that its configuration states"
            raise SubloraError(f"model.source: {source!r} {why}; it cannot be coded")
    made_of.check_causal()
    return made_of


def _refuse_longer(config: Any, block_size: int) -> None:
    """Raises SubloraError where windows are longer than those that a configuration is for."""
    longest = getattr(config, "max_position_embeddings", block_size)
    if isinstance(longest, int) and longest < block_size:
        raise SubloraError(f"model.block: {block_size:,} tokens, but the pretrained model reads {longest:,} at most")


def architecture(model: Causal) -> dict[str, Any]:
    """The configuration as plain data, as a message has it: with the parameters, all that the model is."""
    return _stated(model.base.config)


def configuration_sha256(configuration: Mapping[str, Any]) -> str:
    """Fingerprint of a configuration: of the text that a message would have of it (`message.configuration`)."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def stated_form(values: Mapping[str, Any], classifier: bool = False) -> dict[str, Any]:
    """The one form of what a configuration says: what differs from its type's defaults, and changes what the weights compute.

    Raises SubloraError for values that are no configuration.
    """
    if classifier:
        return classifier_configuration(classifier_config(values))
    return _stated(_config(values))


def _stated(config: Any) -> dict[str, Any]:
    with _impossible_named():
        values = _form(config, lambda key: key.startswith("initializer") or key in UNSAID_BY_CAUSAL)
        return _effective(config.model_type, values)


def _effective(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a causal model's configuration says that which has an effect, written in one of its forms."""
    known = _defaults(kind)
    said = {key: value for key, value in values.items() if key != UNSAID_BY_TYPE.get(kind)}
    said |= {key: False for key, value in said.items() if value is None and isinstance(known[key], bool)}
    layers = values.get("layer_types") or ()
    if rope := said.get("rope_parameters"):
        nested = {key: rope[key] for key in sorted({*layers} & rope.keys())}
        said["rope_parameters"] = {key: _rope(kind, each) for key, each in nested.items()} or _rope(kind, rope)
    without = set()
    if kind not in LEARNT_POSITIONS:
        without |= {"max_position_embeddings", "n_positions"}
    if "original_max_position_embeddings" not in said.get("rope_parameters", {}):
        without.add("original_max_position_embeddings")
    if layers and "sliding_attention" not in layers:
        without |= {"sliding_window", "use_sliding_window"}
    if said.get("n_inner") in (None, 4 * said.get("n_embd", 0)):
        without.add("n_inner")
    if kind == "falcon" and said.get("new_decoder_architecture"):
        without |= {"multi_query", "parallel_attn"}
        if said.get("num_ln_in_parallel_attn") == 2:
            said["num_ln_in_parallel_attn"] = None
    elif kind == "falcon":
        without |= {"num_ln_in_parallel_attn"} | ({"num_kv_heads"} if said.get("multi_query", True) else set())
    if not said.get("use_bidirectional_attention"):
        without.add("use_bidirectional_attention")
    if said.get("alibi"):
        without.add("rope_parameters")
    if kind == "gpt_neo":
        said["attention_types"] = [[values["attention_layers"], 1]]
    if kind == "smollm3":
        without.add("use_sliding_window")
        said["no_rope_layers"] = [int(bool(each)) for each in said["no_rope_layers"]][: said["num_hidden_layers"]]
    return {key: value for key, value in said.items() if key not in without}


def _rope(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What rotary positions of this type read, without defaults."""
    name = "default" if values["rope_type"] == "dynamic" else values["rope_type"]
    if name not in ROPE:
        raise SubloraError(f"model.architecture: rope_type {name!r:.40} is none of {', '.join(ROPE)}; give another model")
    said = {key: values[key] for key, default in ROPE[name].items() if values.get(key) not in (None, default)}
    if "attention_factor" in said or not (said.get("mscale") and said.get("mscale_all_dim")):
        said = {key: value for key, value in said.items() if not key.startswith("mscale")}
    if "partial_rotary_factor" in str(_defaults(kind)["rope_parameters"]) and "partial_rotary_factor" in values:
        said["partial_rotary_factor"] = values["partial_rotary_factor"]
    return {"rope_type": name, "rope_theta": values["rope_theta"], **said}


def classifier_configuration(config: Any) -> dict[str, Any]:
    """The same of a classifier's base, whose new head is drawn as it says; its tokenizer and the task say the rest."""
    return _form(config, lambda key: key == "pad_token_id")


def classifier_config(values: Mapping[str, Any], **settings: Any) -> Any:
    """The configuration of a classifier's base. Raises SubloraError for values that are none."""
    from transformers import AutoConfig

    with _impossible_named():
        return AutoConfig.for_model(**_declared(values["model_type"], values), **settings)


def _form(config: Any, without: Callable[[str], bool]) -> dict[str, Any]:
    with _impossible_named():
        values = _whole(json.loads(json.dumps(config.to_diff_dict())))
        kept = _declared(config.model_type, values)
        return {key: value for key, value in kept.items() if not without(key) and "drop" not in key} | {
            "model_type": config.model_type
        }


def _whole(value: Any) -> Any:
    """The same data with whole numbers as integers, so that one number has one form."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def blank_causal(architecture: Mapping[str, Any] | None, vocab_size: int, block_size: int) -> Causal:
    """A model of this architecture in float32, its parameters yet to be written. Raises SubloraError as `causal_weights`."""
    from transformers import AutoModelForCausalLM

    with _impossible_named():
        return Causal(AutoModelForCausalLM.from_config(_config(architecture), dtype=torch.float32), vocab_size, block_size)


def causal_weights(architecture: Mapping[str, Any] | None) -> int:
    """How many parameters, and entries of tables like masks, a model of this architecture has; no memory is taken for them.

    Raises SubloraError for a configuration that is none, of a type outside `FAMILIES`, or of more than `MOST` layers or heads.
    """
    model = _without_memory(architecture)
    return sum(tensor.numel() for tensors in (model.parameters(), model.buffers()) for tensor in tensors)


def causal_maps(architecture: Mapping[str, Any] | None) -> dict[str, int]:
    """A model's linear layers by name, sorted; with each, inputs and outputs of all so named. Raises SubloraError likewise."""
    return {name: sum(map(sum, shapes)) for name, shapes in linear_shapes(_without_memory(architecture)).items()}


def _without_memory(architecture: Mapping[str, Any] | None) -> Any:
    from transformers import AutoModelForCausalLM

    with _impossible_named(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(_config(architecture))


def _config(architecture: Mapping[str, Any] | None) -> Any:
    from transformers import AutoConfig

    if architecture is None:
        raise SubloraError("model.architecture: missing, so nobody knows what the weights of the message are for")
    if (kind := architecture.get("model_type")) not in FAMILIES:
        raise SubloraError(f"model.architecture: type {kind!r:.40} is none of {', '.join(FAMILIES)}")
    if architecture.get("use_bidirectional_attention"):  # Gemma's models can be encoders
        raise SubloraError(NOT_CAUSAL)
    with _impossible_named():
        config = AutoConfig.for_model(**_declared(architecture["model_type"], architecture))
        counts = {"layers": int(config.num_hidden_layers), "heads": int(getattr(config, "num_attention_heads", 1))}
        if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
            config.pad_token_id = None  # the type's default, in a smaller vocabulary
    for what, count in counts.items():
        if not 1 <= count <= MOST:
            raise SubloraError(f"model.architecture: {count:,} {what}; 1 to {MOST:,} are built")
    return config


def _declared(model_type: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that a configuration of this type declares: no names of kernels, code or files that others may have added.

    Where the type's default is a float, an integer becomes one.
    """
    known = {key: value for key, value in _defaults(model_type).items() if key not in UNSAID}
    kept = {key: value for key, value in values.items() if key in known and not key.startswith("_")}
    kept = copy.deepcopy(kept)  # `transformers` changes what is in it
    floats = {key for key, value in kept.items() if type(value) is int and isinstance(known[key], float)}
    return {key: float(value) if key in floats else value for key, value in kept.items()}


@functools.cache
def _defaults(model_type: str) -> dict[str, Any]:
    """What a configuration of this type says where nobody says anything."""
    from transformers import AutoConfig

    silence_transformers()
    return AutoConfig.for_model(model_type).to_dict()


@contextlib.contextmanager
def _impossible_named() -> Iterator[None]:
    """Whatever `transformers` makes of keys that are missing, of another type or do not fit together, as one line."""
    try:
        yield
    except SubloraError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise SubloraError(f"model.architecture: no configuration of a causal model ({why})") from None
