"""Small certificates and run folders with plausible numbers, for the tests of reporting."""

import base64
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from tiny import put

from sublora.certificate.schema import FORMAT, Certificate, Statement, certificate_of
from sublora.certificate.statements import CHARGED, DETERMINISM
from sublora.experiment import as_experiment

ALPHAS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5)
UNITS, POOL, VOCABULARY, DELTA = 41_536, 55_381, 257, 0.05

TEXT_PUBLIC = {
    "base": "gpt",
    "base_weights_sha256": "0" * 64,
    "tokenizer": "bytes",
    "tokenizer_sha256": None,
    "tokenizer_from": "elsewhere",
    "draw": None,
    "beacon": None,
    "end_of_text": 256,
    "condition": None,
    "windows": {"block": 128, "stride": 64},
    "evaluated": {"document": None},
    "pilot": 0.1,
    "alpha_grid": list(ALPHAS),
    "metrics": ["bpd", "top1_error"],
    "inequalities": {"document": ["hoeffding", "betting"]},
    "assumptions": {"document": ["iid", "pool", "unseen"]},
    "determinism": DETERMINISM,
}
LABEL_PUBLIC = {
    "base": "words",
    "base_weights_sha256": "0" * 64,
    "tokenizer_sha256": None,
    "configuration_sha256": None,
    "classes": ["negative", "positive"],
    "condition": None,
    "arithmetic": "float64",
    "metrics": ["error"],
    "inequalities": {"iid": ["hoeffding", "kl", "binomial_tail"]},
    "determinism": DETERMINISM,
}


def entry(metric, assumption, inequality, alpha, empirical, gap, vacuous_at, parts=None):
    """One entry of `bounds`, as data."""
    bound = empirical + gap
    return {
        "level": "document",
        "metric": metric,
        "assumption": assumption,
        "inequality": inequality,
        "alpha": alpha,
        "units": UNITS,
        "pool": POOL,
        "evaluated": UNITS,
        "candidates": 1,
        "nominal_tokens": None,
        "configurations": 2**20 if assumption in CHARGED else 1,
        "empirical": empirical,
        "bound": bound,
        "vacuous_at": vacuous_at,
        "nonvacuous": bound < vacuous_at,
        "parts": parts,
    }


def smoothed(loss, alpha):
    """A loss in bits after smoothing."""
    return -math.log2((1 - alpha) * 2**-loss + alpha / VOCABULARY)


def bits_entries(message_bits, loss):
    """Bounds in bits at every alpha: hoeffding by its formula, betting at a fifth of its gap."""
    entries = []
    for alpha in ALPHAS:
        span = math.log2(1 + (1 - alpha) * VOCABULARY / alpha)
        empirical = smoothed(loss, alpha)
        complexity = span * math.sqrt((message_bits * math.log(2) + math.log(1 / DELTA)) / (2 * UNITS))
        parts = {"empirical": empirical, "complexity": complexity, "subsampling": 0.0}
        for assumption, factor in (("iid", 1.0), ("pool", 1.0), ("unseen", 2.0)):
            gap = factor * complexity
            shown = {**parts, "complexity": gap}
            guess = math.log2(VOCABULARY)
            entries.append(entry("bpd", assumption, "hoeffding", alpha, empirical, gap, guess, shown))
            entries.append(entry("bpd", assumption, "betting", alpha, empirical, gap / 5, guess))
    return entries


def proven(held_out, population):
    """A held-out value with a test-set bound, as data."""
    bound = {"population": population, "iid": held_out["value"] + 0.03, "unseen": held_out["value"] + 0.02}
    return {**held_out, "test_bound": bound}


def certificate(name="quick", message_bytes=281, loss=4.2) -> Certificate:
    """A certificate of a model that the decoder would not know, but whose numbers fit together."""
    message = bytes(range(256)) * (message_bytes // 256) + bytes(message_bytes % 256)
    bounds = bits_entries(8 * message_bytes, loss)
    held_out = [
        {"level": "document", "metric": "bpd", "alpha": alpha, "n": 2_000, "value": smoothed(loss, alpha) + 0.02}
        for alpha in ALPHAS
    ]
    for k, error in ((1, 0.72), (10, 0.31), (100, 0.06)):
        metric, guess = f"top{k}_error", 1 - k / VOCABULARY
        for assumption in ("iid", "pool", "unseen"):
            gap = 0.15 if assumption != "unseen" else 0.3
            bounds.append(entry(metric, assumption, "betting", None, error, gap / 5, guess))
            bounds.append(entry(metric, assumption, "hoeffding", None, error, gap, guess))
        held_out.append({"level": "document", "metric": metric, "alpha": None, "n": 2_000, "value": error + 0.001})
    values = {
        "format": FORMAT,
        "experiment": name,
        "params": as_experiment({"name": "quick", "subspace": {"dimension": 961}, "compression": {"levels": 11}}).parameters(),
        "message": base64.b64encode(message).decode(),
        "message_bits": 8 * len(message),
        "message_sha256": hashlib.sha256(message).hexdigest(),
        "public": TEXT_PUBLIC,
        "corpus": {
            "name": "python-packages",
            "sha256": "0" * 64,
            "documents": UNITS,
            "pool": POOL,
            "tokens": 19_500_000,
            "vocab_size": VOCABULARY,
            "split": "permutation",
            "unit": "byte",
        },
        "delta": DELTA,
        "alpha": 0.1,
        "bounds": bounds,
        "held_out": [{**value, "split": None} for value in held_out],
        "reference": None,
        "paper_accounting": {
            "certified": False,
            "bits": 8 * message_bytes + 2 * math.log2(8 * message_bytes),
            "bounds": [b for b in bits_entries(8 * message_bytes + 22, loss) if b["inequality"] == "hoeffding"],
        },
        "environment": {
            "sublora": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "transformers": "5.0.0",
            "platform": "Linux",
            "device": "cpu",
            "dtype": "float32",
            "seconds": {"train": 211.0, "score": 63.0},
        },
        "certificate_sha256": "0" * 64,
    }
    return certificate_of(values, name)


REFERENCE = {
    "name": "document",
    "pseudo_counts": [30.0, 5.0, 3.0, 2.0],
    "distinct": 0.0,
    "start": "uniform",
    "floor": 0.001,
    "tau": 1.0,
}
REFERENCE |= {"beta": 0.5, "gamma": 0.0625, "g": [4.0], "c": 2.0, "shortest": 9}


def certificate_beside(name="beside", gap=0.1, own=3.95) -> Certificate:
    """The same certificate with a public reference. gap: of the bound beside it; own: what the reference loses by itself."""
    values = certificate(name).data()
    loss, alpha = 3.6, values["alpha"]
    beside = {"reference": "document", "reference_empirical": own}
    for assumption in ("iid", "pool", "unseen"):
        for inequality in ("hoeffding", "betting"):
            found = {**entry("bpd", assumption, inequality, alpha, loss, gap, math.log2(VOCABULARY)), **beside}
            values["bounds"].append(found | ({"gain": round(own - loss - gap, 4)} if inequality == "betting" else {}))
    of = {"level": "document", "metric": "bpd", "alpha": alpha, "n": 2_000, "value": loss + 0.02, "split": None}
    values["held_out"].append({**of, "reference": "document", "reference_value": own + 0.03})
    values["held_out"] = [proven(v, 13_000) if v["alpha"] in (None, alpha) else v for v in values["held_out"]]
    values["public"] = {**values["public"], "reference": REFERENCE}
    values["params"] = {**values["params"], "reference": {"name": "document"}}
    return certificate_of(values, name)


EXAMPLES, LABELLED = 33_674, 67_349


def classifier_certificate(name="glue", loss_above=0.0) -> Certificate:
    """A certificate of a classifier, all of whose errors are `loss_above` higher than usual."""

    def error(assumption, inequality, bound):
        values = entry("error", assumption, inequality, None, 0.2501 + loss_above, bound - 0.2501, 0.4421)
        return {**values, "level": "example", "units": EXAMPLES, "pool": LABELLED, "evaluated": EXAMPLES}

    bounds = [error("iid", "hoeffding", 0.3601), error("iid", "kl", 0.3452), error("iid", "binomial_tail", 0.34505)]
    bounds += [error("unseen", "hoeffding", 0.4777), error("unseen", "betting", 0.4111), error("pool", "kl", 0.3452)]
    held_out = [{"level": "example", "metric": "error", "alpha": None, "n": 872, "value": 0.2801, "split": "validation"}]
    held_out += [{**held_out[0], "n": LABELLED - EXAMPLES, "value": 0.2602, "split": "unseen"}]
    held_out = [proven(value, value["n"]) for value in held_out]
    values = certificate(name, message_bytes=300).data()
    values["public"] = LABEL_PUBLIC
    values |= {"params": as_experiment({"kind": "classify", "name": "glue"}).parameters(), "alpha": None}
    values |= {"bounds": bounds, "held_out": held_out, "reference": {"validation": {"accuracy": 0.7199}}}
    values["paper_accounting"]["bounds"] = [error("iid", "hoeffding", 0.3555)]
    values["corpus"] |= {"name": "glue:sst2", "documents": EXAMPLES, "pool": LABELLED, "vocab_size": 2, "unit": "example"}
    return certificate_of(values, name)


def altered(of: Certificate, *path, to) -> dict:
    """A certificate as data with one value replaced (or, with `to=KeyError`, its key removed), whether or not it is valid then."""
    return put(of.data(), path, to)


def changed(of: Certificate, *path, to) -> Certificate:
    """A certificate with one value replaced. It must be valid."""
    return certificate_of(altered(of, *path, to=to), "changed")


def restated(of: Statement, **values) -> Statement:
    """A statement with other values, and `nonvacuous` as they make it."""
    values = {**of.model_dump(), **values}
    return Statement.model_validate({**values, "nonvacuous": values["bound"] < values["vacuous_at"]})


def with_bound(of: Certificate, bound: Statement, value: float) -> Certificate:
    """A certificate in which one of its statements has another bound."""
    return changed(of, "bounds", of.statements.index(bound), to=restated(bound, bound=value).model_dump())


def only(of: Certificate, wanted) -> Certificate:
    """A certificate with those of its statements for which `wanted` is true."""
    return changed(of, "bounds", to=[bound.model_dump() for bound in of.statements if wanted(bound)])


def metrics(steps=1_500, quantize=200):
    """A training log of two phases; validation every 250 steps."""
    rows = []
    for phase, count, start, end in (("pretrain", steps, 8.0, 3.9), ("quantize", quantize, 4.5, 4.1)):
        for step in range(50, count + 1, 50):
            loss = end + (start - end) * math.exp(-5 * step / count)
            noise = 0.05 * math.sin(step)
            validation = loss + 0.03 if step % 250 == 0 or step == count else np.nan
            rows.append((step, phase, loss + noise, validation, 5e-3, 60_000.0, 0.14 * step))
    columns = ["step", "phase", "train_loss", "validation_loss", "learning_rate", "tokens_per_second", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def write_run(folder: Path, of: Certificate | dict, log: pd.DataFrame | None = None) -> Path:
    """A run folder as `sublora run` leaves it, without its notebooks. Returns the certificate's path.

    of: a certificate, or the data of one, which need not be valid.
    """
    values = of.data() if isinstance(of, Certificate) else of
    run = folder / values["experiment"]
    run.mkdir(parents=True)
    (run / "certificate.json").write_text(json.dumps(values, indent=1) + "\n")
    (metrics() if log is None else log).to_csv(run / "metrics.csv", index=False)
    return run / "certificate.json"
