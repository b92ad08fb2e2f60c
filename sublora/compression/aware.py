"""Quantization-aware training: a model learns to work on the few levels that its coordinates will have."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from sublora.compression.codebooks import shortened_codebook
from sublora.compression.grid import LARGEST, STEPS
from sublora.compression.price import BitsPenalty, Pricing
from sublora.compression.quantizers import grid_steps, nearest, quantize
from sublora.experiment.groups import Compression
from sublora.models import Subspace

OCTAVES = 0.04
"""How far a training step moves a group's step at most: it has to follow coordinates of any scale, whatever their learning rate."""
BINS, CLASSES = 32, 10


class Quantized(nn.Module):
    """Quantization-aware training: the model runs on its quantized coordinates, gradients pass straight through.

    Trains the coordinates of `subspace` and the codebook together (straight-through estimator: Bengio et al. 2013,
    arXiv:1308.3432): the gradient of a quantized coordinate goes to the coordinate itself and to its level.
    """

    def __init__(self, subspace: Subspace, codebook: np.ndarray):
        super().__init__()
        self.subspace = subspace
        self.codebook = nn.Parameter(torch.from_numpy(codebook.astype(np.float32)))

    def forward(self, *inputs: torch.Tensor, **keywords: Any) -> Any:
        w = self.subspace.coordinates
        levels = self.codebook[_nearest_level(w, self.codebook)]
        return self.subspace(*inputs, coordinates=levels + w - w.detach(), **keywords)

    def bits(self) -> torch.Tensor:
        """A differentiable stand-in for the entropy of all symbols, in bits.

        Each coordinate belongs to the levels with softmax weights of its squared distances, a quarter of a mean level distance
        wide; this is the entropy of the mean weights. It steers the search and is no part of any claim.
        """
        squares = (self.subspace.coordinates[:, None] - self.codebook) ** 2
        width = (self.codebook.max() - self.codebook.min()).detach() / (len(self.codebook) - 1) / 4
        shares = torch.softmax(-squares / (2 * width**2), dim=1).mean(0)
        return -(shares * shares.clamp_min(1e-12).log2()).sum() * len(squares)

    @torch.no_grad()
    def coded(self) -> tuple[np.ndarray, np.ndarray]:
        """(codebook float16 (L,) ascending, symbols int64 (d,)) as a message stores them."""
        codebook = shortened_codebook(np.unique(self.codebook.cpu().numpy().astype(np.float16)))  # levels that met are one
        return codebook, nearest(self.subspace.coordinates.cpu().numpy(), codebook)


class OnGrid(nn.Module):
    """Quantization-aware training on multiples of a step for each group of coordinates (`Subspace.groups`).

    Trains the coordinates and the steps together: rounding is passed straight through, and a step's gradient is that of its
    coordinates' rounding errors (Esser et al. 2020, arXiv:1902.08153). steps: each group's (G,), or one for all (1,).
    paces: by parameter, how its learning rate differs (`training.loop`).
    """

    which: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    several: torch.Tensor
    table: torch.Tensor

    def __init__(self, subspace: Subspace, steps: np.ndarray, learning_rate: float):
        super().__init__()
        self.subspace, self.paces = subspace, {"steps": OCTAVES / learning_rate}
        self.steps = nn.Parameter(torch.from_numpy(np.log2(steps)).float())
        which, row, column, several = _places(subspace.groups)
        self.sides = int(row.max()) + 1, int(column.max()) + 1  # rows and columns of all groups
        buffers = {"which": which, "row": row, "column": column, "several": several}
        for name, tensor in {**buffers, "table": torch.from_numpy(STEPS).float()}.items():
            self.register_buffer(name, tensor, persistent=False)

    def _multiples(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(each coordinate in steps, before rounding (d,); its step (d,)). A step is one that a message can name."""
        free = self.steps.exp2()
        middles = (self.table[1:] + self.table[:-1]) / 2
        named = self.table[torch.searchsorted(middles, free.detach())]
        step = (named + free - free.detach()).expand(len(self.subspace.groups))[self.which]
        return self.subspace.coordinates / step, step

    def forward(self, *inputs: torch.Tensor, **keywords: Any) -> Any:
        x, step = self._multiples()
        return self.subspace(*inputs, coordinates=step * (x + (_rounded(x) - x).detach()), **keywords)

    def bits(self) -> torch.Tensor:
        """A differentiable stand-in for the size of the coded integers (`compression.grid`), in bits.

        Each group's integers have the code lengths of their own frequencies, given how large their row and column are; between two
        integers the length is in proportion. So its gradient is that of the entropy of counts that both neighbours share.
        """
        x, _ = self._multiples()
        size = x.abs()
        with torch.no_grad():
            rounded = _rounded(size)
            kind = self.which * CLASSES + self._class(rounded)
            kinds = CLASSES * len(self.subspace.groups)
            index = kind * (BINS + 1) + rounded.clamp(max=BINS).long()
            counts = torch.bincount(index, minlength=kinds * (BINS + 1)).view(kinds, BINS + 1).float()
            counts += 0.5 ** torch.arange(1, BINS + 2, device=counts.device)
            lengths = counts.sum(1, keepdim=True).log2() - counts.log2()
            lengths[:, 1:] += 1  # the sign
            lengths = torch.cat([lengths, lengths[:, -1:]], 1)
            low = size.floor().clamp(max=BINS)
            place = kind * (BINS + 2) + low.long()
            at, slope = lengths.flatten()[place], lengths.flatten()[place + 1] - lengths.flatten()[place]
        beyond = torch.where(size > BINS, 2 * (size.clamp_min(BINS) / BINS).log2(), 0.0)
        return (at + slope * (size.clamp(max=BINS) - low) + beyond).sum() + 9 * len(self.subspace.groups)

    def _class(self, size: torch.Tensor) -> torch.Tensor:
        """How large a coordinate's row and column are on the whole, in `CLASSES`; one-row groups have one class."""
        rows, columns = (
            torch.zeros(side, device=size.device).index_add(0, ids, size)[ids]
            for side, ids in zip(self.sides, (self.row, self.column), strict=True)
        )
        mean = (rows * columns).sqrt() / self.several.clamp_min(1)
        return torch.where(self.several > 0, (2 * mean.clamp_min(2**-4).log2() + 8).clamp(0, CLASSES - 1), 0.0).long()

    @torch.no_grad()
    def coded(self) -> tuple[np.ndarray, np.ndarray, Sequence[tuple[int, int]]]:
        """(indices of the steps uint8 (G,), integers int64 (d,), the groups' shapes) as a message stores them."""
        x, _ = self._multiples()
        middles = (self.table[1:] + self.table[:-1]) / 2
        steps = torch.searchsorted(middles, self.steps.exp2()).cpu().numpy().astype(np.uint8)
        return np.resize(steps, len(self.subspace.groups)), _rounded(x).cpu().numpy().astype(np.int64), self.subspace.groups


Adapt = Callable[[nn.Module, BitsPenalty | None], pd.DataFrame]
"""Trains a quantized model for `finetune_steps` steps, with a penalty or None; returns the metrics."""


def quantize_and_adapt(model: Subspace, settings: Compression, adapt: Adapt, pricing: Pricing) -> tuple[tuple, pd.DataFrame | None]:
    """(what `coded` of the quantized model returns, metrics of the adaptation or None) of a trained model.

    The coordinates are quantized. Where `settings` asks for it, they and their levels then adapt to each other, with the message's
    estimated bits as the penalty. pricing: what they cost where the settings leave that to the bound.
    """
    coordinates = model.coordinates.detach().cpu().numpy()
    quantized: Quantized | OnGrid
    if settings.quantizer == "grid":
        sizes = [len(coordinates)] if settings.scale == "model" else [rows * columns for rows, columns in model.groups]
        steps = grid_steps(coordinates, sizes, settings.entropy_penalty, otherwise=4 * settings.finetune_learning_rate)
        quantized = OnGrid(model, steps, settings.finetune_learning_rate)
    else:
        codebook, symbols = quantize(coordinates, settings.quantizer, settings.levels, settings.entropy_penalty)
        if not settings.finetune_steps:
            return (codebook, symbols), None
        quantized = Quantized(model, codebook)
    if not settings.finetune_steps:
        return quantized.coded(), None
    automatic = settings.rate_penalty == "auto"
    fixed = 0.0 if automatic else float(settings.rate_penalty) / len(coordinates)
    penalty = BitsPenalty(quantized.bits, fixed, pricing if automatic else None) if automatic or fixed else None
    metrics = adapt(quantized, penalty)
    return quantized.coded(), metrics


def _places(groups: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, ...]:
    """For each coordinate its group, its row and column among those of all groups, and √(R·C); 0 of groups of one row."""
    which, row, column, several = [], [], [], []
    rows_before = columns_before = 0
    for index, (rows, columns) in enumerate(groups):
        which.append(torch.full((rows * columns,), index))
        row.append(rows_before + torch.arange(rows).repeat_interleave(columns))
        column.append(columns_before + torch.arange(columns).repeat(rows))
        several.append(torch.full((rows * columns,), (rows * columns) ** 0.5 if rows > 1 else 0.0))
        rows_before, columns_before = rows_before + rows, columns_before + columns
    return torch.cat(which), torch.cat(row), torch.cat(column), torch.cat(several)


def _rounded(x: torch.Tensor) -> torch.Tensor:
    return x.round().clamp(-LARGEST, LARGEST)


def _nearest_level(w: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    order = codebook.argsort()
    levels = codebook[order]
    return order[torch.searchsorted((levels[1:] + levels[:-1]) / 2, w)].detach()
