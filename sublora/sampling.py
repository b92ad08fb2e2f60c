"""Text from a model: what a few hundred bytes have learnt, for people to look at."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sublora import budget
from sublora.certificate.schema import load_certificate
from sublora.compression import OnGrid, Quantized
from sublora.data import Tokenizer, tokenizer_of
from sublora.data.direction import Direction, block_permutation, places
from sublora.errors import SubloraError
from sublora.experiment import Classify, Finetune, Pretrain, as_experiment
from sublora.limits import DEFAULT, Limits
from sublora.message import Coded, Gridded, MessageError, decode
from sublora.models import base_model, base_sha256, build
from sublora.models.references import DocumentCode, code_of_residual, log_distributions
from sublora.training import load_checkpoint


@dataclass
class LanguageModel:
    """A decoded language model for people: `bits` of a text, and `generate`.

    module: token ids (batch, time) to logits (batch, time, V); its `block_size` is the longest window that it reads.
    code: the document code that a residual module adds to; it reads the text from its beginning.
    direction, permutation: the order in which it reads, and for a permutation that of the places in a block (`data.direction`).
    """

    module: Any
    tokenizer: Tokenizer
    code: DocumentCode | None = None
    direction: Direction = "forward"
    permutation: np.ndarray | None = None

    @classmethod
    def of(cls, module: Any, experiment: Pretrain | Any, tokenizer: Tokenizer) -> "LanguageModel":
        """The experiment's model, decoded or trained, with what its settings say of how it reads."""
        model, permutation = experiment.model, None
        direction: Direction = getattr(model, "direction", "forward")
        if direction == "permutation":
            permutation = block_permutation(model.block, model.permutation_seed)
        return cls(module, tokenizer, code_of_residual(experiment), direction, permutation)

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.module.parameters())
        reads = f"windows of {self.module.block_size:,} tokens of {self.tokenizer.name}"
        return f"<language model of {weights:,} weights, reads {reads}>"

    def bits(self, text: str) -> float:
        """The model's code length of the text and its end, in bits, without smoothing; windows as in training."""
        return float(self.token_bits(text).sum())

    @torch.inference_mode()
    def token_bits(self, text: str) -> np.ndarray:
        """The same of each token in reading order, the end of text last: float64."""
        text_ids = np.asarray([*self.tokenizer.encode(text).tolist(), self.tokenizer.eot])
        order = np.arange(len(text_ids))
        if self.direction != "forward":
            order = places(np.array([len(text_ids)]), self.permutation)
        ids = torch.tensor([self.tokenizer.eot, *text_ids[order].tolist()])
        block, found = self.module.block_size, []
        for begin in range(0, len(ids) - 1, block):
            window = ids[begin : begin + block + 1]
            logits = self._logits(ids, begin, begin + len(window) - 1)
            found.append(torch.nn.functional.cross_entropy(logits, window[1:], reduction="none").double())
        bits = np.empty(len(text_ids))
        bits[order] = torch.cat(found).numpy() / math.log(2)
        return bits

    @torch.inference_mode()
    def generate(self, prompt: str = "", max_new_tokens: int = 100, smoothing: float = 0.0, seed: int = 0) -> str:
        """The prompt and up to `max_new_tokens` tokens drawn one by one from (1-smoothing)·p + smoothing/V, until an end of text.

        The same seed draws the same text, in reading order: of a backward model it ends with the prompt. Of a permuted block that
        was not drawn to its end, the tokens that there are stand together.
        Raises SubloraError for a smoothing weight outside [0, 1), and for a prompt of a model that reads in permuted order.
        """
        if prompt and self.direction == "permutation":
            raise SubloraError("a model that reads in permuted order continues no prompt; leave it out")
        if not 0 <= smoothing < 1:
            raise SubloraError(f"smoothing {smoothing} is outside [0, 1); 0 leaves the model as it is, 1 would leave nothing of it")
        generator = torch.Generator("cpu").manual_seed(seed)
        given = self.tokenizer.encode(prompt).tolist()
        ids = [self.tokenizer.eot, *(given[::-1] if self.direction == "backward" else given)]
        ended = False
        for _ in range(max_new_tokens):
            logits = self._logits(torch.tensor(ids), max(0, len(ids) - self.module.block_size), len(ids))[-1]
            probabilities = (1 - smoothing) * logits.softmax(0) + smoothing / len(logits)
            drawn = int(torch.multinomial(probabilities, 1, generator=generator))
            if ended := drawn == self.tokenizer.eot:
                break
            ids.append(drawn)
        return self.tokenizer.decode(self._in_reading_order(ids[1:], ended))

    def _in_reading_order(self, ids: list[int], ended: bool) -> list[int]:
        """Tokens as drawn, without the end of text, in the order of a document. ended: whether an end of text came next."""
        if self.direction == "forward":
            return ids
        order = places(np.array([len(ids) + 1]), self.permutation)[:-1]
        if self.permutation is not None and not ended and (rest := len(ids) % len(self.permutation)):
            order[-rest:] = len(ids) - rest + self.permutation[:rest]  # a whole block was begun
        return [ids[at] for at in np.argsort(order)]

    def _logits(self, ids: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        """Of the tokens behind those of the window `ids[begin:end]`: (end - begin, V). ids: an end of text, then the text."""
        window = ids[None, begin:end].to(there := next(self.module.parameters()).device)
        if self.code is None:
            return self.module(window)[0].float().cpu()
        text = ids[1:].numpy() if end < len(ids) else np.append(ids[1:].numpy(), 0)  # what is predicted is not read
        place, none = np.array([begin]), np.zeros(1, np.int64)
        vocabulary = {"vocab_size": self.tokenizer.vocab_size, "eot": self.tokenizer.eot}
        size = end - begin
        log_q = log_distributions(text, none, place, np.array([size]), none, width=size, code=self.code, **vocabulary)
        return self.module(window, torch.from_numpy(log_q).to(there))[0].float().cpu()


def load(path: str | Path, limits: Limits = DEFAULT) -> LanguageModel:
    """The language model of a certificate (its decoded message) or of a checkpoint.

    Of `pretrain.safetensors` it is the one with the best real coordinates; of `quantize.safetensors`, the one with the best
    coordinates snapped to their levels, as the message has them.
    limits: what decoding a certificate's message may take, by estimate.
    Raises SubloraError naming the file when it is neither, holds another architecture than it says, or starts from another base
    model than is here. A base model is not downloaded: a stranger's certificate names it.
    """
    path = Path(path)
    if not path.is_file():
        raise SubloraError(f"{path}: no such file; give a run's certificate.json or one of its .safetensors checkpoints")
    return _certified(path, limits) if path.suffix == ".json" else _checkpointed(path)


def _certified(path: Path, limits: Limits) -> LanguageModel:
    certificate = load_certificate(path)
    experiment = as_experiment(certificate.params, f"{path}: params")
    if isinstance(experiment, Classify):
        raise SubloraError(f"{path}: certifies a classifier, which writes no text; give a language model's")
    tokenizer = tokenizer_of(experiment.corpus)
    V, message, stated = tokenizer.vocab_size, certificate.message_bytes, certificate.public.base_weights_sha256
    try:
        budget.refuse_above(budget.language_model(experiment, message, V, str(path), limits), str(path), limits)
        if stated is not None and base_sha256(base_model(experiment.model, V, local_only=True)) != stated:
            raise SubloraError(f"{path}: its base model has other weights here; use the model that it was made from")
        decoded = decode(message, experiment, V, local_only=True)
    except MessageError as error:
        raise SubloraError(f"{path}: key 'message': {error}; make the run again") from None
    return LanguageModel.of(decoded.model, experiment, tokenizer)


def _checkpointed(path: Path) -> LanguageModel:
    tensors, facts = load_checkpoint(path, {})
    groups = {key: facts.get(key) for key in ("kind", "corpus", "model", "subspace")}
    groups |= {"reference": facts["reference"]} if "reference" in facts else {}  # only residual models depend on it
    experiment = as_experiment({"name": "checkpoint", **groups}, str(path))
    assert isinstance(experiment, Pretrain | Finetune)  # of the other kinds no checkpoint has these groups
    tokenizer = tokenizer_of(experiment.corpus)
    subspace = build(experiment.model, experiment.subspace, tokenizer.vocab_size).eval()
    levels = tensors.get("codebook/best")
    steps = tensors.get("steps/best")
    best = tensors.get("coordinates/best" if levels is None and steps is None else "subspace.coordinates/best")
    if best is None or best.shape != subspace.coordinates.shape:
        raise SubloraError(f"{path}: holds no coordinates of the architecture it names; give a checkpoint that sublora wrote")
    with torch.no_grad():
        subspace.coordinates.copy_(best)
        if levels is not None:
            coded = Coded(*Quantized(subspace, levels.numpy()).coded())
            subspace.coordinates.copy_(torch.from_numpy(coded.coordinates))
        if steps is not None and len(steps) in (1, len(subspace.groups)):
            gridded = Gridded(*OnGrid(subspace, steps.exp2().numpy(), 1.0).coded())
            subspace.coordinates.copy_(torch.from_numpy(gridded.coordinates))
    return LanguageModel.of(subspace.materialized(), experiment, tokenizer)
