"""The output layer a piece at a time: the logits of a large vocabulary never exist whole."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

LOGITS = {"cpu": 2**24, "cuda": 2**29}
"""The most logits that exist at once, unless those of one token are more: 64 MiB on a CPU (more is slower), 2 GiB on a GPU."""

Read = Callable[[torch.Tensor, slice], Any]
"""What is to be known of some logits (n, V), and which of the rows asked for they are."""


def logits_at_once(device: torch.device) -> int:
    """`LOGITS` of a device."""
    return LOGITS.get(device.type, LOGITS["cpu"])


def numbers_of_token(module: nn.Module) -> int:
    """About how many numbers a model makes of one token: what its matrices take and give."""
    return max(1, sum(sum(weight.shape) for weight in module.parameters() if weight.ndim > 1))


def vocabulary_in_pieces(module: nn.Module) -> int | None:
    """V of the language model in a module if its `forward` takes `read` and `rows` (`in_pieces`), else None."""
    modules: Iterator[Any] = module.modules()
    return next((each.vocab_size for each in modules if getattr(each, "reads_pieces", False)), None)


def in_pieces(
    output: nn.Module, inputs: Sequence[torch.Tensor], read: Read, rows: torch.Tensor | None, *, vocab_size: int
) -> list[Any]:
    """What `read` says of the logits that `output` makes of `inputs`, piece by piece.

    inputs: (batch, time, ...) each. rows: which places of (batch · time), in order; None: all.
    Where there are gradients, a piece's logits are made again on the way back. `output` has then the weights that it has now:
    `torch.func.functional_call` lends a module its weights for one call only.
    """
    flat = [each.flatten(0, 1) for each in inputs]
    if rows is not None:
        flat = [each[rows] for each in flat]
    weights: dict[str, torch.Tensor] = dict(output.named_parameters())

    def one(place: slice, *piece: torch.Tensor) -> Any:
        return read(functional_call(output, weights, piece), place)

    step, found = max(1, logits_at_once(flat[0].device) // vocab_size), []
    for begin in range(0, len(flat[0]), step):
        place = slice(begin, begin + step)
        piece = [each[place] for each in flat]
        again = torch.is_grad_enabled()
        found.append(checkpoint(one, place, *piece, use_reentrant=False) if again else one(place, *piece))
    return found


class Rest(nn.Module):
    """What a causal model of `transformers` does behind its body: hidden states (n, width) to logits (n, V).

    Families scale, shift or bend logits in their own ways, so it is the model's own `forward`, with a body that says what is given.
    It shares the model's modules, and so their weights. said: what the body returned.
    """

    def __init__(self, base: Any, said: Any, vocab_size: int):
        super().__init__()
        self.vocab_size, self.body = vocab_size, _Said(said)
        rest = copy.copy(base)
        rest.__dict__["_modules"] = {**base._modules, base.base_model_prefix: self.body}
        self.rest = rest

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.body.hidden = hidden[None]
        tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        return self.rest(input_ids=tokens, use_cache=False).logits[0, :, : self.vocab_size]


class _Said(nn.Module):
    """A body that returns what another returned, with other hidden states."""

    hidden: torch.Tensor

    def __init__(self, said: Any):
        super().__init__()
        self.said = said

    @property
    def decoder(self) -> nn.Module:  # of OPT, whose forward goes past the body
        return self

    def forward(self, *_: Any, **__: Any) -> Any:
        found = copy.copy(self.said)
        found["last_hidden_state"] = self.hidden
        return found
