"""Low-rank adapters (LoRA, Hu et al. 2021) on the named linear maps of any module, by `peft`."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sublora.errors import SubloraError
from sublora.experiment import Subspace


def add_lora(module: nn.Module, settings: Subspace, targets: Sequence[str]) -> list[str]:
    """Put W + (alpha/rank)·B·A in place of every W whose name ends with one of `targets`; return the names of all A and B.

    A (rank × inputs) is uniform in ±1/√inputs, drawn on the CPU in the order of the names; B (outputs × rank) is zero.
    Raises SubloraError when a target names no layer.
    """
    from peft import LoraConfig, inject_adapter_in_model  # here, because importing it takes seconds

    ends = {name.rsplit(".", 1)[-1] for name, _ in module.named_modules()}
    for target in targets:
        if target not in ends:
            raise SubloraError(f"subspace.targets: no layer is named {target!r}; there are {', '.join(sorted(ends - {''}))}")
    scale: Any = settings.lora_alpha  # peft says int, and means any number
    config = LoraConfig(r=settings.rank, lora_alpha=scale, lora_dropout=settings.lora_dropout, target_modules=list(targets))
    inject_adapter_in_model(config, module)
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
