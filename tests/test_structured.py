"""Structured layers: each is its explicit matrix, with few weights, drawn from a seed; a GPT of them is a function of d numbers."""

import math
from functools import reduce

import pytest
import torch
from torch import nn

from sublora.errors import SubloraError
from sublora.experiment import Gpt
from sublora.models import GPT, Identity, Kronecker, Subspace
from sublora.models.structured import KroneckerLinear, MonarchLinear, StructuredLinear, replace_linears

TINY = Gpt(layers=2, heads=2, width=16, block=12, bias=True)
TOKENS = torch.arange(24).view(2, 12) % 9
SHAPES = [(16, 16), (16, 64), (64, 16), (12, 7), (7, 13), (30, 31)]


def layers(inputs, outputs, std=0.3, seed=0):
    for kind, size in ((KroneckerLinear, 2), (KroneckerLinear, 3), (MonarchLinear, 1), (MonarchLinear, 4), (MonarchLinear, 7)):
        yield kind(inputs, outputs, size, bias=True, std=std, generator=torch.Generator("cpu").manual_seed(seed))


def dense(layer):
    """W (outputs × inputs) by its definition."""
    if isinstance(layer, KroneckerLinear):
        return reduce(torch.kron, layer.factors)[: layer.outputs, : layer.inputs]
    right, left = torch.block_diag(*layer.right), torch.block_diag(*layer.left)
    gather = torch.arange(len(right)).view(-1, layer.blocks).T.flatten()
    scatter = torch.arange(len(left)).view(layer.blocks, -1).T.flatten()
    return (left @ right[gather])[scatter][: layer.outputs, : layer.inputs]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_a_layer_is_its_explicit_matrix(inputs, outputs):
    for layer in layers(inputs, outputs):
        weight = dense(layer)
        assert weight.shape == (outputs, inputs)
        with torch.no_grad():
            layer.bias.normal_()
        for shape in ((inputs,), (5, inputs), (2, 3, inputs)):
            x = torch.randn(shape)
            torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)


def test_numbers_of_weights():
    def count(layer):
        return sum(p.numel() for p in layer.parameters())

    generator = torch.Generator("cpu").manual_seed(0)
    assert count(KroneckerLinear(16, 64, 2, bias=False, std=0.02, generator=generator)) == 8 * 4 + 8 * 4
    assert count(KroneckerLinear(27, 8, 3, bias=True, std=0.02, generator=generator)) == 3 * (2 * 3) + 8
    assert count(MonarchLinear(16, 64, 4, bias=False, std=0.02, generator=generator)) == 4 * (4 * 4) + 4 * (16 * 4)
    assert count(MonarchLinear(10, 6, 4, bias=True, std=0.02, generator=generator)) == 4 * (2 * 3) + 4 * (2 * 2) + 6


def test_monarch_is_full_where_low_rank_is_not():
    layer = MonarchLinear(36, 36, 6, bias=False, std=1.0, generator=torch.Generator("cpu").manual_seed(0))
    weight = dense(layer)
    assert (weight != 0).all()  # every output reads every input
    assert torch.linalg.matrix_rank(weight) == 36


@pytest.mark.parametrize("kind", [KroneckerLinear, MonarchLinear])
def test_initial_weights_have_the_standard_deviation_asked_for(kind):
    generator = torch.Generator("cpu").manual_seed(0)
    layers = [kind(40, 60, 2, bias=False, std=0.02, generator=generator) for _ in range(40)]
    squares = torch.stack([dense(layer).detach().square().mean() for layer in layers])
    # one matrix has hundreds of weights: its mean square is within a few percent, the mean of 40 within 1 percent or so
    assert math.sqrt(squares.mean()) == pytest.approx(0.02, rel=0.05)


def test_gradients_reach_all_weights_and_the_input():
    for layer in layers(12, 7):
        x = torch.randn(4, 12, requires_grad=True)
        (layer(x) * torch.randn(4, 7)).sum().backward()
        assert x.grad.abs().min() > 0
        for name, p in layer.named_parameters():
            assert p.grad is not None and p.grad.abs().max() > 0, name
    layer = MonarchLinear(5, 6, 2, bias=True, std=1.0, generator=torch.Generator("cpu").manual_seed(1)).double()
    assert torch.autograd.gradcheck(layer, torch.randn(3, 5, dtype=torch.float64, requires_grad=True))


def test_weights_are_a_function_of_the_seed():
    for first, second, other in zip(layers(12, 7), layers(12, 7), layers(12, 7, seed=1), strict=True):
        assert torch.equal(dense(first), dense(second))
        assert not torch.allclose(dense(first), dense(other))


@pytest.mark.parametrize(("kind", "size"), [("kronecker", 2), ("kronecker", 3), ("monarch", 4)])
def test_a_gpt_of_structured_layers(kind, size):
    gpt, again = GPT(TINY, 9).eval(), GPT(TINY, 9).eval()
    targets = ("q", "k", "v", "proj", "up", "down")
    names = replace_linears(gpt, kind, targets, size, seed=3, std=0.02)
    assert replace_linears(again, kind, targets, size, seed=3, std=0.02) == names
    parameters = dict(gpt.named_parameters())
    assert len(set(names)) == len(names) and set(names) <= set(parameters)
    assert sum(name.endswith("bias") for name in names) == 2 * 6
    assert not any(isinstance(m, nn.Linear) for name, m in gpt.named_modules() if name != "head")
    assert gpt.head.weight is gpt.tokens.weight
    torch.testing.assert_close(gpt(TOKENS), again(TOKENS), rtol=0, atol=0)

    # the layer stands where the old one stood: putting the explicit matrix there instead gives the same function
    plain = GPT(TINY, 9).eval()
    for name, layer in gpt.named_modules():
        if isinstance(layer, StructuredLinear):
            linear = nn.Linear(layer.inputs, layer.outputs)
            linear.weight.data, linear.bias.data = dense(layer).data, layer.bias.data
            plain.set_submodule(name, linear)
    torch.testing.assert_close(gpt(TOKENS), plain(TOKENS))

    weights = sum(parameters[name].numel() for name in names)
    before = gpt(TOKENS).detach()
    for projector in (Identity(weights), Kronecker(weights, 50, seed=0)):
        model = Subspace(gpt, projector, names)
        torch.testing.assert_close(model(TOKENS), before)
        model(TOKENS).square().sum().backward()
        assert model.coordinates.grad.abs().max() > 0
        with torch.no_grad():
            model.coordinates.normal_()
        assert not torch.allclose(model(TOKENS), before)


def test_a_named_head_is_replaced_and_the_embedding_stays():
    gpt = GPT(TINY, 9).eval()
    embedding = gpt.tokens.weight.detach().clone()
    names = replace_linears(gpt, "monarch", ("head",), 4, seed=0, std=0.02)
    assert names == ["head.right", "head.left"]
    assert torch.equal(gpt.tokens.weight, embedding)
    assert gpt(TOKENS).shape == (2, 12, 9)


def test_errors_name_what_is_wrong():
    with pytest.raises(SubloraError, match="no linear layer is named 'tokens'; there are"):
        replace_linears(GPT(TINY, 9), "monarch", ("tokens",), 4, seed=0, std=0.02)
    with pytest.raises(SubloraError, match="16 × 16 cannot have 17 blocks; choose 1 to 16"):
        replace_linears(GPT(TINY, 9), "monarch", ("q",), 17, seed=0, std=0.02)
    with pytest.raises(SubloraError, match="at least 2 factors, not 1"):
        replace_linears(GPT(TINY, 9), "kronecker", ("q",), 1, seed=0, std=0.02)
