"""The certificate: everything a stranger needs to check a bound, in one JSON file.

All of it but the environment is a function of the message, the settings and the corpus: `contents` computes it once to write it,
and `verify` computes it again to check it.
"""

import base64
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import sublora
from sublora.atomic import write_text
from sublora.bounds.evaluation import Evaluation, evaluate_pilot
from sublora.bounds.format import FORMAT
from sublora.bounds.levels import bound_mean
from sublora.bounds.scoring import Scores
from sublora.bounds.smoothing import document_means, loss_range, smoothed_bits, topk_errors
from sublora.compression import Message, encode, published_bits, rebuild
from sublora.config import ALPHA_GRID, Experiment
from sublora.data import Split, TokenStore
from sublora.models import initial_weights_sha256

INEQUALITIES = ("hoeffding", "betting")
ASSUMPTIONS = ("iid", "pool", "unseen")
TOP_K = (1, 10, 100)
TOLERANCE = 1e-4
"""How far another machine's float32 arithmetic may move a value (bits per token, or an error); every bound includes it."""


def seal(message: Message, store: TokenStore, split: Split, experiment: Experiment) -> bytes:
    """The final message: its smoothing weight is the one with the smallest betting bound on the pilot documents.

    The pilot is drawn independently of the certifying documents and the choice is a byte of the message, so that it costs
    nothing more (candidates A = 1; THEORY 5).
    """
    draft = encode(message.with_alpha(ALPHA_GRID[0]))
    pilot = evaluate_pilot(draft, store, split, experiment)

    def judged(alpha: float) -> float:
        losses, low, width = document_losses(pilot, "bpd", alpha, store.vocab_size)
        facts = {"message_bits": 8 * len(draft), "delta": experiment.bounds.delta, "m": len(split.train), "pool": len(store)}
        return low + width * bound_mean(losses, inequality="betting", assumption="unseen", **facts).bound

    return encode(message.with_alpha(min(ALPHA_GRID, key=judged)))


def contents(message: bytes, store: TokenStore, split: Split, experiment: Experiment, evaluation: Evaluation) -> dict[str, Any]:
    """The certificate without its environment: plain data.

    message: the model file; it must decode under the experiment's architecture. evaluation: its scores (`evaluate`).
    """
    _, decoded = rebuild(message, experiment.model, store.vocab_size)
    facts = {"delta": experiment.bounds.delta, "m": len(split.train), "pool": len(store)}
    bits = 8 * len(message)
    paper_bits = published_bits(decoded)
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
        "bounds": list(_bounds(evaluation.training, decoded.alpha, store.vocab_size, bits, facts, INEQUALITIES, ASSUMPTIONS)),
        "held_out": list(_held_out(evaluation.held_out, store.vocab_size)),
        "paper_accounting": {
            "note": "as published, not certified: the size is an estimate, and the loss is without tolerance for rounding",
            "bits": paper_bits,
            "bounds": list(
                _bounds(evaluation.training, decoded.alpha, store.vocab_size, paper_bits, facts, ("hoeffding",), ("iid",))
            ),
        },
    }


def write_certificate(path: str | os.PathLike, certificate: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Add the environment and a digest, and write the file atomically. Returns what was written.

    seconds: wall time of each stage. The digest (`certificate_sha256`) is of the canonical JSON of everything else: it shows an
    altered number even where `verify` has nothing to compute it from.
    """
    whole = {
        **certificate,
        "environment": {
            "sublora": sublora.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
            "dtype": "float32",
            "seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        },
    }
    whole["certificate_sha256"] = digest(whole)
    write_text(path, json.dumps(whole, indent=1, allow_nan=False) + "\n")
    return whole


def digest(certificate: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all keys but `certificate_sha256`."""
    rest = {key: value for key, value in certificate.items() if key != "certificate_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _public(store: TokenStore, experiment: Experiment) -> dict[str, Any]:
    """What the decoder and the reader may assume: fixed before the training split was drawn."""
    return {
        "package": f"sublora {sublora.__version__}",
        "architecture": {"name": "gpt", **experiment.model.model_dump(mode="json")},
        "initial_weights_sha256": initial_weights_sha256(experiment.model, store.vocab_size),
        "tokenizer": experiment.corpus.tokenizer,
        "end_of_text": store.eot,
        "unit": "document: the mean loss of its tokens, its own end of text included",
        "windows": {"block": experiment.model.block, "stride": experiment.stride},
        "evaluated": experiment.bounds.documents,
        "alpha_grid": list(ALPHA_GRID),
        "metrics": ["bpd", *(f"top{k}_error" for k in TOP_K)],
        "inequalities": list(INEQUALITIES),
        "assumptions": list(ASSUMPTIONS),
        "tolerance": TOLERANCE,
    }


def _metrics(vocab_size: int) -> list[tuple[str, float | None, float]]:
    """Every (metric, alpha, value at which a bound says nothing) that a certificate lists."""
    bits = [("bpd", alpha, math.log2(vocab_size)) for alpha in ALPHA_GRID]
    return bits + [(f"top{k}_error", None, 1 - k / vocab_size) for k in TOP_K if k < vocab_size]


def document_losses(scores: Scores, metric: str, alpha: float | None, vocab_size: int) -> tuple[np.ndarray, float, float]:
    """Losses of documents scaled to [0, 1], float64 (documents,), and the range (lowest value, width) they are scaled by.

    metric: "bpd" (bits per token under smoothing weight alpha) or "top<k>_error" (alpha None).
    """
    if metric == "bpd":
        low, width = loss_range(alpha, vocab_size)
        tokens = smoothed_bits(scores.log_probability, alpha, vocab_size)
    else:
        low, width = 0.0, 1.0
        tokens = topk_errors(scores.rank, int(metric.removeprefix("top").removesuffix("_error")))
    # The mean of values in [low, low + width] is there too, up to the rounding of float64.
    return np.clip((document_means(tokens, scores.offsets) - low) / width, 0.0, 1.0), low, width


def _bounds(
    scores: Scores,
    chosen: float,
    vocab_size: int,
    message_bits: float,
    facts: Mapping[str, Any],
    inequalities: Sequence[str],
    assumptions: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Every bound of the certificate: each metric and alpha, by each inequality, under each assumption.

    The message holds one alpha, chosen on the pilot: its bounds have A = 1. The rows of the other alphas are other messages of
    the same length, scored on the same documents; since a reader may prefer any of them, each is charged for all (A = 8).
    """
    for metric, alpha, vacuous_at in _metrics(vocab_size):
        losses, low, width = document_losses(scores, metric, alpha, vocab_size)
        candidates = 1 if alpha in (None, chosen) else len(ALPHA_GRID)
        for assumption in assumptions:
            for inequality in inequalities:
                found = bound_mean(
                    losses,
                    inequality=inequality,
                    assumption=assumption,
                    message_bits=message_bits,
                    candidates=candidates,
                    **facts,
                )
                value = low + width * found.bound + TOLERANCE
                entry = {
                    "level": "document",
                    "metric": metric,
                    "assumption": assumption,
                    "inequality": inequality,
                    "alpha": alpha,
                    "units": facts["m"],
                    "pool": facts["pool"],
                    "evaluated": len(losses),
                    "candidates": candidates,
                    "empirical": low + width * found.empirical,
                    "bound": value,
                    "vacuous_at": vacuous_at,
                    "nonvacuous": value < vacuous_at,
                }
                if found.parts is not None:
                    entry["parts"] = {
                        "empirical": low + width * found.parts.empirical,
                        "complexity": width * found.parts.complexity,
                        "subsampling": width * found.parts.subsampling,
                    }
                yield entry


def _held_out(scores: Scores, vocab_size: int) -> Iterator[dict[str, Any]]:
    """The same metrics on documents of the test split."""
    for metric, alpha, _ in _metrics(vocab_size):
        losses, low, width = document_losses(scores, metric, alpha, vocab_size)
        yield {
            "level": "document",
            "metric": metric,
            "alpha": alpha,
            "n": len(losses),
            "value": low + width * float(losses.mean()),
        }
