"""From settings to a model that is a function of its coordinates."""

import hashlib
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from sublora.errors import SubloraError
from sublora.experiment import Counts, Gpt, Pretrained
from sublora.experiment import Subspace as SubspaceSettings
from sublora.models.biases import STRIDE, Biased
from sublora.models.gpt import GPT
from sublora.models.lora import add_lora, chosen_targets
from sublora.models.pretrained import Causal, causal_maps, causal_weights, load_causal
from sublora.models.projectors import Identity, make_projector
from sublora.models.rnn import GATES, Recurrent
from sublora.models.structured import replace_linears
from sublora.models.subspace import Subspace
from sublora.models.tinylora import add_tinylora


def base_model(model: Gpt | Pretrained | Counts, vocab_size: int, local_only: bool = False) -> GPT | Recurrent | Causal:
    """The public model that a message starts from: token ids (batch, time) to logits (batch, time, V).

    local_only: nothing is downloaded.
    A pretrained one has the architecture that the settings state, whatever its folder says; its weights must fit it.
    Raises SubloraError for a pretrained model that cannot be loaded, and for n-grams, which start from none.
    """
    if isinstance(model, Counts):
        raise SubloraError("a model of n-grams starts from no other model")
    if isinstance(model, Gpt):
        return GPT(model, vocab_size) if model.architecture == "gpt" else Recurrent(model, vocab_size)
    return load_causal(model.source, vocab_size, model.block, local_only, stated=model.architecture)


def base_by_itself(model: Pretrained, vocab_size: int, local_only: bool = False) -> Causal:
    """The public model as its source has it: no message has a say in its configuration. Raises SubloraError as `base_model`."""
    return load_causal(model.source, vocab_size, model.block, local_only)


def build(model: Gpt | Pretrained, subspace: SubspaceSettings, vocab_size: int) -> Subspace:
    """`parametrize` of the base model that the settings name."""
    return parametrize(base_model(model, vocab_size), model, subspace)


def parametrize(base: nn.Module, model: Gpt | Pretrained, subspace: SubspaceSettings) -> Subspace:
    """The base model under one of the parametrizations; its coordinates are zero, that is, its weights are those of the base.

    sublora: LoRA's weights in a random subspace. lora: all of LoRA's weights. subspace: all weights in a random subspace.
    full: all weights. kronecker, monarch: the weights of structured layers in place of the targets, all of them or, with a
    dimension, in a random subspace; not those of a pretrained model, which would lose all it has learnt. lora_b: of LoRA's weights
    B alone, A as drawn; biases: `Biased`; tinylora: `Tiny`; these three all of them or, with a dimension, in a random subspace;
    lora_b+biases: both of these, where a projector "film+..." leaves the biases outside of the subspace.
    Raises SubloraError when the dimension exceeds the number of trainable weights, and for a parametrization that does not fit.
    """
    kind = subspace.parametrization
    if kind in ("subspace", "full"):
        return in_subspace(base, [name for name, _ in base.named_parameters()], subspace)
    if kind == "biases":
        return in_subspace(_biased(base, subspace), ["bias"], subspace)
    if not subspace.targets:
        raise SubloraError(f"subspace.targets: empty; {kind} needs at least one layer, such as q")
    if kind in ("sublora", "lora"):
        return in_subspace(base, add_lora(base, subspace, subspace.targets), subspace)
    if kind == "lora_b":
        adapters = add_lora(base, subspace, subspace.targets)
        return in_subspace(base, [name for name in adapters if "lora_B" in name], subspace)
    if kind == "lora_b+biases":
        adapters = add_lora(base, subspace, subspace.targets)
        both = [*(f"model.{name}" for name in adapters if "lora_B" in name), "bias"]
        return in_subspace(_biased(base, subspace, STRIDE), both, subspace)
    if kind == "tinylora":
        targets = chosen_targets(base, subspace.targets, subspace.rank)
        return in_subspace(base, add_tinylora(base, targets, subspace.rank), subspace)
    if isinstance(model, Pretrained):
        raise SubloraError(f"subspace.parametrization: {kind} layers would take the place of what a pretrained model has learnt")
    return in_subspace(base, _structured(base, model, subspace), subspace)


def in_subspace(base: nn.Module, trainable: list[str], subspace: SubspaceSettings) -> Subspace:
    """`base` with its parameters named `trainable` as a function of coordinates: each a coordinate, or all in a random subspace."""
    parameters = dict(base.named_parameters())
    layout = [(name, parameters[name].numel()) for name in trainable]
    if subspace.dimension is None:
        return Subspace(base, Identity(sum(size for _, size in layout)), trainable)
    return Subspace(base, make_projector(subspace.projector, layout, subspace.dimension, subspace.seed), trainable)


def _biased(base: nn.Module, subspace: SubspaceSettings, stride: float = 1.0) -> Biased:
    """Raises SubloraError for a token that the model does not have."""
    tokens, model = subspace.tokens, cast(Any, base)
    if tokens == "end":
        raise SubloraError("subspace.tokens end: nobody has said which token ends documents; give its id")
    if not isinstance(tokens, tuple):
        return Biased(base, None, stride)
    if tokens[-1] >= model.vocab_size:
        raise SubloraError(f"subspace.tokens: there is no token {tokens[-1]:,}; the model has {model.vocab_size:,}")
    return Biased(base, tokens, stride)


def _structured(gpt: nn.Module, model: Gpt, subspace: SubspaceSettings) -> list[str]:
    """Replace the targets by structured layers; the names of their weights."""
    scaled = {"proj", "down"} & set(subspace.targets)  # what is added to the residual stream is scaled down, as in GPT-2
    kinds = ((set(subspace.targets) - scaled, model.weight_std), (scaled, model.weight_std / (2 * model.layers) ** 0.5))
    trainable: list[str] = []
    for targets, std in kinds:
        seed = subspace.seed + len(trainable)
        trainable += replace_linears(gpt, subspace.parametrization, sorted(targets), subspace.blocks, seed=seed, std=std)
    return trainable


def base_sha256(base: nn.Module) -> str:
    """Fingerprint of a base model's parameters, so that a certificate can tell when a machine has other ones."""
    return tensors_sha256(base.named_parameters())


def tensors_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of names and elements, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def model_weights(model: Gpt | Pretrained | Counts, vocab_size: int) -> int:
    """How many weights the base model has, counted with all biases, without building it; for n-grams what one prediction reads.

    Raises SubloraError for a pretrained model whose architecture cannot be built.
    """
    if isinstance(model, Pretrained):
        return causal_weights(model.architecture)
    if isinstance(model, Counts):
        return vocab_size * (model.orders + 1)
    width, gain = model.width, model.width + 1 if model.residual else 0
    if model.architecture != "gpt":
        return vocab_size * width + GATES[model.architecture] * model.layers * (2 * width * width + 2 * width) + 2 * width + gain
    rows = vocab_size if model.rotary else vocab_size + model.block
    return rows * width + model.layers * (12 * width * width + 13 * width) + 2 * width + gain


def layer_names(model: Gpt | Pretrained) -> tuple[str, ...]:
    """What a message may name as layers, in the order of its bits, without building the model. Raises SubloraError likewise."""
    return tuple(linear_maps(model, 0)) if isinstance(model, Pretrained) else model.linear_layers


def linear_maps(model: Gpt | Pretrained, vocab_size: int) -> dict[str, int]:
    """The base model's linear layers by name; with each, inputs and outputs of all so named. Raises SubloraError likewise."""
    if isinstance(model, Pretrained):
        return causal_maps(model.architecture)
    both = {"up": 5, "down": 5}  # inputs and outputs, in widths
    if model.architecture != "gpt":
        both = dict.fromkeys(model.linear_layers, 1 + GATES[model.architecture])
    inside = {name: both.get(name, 2) * model.width * model.layers for name in model.linear_layers}
    return {**inside, "head": model.width + vocab_size}
