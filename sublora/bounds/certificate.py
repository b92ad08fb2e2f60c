"""The certificate: everything a stranger needs to check a bound, in one JSON file.

All of it but the environment is a function of the message, the settings and the corpus: `contents` computes it once to write it,
and `verify` computes it again to check it.
"""

import base64
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import sublora
from sublora.atomic import write_text
from sublora.bounds.evaluation import Evaluation, evaluate_pilot, evaluated_units, unit_count
from sublora.bounds.format import FORMAT, LARGEST_CERTIFICATE
from sublora.bounds.statements import (
    ASSUMPTIONS,
    INEQUALITIES,
    TOLERANCE,
    Facts,
    all_bounds,
    bound,
    held_out,
    metric,
    metrics,
)
from sublora.compression import decode_model, with_alpha
from sublora.config import ALPHA_GRID, TOP_K, Experiment
from sublora.data import Split, TokenStore
from sublora.errors import SubloraError
from sublora.models import initial_weights_sha256

HEADLINES = {"document": ("unseen", "betting"), "sequence": ("iid", "betting"), "token": ("martingale", "freedman")}
"""What the smoothing weight is chosen for, by the level that comes first in an experiment."""
UNITS = {
    "document": "one document: the mean loss of its tokens, its own end of text included",
    "sequence": "one of the pieces of at most block tokens that documents are cut into, read on its own: their independence is an "
    "approximation, since pieces of one document are alike",
    "token": "one token of the training documents in the order in which the split drew them, given its window",
}


def promised(
    message: bytes,
    store: TokenStore,
    split: Split,
    experiment: Experiment,
    folder: Path | None = None,
    by: tuple[str, str] | None = None,
) -> list[dict[str, Any]]:
    """For each smoothing weight, the bound (as an entry of a certificate) that the pilot units promise: what choices are made by.

    Which bound is a matter of the experiment's first level (`HEADLINES`), unless `by` names another assumption and inequality. It
    is computed as if the pilot's losses were those of the n units that will certify. The pilot is drawn independently of these, so
    that what is chosen by it and is in the message costs nothing more (candidates A = 1; THEORY 5). No entry is a claim.
    folder: where the scores are kept.
    """
    level = experiment.bounds.levels[0]
    pilot = evaluate_pilot(message, store, split, experiment, folder)[level]
    units = {level: unit_count(level, store, split.train, experiment.model.block)}
    scores = pilot.repeated(evaluated_units(level, experiment, units[level]), units[level])
    entries = []
    for alpha in ALPHA_GRID:
        facts = Facts(8 * len(message), alpha, store.vocab_size, experiment.bounds.delta, units, len(store))
        entries.append(bound(level, metric("bpd", alpha, store.vocab_size), *(by or HEADLINES[level]), scores, pilot, facts))
    return entries


def seal(message: bytes, store: TokenStore, split: Split, experiment: Experiment, folder: Path | None = None) -> bytes:
    """The final message: the same model, with the smoothing weight that promises the smallest bound (`promised`)."""
    entries = promised(message, store, split, experiment, folder)
    best = min(entries, key=lambda entry: entry["bound"])
    return with_alpha(message, best["alpha"], experiment, store.vocab_size)


def contents(message: bytes, store: TokenStore, split: Split, experiment: Experiment, evaluation: Evaluation) -> dict[str, Any]:
    """The certificate without its environment: plain data.

    message: the model file; it must decode under the experiment's architecture. evaluation: its scores (`evaluate`).
    """
    decoded = decode_model(message, experiment, store.vocab_size)
    units = {level: unit_count(level, store, split.train, experiment.model.block) for level in experiment.bounds.levels}
    bits, paper_bits = 8 * len(message), decoded.published_bits
    facts = Facts(bits, decoded.alpha, store.vocab_size, experiment.bounds.delta, units, len(store))
    bounds = list(all_bounds(evaluation.training, evaluation.pilot, facts))
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "params": experiment.parameters(),
        "message": base64.b64encode(message).decode(),
        "message_bits": bits,
        "message_sha256": hashlib.sha256(message).hexdigest(),
        "public": _public(store, experiment),
        "corpus": {
            "name": store.name,
            "sha256": store.sha256,
            "documents": len(split.train),
            "pool": len(store),
            "tokens": int(store.lengths[split.train].sum()),
            "vocab_size": store.vocab_size,
            "split": split.description,
            "unit": "byte" if experiment.corpus.tokenizer == "bytes" else "token",
        },
        "delta": experiment.bounds.delta,
        "alpha": decoded.alpha,
        "bounds": bounds,
        "held_out": list(held_out(evaluation.held_out, experiment.bounds.levels, store.vocab_size)),
        "paper_accounting": {
            "note": "as published, not certified: the size is an estimate, and the loss is without tolerance for rounding",
            "bits": paper_bits,
            "bounds": _as_published(evaluation, facts._replace(message_bits=paper_bits)),
        },
    }


def _as_published(evaluation: Evaluation, facts: Facts) -> list[dict[str, Any]]:
    """The publications' inequalities (hoeffding for independent units, azuma for tokens), as they state them."""
    names = {"document": ("iid", "hoeffding"), "sequence": ("iid", "hoeffding"), "token": ("martingale", "azuma")}
    return [
        bound(level, of, *names[level], scores, evaluation.pilot[level], facts, tolerance=0.0)
        for level, scores in evaluation.training.items()
        for of in metrics(facts.vocab_size)
    ]


def write_certificate(path: str | os.PathLike, certificate: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Add the environment and a digest, and write the file atomically. Returns what was written.

    seconds: wall time of each stage. The digest (`certificate_sha256`) is of the canonical JSON of everything else: it shows an
    altered number even where `verify` has nothing to compute it from.
    Raises SubloraError when the message is too large for a certificate.
    """
    whole = {
        **certificate,
        "environment": {
            "sublora": sublora.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
            "dtype": "float32",
            "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        },
    }
    whole["certificate_sha256"] = digest(whole)
    text = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    if len(text) > LARGEST_CERTIFICATE:
        size = f"{len(text) >> 20} MiB, and no one reads more than {LARGEST_CERTIFICATE >> 20}"
        raise SubloraError(f"{path}: the certificate would have {size}; take fewer bits, or a smaller model")
    write_text(path, text)
    return whole


def digest(certificate: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all keys but `certificate_sha256`."""
    rest = {key: value for key, value in certificate.items() if key != "certificate_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _public(store: TokenStore, experiment: Experiment) -> dict[str, Any]:
    """What the decoder and the reader may assume: fixed before the training split was drawn."""
    return {
        "package": f"sublora {sublora.__version__}",
        **_architecture(store, experiment),
        "tokenizer": experiment.corpus.tokenizer,
        "end_of_text": store.eot,
        "units": {level: UNITS[level] for level in experiment.bounds.levels},
        "windows": {"block": experiment.model.block, "stride": experiment.stride},
        "evaluated": {level: getattr(experiment.bounds, level + "s") for level in experiment.bounds.levels},
        "pilot": experiment.bounds.pilot,
        "alpha_grid": list(ALPHA_GRID),
        "metrics": ["bpd", *(f"top{k}_error" for k in TOP_K)],
        "inequalities": {level: list(INEQUALITIES[level]) for level in experiment.bounds.levels},
        "assumptions": {level: list(ASSUMPTIONS[level]) for level in experiment.bounds.levels},
        "tolerance": TOLERANCE,
    }


def _architecture(store: TokenStore, experiment: Experiment) -> dict[str, Any]:
    if experiment.pretrained:  # all weights are in the message
        return {"architecture": {"name": "transformers", **experiment.pretrained.architecture}, "initial_weights_sha256": None}
    architecture = {"name": "gpt", **experiment.model.model_dump(mode="json")}
    return {"architecture": architecture, "initial_weights_sha256": initial_weights_sha256(experiment.model, store.vocab_size)}
