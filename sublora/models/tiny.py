"""A pretrained model that takes seconds to make: for a demonstration without a download."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

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
    layers: int = 2,
    width: int = 64,
    block: int = 64,
    steps: int = 250,
    batch: int = 32,
    learning_rate: float = 5e-3,
    seed: int = 0,
) -> Path:
    """A folder with a small Llama, trained on windows of all of the store's documents and saved as `transformers` saves models.

    A model that is there already and was made from the same settings and documents is kept. It may train on any document of a
    corpus that it is certified on later: all that it learns is in the message that the bound pays for.
    """
    sizes = {"layers": layers, "width": width, "block": block, "steps": steps, "batch": batch}
    settings = {**sizes, "learning_rate": learning_rate, "seed": seed, "corpus": store.sha256, "torch": torch.__version__}
    text = json.dumps(settings, indent=1) + "\n"
    if (folder / SETTINGS).is_file() and (folder / SETTINGS).read_text("utf-8") == text:
        return folder
    model = _untrained(store.vocab_size, layers, width, block, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # enough for so small a model, and every machine adds in the same order
    try:
        _train(model, store, block=block, steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    finally:
        torch.set_num_threads(threads)
    (folder / SETTINGS).unlink(missing_ok=True)  # what is half written is not accepted
    model.save_pretrained(folder)
    (folder / SETTINGS).write_text(text, "utf-8")
    return folder


def _untrained(vocab_size: int, layers: int, width: int, block: int, seed: int) -> "PreTrainedModel":
    from transformers import LlamaConfig, LlamaForCausalLM  # here, because importing it takes seconds

    silence_transformers()  # saving takes no time
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=block,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=vocab_size - 1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _train(
    model: "PreTrainedModel", store: TokenStore, *, block: int, steps: int, batch: int, learning_rate: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    model.train()
    for _ in progress_bar(range(steps), desc="make a model", unit="step"):
        starts = torch.randint(len(store.tokens) - block, (batch, 1), generator=random)
        windows = torch.from_numpy(store.tokens[(starts + torch.arange(block + 1)).numpy()].astype("int64"))
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
