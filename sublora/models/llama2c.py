"""Small pretrained Llamas: checkpoints in the binary format of llama2.c (karpathy, MIT)."""

import struct
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sublora.errors import SubloraError

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
    data = _contents(path)
    if len(data) < 4 * HEADER:
        raise SubloraError(f"{path}: {len(data)} bytes are no llama2.c checkpoint; give a .bin file of weights")
    dim, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", data[: 4 * HEADER])
    sizes = (dim, hidden, layers, heads, kv_heads, vocabulary, context)
    if min(sizes) < 1 or dim % heads or heads % kv_heads or (dim // heads) % 2:
        raise SubloraError(f"{path}: the header {sizes} is not that of a Llama with shared embeddings")
    width = dim // heads * kv_heads
    shapes = {
        "embed": (vocabulary, dim),
        "attention_norm": (layers, dim),
        "q": (layers, dim, dim),
        "k": (layers, width, dim),
        "v": (layers, width, dim),
        "o": (layers, dim, dim),
        "ffn_norm": (layers, dim),
        "gate": (layers, hidden, dim),
        "down": (layers, dim, hidden),
        "up": (layers, hidden, dim),
        "norm": (dim,),
        "rope": (2, context, dim // heads // 2),
    }
    counts = {name: int(np.prod([int(size) for size in shape], dtype=object)) for name, shape in shapes.items()}
    expected = 4 * (HEADER + sum(counts.values()))
    if sum(counts.values()) > LARGEST or len(data) != expected:
        raise SubloraError(f"{path}: {len(data):,} bytes, but the header {sizes} needs {expected:,}; the file is cut or another")
    flat = np.frombuffer(data, "<f4", offset=4 * HEADER)
    ends = np.cumsum(list(counts.values()))
    parts = dict(zip(shapes, np.split(flat, ends[:-1]), strict=True))
    w = {name: torch.from_numpy(parts[name].reshape(shape).astype(np.float32)) for name, shape in shapes.items()}
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
    state = {"model.embed_tokens.weight": w["embed"], "lm_head.weight": w["embed"], "model.norm.weight": w["norm"]}
    for i in range(layers):
        names = {
            "input_layernorm": w["attention_norm"][i],
            "post_attention_layernorm": w["ffn_norm"][i],
            "self_attn.q_proj": _halves(w["q"][i], heads),
            "self_attn.k_proj": _halves(w["k"][i], kv_heads),
            "self_attn.v_proj": w["v"][i],
            "self_attn.o_proj": w["o"][i],
            "mlp.gate_proj": w["gate"][i],
            "mlp.down_proj": w["down"][i],
            "mlp.up_proj": w["up"][i],
        }
        state |= {f"model.layers.{i}.{name}.weight": weight for name, weight in names.items()}
    model.load_state_dict(state)
    return model


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from pairs (0, 1), (2, 3), … to the first of all pairs, then the second."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SubloraError(f"{path}: cannot read it ({error.strerror}); give a llama2.c file") from None
