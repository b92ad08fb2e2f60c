"""Public codes: predictors that cost no bits, because nothing in them was chosen with the training split in hand."""

from sublora.models.references.document import DocumentCode, log_distributions, log_probabilities
