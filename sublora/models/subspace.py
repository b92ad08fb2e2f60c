"""A module as a function of d coordinates: θ(w) = θ0 + P w."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call

from sublora.models.projectors import Film, Identity, Projector


class Subspace(nn.Module):
    """Wrap any module so that its only trainable parameter is `coordinates` w ∈ R^d (zeros at first).

    module: its current weights are θ0.
    projector: `matvec` maps (d,) to (D,), the flattened weights named by `trainable`, in that order.
    trainable: parameter names as in `module.named_parameters()`; everything else stays at θ0.

    The module itself is never altered: each call runs it by `torch.func.functional_call` with the weights θ0 + P w.
    Li et al. 2018 (intrinsic dimension); Lotfi et al. 2024a, section 4 (SubLoRA, when the weights are LoRA's).
    """

    initial: torch.Tensor

    def __init__(self, module: nn.Module, projector: Projector, trainable: Sequence[str]):
        super().__init__()
        parameters = dict(module.named_parameters())
        self.names = tuple(trainable)
        self.shapes = [parameters[name].shape for name in self.names]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        if projector.shape[0] != sum(self.sizes):
            raise ValueError(f"the projector makes {projector.shape[0]:,} weights, but {sum(self.sizes):,} are trainable")
        self.module = module.requires_grad_(False)
        self.projector = projector
        initial = torch.cat([parameters[name].detach().flatten() for name in self.names])
        self.register_buffer("initial", initial.clone(), persistent=False)
        self.coordinates = nn.Parameter(torch.zeros(projector.shape[1]))

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Rows and columns of the matrices that the coordinates are, in order: each weight, or the projector's parts."""
        if isinstance(self.projector, Identity):
            widths = [shape[-1] if shape else 1 for shape in self.shapes]
            return [(size // width, width) for size, width in zip(self.sizes, widths, strict=True)]
        sides = (self.projector.film, self.projector.others) if isinstance(self.projector, Film) else (self.projector,)
        return [(1, side.shape[1]) for side in sides if side.shape[1]]

    def weights(self, coordinates: torch.Tensor) -> dict[str, torch.Tensor]:
        """The trainable weights at `coordinates` (d,), by name."""
        # In mixed precision, too, P w is float32: it decides every weight, and costs little.
        with torch.autocast(coordinates.device.type, enabled=False):
            flat = self.initial + self.projector.matvec(coordinates.float())
        parts = flat.split(self.sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def forward(self, *inputs, coordinates: torch.Tensor | None = None, **keywords):
        """What the module returns with the weights at `coordinates` (its own by default)."""
        weights = self.weights(self.coordinates if coordinates is None else coordinates)
        return functional_call(self.module, weights, inputs, keywords)

    @torch.no_grad()
    def materialized(self) -> nn.Module:
        """The module with the present weights written into it: the same function, faster to evaluate."""
        parameters = dict(self.module.named_parameters())
        for name, weight in self.weights(self.coordinates).items():
            parameters[name].copy_(weight)
        return self.module
