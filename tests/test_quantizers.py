"""Codebooks and quantization-aware training."""

import numpy as np
import pytest
import torch

from sublora import config
from sublora.compression import CODEBOOKS, Quantized, encode, kmeans_codebook, nearest, uniform_codebook
from sublora.compression.message import Message
from sublora.errors import SubloraError
from sublora.models import build

TINY = config.Model(layers=1, heads=2, width=16, block=8)


def distortion(values, codebook):
    return float(((values - codebook.astype(np.float64)[nearest(values, codebook)]) ** 2).mean())


def test_uniform_levels_are_the_means_of_equal_bins():
    values = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    assert uniform_codebook(values, 2).tolist() == [1.0, 9.5]
    assert uniform_codebook(values, 5).tolist() == [0.5, 2.0, 5.0, 7.0, 9.5]  # the empty bins keep their centres


def test_nearest_by_hand():
    codebook = np.array([-1.0, 0.0, 2.0], np.float16)
    assert nearest(np.array([-9, -0.6, -0.4, 0.9, 1.1, 5]), codebook).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("levels", [2, 5, 15])
def test_kmeans_is_better_than_uniform_and_improves_with_levels(levels):
    values = np.random.default_rng(0).normal(size=2000)
    codebook = kmeans_codebook(values, levels)
    assert codebook.dtype == np.float16 and (np.diff(codebook) > 0).all()
    assert distortion(values, codebook) < distortion(values, uniform_codebook(values, levels))
    assert distortion(values, codebook) < distortion(values, kmeans_codebook(values, levels - 1)) if levels > 2 else True
    means = [values[nearest(values, codebook) == i].mean() for i in range(levels)]
    np.testing.assert_allclose(means, codebook, atol=2e-3)


@pytest.mark.parametrize("name", CODEBOOKS)
def test_more_levels_than_values_is_said_when_it_is_coded(name):
    values = np.zeros(50)
    codebook = CODEBOOKS[name](values, 4)
    with pytest.raises(SubloraError, match="use fewer"):
        encode(Message(config.Subspace(dimension=50), 0.1, codebook, nearest(values, codebook)))


@pytest.fixture
def quantized():
    model = build(TINY, config.Subspace(dimension=30, rank=2, lora_dropout=0.0), 9).eval()
    with torch.no_grad():
        model.coordinates.copy_(torch.randn(30, generator=torch.Generator().manual_seed(0)))
    return Quantized(model, np.array([-1, 0, 1], np.float16))


def test_the_model_in_training_is_the_coded_one(quantized):
    codebook, symbols = quantized.coded()
    tokens = torch.arange(16).view(2, 8) % 9
    with torch.no_grad():
        coded = quantized.subspace(tokens, coordinates=torch.from_numpy(codebook.astype(np.float32)[symbols]))
        torch.testing.assert_close(quantized(tokens), coded)
        assert not torch.allclose(quantized.subspace(tokens), coded)


def test_gradients_pass_straight_through_and_gather_at_the_levels(quantized):
    quantized(torch.arange(16).view(2, 8) % 9).square().sum().backward()
    w, levels = quantized.subspace.coordinates, quantized.codebook
    assert {name for name, p in quantized.named_parameters() if p.requires_grad} == {"subspace.coordinates", "codebook"}
    _, symbols = quantized.coded()
    gathered = torch.zeros(3).index_add(0, torch.from_numpy(symbols), w.grad)
    torch.testing.assert_close(levels.grad, gathered)
    assert w.grad.abs().max() > 0


def test_rate_is_near_the_entropy_when_coordinates_sit_on_levels(quantized):
    with torch.no_grad():
        quantized.subspace.coordinates.copy_(torch.tensor([-1.0] * 15 + [0.0] * 10 + [1.0] * 5))
    shares = np.array([15, 10, 5]) / 30
    rate = quantized.rate()
    assert float(rate.detach()) == pytest.approx(float(-(shares * np.log2(shares)).sum()), abs=0.02)
    rate.backward()
    assert torch.isfinite(quantized.subspace.coordinates.grad).all()


def test_levels_that_cross_while_training_stay_in_order(quantized):
    with torch.no_grad():
        quantized.codebook.copy_(torch.tensor([0.5, 2.0, -1.0]))
        tokens = torch.arange(16).view(2, 8) % 9
        codebook, symbols = quantized.coded()
        assert codebook.tolist() == [-1.0, 0.5, 2.0]
        coded = quantized.subspace(tokens, coordinates=torch.from_numpy(codebook.astype(np.float32)[symbols]))
        torch.testing.assert_close(quantized(tokens), coded)
