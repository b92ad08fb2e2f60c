"""Linear maps with few weights, instead of adapters: Kronecker products and Monarch matrices (Lotfi et al. 2024b).

All of their weights may be trained for a bound over tokens, where a model may be described by more bits than one over documents.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from sublora.errors import SubloraError
from sublora.models.projectors import kronecker_product, near_equal_factors


class StructuredLinear(nn.Module):
    """x (…, inputs) to W x + bias (…, outputs), by the product of a matrix that may be larger: inputs are padded, outputs cut."""

    inputs: int
    outputs: int
    padded: int  # columns of the larger matrix
    bias: nn.Parameter | None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._product(F.pad(x, (0, self.padded - self.inputs)))[..., : self.outputs]
        return y if self.bias is None else y + self.bias

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class KroneckerLinear(StructuredLinear):
    """W is the first rows and columns of A1 ⊗ … ⊗ A_order.

    Factor i is o_i × i_i, with the o_i near equal and their product at least `outputs`, likewise the i_i. Entries are Gaussian with
    standard deviation std^(1/order), which gives W's entries `std`; biases are zero. Σ o_i·i_i weights instead of outputs·inputs.
    """

    def __init__(self, inputs: int, outputs: int, order: int, *, bias: bool, std: float, generator: torch.Generator):
        super().__init__()
        if order < 2:
            raise SubloraError(f"a Kronecker product needs at least 2 factors, not {order}; raise it")
        self.inputs, self.outputs = inputs, outputs
        rows, columns = near_equal_factors(outputs, order), near_equal_factors(inputs, order)
        self.padded = math.prod(columns)
        self.factors = nn.ParameterList(_normal(shape, std ** (1 / order), generator) for shape in zip(rows, columns, strict=True))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        return kronecker_product(list(self.factors), x)


class MonarchLinear(StructuredLinear):
    """W = P L Pᵀ R: two block-diagonal matrices and a stride permutation.

    (Dao et al. 2022, section 3.) R has `blocks` blocks m × ⌈inputs/blocks⌉, L as many ⌈outputs/blocks⌉ × m, where m is the smaller
    of the two block sizes; P takes place (i, j) of a grid to (j, i), so that every block of L reads from all blocks of R. Entries
    are Gaussian and so scaled that the mean square of W's entries is std²; biases are zero. About 2/blocks of the weights of a full
    square matrix.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, *, bias: bool, std: float, generator: torch.Generator):
        super().__init__()
        most = min(inputs, outputs)
        if not 1 <= blocks <= most:
            raise SubloraError(f"a Monarch matrix {outputs} × {inputs} cannot have {blocks} blocks; choose 1 to {most}")
        self.inputs, self.outputs, self.blocks = inputs, outputs, blocks
        columns, rows = -(-inputs // blocks), -(-outputs // blocks)
        middle, self.padded = min(columns, rows), blocks * columns
        # an entry of W is a sum of middle/blocks products, on average
        entry = (std**2 * blocks / middle) ** 0.25
        self.right = _normal((blocks, middle, columns), entry, generator)
        self.left = _normal((blocks, rows, middle), entry, generator)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.einsum("kmc,...kc->...km", self.right, x.unflatten(-1, (self.blocks, -1))).flatten(-2)
        x = x.unflatten(-1, (-1, self.blocks)).transpose(-1, -2)
        return torch.einsum("krm,...km->...kr", self.left, x).transpose(-1, -2).flatten(-2)


_KINDS = {"kronecker": KroneckerLinear, "monarch": MonarchLinear}


def replace_linears(module: nn.Module, kind: str, targets: Sequence[str], size: int, *, seed: int, std: float) -> list[str]:
    """Put a structured layer in place of every `nn.Linear` whose name ends with one of `targets`; return its weights' names.

    kind: "kronecker", where size is the number of factors, or "monarch", where it is the number of blocks.
    std: standard deviation of the entries of the initial W; drawn on the CPU from `seed` in the order of the layers.
    A layer has a bias (zero at first) where the old one had. A weight that was shared, such as a head's with an embedding, stays
    the other module's alone. Raises SubloraError for a target that names no linear layer, and a wrong size.
    """
    linears = {name: layer for name, layer in module.named_modules() if name and isinstance(layer, nn.Linear)}
    ends = {name.rsplit(".", 1)[-1] for name in linears}
    for target in targets:
        if target not in ends:
            raise SubloraError(f"subspace.targets: no linear layer is named {target!r}; there are {', '.join(sorted(ends))}")
    generator = torch.Generator("cpu").manual_seed(seed)
    names = []
    for name, old in linears.items():
        if name.rsplit(".", 1)[-1] not in targets:
            continue
        shape = (old.in_features, old.out_features, size)
        new = _KINDS[kind](*shape, bias=old.bias is not None, std=std, generator=generator).to(old.weight.device)
        module.set_submodule(name, new)
        names += [f"{name}.{parameter}" for parameter, _ in new.named_parameters()]
    return names


def _normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).normal_(0.0, std, generator=generator))
