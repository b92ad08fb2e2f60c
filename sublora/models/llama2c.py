"""Small pretrained Llamas: checkpoints in the binary format of llama2.c (karpathy, MIT): a header and plain floats, no pickle."""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sublora.errors import SubloraError, errors_named

HEADER = 7  # int32: dim, hidden dim, layers, heads, kv heads, vocabulary, context
LARGEST = 10**9  # weights; a header that asks for more is refused
BEGIN = 1  # id of the begin-of-text token


def load_llama2c(path: str | Path) -> nn.Module:
    """The `transformers` LlamaForCausalLM in a llama2.c file, float32, in evaluation mode; its output embedding is the input's.

    The format has rotary pairs side by side, `transformers` half a head apart: rows of the query and key matrices change places.
    Raises SubloraError naming the file when its header is impossible, or its size not what the header says.
    """
    from transformers import LlamaConfig, LlamaForCausalLM  # here, because importing it takes seconds

    path = Path(path)
    with errors_named(f"{path}: cannot read it", "give a llama2.c file"):
        data = path.read_bytes()
    if len(data) < 4 * HEADER:
        raise SubloraError(f"{path}: {len(data)} bytes are no llama2.c checkpoint; give a .bin file of weights")
    sizes = struct.unpack("<7i", data[: 4 * HEADER])
    dim, hidden, layers, heads, kv_heads, vocabulary, context = sizes
    if min(sizes) < 1 or dim % heads or heads % kv_heads or (dim // heads) % 2:
        raise SubloraError(f"{path}: the header {sizes} is not that of a Llama with shared embeddings")
    width = dim // heads * kv_heads
    shapes = {  # in the order of the file
        "embed_tokens": (vocabulary, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, width, dim),
        "self_attn.v_proj": (layers, width, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, hidden, dim),
        "mlp.down_proj": (layers, dim, hidden),
        "mlp.up_proj": (layers, hidden, dim),
        "norm": (dim,),
        "rotary": (2, context, dim // heads // 2),
    }
    counts = [math.prod(shape) for shape in shapes.values()]
    expected = 4 * (HEADER + sum(counts))
    if sum(counts) > LARGEST or len(data) != expected:
        raise SubloraError(f"{path}: {len(data):,} bytes, but the header {sizes} needs {expected:,}; the file is cut or another")
    parts = torch.from_numpy(np.frombuffer(data, "<f4", offset=4 * HEADER).astype(np.float32)).split(counts)
    weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attention_bias=False,
        bos_token_id=BEGIN,
        eos_token_id=BEGIN,
    )
    model = LlamaForCausalLM(config).float().eval()
    state = {"lm_head.weight": weights["embed_tokens"]}
    state |= {f"model.{name}.weight": weights.pop(name) for name in ("embed_tokens", "norm")}
    del weights["rotary"]  # `transformers` computes it
    for name, stacked in weights.items():
        turned = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
        for i, weight in enumerate(stacked):
            state[f"model.layers.{i}.{name}.weight"] = _halves(weight, turned) if turned else weight
    model.load_state_dict(state)
    return model


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from pairs (0, 1), (2, 3), … to the first of all pairs, then the second."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)
