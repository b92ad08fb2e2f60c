"""Which label a decoded classifier gives each example."""

import time
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sublora.data.labelled import Examples
from sublora.experiment import Classify, Words
from sublora.message import Hypothesis, decode
from sublora.models.classifiers import BagOfWords, Encoded, HubClassifier
from sublora.progress import progress_bar
from sublora.scoring.scores import float32_throughout

SCORED_AT_ONCE = 64


class LabelEvaluation(NamedTuple):
    """What a decoded classifier predicts: labels, int64 (n,), -1 for a tie.

    training: of the m training examples, in the split's order; unseen: of the pool's others; validation: of each validation set.
    tokens: of the training examples, as the model reads them.
    """

    hypothesis: Hypothesis
    training: np.ndarray
    unseen: np.ndarray
    validation: dict[str, np.ndarray]
    tokens: int
    seconds: float


def evaluate(
    message: bytes,
    experiment: Classify,
    labels: int,
    examples: tuple[Examples, Examples, dict[str, Examples]],
    local_only: bool = False,
) -> LabelEvaluation:
    """Decode the message and let the classifier predict the label of every example.

    labels: the number of classes. examples: training, unseen and validation examples. local_only: nothing is downloaded.
    """
    began = time.monotonic()
    training, unseen, validation = examples
    hypothesis = decode(message, experiment, labels, local_only)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = hypothesis.model
    assert isinstance(model, BagOfWords | HubClassifier)
    encode, scored = model.encode, model.to(device)
    if isinstance(experiment.model, Words):  # cheap, and then no machine's rounding moves a prediction
        scored = scored.double()
    encoded = encode(training.texts)
    predicted = _predict(scored, encoded, device, "training")
    others = _predict(scored, encode(unseen.texts), device, "unseen") if len(unseen) else np.empty(0, np.int64)
    held_out = {name: _predict(scored, encode(each.texts), device, name) for name, each in validation.items()}
    return LabelEvaluation(hypothesis, predicted, others, held_out, int(encoded.lengths.sum()), time.monotonic() - began)


@float32_throughout()
@torch.inference_mode()
def _predict(model: nn.Module, encoded: Encoded, device: str, what: str) -> np.ndarray:
    """The label whose logit is above all others, int64 (n,); -1, always an error, where none is (ties, not a number)."""
    labels = np.empty(len(encoded.lengths), np.int64)
    batches = []  # of one length each: a prediction depends on no padding
    for length in np.unique(encoded.lengths):
        alike = np.flatnonzero(encoded.lengths == length)
        batches += [alike[begin : begin + SCORED_AT_ONCE] for begin in range(0, len(alike), SCORED_AT_ONCE)]
    for which in progress_bar(batches, desc=f"score {what}", unit="batch"):
        ids = encoded.ids[which, :, : max(1, encoded.lengths[which[0]])].astype(np.int64)
        logits = model(torch.from_numpy(ids).to(device))[:, 0].cpu()
        best, second = logits.topk(2).values.unbind(1)
        labels[which] = torch.where(best > second, logits.argmax(1), -1).numpy()
    return labels


def usual_scores(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, int | float]:
    """n, accuracy, F1 (of class 1; with more than two classes their mean) and Matthews' correlation; a tie is an error.

    They are estimates on a validation set, and enter no bound. Where a rate is 0/0 it is 0.
    """
    table = np.array([[((labels == i) & (predicted == j)).sum() for j in range(classes)] for i in range(classes)], float)
    # A tie predicts no class: it counts in its label's total alone.
    hits, stated, said = np.diag(table), np.bincount(labels, minlength=classes).astype(float), table.sum(0)
    f1 = np.divide(2 * hits, stated + said, out=np.zeros(classes), where=stated + said > 0)
    n, none = float(len(labels)), len(labels) - said.sum()
    # Gorodkin 2004: the correlation of any number of classes; "no class" is one more that is predicted.
    spread = (n**2 - (said**2).sum() - none**2) * (n**2 - (stated**2).sum())
    matthews = (n * hits.sum() - (said * stated).sum()) / spread**0.5 if spread > 0 else 0.0
    return {
        "n": len(labels),
        "accuracy": float(hits.sum() / n),
        "f1": float(f1[1] if classes == 2 else f1.mean()),
        "matthews": float(matthews),
    }
