"""Projectors: linear, seeded, of the right scale, and never a D × d matrix where they say so."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from sublora.errors import SubloraError
from sublora.experiment import Gpt
from sublora.models import GPT
from sublora.models.projectors import (
    PROJECTORS,
    Fastfood,
    Identity,
    Kronecker,
    KroneckerSum,
    Sparse,
    is_film,
    kronecker_product,
    make_projector,
    near_equal_factors,
    walsh_hadamard,
)

LAYOUT = (("norm1.weight", 20), ("up.weight", 150), ("up.bias", 10), ("h.0.ln_1.weight", 10), ("down.weight", 110))
WEIGHTS, FILM = 300, 40


def matrix(projector):
    return torch.stack([projector.matvec(row) for row in torch.eye(projector.shape[1])], dim=1)


def expected_norm_squared(name, coordinates, draws=200):
    """The mean of |Pw|² over seeds, for a w of norm one."""
    w = torch.nn.functional.normalize(torch.arange(1.0, coordinates + 1), dim=0)
    return float(np.mean([make_projector(name, LAYOUT, coordinates, seed).matvec(w).square().sum() for seed in range(draws)]))


def test_the_names_are_a_fixed_list():
    plain = ("kron_qr", "kron", "kron_qr3", "kron3", "kron_one_sided", "dense", "dense_qr", "sparse", "fastfood")
    assert PROJECTORS == (*plain, "film", *(f"film+{name}" for name in plain))


# one coordinate cannot be divided between two sides
@pytest.mark.parametrize(("name", "coordinates"), [(n, d) for n in PROJECTORS for d in (1, 2, 23, 39) if d > 1 or "+" not in n])
def test_linear_and_the_gradient_is_the_transpose(name, coordinates):
    projector = make_projector(name, LAYOUT, coordinates, seed=5)
    assert projector.shape == (WEIGHTS, coordinates)
    assert not projector.state_dict() and not list(projector.parameters())
    dense = matrix(projector)
    w, v = torch.randn(coordinates, requires_grad=True), torch.randn(WEIGHTS)
    product = projector.matvec(w)
    torch.testing.assert_close(product, dense @ w, atol=1e-5, rtol=1e-4)
    product.backward(v)
    torch.testing.assert_close(w.grad, dense.T @ v, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_function_of_the_seed_alone(name):
    w = torch.randn(30)
    torch.manual_seed(1)
    first = make_projector(name, LAYOUT, 30, seed=5).matvec(w)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(make_projector(name, LAYOUT, 30, seed=5).matvec(w), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(make_projector(name, LAYOUT, 30, seed=6).matvec(w), first)


@pytest.mark.parametrize("name", [name for name in PROJECTORS if "qr" not in name and name != "film"])
def test_random_projectors_keep_the_norm_on_average(name):
    # |Pw|² of one draw has a standard deviation below 0.9, the mean of 200 draws one below 0.07
    assert expected_norm_squared(name, 30) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("name", "weights", "coordinates"), [("dense_qr", 300, 41), ("kron_qr", 400, 49), ("kron_qr3", 1000, 64)])
def test_orthonormal_columns_where_nothing_is_cut(name, weights, coordinates):
    dense = matrix(make_projector(name, (("up.weight", weights),), coordinates, seed=0))
    torch.testing.assert_close(dense.T @ dense, torch.eye(coordinates), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "order"), [("kron_qr", 2), ("kron_qr3", 3)])
def test_orthonormal_but_for_the_rows_that_are_cut(name, order):
    weights, coordinates = 997, 50
    dense = matrix(make_projector(name, (("up.weight", weights),), coordinates, seed=0))
    cut = math.prod(near_equal_factors(weights, order)) - weights
    assert cut > 0
    gap = torch.eye(coordinates) - dense.T @ dense  # the Gram matrix of the rows cut: positive, and of small trace
    eigenvalues = torch.linalg.eigvalsh(gap)
    assert eigenvalues.min() > -1e-5 and eigenvalues.max() < 1 - 1e-3
    assert float(eigenvalues.sum()) == pytest.approx(coordinates * cut / (weights + cut), rel=0.5)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**9), st.integers(0, 10**9), st.sampled_from([1, 2, 3]))
def test_factors_cover_the_size_and_grow_with_it(size, more, order):
    factors, larger = near_equal_factors(size, order), near_equal_factors(size + more, order)
    assert math.prod(factors) >= size and len(factors) == order
    assert math.prod(factors) <= size + 3 * size ** (1 - 1 / order) * order
    # so that a factor of P is never wider than tall
    assert all(a <= b for a, b in zip(factors, larger, strict=True))


def test_factors_of_all_small_sizes_grow():
    for order in (2, 3):
        sizes = [near_equal_factors(size, order) for size in range(1, 1500)]
        for smaller, larger in zip(sizes, sizes[1:], strict=False):
            assert all(a <= b for a, b in zip(smaller, larger, strict=True))


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_kronecker_is_numpys_kron_permuted(order, orthonormal):
    projector = Kronecker(97, 19, seed=3, order=order, orthonormal=orthonormal)
    dense = projector.factors[0].numpy()
    for factor in projector.factors[1:]:
        dense = np.kron(dense, factor.numpy())
    permutation = projector.permutation.numpy()
    assert len(set(permutation)) == 97
    np.testing.assert_allclose(matrix(projector).numpy(), dense[permutation][:, :19], atol=1e-6)


def test_kronecker_product_over_batches():
    factors = [torch.randn(3, 2), torch.randn(4, 5), torch.randn(2, 3), torch.randn(1, 2)]
    x = torch.randn(2, 3, 60)
    dense = torch.kron(torch.kron(factors[0], factors[1]), torch.kron(factors[2], factors[3]))
    torch.testing.assert_close(kronecker_product(factors, x), x @ dense.T, atol=1e-4, rtol=1e-4)


RECORDED = {  # P w for w = linspace(-1, 1, d) at places 0, 1, D/2 and D-1, its sum, its sum weighted by 0 … D-1
    (1000, 30, 0): (-0.23139408, -0.05286003, 0.02081301, 0.06407807, 0.70696284, -1331.25665),
    (97, 23, 3): (0.07094668, 0.24887188, -0.26175097, 0.22935894, 0.89755343, 93.9604486),
    (20000, 301, 7): (0.00827221, -0.00601632, -0.04373694, -0.01374731, -13.22881936, -138564.82),
}


@pytest.mark.parametrize("arguments", RECORDED)
def test_kron_qr_is_what_it_was(arguments):
    # messages name the projector by this name: it may never change
    weights, coordinates, seed = arguments
    product = make_projector("kron_qr", (("up.weight", weights),), coordinates, seed).matvec(torch.linspace(-1, 1, coordinates))
    values = product.double().numpy()
    found = (*values[[0, 1, weights // 2, -1]], values.sum(), values @ np.arange(weights))
    np.testing.assert_allclose(found, RECORDED[arguments], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 16, 32, 512])
def test_walsh_hadamard_is_sylvesters_matrix(size):
    x = torch.randn(3, 2, size, dtype=torch.float64, requires_grad=True)
    expected = x.detach().numpy() @ hadamard(size)
    np.testing.assert_allclose(walsh_hadamard(x).detach().numpy(), expected, atol=1e-12)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), size * x)
    (gradient,) = torch.autograd.grad(walsh_hadamard(x).sum() + walsh_hadamard(x)[0, 0, 0], x)
    expected = np.tile(hadamard(size).sum(0), (3, 2, 1))
    expected[0, 0] += hadamard(size)[0]
    np.testing.assert_allclose(gradient.numpy(), expected)


def test_fastfood_is_its_five_factors():
    projector = Fastfood(100, 13, seed=2)
    signs, gaussian = projector.signs.double().numpy(), projector.gaussian.double().numpy()
    blocks, size = signs.shape
    assert size == 16 and blocks == 7 and set(np.unique(signs)) == {-1, 1}
    h = hadamard(size)
    stack = []
    for i in range(blocks):
        permutation = np.eye(size)[projector.permutation[i].numpy() - i * size]
        np.testing.assert_array_equal(permutation.sum(0), 1)
        stack.append(h @ np.diag(gaussian[i]) @ permutation @ h @ np.diag(signs[i]))
    np.testing.assert_allclose(matrix(projector).numpy(), np.concatenate(stack)[:100, :13], atol=1e-5)


def test_sparse_is_sparse():
    dense = matrix(Sparse(10_000, 50, seed=0))
    assert ((dense != 0).sum(0) == 100).all()  # density 1/√D: 100 entries in each column of 10 000, of one size
    torch.testing.assert_close(dense.abs().unique(), torch.tensor([0.0, 0.1]))
    assert 0.45 < (dense > 0).sum() / (dense != 0).sum() < 0.55
    # a column's places are spread over all rows, and those of two columns have next to none in common
    assert (dense != 0).sum(1).max() <= 6
    # cut at a size that is no square: the columns lose an entry at most
    entries = (matrix(Sparse(9_950, 50, seed=0)) != 0).sum(0)
    assert set(entries.tolist()) == {99, 100}


def test_one_sided_is_a_sum_of_low_rank():
    projector = KroneckerSum(100, 60, seed=0)
    ones = torch.ones(10, 1)
    dense = torch.kron(projector.left, ones) + torch.kron(ones, projector.right)
    torch.testing.assert_close(matrix(projector), dense[projector.permutation.long()], atol=1e-6, rtol=1e-5)
    assert torch.linalg.matrix_rank(matrix(projector)) == 19


@pytest.mark.parametrize("name", [name for name in PROJECTORS if "dense" not in name])
def test_no_dense_matrix(name):
    weights, coordinates = 200_000, 2_000
    layout = (("norm.weight", 2_000), ("up.weight", weights - 2_000))
    projector = make_projector(name, layout, coordinates, seed=0)
    held = sum(b.numel() * b.element_size() for b in projector.buffers())
    # √D·d entries of 8 bytes and a few bytes a weight at most: 9 MB where the matrix has 1.6 GB
    assert held < 9 * weights + 8.1 * math.sqrt(weights) * coordinates
    assert projector.matvec(torch.ones(coordinates)).shape == (weights,)


@pytest.mark.parametrize("name", ["kron_qr", "kron", "kron_qr3", "kron3", "fastfood", "sparse"])
def test_a_million_weights_by_ten_thousand_numbers(name):
    projector = make_projector(name, (("up.weight", 10**6),), 10**4, seed=0)
    held = sum(b.numel() * b.element_size() for b in projector.buffers())
    assert held <= (50e6 if name == "sparse" else 20e6)  # the matrix has 40 GB
    assert projector.matvec(torch.full((10**4,), 0.01)).square().sum() == pytest.approx(1, abs=0.1)


def test_film_moves_scales_and_shifts_alone():
    projector = make_projector("film", LAYOUT, 30, seed=0)
    moved = matrix(projector).abs().sum(1) > 0
    expected = torch.cat([torch.full((size,), is_film(name)) for name, size in LAYOUT])
    assert torch.equal(moved, expected) and int(moved.sum()) == FILM


def test_film_weights_are_coordinates_where_half_of_the_numbers_suffice():
    dense = matrix(make_projector("film+sparse", LAYOUT, 2 * FILM, seed=0))
    film = torch.cat([torch.full((size,), is_film(name)) for name, size in LAYOUT])
    assert torch.equal(dense[film], torch.eye(2 * FILM)[:FILM])
    assert not dense[~film][:, :FILM].any()
    torch.testing.assert_close(dense[~film][:, FILM:], matrix(Sparse(WEIGHTS - FILM, FILM, seed=0)))
    # and one number fewer leaves them half of the numbers, by kron_qr
    dense = matrix(make_projector("film+sparse", LAYOUT, 2 * FILM - 1, seed=0))
    torch.testing.assert_close(dense[film][:, : FILM - 1], matrix(Kronecker(FILM, FILM - 1, seed=1)))
    assert not dense[film][:, FILM - 1 :].any() and not dense[~film][:, : FILM - 1].any()


def test_film_knows_the_names_of_our_gpt():
    gpt = GPT(Gpt(layers=2, heads=2, width=16, block=12, bias=True), 9)
    film = {name for name, _ in gpt.named_parameters() if is_film(name)}
    assert film == {name for name, p in gpt.named_parameters() if p.dim() == 1}


def test_identity_is_the_identity():
    v = torch.randn(7)
    assert Identity(7).matvec(v) is v


def test_errors_say_what_to_do():
    for arguments, message in (
        (("kronqr", LAYOUT, 10, 0), "subspace.projector: unknown name 'kronqr'; there are kron_qr"),
        (("identity", LAYOUT, 10, 0), "unknown name 'identity'"),
        (("kron", LAYOUT, 301, 0), r"subspace.dimension 301 exceeds the 300 trainable weights; lower it"),
        (("kron", LAYOUT, 0, 0), "subspace.dimension 0 is below 1; raise it"),
        (("film", LAYOUT, 41, 0), "subspace.dimension 41 exceeds the 40 FiLM weights"),
        (("film+kron", LAYOUT, 1, 0), "subspace.dimension 1 cannot be divided"),
        (("film+kron", (("a.bias", 50), ("b", 20)), 60, 0), "leaves 30 for 20 other weights; lower it"),
        (("film", (("lora_A.weight", 50),), 10, 0), "film: no trainable weight is a norm's or a bias"),
        (("film+dense", (("lora_A.weight", 50),), 10, 0), "no trainable weight is a norm's or a bias"),
    ):
        with pytest.raises(SubloraError, match=message) as error:
            make_projector(*arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["dense", "film+dense_qr", "sparse", "kron_one_sided"])
def test_what_would_exhaust_memory_is_refused_before_it_is_made(name):
    layout = [("norm.weight", 10**6), ("q.weight", 10**9)]
    with pytest.raises(SubloraError, match="GiB of memory; choose kron_qr"):
        make_projector(name, layout, 10**6, seed=0)
