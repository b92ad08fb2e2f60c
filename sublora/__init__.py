"""sublora: train a language model in a subspace, compress it to a message, certify how well it generalizes."""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait. Long spins make torch many times slower as soon as another process uses the same cores; no
# spin at all makes each step a little slower on an idle machine. benchmarks/threads.py measures both. GNU's OpenMP reads this when
# torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
