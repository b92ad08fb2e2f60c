"""From settings to a model that is a function of its coordinates."""

import hashlib

from sublora import config
from sublora.errors import SubloraError
from sublora.models.gpt import GPT
from sublora.models.lora import add_lora
from sublora.models.projectors import Identity, Kronecker
from sublora.models.subspace import Subspace


def build(model: config.Model, subspace: config.Subspace, vocab_size: int) -> Subspace:
    """The GPT of `model` under one of the four parametrizations; its coordinates are zero, that is, its weights initial.

    sublora: LoRA's weights in a random subspace. lora: all of LoRA's weights. subspace: all weights in a random subspace.
    full: all weights. Raises SubloraError when the dimension exceeds the number of trainable weights.
    """
    gpt = GPT(model, vocab_size)
    if subspace.parametrization in ("sublora", "lora"):
        settings = (subspace.rank, subspace.lora_alpha, subspace.lora_dropout, subspace.targets, subspace.seed)
        trainable = add_lora(gpt, *settings)
    else:
        trainable = [name for name, _ in gpt.named_parameters()]
    parameters = dict(gpt.named_parameters())
    weights = sum(parameters[name].numel() for name in trainable)
    if subspace.dimension is None:
        return Subspace(gpt, Identity(weights), trainable)
    if subspace.dimension > weights:
        raise SubloraError(f"subspace.dimension {subspace.dimension:,} exceeds the {weights:,} trainable weights; lower it")
    return Subspace(gpt, Kronecker(weights, subspace.dimension, subspace.seed), trainable)


def initial_weights_sha256(model: config.Model, vocab_size: int) -> str:
    """Fingerprint of the initial weights, so that a certificate can tell when a platform draws other ones."""
    digest = hashlib.sha256()
    for name, parameter in GPT(model, vocab_size).named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def model_weights(model: config.Model, vocab_size: int) -> int:
    """How many weights the GPT has, counted with all biases, without building it."""
    width = model.width
    return (vocab_size + model.block) * width + model.layers * (12 * width * width + 13 * width) + 2 * width
