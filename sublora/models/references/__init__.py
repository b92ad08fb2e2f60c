"""Public codes: predictors that cost no bits, because nothing in them was chosen with the training split in hand."""

from sublora.experiment import Experiment, Pretrain
from sublora.models.references.document import DocumentCode, log_distributions, log_probabilities
from sublora.models.references.stream import stream_log_probabilities


def code_of_residual(experiment: Experiment) -> DocumentCode | None:
    """The document code that the experiment's model adds to: its reference, or the default one beside a stream's; None: to none."""
    if not isinstance(experiment, Pretrain) or not experiment.model.residual:
        return None
    return DocumentCode() if experiment.reference.name == "stream" else DocumentCode(*experiment.reference.of_document)


__all__ = ["DocumentCode", "code_of_residual", "log_distributions", "log_probabilities", "stream_log_probabilities"]
