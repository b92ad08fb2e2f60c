"""A decoder-only transformer: GPT-2's architecture (Radford et al. 2019) on one page.

Learned positions (or rotary ones), pre-norm blocks, GELU, tied input and output embeddings; query, key and value are separate
linear maps, so that an adapter can be put on any of them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sublora.experiment import Gpt
from sublora.models.output import Read, in_pieces

ROTATION = 10_000.0
"""Base of the rotary positions' wavelengths (Su et al. 2021)."""
MULTIPLE = 64
"""What a GPU wants the rows of the output layer to be a multiple of."""


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Queries or keys (batch, heads, time, size), each turned by its place: pairs of halves, as in `transformers` (Su et al. 2021).

    Products of the two then depend on how far they are apart alone.
    """
    half = x.shape[-1] // 2
    speeds = ROTATION ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).type_as(x)


class Head(nn.Linear):
    """A linear map without bias whose rows are padded on a GPU while it is computed; what it returns has none of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (more := -self.out_features % MULTIPLE) and x.device.type == "cuda":
            return F.linear(x, F.pad(self.weight, (0, 0, 0, more)))[..., : self.out_features]
        return super().forward(x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, rotary: bool):
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.q = nn.Linear(width, width, bias=bias)
        self.k = nn.Linear(width, width, bias=bias)
        self.v = nn.Linear(width, width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.rotary:
            q, k = rotated(q), rotated(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, rotary: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, bias, rotary)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gain(nn.Module):
    """1 + b + <w, x> of hidden states x (batch, time, width): (batch, time), 1 at first."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 + self.bias + (x * self.weight).sum(-1)


class GPT(nn.Module):
    """Token ids (batch, time) to logits (batch, time, vocab_size), time ≤ block.

    A residual one also takes log_q, the reference's ln q(. | past) at each place (batch, time, vocab_size), and adds a multiple of
    it to the logits, which is learned and depends on the place: it learns what the reference does not know.
    With `read`, logits are read a piece at a time, at the places `rows` (`models.output.in_pieces`).
    Initial weights are a function of `config.seed` alone: they are drawn on the CPU from a generator of their own.
    """

    reads_pieces = True

    def __init__(self, config: Gpt, vocab_size: int):
        super().__init__()
        self.block_size = config.block
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(vocab_size, config.width)
        self.positions = None if config.rotary else nn.Embedding(config.block, config.width)
        shape = config.width, config.heads, config.bias, config.rotary
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=config.bias)
        self.head = Head(config.width, vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        self._initialize(config)
        self.gain = Gain(config.width) if config.residual else None  # behind the others, which are as they would be without it

    @torch.no_grad()
    def _initialize(self, config: Gpt) -> None:
        generator = torch.Generator("cpu").manual_seed(config.seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:  # norms start at one, biases at zero
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = config.embedding_std if name.startswith(("tokens", "positions")) else config.weight_std
            if name.endswith(("proj.weight", "down.weight")):  # GPT-2 scales what is added to the residual stream
                std /= (2 * config.layers) ** 0.5
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))

    def forward(
        self, tokens: torch.Tensor, log_q: torch.Tensor | None = None, *, read: Read | None = None, rows: torch.Tensor | None = None
    ) -> Any:
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return logits(self, self.norm(x), log_q, read, rows)


def logits(model: Any, x: torch.Tensor, log_q: torch.Tensor | None, read: Read | None, rows: torch.Tensor | None) -> Any:
    """What the model's `head` and `gain` make of its last hidden states x (batch, time, width), as `GPT.forward` returns it."""
    if (model.gain is None) != (log_q is None):
        raise ValueError("a residual model takes the reference's ln q, and no other does")
    if read is None:
        return _logits(model.head, model.gain, x, log_q)
    given = (x,) if log_q is None else (x, log_q)
    return in_pieces(_Output(model.head, model.gain), given, read, rows, vocab_size=model.vocab_size)


def _logits(head: nn.Module, gain: Gain | None, x: torch.Tensor, log_q: torch.Tensor | None) -> torch.Tensor:
    return head(x) if gain is None else head(x) + gain(x)[..., None] * log_q


class _Output(nn.Module):
    """Hidden states, and the reference's ln q of a residual model, to logits."""

    def __init__(self, head: nn.Module, gain: Gain | None):
        super().__init__()
        self.head, self.gain = head, gain

    def forward(self, x: torch.Tensor, log_q: torch.Tensor | None = None) -> torch.Tensor:
        return _logits(self.head, self.gain, x, log_q)
