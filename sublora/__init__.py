"""sublora: train a language model in a subspace, compress it to a message, certify how well it generalizes."""

import os

__version__ = "0.1.0"

# Threads that wait by spinning make torch ten times slower as soon as another process wants the same cores (measured on 2 cores:
# 5 against 56 thousand tokens a second); waiting passively costs nothing measurable alone. OpenMP reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
