"""Linear maps P from the d trained coordinates to the D weights: w ↦ P w, never formed as a D × d matrix."""

import math

import torch
from torch import nn


class Identity(nn.Module):
    """P = I: every trainable weight is a coordinate (d = D)."""

    name = "identity"

    def __init__(self, size: int):
        super().__init__()
        self.shape = (size, size)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        return w


class Kronecker(nn.Module):
    """P = R Π (Q1 ⊗ Q2) S: a rounded Kronecker product of two orthonormal matrices with a random permutation.

    The order-2 projector of the publication (`rdkronqr`; Lotfi et al. 2022, section 4; 2024a, settings). With D1 = ⌈√D⌉,
    D2 = ⌈D/D1⌉, d1 = ⌈√d⌉ and d2 = ⌈d/d1⌉, Q1 (D1 × d1) and Q2 (D2 × d2) have orthonormal columns; S pads w with zeros to
    d1·d2, Π permutes the D1·D2 results, R keeps the first D. Time and memory are O(D1·d1·d2 + D·d2), not O(D·d).

    Q1, Q2 and Π are functions of (D, d, seed) alone: drawn on the CPU, the factorization in float64, kept in float32.

    >>> P = Kronecker(weights=1000, coordinates=30, seed=0)
    >>> P.matvec(torch.ones(30)).shape
    torch.Size([1000])
    """

    name = "kron_qr"

    def __init__(self, weights: int, coordinates: int, seed: int):
        super().__init__()
        if not 1 <= coordinates <= weights:
            raise ValueError(f"d = {coordinates} must be between 1 and the {weights:,} trainable weights; lower subspace.dimension")
        self.shape = (weights, coordinates)
        rows, columns = _near_square(weights), _near_square(coordinates)
        generator = torch.Generator("cpu").manual_seed(seed)
        factors = [_orthonormal(r, c, generator) for r, c in zip(rows, columns, strict=True)]
        permutation = torch.randperm(math.prod(rows), generator=generator)[:weights]
        self.register_buffer("left", factors[0], persistent=False)
        self.register_buffer("right", factors[1], persistent=False)
        self.register_buffer("permutation", permutation, persistent=False)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        """w (d,) to P w (D,); differentiable, so its transpose is the backward pass."""
        d1, d2 = self.left.shape[1], self.right.shape[1]
        grid = torch.nn.functional.pad(w, (0, d1 * d2 - w.numel())).view(d1, d2)
        return (self.left @ grid @ self.right.T).flatten()[self.permutation]


def _near_square(size: int) -> tuple[int, int]:
    first = math.isqrt(size - 1) + 1
    return first, -(-size // first)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """A (rows × columns) matrix with orthonormal columns, its sign fixed so that the factorization is unique."""
    gaussian = torch.empty(rows, columns, dtype=torch.float64).normal_(generator=generator)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).float()
