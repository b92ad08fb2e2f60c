"""Quantization-aware training: a model learns to work on the few levels that its coordinates will have."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import nn

from sublora.compression.codebooks import shortened_codebook
from sublora.compression.quantizers import nearest, quantize
from sublora.experiment.groups import Compression
from sublora.models import Subspace


class Quantized(nn.Module):
    """Quantization-aware training: the model runs on its quantized coordinates, gradients pass straight through.

    Trains the coordinates of `subspace` and the codebook together (straight-through estimator: Bengio et al. 2013,
    arXiv:1308.3432): the gradient of a quantized coordinate goes to the coordinate itself and to its level.
    """

    def __init__(self, subspace: Subspace, codebook: np.ndarray):
        super().__init__()
        self.subspace = subspace
        self.codebook = nn.Parameter(torch.from_numpy(codebook.astype(np.float32)))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        w = self.subspace.coordinates
        levels = self.codebook[_nearest_level(w, self.codebook)]
        return self.subspace(*inputs, coordinates=levels + w - w.detach())

    def rate(self) -> torch.Tensor:
        """A differentiable stand-in for the entropy of the symbols, in bits per coordinate.

        Each coordinate belongs to the levels with softmax weights of its squared distances, a quarter of a mean level distance
        wide; this is the entropy of the mean weights. It steers the search and is no part of any claim.
        """
        squares = (self.subspace.coordinates[:, None] - self.codebook) ** 2
        width = (self.codebook.max() - self.codebook.min()).detach() / (len(self.codebook) - 1) / 4
        shares = torch.softmax(-squares / (2 * width**2), dim=1).mean(0)
        return -(shares * shares.clamp_min(1e-12).log2()).sum()

    @torch.no_grad()
    def coded(self) -> tuple[np.ndarray, np.ndarray]:
        """(codebook float16 (L,) ascending, symbols int64 (d,)) as a message stores them."""
        codebook = shortened_codebook(np.sort(self.codebook.cpu().numpy().astype(np.float16)))
        return codebook, nearest(self.subspace.coordinates.cpu().numpy(), codebook)


Adapt = Callable[[Quantized, Callable[[], torch.Tensor] | None], pd.DataFrame]
"""Trains a quantized model for `finetune_steps` steps, with a penalty or None; returns the metrics."""


def quantize_and_adapt(model: Subspace, settings: Compression, adapt: Adapt) -> tuple[np.ndarray, np.ndarray, pd.DataFrame | None]:
    """(codebook float16 (L,), symbols int64 (d,), metrics of the adaptation or None) of a trained model.

    The coordinates are quantized. Where `settings` asks for it, they and their levels then adapt to each other, with the entropy
    of the symbols as the rate penalty.
    """
    coordinates = model.coordinates.detach().cpu().numpy()
    codebook, symbols = quantize(coordinates, settings.quantizer, settings.levels, settings.entropy_penalty)
    if not settings.finetune_steps:
        return codebook, symbols, None
    quantized = Quantized(model, codebook)
    penalty = (lambda: settings.rate_penalty * quantized.rate()) if settings.rate_penalty else None
    metrics = adapt(quantized, penalty)
    return *quantized.coded(), metrics


def _nearest_level(w: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    order = codebook.argsort()
    levels = codebook[order]
    return order[torch.searchsorted((levels[1:] + levels[:-1]) / 2, w)].detach()
