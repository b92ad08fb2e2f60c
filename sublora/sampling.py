"""Text from a model: what a few hundred bytes have learnt, for people to look at."""

from pathlib import Path

import torch

from sublora.bounds.format import load_certificate, message_of
from sublora.compression import rebuild
from sublora.config import Experiment
from sublora.data import Tokenizer, get_tokenizer
from sublora.errors import SubloraError
from sublora.models import build
from sublora.training import load_checkpoint


def load_model(path: Path) -> tuple[torch.nn.Module, Tokenizer]:
    """The model of a certificate (its decoded message) or of a training checkpoint (its best coordinates), and its tokenizer.

    Raises SubloraError naming the file when it is neither.
    """
    if path.suffix == ".json":
        certificate = load_certificate(path)
        experiment = Experiment.from_parameters(certificate["params"], f"{path}: params")
        tokenizer = get_tokenizer(experiment.corpus.tokenizer)
        subspace, _ = rebuild(message_of(certificate), experiment.model, tokenizer.vocab_size)
        return subspace.materialized(), tokenizer
    tensors, facts = load_checkpoint(path, {})
    groups = {key: facts.get(key) for key in ("corpus", "model", "subspace")}
    experiment = Experiment.from_parameters({"name": "checkpoint", **groups}, str(path))
    tokenizer = get_tokenizer(experiment.corpus.tokenizer)
    subspace = build(experiment.model, experiment.subspace, tokenizer.vocab_size).eval()
    best = tensors.get("coordinates/best", tensors.get("subspace.coordinates/best"))
    if best is None or best.shape != subspace.coordinates.shape:
        raise SubloraError(f"{path}: holds no coordinates of this architecture; give a checkpoint that sublora wrote")
    with torch.no_grad():
        subspace.coordinates.copy_(best)
    return subspace.materialized(), tokenizer


@torch.inference_mode()
def sample_text(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str, tokens: int, smoothing: float, seed: int) -> str:
    """`prompt` and up to `tokens` tokens drawn one by one from (1-smoothing)·p + smoothing/V, until an end of text."""
    generator = torch.Generator("cpu").manual_seed(seed)
    ids = [tokenizer.eot, *tokenizer.encode(prompt).tolist()]
    for _ in range(tokens):
        logits = model(torch.tensor([ids[-model.block_size :]]))[0, -1].float()
        probabilities = (1 - smoothing) * logits.softmax(0) + smoothing / len(logits)
        drawn = int(torch.multinomial(probabilities, 1, generator=generator))
        if drawn == tokenizer.eot:
            break
        ids.append(drawn)
    return tokenizer.decode(ids[1:])
