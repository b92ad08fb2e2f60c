"""The small pretrained model of the demonstration: what it is made from, and that it is made once."""

import json

import numpy as np
import pytest
import torch
from tiny import write_texts

from sublora.data import prepare
from sublora.experiment import Corpus
from sublora.models.pretrained import load_causal
from sublora.models.tiny import SETTINGS, make_pretrained

QUICK = {"width": 16, "block": 16, "batch": 16, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return prepare(Corpus(source="text", path=str(write_texts(folder / "texts"))), folder / "stores")


def weights(folder):
    return torch.cat([parameter.detach().flatten() for parameter in load_causal(str(folder), 257, 16).parameters()])


def test_it_learns_and_can_be_loaded_as_any_pretrained_model(tmp_path, store):
    folder = make_pretrained(tmp_path / "source", store, steps=150, **QUICK)
    model = load_causal(str(folder), store.vocab_size, 16)
    windows = torch.from_numpy(np.stack([store.tokens[i : i + 17].astype(np.int64) for i in range(0, 1600, 17)]))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
    assert float(loss) < 0.5 * np.log(257)


def test_the_same_settings_make_the_same_model_once(tmp_path, store):
    first = make_pretrained(tmp_path / "a", store, steps=3, **QUICK)
    again = make_pretrained(tmp_path / "b", store, steps=3, **QUICK)
    assert torch.equal(weights(first), weights(again))
    made = (first / "model.safetensors").stat().st_mtime_ns
    make_pretrained(first, store, steps=3, **QUICK)
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    make_pretrained(first, store, steps=4, **QUICK)
    assert not torch.equal(weights(first), weights(again))
    assert json.loads((first / SETTINGS).read_text("utf-8"))["steps"] == 4
