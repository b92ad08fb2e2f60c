"""Text from a model: what a few hundred bytes have learnt, for people to look at."""

from pathlib import Path

import numpy as np
import torch

from sublora.bounds.format import load_certificate, message_of
from sublora.compression import MessageError, Quantized, decode_model, refuse_large_model
from sublora.config import Experiment
from sublora.data import Tokenizer, get_tokenizer
from sublora.errors import SubloraError
from sublora.models import build
from sublora.training import load_checkpoint


def load_model(path: Path) -> tuple[torch.nn.Module, Tokenizer]:
    """The model of a certificate (its decoded message) or of a checkpoint, and its tokenizer.

    Of `pretrain.safetensors` it is the one with the best real coordinates; of `quantize.safetensors`, the one with the best
    coordinates snapped to their levels, as the message has them.
    Raises SubloraError naming the file when it is neither, or holds another architecture than it says.
    """
    if not path.is_file():
        raise SubloraError(f"{path}: no such file; give a run's certificate.json or one of its .safetensors checkpoints")
    if path.suffix == ".json":
        certificate = load_certificate(path)
        experiment = Experiment.from_parameters(certificate["params"], f"{path}: params")
        if experiment.task:
            raise SubloraError(f"{path}: certifies a classifier, which writes no text; give a language model's")
        tokenizer = get_tokenizer(experiment.corpus.tokenizer)
        refuse_large_model(f"{path}: params", experiment, tokenizer.vocab_size)
        try:
            return decode_model(message_of(certificate), experiment, tokenizer.vocab_size).model, tokenizer
        except MessageError as error:
            raise SubloraError(f"{path}: key 'message': {error}; make the run again") from None
    tensors, facts = load_checkpoint(path, {})
    groups = {key: facts.get(key) for key in ("corpus", "model", "subspace")}
    experiment = Experiment.from_parameters({"name": "checkpoint", **groups}, str(path))
    tokenizer = get_tokenizer(experiment.corpus.tokenizer)
    subspace = build(experiment.model, experiment.subspace, tokenizer.vocab_size).eval()
    levels = tensors.get("codebook/best")
    best = tensors.get("coordinates/best" if levels is None else "subspace.coordinates/best")
    if best is None or best.shape != subspace.coordinates.shape:
        raise SubloraError(f"{path}: holds no coordinates of the architecture it names; give a checkpoint that sublora wrote")
    with torch.no_grad():
        subspace.coordinates.copy_(best)
        if levels is not None:
            codebook, symbols = Quantized(subspace, levels.numpy()).coded()
            subspace.coordinates.copy_(torch.from_numpy(codebook.astype(np.float32)[symbols]))
    return subspace.materialized(), tokenizer


@torch.inference_mode()
def sample_text(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str, tokens: int, smoothing: float, seed: int) -> str:
    """`prompt` and up to `tokens` tokens drawn one by one from (1-smoothing)·p + smoothing/V, until an end of text.

    The same seed draws the same text. Raises SubloraError for a smoothing weight outside [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise SubloraError(f"smoothing {smoothing} is outside [0, 1); 0 leaves the model as it is, 1 would leave nothing of it")
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
