"""What can be certified of a corpus of a given size: bounds on stand-in losses, and an experiment that fits the time.

Nothing is read: losses are stand-ins of a stated mean and deviation, normal quantiles in random order. The bounds are the package's
own, so a table says what a certificate would say if the losses were like these. Times and memory are estimates.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from sublora import budget
from sublora.certificate.statements import charged_bits, metric
from sublora.data.labelled import MOST_CLASSES
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.experiment import Classify, Experiment, Gpt, Pretrain, as_experiment
from sublora.experiment import Reference as ReferenceSettings
from sublora.inequalities.means import bound_mean
from sublora.inequalities.reference import bound_difference, bound_offset, of_whole_units
from sublora.inequalities.smoothing import scale_to_unit
from sublora.models import model_weights

SIZES = (20, 50, 100, 200, 500, 1000, 2000, 5000, 20_000, 100_000)
"""Message sizes in bytes."""
SHARES = {"document": 0.6, "position": 0.75, "example": 0.5}
"""Of the pool, to train on: at half of it an unseen bound is smallest; the losses of a language model gain from some more."""
ASSUMED = ("unseen", "iid")
DELTA, J, ALPHA = 0.05, 2**20, 0.01
DEVIATION = {"document": 0.1, "position": 0.3}
"""Of stand-in losses, as a share of log2 V. A reference's is that of documents; a model's differs from it by a fifth as much."""
MOST_UNITS = 200_000
"""More training documents or examples count as so many: the bounds take seconds then, and are larger than they would be."""
EVALUATED = 50_000  # positions, as `bounds.positions` has it
BITS, HEADER = {"document": 1.85, "position": 1.85, "example": 1.0}, 144.0
"""Bits of a coordinate, by kept certificates (3 levels; of a bag of words with a rate penalty), and of what stands before them."""
ROOM = 0.5
"""The suggested message is the largest whose bound is above the loss by at most this share of what the loss is below guessing."""
LEAST = 50
"""Bytes of the smallest message that is suggested: a smaller one holds little but its header."""
WIDTHS = (16, 32, 64, 128, 256, 512)
BATCH, BLOCK = 16, 128
OVERHEAD = 0.02  # seconds of a training step, however small the model


class Corpus(NamedTuple):
    """documents: of the pool, or labelled examples; tokens: in all; vocab_size: V; classes: C, or None for a language model."""

    documents: int
    tokens: int
    vocab_size: int
    classes: int | None = None

    @property
    def guess(self) -> float:
        """What guessing loses: log2 V bits, or, with classes of one size, the share of all but one."""
        return math.log2(self.vocab_size) if self.classes is None else 1 - 1 / self.classes

    def units(self, level: str) -> tuple[int, int]:
        """(m, M) at a level."""
        pool = self.tokens if level == "position" else self.documents
        pool = round(0.9 * pool) if level == "example" else pool  # a tenth is held out
        most = pool if level == "position" else round(MOST_UNITS / SHARES[level])  # of positions a subsample is evaluated
        pool = min(pool, most)
        return round(SHARES[level] * pool), pool


class Row(NamedTuple):
    """The bounds for a message of so many bytes: for each loss the unseen one and the iid one, None where there is none."""

    level: str
    bytes: int
    bounds: tuple[tuple[float, float | None], ...]


class Suggestion(NamedTuple):
    """Level, assumption, message size in bytes, d, quantizer; minutes and GiB by estimate; the experiment."""

    level: str
    assumption: str
    bytes: int
    coordinates: int
    quantizer: str
    minutes: float
    memory: float
    experiment: Experiment


def checked(documents: int, tokens: int, vocab_size: int, classes: int | None = None) -> Corpus:
    """The corpus. Raises SubloraError for sizes that cannot be."""
    given = {"documents": (documents, 4), "tokens": (tokens, 4), "vocab": (vocab_size, 2), "classes": (classes or 2, 2)}
    for name, (value, least) in given.items():
        most, shown = (MOST_CLASSES, f"{MOST_CLASSES:,}") if name == "classes" else (2**45, "2^45")
        if not least <= value <= most:
            raise SubloraError(f"--{name} {value}: give a number from {least} to {shown}")
    if tokens < documents:
        raise SubloraError(f"--tokens {tokens}: fewer than --documents {documents}; count the tokens of all documents together")
    return Corpus(documents, tokens, vocab_size, classes)


def stand_ins(n: int, mean: float, deviation: float) -> np.ndarray:
    """n losses about `mean`, float64 (n,): the normal law's quantiles, in an order that is the same every time."""
    return (mean + deviation * norm.ppf((np.arange(n) + 0.5) / n))[permutation(n, 0)]


def table(corpus: Corpus, losses: tuple[float, ...], reference: float | None = None) -> list[Row]:
    """The bounds of every message size at each level that the corpus admits, for training losses of these means.

    reference: the mean loss of a public code on whole documents, with which the model is mixed. Raises SubloraError for losses
    that are not below guessing.
    """
    zero = to_beat(corpus, reference)
    if reference is not None and not 0 < reference < corpus.guess:
        raise SubloraError(f"--reference {reference:g}: must be above 0 and below what guessing loses, {corpus.guess:.3f}")
    if wrong := [loss for loss in losses if not 0 <= loss < zero]:
        raise SubloraError(f"--loss {wrong[0]:g}: must be from 0 to below {zero:.3f}, which no message is needed for")
    rows = []
    for level in ["example"] if corpus.classes else ["document"] if reference is not None else ["document", "position"]:
        for size in SIZES:
            row = Row(level, size, tuple(_both(corpus, level, size, loss, reference) for loss in losses))
            rows.append(row)
            if all(value is None or value >= zero for pair in row.bounds for value in pair):
                break  # larger ones are vacuous, too
    return rows


def to_beat(corpus: Corpus, reference: float | None) -> float:
    """What is lost for zero bits: by the reference, or by guessing."""
    return corpus.guess if reference is None else reference


def _both(corpus: Corpus, level: str, size: int, loss: float, reference: float | None) -> tuple[float, float | None]:
    iid = None if level == "position" else bound(corpus, level, size, loss, assumption="iid", reference=reference)
    return bound(corpus, level, size, loss, assumption="unseen", reference=reference), iid


def bound(corpus: Corpus, level: str, size: int, loss: float, *, assumption: str, reference: float | None = None) -> float:
    """The bound for a message of `size` bytes whose training losses have the mean `loss`; at most what guessing loses at worst."""
    m, pool = corpus.units(level)
    bits = charged_bits(8 * size, J if assumption == "iid" else 1)
    shared: dict[str, Any] = {"assumption": assumption, "message_bits": bits, "m": m, "pool": pool}
    if corpus.classes:
        errors = np.zeros(m)
        errors[: math.ceil(loss * m)] = 1.0
        name = "binomial_tail" if assumption == "iid" else "betting"
        found = bound_mean(errors[permutation(m, 0)], inequality=name, delta=DELTA, places=np.arange(m), **shared)
        return min(found.bound, 1.0)
    if reference is not None:
        return _beside(corpus, loss, reference, shared)
    n, of = min(m, EVALUATED) if level == "position" else m, metric("bpd", ALPHA, corpus.vocab_size)
    spread = DEVIATION[level] * math.log2(corpus.vocab_size)

    def scaled(units: int) -> np.ndarray:
        losses = np.clip(stand_ins(units, loss, spread), of.low, of.low + of.width)
        return scale_to_unit(losses, low=of.low, width=of.width)

    few = max(2, n // 10)
    places, pilot = np.arange(n) * m // n, (scaled(few), np.arange(few) * m // few)
    drawn: dict[str, Any] = {"places": places, "pilot": pilot, "one_inner": level == "position", "delta": DELTA}
    found = bound_mean(scaled(n), inequality="betting", **drawn, **shared)
    return min(found.unscaled(of.low, of.width).bound, of.low + of.width)


def _beside(corpus: Corpus, loss: float, own: float, shared: dict[str, Any]) -> float:
    """The same beside a reference of mean loss `own`: limits of offset and difference, each at delta/2."""
    m, spread = shared["m"], DEVIATION["document"] * math.log2(corpus.vocab_size)
    length, settings = corpus.tokens / corpus.documents, ReferenceSettings(name="document")
    code_losses = np.clip(stand_ins(m, own, spread), 0.0, None)
    losses = np.clip(code_losses + stand_ins(m, loss - own, spread / 5)[::-1], 0.0, None)
    lengths, nats = np.full(m, length), -code_losses * length * math.log(2)
    keys: dict[str, Any] = {"beta": settings.beta, "gamma": settings.gamma, "offset": settings.offset, "excess": settings.excess}
    code = of_whole_units(nats, lengths, vocab_size=corpus.vocab_size, shortest=2, **keys)
    differences = np.minimum(code.mixture(losses * length) - code.offsets, code.excess)
    half: dict[str, Any] = {**shared, "delta": DELTA / 2}
    free = {**half, "message_bits": charged_bits(0.0, J if shared["assumption"] == "iid" else 1)}
    del free["m"]
    offset = bound_offset(code.offsets, largest=code.largest, **free)
    places: dict[str, Any] = {"places": np.arange(m), "tau": settings.tau, "inequality": "betting"}
    return offset + bound_difference(differences, excess=code.excess, largest=code.largest, **places, **half)


def suggest(
    corpus: Corpus, rows: list[Row], losses: tuple[float, ...], reference: float | None, *, minutes: float, data: dict[str, Any]
) -> Suggestion | None:
    """The level and size that `ROOM` picks at the middle loss, and an experiment of about that size which runs within `minutes`.

    Unseen bounds count, or, where no message of `LEAST` bytes has one below guessing, iid ones. data: the keys of `task`, or the
    groups `corpus` and `reference` of the experiment, as far as they are known. None: nothing is below guessing at that loss.
    """
    middle = sorted(range(len(losses)), key=lambda i: losses[i])[len(losses) // 2]
    loss, guess = losses[middle], to_beat(corpus, reference)
    for index in range(len(ASSUMED)):
        bounds = [(row, value) for row in rows if (value := row.bounds[middle][index]) is not None and row.bytes >= LEAST]
        fitting = [row for row, value in bounds if value - loss <= ROOM * (guess - loss)]
        if below := fitting or [row for row, value in bounds if value < guess]:
            break
    else:
        return None
    level, assumption = below[0].level, ASSUMED[index]
    size = (max if fitting else min)(row.bytes for row in below if row.level == level)
    coordinates = max(9, int((8 * size - HEADER) / BITS[level]))
    if corpus.classes:
        return _classifier(corpus, assumption, size, coordinates, data)
    data = {**data, "assumption": assumption}
    return _language_model(corpus, level, size, coordinates, minutes=minutes, data=data)


def _classifier(corpus: Corpus, assumption: str, size: int, coordinates: int, data: dict[str, Any]) -> Suggestion:
    """With iid alone all examples train."""
    assert corpus.classes is not None
    share = SHARES["example"] if assumption == "unseen" else 1.0
    buckets = min(max(2, coordinates // (corpus.classes - 1) - 1), 2**20 // corpus.classes)
    steps = 6 * math.ceil(share * corpus.documents / 128)
    experiment = as_experiment(
        {
            "kind": "classify",
            "name": "plan",
            "task": {"source": "examples.csv", **data, "train": share, "max_length": 400},
            "model": {"buckets": buckets, "hashes": 1, "prefix": 6},
            "training": {"epochs": 6, "batch": 128, "learning_rate": 0.03, "precision": "no"},
            "compression": {"quantizer": "kmeans", "levels": 3, "finetune_steps": 400, "finetune_learning_rate": 0.01},
        },
        "sublora plan",
    )
    assert isinstance(experiment, Classify)
    weights = (corpus.classes - 1) * (buckets + 1)
    memory = (60 * budget.FLOAT * weights + 64 * corpus.tokens) / 2**30
    return Suggestion("example", assumption, size, weights, "kmeans", ((steps + 400) * OVERHEAD + 20) / 60, memory, experiment)


def _language_model(
    corpus: Corpus, level: str, size: int, coordinates: int, *, minutes: float, data: dict[str, Any]
) -> Suggestion:
    """Sizes that scale with d, and as many steps and evaluated units as about half of the time each allows."""
    side = max(3, math.isqrt(coordinates))  # a Kronecker product of two nearly square factors
    V, speed = corpus.vocab_size, budget.SPEED["cpu"]
    width = next((w for w in WIDTHS if model_weights(Gpt(layers=1, heads=2, width=w, block=BLOCK), V) >= 4 * side**2), WIDTHS[-1])
    model = Gpt(layers=1, heads=2, width=width, block=BLOCK)
    weights = model_weights(model, V)
    d = min(side, math.isqrt(weights)) ** 2
    made = budget.projector("kron_qr", weights, d)
    step = OVERHEAD + (6.0 * weights * BATCH * BLOCK + 6 * weights * math.sqrt(d)) / speed
    steps = int(min(max(minutes * 30 / step, 50), 3000))
    m = round(SHARES[level] * (corpus.tokens if level == "position" else corpus.documents))
    token = (2.0 * weights + budget.CALL * speed / 4096) / speed  # seconds
    read = BLOCK if level == "position" else corpus.tokens / corpus.documents
    n = int(min(m, max(minutes * 25 / (token * read), 100), EVALUATED if level == "position" else m))
    bounds: dict[str, Any] = {"stride": BLOCK}
    if level == "position":
        bounds |= {"levels": ["position"], "positions": None if n == m else n}
    else:
        bounds |= {"documents": None if n == m else n, "held_out_documents": max(1, min(1000, round(0.2 * corpus.documents)))}
    by_position = {"split": "positions"} if level == "position" else {}
    experiment = as_experiment(
        {
            "kind": "pretrain",
            "name": "plan",
            "corpus": {**data.get("corpus", {}), "train": SHARES[level], "validation": 0.02, **by_position},
            "model": model.model_dump(mode="json"),
            **({"reference": data["reference"]} if "reference" in data else {}),
            "subspace": {"parametrization": "subspace", "projector": "kron_qr", "dimension": d},
            "training": {
                "steps": steps,
                "batch": BATCH,
                "learning_rate": 0.01,
                "precision": "no",
                **({"sampling": "token"} if level == "position" else {}),
            },
            "compression": {"quantizer": "kmeans", "levels": 3, "finetune_steps": steps // 2, "finetune_learning_rate": 0.002},
            "bounds": bounds,
        },
        "sublora plan",
    )
    assert isinstance(experiment, Pretrain)
    seconds = 1.5 * steps * step + 1.3 * n * read * token + made.operations / speed + 30
    logits = 3.0 * budget.FLOAT * max(BATCH * BLOCK * V, budget.AT_ONCE)
    memory = made.bytes + 40.0 * budget.FLOAT * weights + logits + 64 * corpus.documents
    return Suggestion(level, data["assumption"], size, d, "kmeans", seconds / 60, memory / 2**30, experiment)
