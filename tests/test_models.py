"""Models: a causal transformer, adapters that start as nothing, projectors, and any module as a function of d numbers."""

import pytest
import torch
from torch import nn

from sublora import config
from sublora.errors import SubloraError
from sublora.models import GPT, Identity, Kronecker, Subspace, build, initial_weights_sha256, model_weights
from sublora.models.lora import add_lora

TINY = config.Model(layers=2, heads=2, width=16, block=12)
TOKENS = torch.arange(24).view(2, 12) % 9


def test_gpt_predicts_from_the_past_alone():
    gpt = GPT(TINY, 9).eval()
    changed = TOKENS.clone()
    changed[:, 7:] = 3
    first, second = gpt(TOKENS), gpt(changed)
    assert first.shape == (2, 12, 9)
    torch.testing.assert_close(first[:, :7], second[:, :7])
    assert not torch.allclose(first[:, 7:], second[:, 7:])
    assert gpt.head.weight is gpt.tokens.weight


def test_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    first = initial_weights_sha256(TINY, 9)
    torch.manual_seed(2)
    assert initial_weights_sha256(TINY, 9) == first
    assert initial_weights_sha256(TINY.model_copy(update={"seed": 1}), 9) != first


def test_model_weights_is_a_count_that_is_never_too_small():
    biased = GPT(TINY.model_copy(update={"bias": True}), 9)
    assert model_weights(TINY, 9) == sum(p.numel() for p in biased.parameters())


def test_lora_starts_as_the_model_itself():
    gpt = GPT(TINY, 9).eval()
    before = gpt(TOKENS)
    names = add_lora(gpt, 2, 32.0, 0.1, ("q", "v", "head"), seed=5)
    torch.testing.assert_close(gpt.eval()(TOKENS), before)
    assert len(names) == 2 * (2 + 2 + 1)
    again = GPT(TINY, 9)
    add_lora(again, 2, 32.0, 0.1, ("q", "v", "head"), seed=5)
    for (name, p), (other, q) in zip(gpt.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(p, q)


def test_unknown_lora_target_is_named():
    with pytest.raises(SubloraError, match="no layer is named 'c_attn'; there are"):
        add_lora(GPT(TINY, 9), 2, 32.0, 0.0, ("q", "c_attn"), seed=0)


@pytest.mark.parametrize(("weights", "coordinates"), [(100, 25), (97, 23), (400, 1), (50, 50)])
def test_kronecker_is_seeded_and_linear(weights, coordinates):
    projector = Kronecker(weights, coordinates, seed=3)
    matrix = torch.stack([projector.matvec(row) for row in torch.eye(coordinates)], dim=1)
    assert matrix.shape == (weights, coordinates)
    w = torch.randn(coordinates)
    torch.testing.assert_close(projector.matvec(w), matrix @ w)
    torch.testing.assert_close(Kronecker(weights, coordinates, seed=3).matvec(w), projector.matvec(w), rtol=0, atol=0)
    assert not torch.allclose(Kronecker(weights, coordinates, seed=4).matvec(w), projector.matvec(w))


def test_kronecker_columns_are_orthonormal_where_nothing_is_cut():
    projector = Kronecker(400, 49, seed=0)
    matrix = torch.stack([projector.matvec(row) for row in torch.eye(49)], dim=1)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(49), atol=1e-5, rtol=0)


def test_dimension_beyond_the_weights_is_refused():
    with pytest.raises(ValueError, match="d = 11 must be between 1 and the 10"):
        Kronecker(10, 11, seed=0)
    with pytest.raises(SubloraError, match=r"subspace.dimension 100,000 exceeds the .* trainable weights; lower it"):
        build(TINY, config.Subspace(dimension=100_000), 9)


def test_subspace_wraps_any_module_and_alters_none():
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(18, 4))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    trainable = ["0.weight", "2.weight"]
    size = sum(before[name].numel() for name in trainable)
    subspace = Subspace(module, Kronecker(size, 10, seed=1), trainable)
    assert [name for name, p in subspace.named_parameters() if p.requires_grad] == ["coordinates"]
    x = torch.randn(5, 2, 8)
    torch.testing.assert_close(subspace(x), module(x))
    subspace(x).square().sum().backward()
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name])
    # the gradient in w is Pᵀ times the gradient in the weights
    full = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(18, 4))
    full.load_state_dict(before)
    full(x).square().sum().backward()
    parameters = dict(full.named_parameters())
    gradient = torch.cat([parameters[name].grad.flatten() for name in trainable])
    matrix = torch.stack([subspace.projector.matvec(row) for row in torch.eye(10)], dim=1)
    torch.testing.assert_close(subspace.coordinates.grad, matrix.T @ gradient)


def test_materialized_is_the_same_function():
    model = build(TINY, config.Subspace(dimension=50, rank=2), 9).eval()
    with torch.no_grad():
        model.coordinates.normal_()
        expected = model(TOKENS)
        torch.testing.assert_close(model.materialized()(TOKENS), expected)
        assert not torch.allclose(expected, GPT(TINY, 9).eval()(TOKENS))


def test_four_parametrizations_by_one_switch():
    sizes = {}
    for parametrization in ("sublora", "lora", "subspace", "full"):
        dimension = 50 if parametrization in ("sublora", "subspace") else None
        model = build(TINY, config.Subspace(parametrization=parametrization, dimension=dimension, rank=2), 9)
        sizes[parametrization] = model.projector.shape
    lora = 2 * 2 * 2 * (16 + 16) + 2 * (16 + 9)
    full = sum(p.numel() for p in GPT(TINY, 9).parameters())
    assert sizes == {"sublora": (lora, 50), "lora": (lora, lora), "subspace": (full, 50), "full": (full, full)}


def test_identity_is_the_identity():
    w = torch.randn(7)
    assert Identity(7).matvec(w) is w
