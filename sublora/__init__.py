"""sublora: train a language model in a subspace, compress it to a message, certify how well it generalizes."""

__version__ = "0.1.0"
