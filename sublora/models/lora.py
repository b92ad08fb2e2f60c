"""Low-rank adapters (LoRA, Hu et al. 2021) on the named linear maps of any module, by `peft`."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sublora.errors import SubloraError, one_line
from sublora.experiment import Subspace


def linear_shapes(module: nn.Module) -> dict[str, list[torch.Size]]:
    """The shapes of any module's linear maps, by the last part of their names, sorted."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear map; here, because importing it takes seconds

    shapes: dict[str, list[torch.Size]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            shapes.setdefault(name.rsplit(".", 1)[-1], []).append(layer.weight.shape)
    return dict(sorted(shapes.items()))


def linear_layers(module: nn.Module) -> dict[str, int]:
    """The linear maps of any module by the last part of their names, sorted; with each, the largest rank of those so named."""
    return {name: max(map(min, shapes)) for name, shapes in linear_shapes(module).items()}


def chosen_targets(module: nn.Module, targets: Sequence[str], rank: int) -> list[str]:
    """The names of layers that `targets` are: for ("all",) those of every linear map.

    Raises SubloraError when one names no linear layer, or for a rank that no layer can have.
    """
    ranks = linear_layers(module)
    chosen = list(ranks) if tuple(targets) == ("all",) else list(targets)
    for target in chosen:
        if target not in ranks:
            raise SubloraError(f"subspace.targets: no linear layer is named {target!r}; there are {', '.join(ranks)}")
    if rank > (most := max(ranks[target] for target in chosen)):
        raise SubloraError(f"subspace.rank {rank:,} is beyond any use: the layers have rank {most:,} at most")
    return chosen


def without_adapters(module: nn.Module) -> nn.Module:
    """The module with its LoRA multiplied out: the same function, with layers as they were before `add_lora`.

    A head that is tied to the embedding gets a weight of its own, since the embedding was not adapted.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = getattr(module, "base", module)
    tied = None if base.get_output_embeddings() is None else base.get_input_embeddings().weight
    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            plain: Any = layer.get_base_layer()
            weight: torch.Tensor = plain.weight
            if weight is tied:
                plain.weight = nn.Parameter(weight.detach().clone())
                base.config.tie_word_embeddings = False
            layer.merge()
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, plain)
    return module


def add_lora(module: nn.Module, settings: Subspace, targets: Sequence[str]) -> list[str]:
    """Put W + (alpha/rank)·B·A in place of every W whose name ends with one of `targets`; return the names of all A and B.

    targets: ("all",) for every linear map.
    A (rank × inputs) is uniform in ±1/√inputs, drawn on the CPU in the order of the names; B (outputs × rank) is zero.
    Raises SubloraError when a target names no linear layer, or for a rank that no layer can have.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = chosen_targets(module, targets, settings.rank)
    scale: Any = settings.lora_alpha  # peft says int, and means any number
    config = LoraConfig(r=settings.rank, lora_alpha=scale, lora_dropout=settings.lora_dropout, target_modules=targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft sees by itself that GPT-2's maps are transposed
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings")  # what is tied keeps its weights
        try:
            inject_adapter_in_model(config, getattr(module, "base", module))  # of `transformers`: peft knows what it cannot adapt
        except ValueError as error:
            raise SubloraError(f"subspace.targets: LoRA cannot go there ({one_line(error)})") from None
    adapters = sorted((name, p) for name, p in module.named_parameters() if "lora_" in name)
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    with torch.no_grad():
        for name, parameter in adapters:
            if "lora_A" in name:
                limit = 1 / math.sqrt(parameter.shape[1])
                parameter.copy_(torch.empty(parameter.shape).uniform_(-limit, limit, generator=generator))
            else:
                parameter.zero_()
    return [name for name, _ in adapters]
