"""From trained coordinates to a codebook and symbols: one way for every kind of model."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from sublora.compression.aware import Quantized
from sublora.compression.quantizers import quantize
from sublora.experiment import Compression
from sublora.models import Subspace

Adapt = Callable[[Quantized, Callable[[], torch.Tensor] | None], pd.DataFrame]
"""Trains a quantized model for `finetune_steps` steps, with a penalty or None; returns the metrics."""


def quantize_and_adapt(
    model: Subspace, settings: Compression, adapt: Adapt
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame | None]:
    """(codebook float16 (L,), symbols int64 (d,), metrics of the adaptation or None) of a trained model.

    The coordinates are quantized. Where `settings` asks for it, they and their levels then adapt to each other: `adapt` trains the
    quantized model, and the rate penalty is the entropy of its symbols.
    """
    coordinates = model.coordinates.detach().cpu().numpy()
    codebook, symbols = quantize(coordinates, settings.quantizer, settings.levels, settings.entropy_penalty)
    if not settings.finetune_steps:
        return codebook, symbols, None
    quantized = Quantized(model, codebook)
    penalty = (lambda: settings.rate_penalty * quantized.rate()) if settings.rate_penalty else None
    metrics = adapt(quantized, penalty)
    return *quantized.coded(), metrics
