"""Models: a causal transformer, adapters that start as nothing, projectors, and any module as a function of d numbers."""

import pytest
import torch
from torch import nn

from sublora.errors import SubloraError
from sublora.experiment import Gpt, Pretrained
from sublora.experiment import Subspace as SubspaceSettings
from sublora.models import GPT, Kronecker, Subspace, base_model, base_sha256, build, model_weights, parametrize
from sublora.models.gpt import rotated
from sublora.models.lora import add_lora

TINY = Gpt(layers=2, heads=2, width=16, block=12)
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
    first = base_sha256(base_model(TINY, 9))
    torch.manual_seed(2)
    assert base_sha256(base_model(TINY, 9)) == first
    assert base_sha256(base_model(TINY.model_copy(update={"seed": 1}), 9)) != first


def test_model_weights_is_a_count_that_is_never_too_small():
    biased = GPT(TINY.model_copy(update={"bias": True}), 9)
    assert model_weights(TINY, 9) == sum(p.numel() for p in biased.parameters())


def test_lora_starts_as_the_model_itself():
    gpt = GPT(TINY, 9).eval()
    before = gpt(TOKENS)
    settings = SubspaceSettings(parametrization="lora", rank=2, lora_dropout=0.1, seed=5)
    names = add_lora(gpt, settings, ("q", "v", "head"))
    torch.testing.assert_close(gpt.eval()(TOKENS), before)
    assert len(names) == 2 * (2 + 2 + 1)
    again = GPT(TINY, 9)
    add_lora(again, settings, ("q", "v", "head"))
    for (name, p), (other, q) in zip(gpt.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(p, q)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dimension": 100_000}, r"^subspace.dimension 100,000 exceeds the .* trainable weights; lower it"),
        ({"dimension": 9, "targets": ()}, "^subspace.targets: empty; sublora needs at least one layer"),
        ({"parametrization": "monarch", "targets": ()}, "^subspace.targets: empty; monarch needs at least one layer"),
        ({"dimension": 9, "targets": ("q", "c_attn")}, "^subspace.targets: no linear layer is named 'c_attn'; there are"),
        ({"parametrization": "kronecker", "blocks": 1}, "at least 2 factors, not 1"),
    ],
    ids=str,
)
def test_a_parametrization_that_does_not_fit_is_refused(settings, says):
    with pytest.raises(SubloraError, match=says):
        build(TINY, SubspaceSettings(**settings), 9)


PRETRAINED = Pretrained(source="elsewhere", block=12)


@pytest.mark.parametrize("parametrization", ["kronecker", "monarch"])
def test_a_pretrained_models_layers_are_not_replaced(parametrization):
    with pytest.raises(SubloraError, match=f"{parametrization} layers would take the place of what a pretrained model has learnt"):
        parametrize(GPT(TINY, 9), PRETRAINED, SubspaceSettings(parametrization=parametrization))


@pytest.mark.parametrize("dimension", [50, None])
def test_parametrizing_leaves_the_base_model_as_it_is(dimension):
    """Whatever the base: its weights are those at coordinates zero."""
    base, parametrization = GPT(TINY, 9).eval(), "full" if dimension is None else "subspace"
    model = parametrize(base, PRETRAINED, SubspaceSettings(parametrization=parametrization, dimension=dimension)).eval()
    assert base_sha256(model.module) == base_sha256(GPT(TINY, 9))
    torch.testing.assert_close(model(TOKENS), GPT(TINY, 9).eval()(TOKENS))


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
    model = build(TINY, SubspaceSettings(dimension=50, rank=2), 9).eval()
    with torch.no_grad():
        model.coordinates.normal_()
        expected = model(TOKENS)
        torch.testing.assert_close(model.materialized()(TOKENS), expected)
        assert not torch.allclose(expected, GPT(TINY, 9).eval()(TOKENS))


LORA_B = 2 * 2 * 2 * 16 + 2 * 9
LORA, FULL = 2 * 2 * 2 * (16 + 16) + 2 * (16 + 9), sum(p.numel() for p in GPT(TINY, 9).parameters())
KRONECKER, MONARCH = 4 * (4 * 4 + 4 * 4), 4 * (2 * 4 * 4 * 4)  # two layers of q and v: two factors, or four blocks on each side
BOTH = {"parametrization": "lora_b+biases", "tokens": (8,), "rank": 2}


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"dimension": 50, "rank": 2}, (LORA, 50)),
        ({"parametrization": "lora", "rank": 2}, (LORA, LORA)),
        ({"parametrization": "subspace", "dimension": 50}, (FULL, 50)),
        ({"parametrization": "full"}, (FULL, FULL)),
        ({"parametrization": "kronecker", "targets": ("q", "v"), "blocks": 2}, (KRONECKER, KRONECKER)),
        ({"parametrization": "monarch", "targets": ("q", "v"), "blocks": 4}, (MONARCH, MONARCH)),
        ({"parametrization": "monarch", "targets": ("q", "v"), "blocks": 4, "dimension": 50}, (MONARCH, 50)),
        ({"parametrization": "biases", "tokens": "all"}, (9, 9)),
        ({"parametrization": "biases", "tokens": (8,)}, (1, 1)),
        ({"parametrization": "biases", "tokens": "all", "dimension": 4}, (9, 4)),
        (BOTH, (LORA_B + 1, LORA_B + 1)),
        ({**BOTH, "dimension": 4, "projector": "film+kron_qr"}, (LORA_B + 1, 4)),
        ({"parametrization": "tinylora", "targets": ("q", "v"), "rank": 2}, (16, 16)),
        ({"parametrization": "tinylora", "targets": ("q", "v"), "rank": 2, "dimension": 3}, (16, 3)),
    ],
    ids=str,
)
def test_all_parametrizations_by_one_switch(settings, shape):
    assert build(TINY, SubspaceSettings(**settings), 9).projector.shape == shape


def test_rotary_positions_are_those_of_transformers_and_tell_distances_alone():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 7, 8)
    angles = torch.arange(7)[:, None] * 10_000.0 ** (-torch.arange(4) / 4)
    angles = torch.cat([angles, angles], dim=-1)[None]
    expected = apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    torch.testing.assert_close((rotated(q), rotated(k)), expected)
    same = q[:, :, :1].expand(-1, -1, 7, -1), k[:, :, :1].expand(-1, -1, 7, -1)  # one query and one key at all places
    products = rotated(same[0]) @ rotated(same[1]).transpose(-1, -2)
    torch.testing.assert_close(products[..., 1:, 1:], products[..., :-1, :-1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(products[..., :-1, 1:], products[..., 1:, :-1])  # the twin: other distances


def test_a_rotary_gpt_is_causal_and_has_no_vector_for_a_place():
    shape = Gpt(layers=1, heads=2, width=16, block=32, rotary=True, weight_std=0.3, embedding_std=0.3)
    model, tokens = GPT(shape, 50), torch.arange(20)[None]
    changed = tokens.clone()
    changed[0, 10:] += 1
    assert torch.allclose(model(tokens)[:, :10], model(changed)[:, :10], atol=1e-5)
    assert not torch.allclose(model(tokens)[:, 10:], model(changed)[:, 10:], atol=1e-3)
    biased = shape.model_copy(update={"bias": True})
    assert model_weights(shape, 50) == sum(p.numel() for p in GPT(biased, 50).parameters())
    assert "rotary" not in Gpt().model_dump() and Gpt(rotary=True).model_dump()["rotary"]
    with pytest.raises(ValueError, match="rotary needs heads of an even width, not 5"):
        Gpt(heads=2, width=10, rotary=True)
