"""A graphics card that is not there: devices, shapes and memory of tensors without numbers (`FakeTensorMode`)."""

import contextlib
from unittest import mock

import torch
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


def on_card(module):
    """The module with its parameters and buffers on the card; what several of its modules share is one."""
    moved = {}
    for part in module.modules():
        for name, each in part._parameters.items():
            if each is not None:
                again = nn.Parameter(each.detach().to("cuda"), requires_grad=each.requires_grad)
                part._parameters[name] = moved.setdefault(id(each), again)
        part._buffers.update({name: each.to("cuda") for name, each in part._buffers.items() if each is not None})
    return module


def tokens_of(sequences, time, vocab_size=V):
    """A batch without padding, on the CPU, as a sampler makes it."""
    tokens = torch.zeros(sequences, time + 1, dtype=torch.long) % vocab_size
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.full((sequences,), 1 / (sequences * time)))


def step_memory(shape: Gpt, subspace: Subspace, sequences: int) -> dict[str, float]:
    """GiB that a training step in bf16 takes on a card: parameters and buffers, AdamW's, and the most that there is at once."""
    with no_numbers():
        model = on_card(build(shape, subspace, V)).train()
        optimizer = torch.optim.AdamW([model.coordinates], fused=True)
        held = {id(each): each for each in (*model.parameters(), *model.buffers())}
        batch = tokens_of(sequences, shape.block)
        with (tracker := MemTracker()):
            tracker.track_external(model, optimizer)
            loop._bits(torch.autocast("cuda", torch.bfloat16), model, batch).backward()
            optimizer.step()
        peak = max(sum(parts.values()) if "Total" not in parts else parts["Total"] for parts in _by_device(tracker))
        coordinates = model.coordinates.nbytes
        return {
            "parameters": sum(each.nbytes for each in held.values()) / 2**30,
            "optimizer": 4 * coordinates / 2**30,  # two moments, the gradient, the best so far
            "peak": peak / 2**30,
        }


def _by_device(tracker):
    return [parts for device, parts in tracker.get_tracker_snapshot("peak").items() if device.type == "cuda"]
