"""Recurrent language models under the GPT's interface."""

import pytest
import torch
from tiny import settings, write_texts

from sublora.errors import SubloraError
from sublora.experiment import Gpt, Subspace, as_experiment
from sublora.models import build
from sublora.models.build import linear_maps, model_weights
from sublora.models.rnn import Recurrent
from sublora.run import Run
from sublora.verification import verify


def config(architecture, **changes):
    return Gpt(architecture=architecture, layers=2, width=8, block=16, weight_std=0.3, **changes)


@pytest.mark.parametrize("architecture", ["gru", "lstm"])
def test_it_is_the_network_of_torch(architecture):
    model = Recurrent(config(architecture, bias=True), 11).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    theirs = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[architecture](8, 8, 2, batch_first=True)
    for i, layer in enumerate(model.layers):
        for name, weight in {
            "weight_ih": layer.input.weight,
            "weight_hh": layer.hidden.weight,
            "bias_ih": layer.input_bias,
            "bias_hh": layer.hidden_bias,
        }.items():
            getattr(theirs, f"{name}_l{i}").data.copy_(weight.data)
    tokens = torch.randint(11, (3, 16))
    wanted = model.head(model.norm(theirs(model.tokens(tokens))[0]))
    assert torch.allclose(model(tokens), wanted, atol=1e-5)


@pytest.mark.parametrize("architecture", ["gru", "lstm"])
def test_no_token_depends_on_later_ones(architecture):
    model = Recurrent(config(architecture), 11).eval()
    tokens = torch.randint(11, (2, 16))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 11
    assert torch.equal(model(tokens)[:, :9], model(changed)[:, :9])
    assert not torch.allclose(model(tokens)[:, 9:], model(changed)[:, 9:])


@pytest.mark.parametrize("architecture", ["gru", "lstm"])
@pytest.mark.parametrize(
    "subspace",
    [
        {"parametrization": "full"},
        {"parametrization": "subspace", "dimension": 10},
        {"parametrization": "sublora", "dimension": 10, "rank": 2, "targets": ["input", "hidden"]},
        {"parametrization": "lora", "rank": 2, "targets": ["hidden", "head"]},
        {"parametrization": "lora_b", "rank": 2, "targets": ["all"]},
        {"parametrization": "kronecker", "targets": ["input"]},
    ],
    ids=lambda subspace: subspace["parametrization"],
)
def test_every_coordinate_has_a_gradient(architecture, subspace):
    torch.manual_seed(0)
    model = build(config(architecture), Subspace(**subspace), 11)
    with torch.no_grad():
        model.coordinates.normal_(0, 0.1)
    model(torch.randint(11, (4, 16))).square().sum().backward()
    assert model.coordinates.grad is not None and (model.coordinates.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("architecture", ["gru", "lstm"])
def test_its_size_is_known_without_building_it(architecture):
    settings = config(architecture, bias=True)
    model = Recurrent(settings, 11)
    assert sum(p.numel() for p in model.parameters()) <= model_weights(settings, 11)
    inside = {name: sum(sum(layer.weight.shape) for n, layer in model.named_modules() if n.endswith(name)) for name in ("input", "hidden")}
    assert {name: linear_maps(settings, 11)[name] for name in inside} == inside


def test_settings_without_effect_are_errors():
    for changes, said in (
        ({"model__heads": 2}, "heads has no effect for architecture gru"),
        ({"subspace__targets": ["q"], "subspace__rank": 2, "subspace__parametrization": "sublora"}, "input, hidden, head"),
    ):
        values = settings("texts", **changes)
        values["model"] |= {"architecture": "gru"}
        if "model__heads" not in changes:
            values["model"].pop("heads")
        with pytest.raises(SubloraError, match=said):
            as_experiment(values)


@pytest.mark.parametrize("architecture", ["gru", "lstm"])
def test_a_certificate_of_one_verifies(architecture, tmp_path):
    values = settings(write_texts(tmp_path / "texts", 100), bounds__documents=30)
    values["model"] = {"architecture": architecture, "layers": 1, "width": 16, "block": 32, "weight_std": 0.1}
    values["subspace"] = {"parametrization": "sublora", "dimension": 30, "rank": 2, "lora_dropout": 0.0, "targets": ["input", "head"]}
    run = Run(values, tmp_path / "runs")
    run.certify()
    assert not verify(run.folder / "certificate.json", tmp_path / "runs" / "corpora")
