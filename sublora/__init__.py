"""sublora: train a language model in a subspace, compress it to a message, certify how well it generalizes."""

import importlib
import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait. Long spins make torch many times slower as soon as another process uses the same cores;
# short ones make each step slower on an idle machine. benchmarks/threads.py measures both. GNU's OpenMP reads this when torch is
# loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# Otherwise huggingface_hub asks its server whom to name in requests, even where only local files may be read. It looks when loaded.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_LATER = {
    "Run": "sublora.run",
    "load_runs": "sublora.run",
    "load": "sublora.sampling",
    "verify": "sublora.verification",
    "load_certificate": "sublora.certificate.schema",
}
"""What `import sublora` offers, and where it is. Imported when it is asked for: torch takes seconds."""


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'sublora' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LATER]
