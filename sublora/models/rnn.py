"""Recurrent language models: a GRU (Cho et al. 2014) or an LSTM (Hochreiter & Schmidhuber 1997) under the GPT's interface."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sublora.experiment import Gpt
from sublora.models.gpt import Gain, logits
from sublora.models.output import Read

GATES = {"gru": 3, "lstm": 4}


class Layer(nn.Module):
    """One recurrent layer: (batch, time, width) to (batch, time, width), by torch's fused kernels.

    `input` and `hidden` are linear maps to the gates, so that an adapter can be put on either, or another map in its place. The
    kernels need a matrix, which is what a map makes of the unit vectors.
    """

    def __init__(self, architecture: str, width: int, bias: bool):
        super().__init__()
        self.architecture, gates = architecture, GATES[architecture]
        self.input = nn.Linear(width, gates * width, bias=False)
        self.hidden = nn.Linear(width, gates * width, bias=False)
        self.input_bias = nn.Parameter(torch.zeros(gates * width)) if bias else None
        self.hidden_bias = nn.Parameter(torch.zeros(gates * width)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        weights: list[Any] = [each(eye).T.contiguous().to(x.dtype) for each in (self.input, self.hidden)]
        has_biases = self.input_bias is not None
        if has_biases:
            weights += [self.input_bias, self.hidden_bias]
        start = x.new_zeros(1, len(x), x.shape[-1])
        options: tuple[Any, ...] = (has_biases, 1, 0.0, self.training, False, True)  # one layer, one direction, batch first
        if self.architecture == "gru":
            return torch.gru(x, start, weights, *options)[0]
        return torch.lstm(x, (start, start), weights, *options)[0]


class Recurrent(nn.Module):
    """Token ids (batch, time) to logits (batch, time, vocab_size); each window starts from the state zero.

    `log_q`, `read` and `rows` are as of `gpt.GPT`, and so are the tied embeddings and the residual form. Initial weights are a
    function of `config.seed` alone; biases are zero.
    """

    reads_pieces = True

    def __init__(self, config: Gpt, vocab_size: int):
        super().__init__()
        self.block_size = config.block
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(Layer(config.architecture, config.width, config.bias) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=config.bias)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        generator = torch.Generator("cpu").manual_seed(config.seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    std = config.embedding_std if name.startswith("tokens") else config.weight_std
                    parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
        self.gain = Gain(config.width) if config.residual else None

    def forward(
        self, tokens: torch.Tensor, log_q: torch.Tensor | None = None, *, read: Read | None = None, rows: torch.Tensor | None = None
    ) -> Any:
        x = self.tokens(tokens)
        step: Callable[[torch.Tensor], torch.Tensor]
        for step in self.layers:
            x = step(x)
        return logits(self, self.norm(x), log_q, read, rows)
