"""A bias on the logits of some tokens: the fewest numbers that a model can be fine-tuned by."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sublora.models.output import Read

STRIDE = 32.0
"""How much further a bias beside LoRA's weights moves than these: several nats, where a weight moves some tenths."""


class Biased(nn.Module):
    """A language model with a bias on the logits of the tokens `tokens`, or of all; zero at first. One number on the end of text
    moves every document's length. V, the longest window and `read` are the model's own. stride: nats of a bias of one.
    """

    which: torch.Tensor

    def __init__(self, model: Any, tokens: Sequence[int] | None, stride: float = 1.0):
        super().__init__()
        self.stride = stride
        self.model, self.vocab_size, self.block_size = model, model.vocab_size, model.block_size
        self.rows = getattr(model, "rows", model.vocab_size)
        self.register_buffer("which", torch.arange(self.vocab_size) if tokens is None else torch.tensor(tokens), persistent=False)
        self.bias = nn.Parameter(torch.zeros(len(self.which)))

    def forward(self, *inputs: torch.Tensor, read: Read | None = None, rows: torch.Tensor | None = None) -> Any:
        bias = self.bias  # a piece may be read again when this call is over, and the weight is no longer lent
        if read is None:
            return self._moved(self.model(*inputs), bias)
        return self.model(*inputs, read=lambda logits, place: read(self._moved(logits, bias), place), rows=rows)

    def _moved(self, logits: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        bias = self.stride * bias
        return logits.index_add(-1, self.which, bias.to(logits.dtype).expand(*logits.shape[:-1], -1))
