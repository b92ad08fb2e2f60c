"""A pretrained model that takes seconds to make: for a demonstration without a download."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from sublora.data import TokenStore
from sublora.progress import progress_bar, silence_transformers

if TYPE_CHECKING:  # importing it takes seconds
    from transformers import PreTrainedModel

SETTINGS = "made-from.json"
"""In the model's folder, written last: what the model is a function of."""


def make_pretrained(
    folder: Path,
    store: TokenStore,
    *,
    width: int = 64,
    block: int = 64,
    steps: int = 250,
    batch: int = 32,
    learning_rate: float = 5e-3,
) -> Path:
    """A folder with a Llama of two layers, trained on windows of all of the store's documents and saved as `transformers` does it.

    A model that is there already and was made from the same settings and documents is kept. It may train on any document of a
    corpus that it is certified on later: all that it learns is in the message that the bound pays for.
    """
    settings = {"width": width, "block": block, "steps": steps, "batch": batch, "learning_rate": learning_rate}
    text = json.dumps({**settings, "corpus": store.sha256, "torch": torch.__version__}, indent=1) + "\n"
    if (folder / SETTINGS).is_file() and (folder / SETTINGS).read_text("utf-8") == text:
        return folder
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # enough for so small a model, and every machine adds in the same order
    try:
        model = _trained(store, width=width, block=block, steps=steps, batch=batch, learning_rate=learning_rate)
    finally:
        torch.set_num_threads(threads)
    (folder / SETTINGS).unlink(missing_ok=True)  # what is half written is not accepted
    model.save_pretrained(folder)
    (folder / SETTINGS).write_text(text, "utf-8")
    return folder


def _trained(store: TokenStore, *, width: int, block: int, steps: int, batch: int, learning_rate: float) -> "PreTrainedModel":
    from transformers import LlamaConfig, LlamaForCausalLM  # here, because importing it takes seconds

    silence_transformers()  # saving takes no time
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens: dict[str, Any] = {"vocab_size": store.vocab_size, "bos_token_id": None, "eos_token_id": store.vocab_size - 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**sizes, **tokens, max_position_embeddings=block, tie_word_embeddings=True)).train()
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in progress_bar(range(steps), desc="make a model", unit="step"):
        starts = torch.randint(len(store.tokens) - block, (batch, 1), generator=random)
        windows = torch.from_numpy(store.tokens[(starts + torch.arange(block + 1)).numpy()].astype("int64"))
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model
