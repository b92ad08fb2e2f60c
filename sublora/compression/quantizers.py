"""Codebook quantization: every coordinate becomes one of L levels; the levels are stored as 16-bit floats."""

import numpy as np
import torch
from torch import nn

from sublora.models import Subspace


def uniform_codebook(values: np.ndarray, levels: int) -> np.ndarray:
    """L equal bins over the range of `values` (d,); each level is the mean of its bin (an empty bin's is its centre).

    The publication's quantizer (Lotfi et al. 2024a, released code). Returns float16 (L,), ascending.
    """
    edges = np.linspace(values.min(), values.max(), levels + 1)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, levels - 1)
    return _centroids(values, bins, (edges[:-1] + edges[1:]) / 2)


def kmeans_codebook(values: np.ndarray, levels: int) -> np.ndarray:
    """Lloyd's algorithm in one dimension, from the quantiles of `values` (d,). Returns float16 (L,), ascending."""
    codebook = np.quantile(values, (np.arange(levels) + 0.5) / levels).astype(np.float16)
    for _ in range(1000):
        improved = _centroids(values, nearest(values, codebook), codebook)
        if np.array_equal(improved, codebook):
            break
        codebook = improved
    return codebook


CODEBOOKS = {"uniform": uniform_codebook, "kmeans": kmeans_codebook}


def nearest(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the nearest level for each of `values` (d,), int64; `codebook` ascending, ties to the lower level."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1].astype(np.float64)) / 2
    return np.searchsorted(middles, values, side="left")


def _centroids(values: np.ndarray, bins: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    counts = np.bincount(bins, minlength=len(otherwise))
    sums = np.bincount(bins, weights=values, minlength=len(otherwise))
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise).astype(np.float16)


class Quantized(nn.Module):
    """Quantization-aware training: the model runs on its quantized coordinates, gradients pass straight through.

    Trains the coordinates of `subspace` and the codebook together (straight-through estimator: Bengio et al. 2013,
    arXiv:1308.3432): the gradient of a quantized coordinate goes to the coordinate itself and to its level.
    """

    def __init__(self, subspace: Subspace, codebook: np.ndarray):
        super().__init__()
        self.subspace = subspace
        self.codebook = nn.Parameter(torch.from_numpy(codebook.astype(np.float32)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        w = self.subspace.coordinates
        levels = self.codebook[_nearest_level(w, self.codebook)]
        return self.subspace(tokens, coordinates=levels + w - w.detach())

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
        codebook = np.sort(self.codebook.cpu().numpy().astype(np.float16))
        return codebook, nearest(self.subspace.coordinates.cpu().numpy(), codebook)


def _nearest_level(w: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    order = codebook.argsort()
    levels = codebook[order]
    return order[torch.searchsorted((levels[1:] + levels[:-1]) / 2, w)].detach()
