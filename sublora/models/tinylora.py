"""TinyLoRA (arXiv:2602.04118): a frozen layer moves by a tiny matrix between its own singular vectors.

W + U S R V^T, with U, S and V of the truncated singular value decomposition of W, and R (rank × rank) zero at first. With each
entry of each R a coordinate this is LoRA-XS (arXiv:2405.17604). In a random subspace one short vector makes the R of all layers,
through fixed random matrices: that is TinyLoRA with all layers tied.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

OVERSAMPLED, ROUNDS = 8, 12


class Tiny(nn.Module):
    """A linear map with a matrix between its largest singular vectors."""

    left: torch.Tensor
    right: torch.Tensor

    def __init__(self, layer: Any, rank: int, transposed: bool):
        """transposed: whether the layer's weight is (inputs × outputs), as GPT-2's."""
        super().__init__()
        self.layer = layer
        left, right = singular(layer.weight.T if transposed else layer.weight, rank)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.tiny = nn.Parameter(torch.zeros(left.shape[1], left.shape[1]))

    @property
    def weight(self) -> torch.Tensor:
        return self.layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + F.linear(F.linear(F.linear(x, self.right), self.tiny), self.left)


def add_tinylora(module: nn.Module, targets: list[str], rank: int) -> list[str]:
    """Put `Tiny` in place of every linear map whose name ends with one of `targets`; the names of all R, in the module's order."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear map; here, because importing it takes seconds

    found = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear | Conv1D)]
    for name, layer in found:
        if (last := name.rsplit(".", 1)[-1]) in targets:
            parent = module.get_submodule(name.rpartition(".")[0])
            setattr(parent, last, Tiny(layer, rank, isinstance(layer, Conv1D)))
    return [name for name, _ in module.named_parameters() if name.endswith(".tiny")]


@torch.no_grad()
def singular(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(U S (outputs × rank), V^T (rank × inputs)), float32, of the largest singular values, by subspace iteration in float64.

    It starts from fixed numbers, so that another machine finds the same vectors up to its rounding; of each pair of vectors, that
    sign is taken with which V's sum along a fixed random direction is positive. A zero matrix has zero vectors on the left.
    """
    matrix = weight.detach().double().cpu()
    size = min(rank + OVERSAMPLED, *matrix.shape)
    generator = torch.Generator("cpu").manual_seed(0)
    basis = torch.empty(matrix.shape[1], size, dtype=torch.float64).normal_(generator=generator)
    direction = torch.empty(matrix.shape[1], dtype=torch.float64).normal_(generator=generator)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(matrix.T @ (matrix @ basis))[0]
    u, s, vt = torch.linalg.svd(matrix @ basis, full_matrices=False)
    right = (vt @ basis.T)[:rank]
    signs = torch.where(right @ direction < 0, -1.0, 1.0).to(torch.float64)
    return (u[:, :rank] * s[:rank] * signs).float().contiguous(), (right * signs[:, None]).float().contiguous()
