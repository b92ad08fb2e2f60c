"""Training: deterministic batches, a resumable loop, checkpoints without pickles."""

from sublora.training.batches import Batch, Sampler
from sublora.training.checkpoint import load_checkpoint, save_checkpoint
from sublora.training.loop import Schedule, train
from sublora.training.metrics import training_seconds
from sublora.training.pretrain import pretrain

__all__ = ["Batch", "Sampler", "Schedule", "load_checkpoint", "pretrain", "save_checkpoint", "train", "training_seconds"]
