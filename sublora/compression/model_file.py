"""The file of any language model of an experiment: a trained subspace (`message`), or a model trained elsewhere (`whole`)."""

from typing import NamedTuple

import numpy as np
from torch import nn

from sublora.compression.fields import MessageError
from sublora.compression.message import decode, encode, largest_dimension, published_bits, rebuild
from sublora.compression.whole import rebuild_whole, whole_with_alpha
from sublora.config import Experiment
from sublora.errors import SubloraError
from sublora.models import model_weights
from sublora.models.pretrained import blank_causal, causal_weights

LARGEST_MODEL = 10**9  # weights
MOST_LAYERS = 1000
WEIGHTS_OF_A_BYTE = 64
"""More than any real message has: a short one shall not ask for much memory."""


class ModelFile(NamedTuple):
    """What a file decodes to. model: token ids (batch, time) to logits (batch, time, V), in evaluation mode; alpha: its smoothing
    weight; published_bits: its size as the publications count it, an estimate for comparison."""

    model: nn.Module
    alpha: float
    published_bits: float


def decode_model(data: bytes, experiment: Experiment, vocab_size: int) -> ModelFile:
    """The model that `data` is, from these bytes and the public facts of the experiment alone.

    For a model trained elsewhere the published size is the file's C + 2·log2 C (Lotfi et al. 2024b).
    Raises MessageError when the bytes are no model of this architecture; SubloraError when there is no such architecture.
    """
    if experiment.pretrained is None:
        subspace, message = rebuild(data, experiment.model, vocab_size)
        return ModelFile(subspace.materialized(), message.alpha, published_bits(message))
    if causal_weights(experiment.pretrained.architecture) > WEIGHTS_OF_A_BYTE * len(data):
        raise MessageError(f"the message has {len(data):,} bytes, too few for this architecture")
    model = blank_causal(experiment.pretrained.architecture, vocab_size, experiment.model.block)
    alpha = rebuild_whole(data, model)
    try:
        model.check_causal()
    except SubloraError as error:
        raise MessageError(str(error)) from None
    return ModelFile(model, alpha, 8 * len(data) + 2 * float(np.log2(8 * len(data))))


def refuse_large_model(origin: str, experiment: Experiment, vocab_size: int) -> None:
    """Raises SubloraError for a model of more than `LARGEST_MODEL` weights or `MOST_LAYERS` layers, before anything is built.

    A stranger's certificate shall not choose how much time and memory it takes. origin: what the line begins with.
    """
    try:
        pretrained, model = experiment.pretrained, experiment.model
        weights = causal_weights(pretrained.architecture) if pretrained else model_weights(model, vocab_size)
    except SubloraError as error:
        raise SubloraError(f"{origin}.{error}") from None
    if weights > LARGEST_MODEL or (not pretrained and model.layers > MOST_LAYERS):
        counts = f"{LARGEST_MODEL:,} weights or {MOST_LAYERS:,} layers"
        raise SubloraError(f"{origin}.model: more than {counts}; decode it on a machine made for that")


def with_alpha(data: bytes, alpha: float, experiment: Experiment, vocab_size: int) -> bytes:
    """The same model with another smoothing weight of the grid: another hypothesis, of the same length. Raises MessageError."""
    if experiment.pretrained:
        return whole_with_alpha(data, alpha)
    return encode(decode(data, largest_dimension(experiment.model, vocab_size)).with_alpha(alpha))
