"""Training: deterministic batches, a resumable loop, checkpoints without pickles."""

from sublora.training.batches import Batch, Sampler
from sublora.training.checkpoint import load_checkpoint, save_checkpoint
from sublora.training.loop import Schedule, train

__all__ = ["Batch", "Sampler", "Schedule", "load_checkpoint", "save_checkpoint", "train"]
