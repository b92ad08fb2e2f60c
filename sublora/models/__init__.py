"""Models: a GPT, LoRA, projectors, and the wrapper that makes any module a function of d coordinates."""

from sublora.models.build import (
    base_by_itself,
    base_model,
    base_sha256,
    build,
    in_subspace,
    layer_names,
    linear_maps,
    model_weights,
    parametrize,
)
from sublora.models.gpt import GPT
from sublora.models.projectors import PROJECTORS, Identity, Kronecker, make_projector
from sublora.models.subspace import Subspace

__all__ = [
    "GPT", "Identity", "Kronecker", "PROJECTORS", "Subspace", "base_by_itself", "base_model", "base_sha256", "build", "in_subspace",
    "layer_names", "linear_maps", "make_projector", "model_weights", "parametrize",
]  # fmt: skip
