"""Linear maps P from the d trained coordinates to the D weights: w ↦ P w, by name.

A projector is a function of D, d and the seed alone: whatever is random is drawn on the CPU from a generator of its own, and the
buffers, which go to any device, are in no state dictionary. Times are multiplications of one product; memory is the buffers'.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from sublora import experiment
from sublora.errors import SubloraError


class Projector(nn.Module):
    """A matrix P of `shape` (D, d), known by its product."""

    def __init__(self, weights: int, coordinates: int, **buffers: torch.Tensor):
        super().__init__()
        self.shape = (weights, coordinates)
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        """P w, (d,) to (D,), differentiable."""
        raise NotImplementedError


class Identity(Projector):
    """P = I: every trainable weight is a coordinate (d = D). Time and memory O(1)."""

    def __init__(self, size: int):
        super().__init__(size, size)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        return w


class Kronecker(Projector):
    """P = R Π (Q1 ⊗ … ⊗ Qk) S: a rounded Kronecker product of `order` random matrices with a random permutation.

    Order 2 with orthonormal factors (`kron_qr`) is the projector of the paper (`rdkronqr`; Lotfi et al. 2022, section 4; 2024a,
    settings). Q1 is ⌈√D⌉ × ⌈√d⌉ and Q2 makes up the rest (`near_equal_factors`); S pads w with zeros, Π permutes the results, R
    keeps the first D. Orthonormal factors give P orthonormal columns, but for the rows that R cuts; Gaussian ones have independent
    entries of variance D^(-1/k), so that E|Pw|² = |w|².

    Time O(D1·d + D·d2) for order 2 and O(D1·d + D1·D2·d2·d3 + D·d3) for order 3; memory O(D + D1·d1 + D2·d2 + …), of which the
    permutation is 4·D bytes. Orthonormal factors are computed in float64 and kept in float32.
    """

    permutation: torch.Tensor

    def __init__(self, weights: int, coordinates: int, seed: int, order: int = 2, orthonormal: bool = True):
        rows, columns = near_equal_factors(weights, order), near_equal_factors(coordinates, order)
        generator, scale = _generator(seed), weights ** (-0.5 / order)
        factors = {}
        for i, (r, c) in enumerate(zip(rows, columns, strict=True)):
            factors[f"factor{i}"] = _orthonormal(r, c, generator) if orthonormal else _gaussian(r, c, generator).mul_(scale)
        super().__init__(weights, coordinates, **factors, permutation=_places(math.prod(rows), weights, generator))
        self.order = order

    @property
    def factors(self) -> list[torch.Tensor]:
        return [self.get_buffer(f"factor{i}") for i in range(self.order)]

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        size = math.prod(factor.shape[1] for factor in self.factors)
        return kronecker_product(self.factors, F.pad(w, (0, size - w.numel()))).index_select(0, self.permutation)


class KroneckerSum(Projector):
    """P = R Π (R1 ⊗ 1 + 1 ⊗ R2) / √(2D): the one-sided Kronecker projector, a sum (`rkron`; Lotfi et al. 2022, section 4).

    R1 (D1 × d) and R2 (D2 × d) are Gaussian, D1 = ⌈√D⌉ and D2 = ⌈D/D1⌉, 1 is a vector of ones: a weight is one entry of R1 w
    plus one of R2 w, and Π scatters the pairs. Its rank is at most D1 + D2 - 1, so that more coordinates than that are wasted.

    Time and memory O(√D·d): 8·√D·d bytes, and 4·D for the permutation.
    """

    left: torch.Tensor
    right: torch.Tensor
    permutation: torch.Tensor

    def __init__(self, weights: int, coordinates: int, seed: int):
        rows, generator, scale = near_equal_factors(weights, 2), _generator(seed), 1 / math.sqrt(2 * weights)
        left, right = (_gaussian(size, coordinates, generator).mul_(scale) for size in rows)
        permutation = _places(math.prod(rows), weights, generator)
        super().__init__(weights, coordinates, left=left, right=right, permutation=permutation)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        grid = (self.left @ w)[:, None] + (self.right @ w)[None, :]
        return grid.flatten().index_select(0, self.permutation)


class Dense(Projector):
    """P Gaussian with entries of variance 1/D, or orthonormal: its Q factor, made in float64 (Li et al. 2018). For small models.

    Time O(D·d); memory 4·D·d bytes, and some 30·D·d while the orthonormal one is made.
    """

    matrix: torch.Tensor

    def __init__(self, weights: int, coordinates: int, seed: int, orthonormal: bool = False):
        shape = (weights, coordinates, _generator(seed))
        matrix = _orthonormal(*shape) if orthonormal else _gaussian(*shape).div_(math.sqrt(weights))
        super().__init__(weights, coordinates, matrix=matrix)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        return self.matrix @ w


class Sparse(Projector):
    """P with signs at random places, a share 1/√D of all (very sparse: Li, Hastie & Church 2006; Li et al. 2018).

    The places are stratified (Kane & Nelson 2014): with m = ⌈√D⌉, every column has one sign, at a uniform place, in each stretch of
    m rows; the last stretch may reach beyond D, and what falls there is cut. Signs are scaled so that columns have expected norm
    one. Only integers are drawn, so that no rounding can move an entry.

    Time O(√D·d); memory 5·√D·d bytes: coordinate format with the columns implied, rows in int32 and signs in int8 (torch's own
    sparse layouts can neither be copied nor multiplied in bfloat16). One product takes 4·√D·d bytes more, its gradient 8·√D·d. On
    a GPU the sums of a product are rounded in no fixed order.
    """

    rows: torch.Tensor
    signs: torch.Tensor

    def __init__(self, weights: int, coordinates: int, seed: int):
        (stretch, strata), generator = near_equal_factors(weights, 2), _generator(seed)
        rows = torch.randint(stretch, (coordinates, strata), generator=generator, dtype=torch.int32)
        rows += stretch * torch.arange(strata, dtype=torch.int32)
        super().__init__(weights, coordinates, rows=rows, signs=_signs((coordinates, strata), generator))
        self.padded, self.scale = stretch * strata, math.sqrt(stretch / weights)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        entries = (w * self.scale)[:, None] * self.signs
        return w.new_zeros(self.padded).index_add(0, self.rows.flatten(), entries.flatten())[: self.shape[0]]


class Fastfood(Projector):
    """P = blocks H G Π H B / √(n·D), one upon another, the first D rows of them (Fastfood: Le, Sarlós & Smola 2013).

    Each block has random signs B, a random permutation Π, a Gaussian diagonal G and the Walsh-Hadamard matrix H of size n, the
    smallest power of two that is neither below d nor below √D; w is padded with zeros. E|Pw|² = |w|².

    Time O(D·log n); memory 9·D bytes.
    """

    signs: torch.Tensor
    permutation: torch.Tensor
    gaussian: torch.Tensor

    def __init__(self, weights: int, coordinates: int, seed: int):
        least = max(coordinates, near_equal_factors(weights, 2)[0])
        size = 1 << (least - 1).bit_length()
        blocks, generator = -(-weights // size), _generator(seed)
        signs = _signs((blocks, size), generator)
        permutation = torch.empty(blocks, size, dtype=torch.int32)
        for i in range(blocks):
            torch.randperm(size, generator=generator, out=permutation[i])
            permutation[i] += i * size
        gaussian = _gaussian(blocks, size, generator).div_(math.sqrt(size * weights))
        super().__init__(weights, coordinates, signs=signs, permutation=permutation, gaussian=gaussian)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        x = walsh_hadamard(F.pad(w, (0, self.signs.shape[1] - w.numel())) * self.signs)
        x = x.flatten().index_select(0, self.permutation.flatten()).view(self.signs.shape)
        return walsh_hadamard(x * self.gaussian).flatten()[: self.shape[0]]


class Zero(Projector):
    """P = 0, of no coordinates: the weights stay where they are. Time O(D), memory O(1)."""

    def __init__(self, weights: int):
        super().__init__(weights, 0)

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        return w.new_zeros(self.shape[0])


class Film(Projector):
    """The first coordinates go to the FiLM weights (scales and shifts) by one projector, the rest to the others by another.

    (Perez et al. 2018; as a subspace: Lotfi et al. 2022, section 4.) layout: name and size of the parameters in the order of the
    flat weights; `is_film` tells which are FiLM weights. Time and memory are those of the two projectors, and O(D) time.
    """

    def __init__(self, layout: Sequence[tuple[str, int]], film: Projector, others: Projector):
        super().__init__(film.shape[0] + others.shape[0], film.shape[1] + others.shape[1])
        self.film, self.others = film, others
        self.pieces = [(is_film(name), size) for name, size in layout]
        self.sizes = [[size for belongs, size in self.pieces if belongs is side] for side in (True, False)]

    def matvec(self, w: torch.Tensor) -> torch.Tensor:
        first, rest = w.split([self.film.shape[1], self.others.shape[1]])
        film = iter(self.film.matvec(first).split(self.sizes[0]))
        others = iter(self.others.matvec(rest).split(self.sizes[1]))
        return torch.cat([next(film if belongs else others) for belongs, _ in self.pieces])


_PLAIN: dict[str, Callable[[int, int, int], Projector]] = {
    "kron_qr": Kronecker,
    "kron": partial(Kronecker, orthonormal=False),
    "kron_qr3": partial(Kronecker, order=3),
    "kron3": partial(Kronecker, order=3, orthonormal=False),
    "kron_one_sided": KroneckerSum,
    "dense": Dense,
    "dense_qr": partial(Dense, orthonormal=True),
    "sparse": Sparse,
    "fastfood": Fastfood,
}

MOST_NUMBERS = 2**32
"""A projector of more numbers (16 GiB) is refused before anything is allocated."""

PROJECTORS = experiment.PROJECTORS


def make_projector(name: str, layout: Sequence[tuple[str, int]], coordinates: int, seed: int) -> Projector:
    """The projector called `name` from `coordinates` numbers to the weights of `layout`: (parameter name, size) in flat order.

    `film` moves the FiLM weights alone, by kron_qr. `film+NAME` makes each of them a coordinate of its own if they need no more
    than half of the coordinates, else gives them half by kron_qr; the remaining coordinates go to the other weights by NAME.
    Raises SubloraError for an unknown name, a dimension that does not fit, and `film` without FiLM weights.
    """
    if name not in PROJECTORS:
        raise SubloraError(f"subspace.projector: unknown name {name!r}; there are {', '.join(PROJECTORS)}")
    weights = sum(size for _, size in layout)
    if coordinates < 1:
        raise SubloraError(f"subspace.dimension {coordinates:,} is below 1; raise it")
    if coordinates > weights:
        raise SubloraError(f"subspace.dimension {coordinates:,} exceeds the {weights:,} trainable weights; lower it")
    grid = {"dense": weights, "dense_qr": weights, "sparse": 2 * math.isqrt(weights), "kron_one_sided": 2 * math.isqrt(weights)}
    numbers = grid.get(name.removeprefix("film+"), 0) * coordinates + weights  # about how many it keeps
    if numbers > MOST_NUMBERS:  # a message from a stranger may ask for it, too
        raise SubloraError(f"subspace.projector {name}: would take {4 * numbers / 2**30:,.0f} GiB of memory; choose kron_qr")
    if name in _PLAIN:
        return _PLAIN[name](weights, coordinates, seed)
    film = sum(size for parameter, size in layout if is_film(parameter))
    others = weights - film
    if film == 0:
        raise SubloraError(f"subspace.projector {name}: no trainable weight is a norm's or a bias; choose one without film")
    if name == "film":
        if coordinates > film:
            raise SubloraError(f"subspace.dimension {coordinates:,} exceeds the {film:,} FiLM weights that film moves; lower it")
        return Film(layout, Kronecker(film, coordinates, seed), Zero(others))
    half = coordinates // 2
    rest = coordinates - min(film, half)
    if half < 1:
        raise SubloraError(f"subspace.dimension {coordinates} cannot be divided among FiLM and other weights by {name}; raise it")
    if rest > others:
        raise SubloraError(f"subspace.dimension {coordinates:,}: {name} leaves {rest:,} for {others:,} other weights; lower it")
    # another seed, so that the two sides are independent
    first = Identity(film) if film <= half else Kronecker(film, half, seed + 1)
    return Film(layout, first, _PLAIN[name.removeprefix("film+")](others, rest, seed))


def is_film(parameter: str) -> bool:
    """Whether a parameter's name says that it scales or shifts: a norm's weight, that of a residual model's gain, or any bias."""
    return "norm" in parameter or "ln_" in parameter or parameter.endswith("bias") or parameter == "gain.weight"


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """H x along the last axis, whose size n is a power of two: Sylvester's matrix of ±1, H² = n·I, in O(n log n); differentiable.

    Each pass transforms the last digit of the index to the base 16 and puts it first: after all passes the digits are in order.
    """
    size = left = x.shape[-1]
    while left > 1:
        radix = min(16, left)
        x = (_sylvester(radix, x) @ x.unflatten(-1, (size // radix, radix)).transpose(-1, -2)).flatten(-2)
        left //= radix
    return x


def _sylvester(size: int, like: torch.Tensor) -> torch.Tensor:
    """The (size × size) Hadamard matrix, in the type and on the device of `like`."""
    h = like.new_ones(1, 1)
    while len(h) < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


def kronecker_product(factors: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """(F1 ⊗ … ⊗ Fk) x along the last axis, k ≥ 2, by one product for each factor; leading axes are a batch."""
    batch = x.shape[:-1]
    first, *middle, last = factors
    x = first @ x.reshape(*batch, first.shape[1], -1)
    for i, factor in enumerate(middle, 1):
        done = math.prod(f.shape[0] for f in factors[:i])
        x = factor @ x.reshape(*batch, done, factor.shape[1], -1)
    return (x.reshape(*batch, -1, last.shape[1]) @ last.T).flatten(len(batch))


def near_equal_factors(size: int, order: int) -> tuple[int, ...]:
    """`order` numbers of near equal size whose product is at least `size`, by little: ⌈size^(1/order)⌉, and so on for the rest."""
    if order == 1:
        return (size,)
    guess = round(size ** (1 / order))
    first = next(root for root in range(max(guess - 1, 1), guess + 2) if root**order >= size)
    return first, *near_equal_factors(-(-size // first), order - 1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _places(grid: int, weights: int, generator: torch.Generator) -> torch.Tensor:
    """Random places in a grid of numbers, another for each weight: int32 (weights,)."""
    return torch.randperm(grid, generator=generator, dtype=torch.int32)[:weights]


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randint(2, shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1)


def _gaussian(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """Standard normal entries in float32, drawn in float64 (so that a platform's last bits round away) some rows at a time."""
    matrix = torch.empty(rows, columns)
    for part in matrix.split(max(1, 2**22 // columns)):
        part.copy_(torch.empty(part.shape, dtype=torch.float64).normal_(generator=generator))
    return matrix


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """A (rows × columns) matrix with orthonormal columns, its sign fixed so that the factorization is unique."""
    gaussian = torch.empty(rows, columns, dtype=torch.float64).normal_(generator=generator)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).float()
