"""A graphics card that is not there: devices, shapes and memory of tensors without numbers (`FakeTensorMode`)."""

import contextlib
import math
from unittest import mock

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from sublora.experiment import Gpt, Subspace
from sublora.models import build
from sublora.training import loop
from sublora.training.batches import Batch

V = 50_257


@contextlib.contextmanager
def no_numbers():
    """All tensors made inside are fake; what is computed of two devices raises, as on a real card."""
    modes = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with modes, mock.patch.object(BaseTunerLayer, "_move_adapter_to_device_of_base_layer", lambda *_, **__: None):
        yield


def on_card(module, device="cuda"):
    """The module with its parameters and buffers on the card; what several of its modules share is one."""
    moved = {}
    for part in module.modules():
        for name, each in part._parameters.items():
            if each is not None:
                again = nn.Parameter(each.detach().to(device), requires_grad=each.requires_grad)
                part._parameters[name] = moved.setdefault(id(each), again)
        part._buffers.update({name: each.to(device) for name, each in part._buffers.items() if each is not None})
    return module


def tokens_of(sequences, time, vocab_size=V):
    """A batch without padding, on the CPU, as a sampler makes it."""
    tokens = torch.zeros(sequences, time + 1, dtype=torch.long) % vocab_size
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.full((sequences,), 1 / (sequences * time)))


def whole_step(model, batch, precision):
    """All places and all logits of a batch at once."""
    with precision:
        logits = model(batch.inputs)
    F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten()).backward()


def training_step(model, batch, precision):
    """As the training loop goes about it."""
    device = model.coordinates.device.type
    numbers = loop.numbers_of_token(model)
    for piece in batch.pieces(len(batch.inputs), loop.AT_ONCE.get(device, math.inf) / numbers, loop.CALL / numbers):
        loop._bits(precision, model, piece).backward()


def step_memory(shape: Gpt, sequences: int, device: str = "cuda", step=training_step) -> dict[str, float]:
    """GiB that a SubLoRA step in bf16 takes: parameters and buffers, what AdamW adds, and the most that there is at once."""
    with no_numbers():
        model = on_card(build(shape, Subspace(dimension=50_000), V), device).train()
        optimizer = torch.optim.AdamW([model.coordinates])
        held = {id(each): each.nbytes for each in (*model.parameters(), *model.buffers())}
        batch = tokens_of(sequences, shape.block)
        with (tracker := MemTracker()):
            tracker.track_external(model, optimizer)
            step(model, batch, torch.autocast(device, torch.bfloat16))
            optimizer.step()
        parts = next(each for where, each in tracker.get_tracker_snapshot("peak").items() if where.type == device)
        return {
            "parameters": sum(held.values()) / 2**30,
            "optimizer": 4 * model.coordinates.nbytes / 2**30,  # two moments, the gradient, the best so far
            "peak": parts["Total"] / 2**30,
        }
