"""Training: deterministic batches, a resumable loop, checkpoints without pickles."""

from sublora.training.batches import Batch, Sampler
from sublora.training.checkpoint import load_checkpoint, save_checkpoint
from sublora.training.loop import Schedule, train
from sublora.training.metrics import training_seconds
from sublora.training.pretrain import train_phase
