"""What a graphics card would do, as far as that can be known without one."""

import numpy as np
import pytest
import torch
from card import V, no_numbers, on_card, step_memory, tokens_of, whole_step

from sublora.compression import OnGrid, Quantized
from sublora.data import get_tokenizer, write_store
from sublora.experiment import Gpt, Subspace
from sublora.models import GPT, build
from sublora.models.output import vocabulary_in_pieces
from sublora.sampling import LanguageModel
from sublora.scoring.scores import _predicted
from sublora.training import loop

TINY = {"layers": 1, "heads": 2, "width": 16, "block": 32}
LORA = {"dimension": 50, "rank": 2, "lora_dropout": 0.1}
GRID = {"parametrization": "full"}


def gradient(model, precision=torch.bfloat16, **shape):
    loss = loop._bits(torch.autocast("cuda", precision), model, tokens_of(4, 32, **shape))
    loss.backward()
    return loss


@pytest.mark.parametrize("vocab_size", [257, V])
@pytest.mark.parametrize("rotary", [False, True])
def test_a_step_stays_on_the_card(vocab_size, rotary, monkeypatch):
    monkeypatch.setitem(loop.logits_at_once.__globals__["LOGITS"], "cuda", 2**20)  # V = 50,257 in pieces
    with no_numbers():
        model = on_card(build(Gpt(**TINY, rotary=rotary), Subspace(**LORA), vocab_size)).train()
        loss = gradient(model, vocab_size=vocab_size)
        assert loss.device.type == model.coordinates.grad.device.type == "cuda"
        optimizer = torch.optim.AdamW([model.coordinates], fused=True)
        optimizer.step()
        moments = optimizer.state[model.coordinates]
        assert {each.device.type for each in moments.values()} == {"cuda"}
        state = loop._State({"coordinates": model.coordinates}, optimizer)
        state.load({name: each.cpu() for name, each in state.tensors().items()}, {"step": 1, "best": 0.5})
        optimizer.step()


def test_something_on_the_wrong_device_is_found():  # the twin of the others
    with no_numbers():
        model = on_card(build(Gpt(**TINY), Subspace(**LORA), 257)).train()
        model.initial = model.initial.cpu()
        with pytest.raises(Exception, match=r"cuda.*cpu|device"):
            gradient(model, vocab_size=257)


def test_quantization_stays_on_the_card():
    with no_numbers():
        model = build(Gpt(**TINY), Subspace(**GRID), 257)
        with torch.no_grad():
            quantized = on_card(OnGrid(model, np.full(len(model.groups), 0.01), 0.1))
            levels = on_card(Quantized(build(Gpt(**TINY), Subspace(**LORA), 257), np.linspace(-1, 1, 5)))
        for each in (quantized, levels):
            gradient(each, vocab_size=257)
            bits = each.bits()
            bits.backward()
            assert bits.device.type == "cuda"


@pytest.mark.parametrize("residual", [False, True])
def test_scoring_and_sampling_stay_on_the_card(residual, tmp_path):
    store = write_store(tmp_path / "store", [np.arange(9)], name="toy", tokenizer="bytes", vocab_size=257, eot=256)
    with no_numbers(), torch.inference_mode():
        model = on_card(GPT(Gpt(**TINY, residual=residual), 257).eval())
        ids = torch.zeros(2, 32, dtype=torch.long, device="cuda")
        given = [ids] + [torch.zeros(2, 32, 257, device="cuda")] * residual
        found = _predicted(model, given, torch.arange(0, 64, 2, device="cuda"), ids.flatten()[::2], (store, True))
        assert {each.device.type for each in found.values()} == {"cuda"}
        assert found["log_probability"].shape == (32,)
        if not residual:
            logits = LanguageModel(model, get_tokenizer("bytes"))._logits(torch.zeros(9, dtype=torch.long), 0, 8)
            assert logits.device.type == "cpu" and logits.shape == (8, 257)


def test_rows_padded_on_the_card_are_no_tokens():
    with no_numbers():
        model = on_card(GPT(Gpt(**TINY), V))
        seen = []
        with torch.no_grad():
            model(torch.zeros(2, 32, dtype=torch.long, device="cuda"), read=lambda logits, _: seen.append(logits.shape))
        assert vocabulary_in_pieces(model) == V == seen[0][-1] and model.head.weight.shape[0] == V


@pytest.mark.parametrize("shape, card", [((12, 12, 768), 24), ((36, 20, 1280), 80)])
def test_gpt2_small_and_large_fit_on_cards(shape, card):
    layers, heads, width = shape
    found = step_memory(Gpt(layers=layers, heads=heads, width=width, block=1024), 4)
    assert 0.9 * 4 * 12 * layers * width**2 / 2**30 < found["parameters"] < found["peak"] < card


def test_a_step_of_gpt2_small_takes_less_than_six_gigabytes_on_a_cpu():
    shape = Gpt(layers=12, heads=12, width=768, block=1024)
    assert step_memory(shape, 8, "cpu")["peak"] < 6
    assert step_memory(shape, 8, "cpu", whole_step)["peak"] > 8  # the twin: logits exist whole, and all layers of all sequences
