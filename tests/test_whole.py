"""Whole models as messages: what is coded comes back, nothing else is accepted, and a pretrained model survives 8 bits."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sublora.data import get_tokenizer
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, Gpt
from sublora.message.frame import MessageError, prefixed
from sublora.message.whole import decode_whole, encode_whole, rebuild_whole
from sublora.models import GPT
from sublora.models.llama2c import load_llama2c

DATA = os.environ.get("SUBLORA_TEST_DATA")
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big red ball. "
    "She wanted to play with it, but it was too high. Lily asked her mom for help. Her mom said yes and they went to the park "
    "together. They played with the ball all day and were very happy."
)


def tensors(seed=0):
    random = torch.Generator().manual_seed(seed)
    shapes = {"a": (20, 30), "norm": (7,), "b": (5, 4, 3), "tiny": (1, 1)}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def shapes_of(values):
    return [(name, tensor.shape) for name, tensor in values.items()]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("rows", [False, True])
def test_weights_come_back_on_their_grid(bits, rows):
    values = tensors()
    decoded, alpha = decode_whole(encode_whole(values, bits, 0.1, rows), shapes_of(values))
    assert alpha == 0.1 and list(decoded) == list(values)
    torch.testing.assert_close(decoded["norm"], values["norm"].half().float(), rtol=0, atol=0)
    for name in ("a", "b"):
        for row, wanted in zip(decoded[name], values[name], strict=True):
            assert len(row.unique()) <= 2**bits - 1
            step = row.abs()[row != 0].min() if (row != 0).any() else wanted.abs().max()
            assert (row - wanted).abs().max() <= max(1.0, 4 - bits) * max(step, 0.7 * wanted.abs().max())
    errors = [float(((decode_whole(encode_whole(values, b, 0.1, rows), shapes_of(values))[0]["a"] - values["a"]) ** 2).mean())
              for b in (bits, min(8, bits + 1))]  # fmt: skip
    assert errors[1] <= errors[0] < 0.6


def test_zeros_are_exact_and_bad_weights_are_named():
    zeros = {"w": torch.zeros(3, 3)}
    assert (decode_whole(encode_whole(zeros, 2, 0.1), shapes_of(zeros))[0]["w"] == 0).all()
    with pytest.raises(SubloraError, match="^w: "):
        encode_whole({"w": torch.full((2, 2), torch.nan)}, 8, 0.1)
    with pytest.raises(SubloraError, match="^bits: "):
        encode_whole(zeros, 9, 0.1)
    with pytest.raises(SubloraError, match="^alpha "):
        encode_whole(zeros, 8, 0.3)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_changed_cut_and_random_bytes_are_a_message_error_or_a_model(data):
    values = tensors()
    original = encode_whole(values, data.draw(st.integers(2, 8)), 0.1, data.draw(st.booleans()))
    for changed in (original[: data.draw(st.integers(0, len(original) - 1))], original + b"x"):
        with pytest.raises(MessageError):
            decode_whole(changed, shapes_of(values))
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255))
    body = bytes([0x57]) + data.draw(st.binary(max_size=200))
    for hostile in (bytes(changed), prefixed(body)):
        try:
            decoded, _ = decode_whole(hostile, shapes_of(values))
        except MessageError:
            continue
        assert all(torch.isfinite(tensor).all() for tensor in decoded.values())


def test_tied_weights_are_there_once():
    model = GPT(Gpt(layers=1, heads=2, width=16, block=8), 300)
    size = len(encode_whole(dict(model.named_parameters()), 8, 0.05))
    assert size < 1.1 * sum(parameter.numel() for parameter in model.parameters())
    other = GPT(Gpt(layers=1, heads=2, width=16, block=8, seed=5), 300)
    assert rebuild_whole(encode_whole(dict(model.named_parameters()), 8, 0.05), other) == 0.05
    assert other.head.weight is other.tokens.weight
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        difference = (torch.log_softmax(model(tokens), -1) - torch.log_softmax(other(tokens), -1)).abs().max()
    assert difference < 0.01


@pytest.fixture(scope="module")
def stories():
    """karpathy/tinyllamas stories260K: the real model and its tokenizer, in the folder `stories260K` of SUBLORA_TEST_DATA."""
    if DATA is None:
        pytest.skip("SUBLORA_TEST_DATA is not set: no stories260K")
    folder = Path(DATA) / "stories260K"
    checkpoint = folder / "stories260K.bin"
    return load_llama2c(checkpoint), get_tokenizer(str(folder / "tok512.bin")), checkpoint


@torch.no_grad()
def token_losses(model, ids):
    logits = model(torch.tensor([ids])).logits[0, :-1].float()
    return -logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_a_model_trained_elsewhere_tells_stories_and_survives_8_bits(stories):
    model, tokenizer, checkpoint = stories
    ids = [1, *tokenizer.encode(STORY)]
    assert tokenizer.decode(ids) == STORY and tokenizer.vocab_size == 512
    losses = token_losses(model, ids)
    assert 0.5 < float(losses.mean()) < 1.6, "near 1.25-1.30 nats a token on its own kind of text"
    sizes = {}
    for bits, rows in ((8, False), (4, True), (2, True)):
        data = encode_whole(dict(model.named_parameters()), bits, ALPHA_GRID[4], rows)
        other = load_llama2c(checkpoint)
        rebuild_whole(data, other)
        sizes[bits] = len(data)
        again = token_losses(other, ids)
        if bits == 8:
            assert abs(float(again.mean() / losses.mean()) - 1) < 0.01
            np.testing.assert_allclose(again, losses, atol=0.3)
    assert sizes[2] < 0.5 * sizes[4] < 0.35 * sizes[8] < 0.35 * 260_000 * 1.02


def test_generation_goes_on_as_a_story_does(stories):
    model, tokenizer, _ = stories
    ids = [1, *tokenizer.encode("Once upon a time")]
    with torch.no_grad():
        for _ in range(60):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    text = tokenizer.decode(ids)
    assert text.startswith("Once upon a time, there was a ") and text.count(".") >= 2
