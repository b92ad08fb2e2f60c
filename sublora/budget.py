"""What the check of a certificate takes, estimated from its numbers alone: before anything is built, read or scored."""

import functools
from typing import NamedTuple

import torch

from sublora.certificate.schema import Certificate
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K, Classify, Counts, Encoder, Gpt, OnText, Subspace, Words
from sublora.limits import Limits
from sublora.message import message_settings, read_configuration
from sublora.message.ngram import SYMBOLS_OF_A_BYTE
from sublora.models import linear_maps, model_weights
from sublora.models.classifiers import LARGEST_HEAD, encoder_weights
from sublora.models.projectors import near_equal_factors

SPEED = {"cpu": 2e10, "cuda": 2e12}
"""Floating-point operations a second: of two cores, and of a modest GPU."""
AT_ONCE = 2**26
"""Numbers that a forward pass on a CPU may hold at once (`scoring.scores.LOGITS`, and what is made of them)."""
LAYER = 2e5  # bytes of a layer as Python objects
CALL = 3e-4  # seconds that a layer takes to be called
FLOAT = 4
DOUBLE, SINGULAR = 8, 50  # and operations that a weight takes for each of its layer's singular vectors
POSITION = 200  # bytes that the bounds keep of an evaluated position: they sort and sum all of them at once
READ = 1e4  # operations that a reference takes to read a token
SPREAD = 100.0  # and to say what it predicts, for each of the V tokens
COUNTED = 8  # bytes that a stream's code keeps of a token, for each order: most strings of a text recur
SYMBOL, DECODED = 120, 2e3
"""Bytes of a symbol of a message of n-grams while it is decoded, and the time that it takes, in operations."""


class Cost(NamedTuple):
    """Memory in bytes, and floating-point operations."""

    bytes: float = 0.0
    operations: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        """Of what is done one after the other, nothing of it being freed."""
        return Cost(self.bytes + other.bytes, self.operations + other.operations)


def refuse_above(cost: Cost, origin: str, limits: Limits) -> None:
    """Raises SubloraError for a cost above the limits. origin: what the line begins with."""
    speed = SPEED["cuda" if torch.cuda.is_available() else "cpu"]
    gib, minutes = cost.bytes / 2**30, cost.operations / speed / 60
    for amount, limit, unit, option in ((gib, limits.memory, "GiB", "memory"), (minutes, limits.minutes, "minutes", "minutes")):
        if amount > limit:
            cure = f"if you trust it, raise --limit-{option} {limit:g}"
            raise SubloraError(f"{origin}: would take some {amount:,.1f} {unit}; {cure}")


def language_model(experiment: OnText, message: bytes, vocab_size: int, origin: str, limits: Limits) -> Cost:
    """What it costs to decode a language model's message. Raises SubloraError as `refuse_above`, first for the base alone, since
    how long a message may be depends on it; MessageError for bytes that are no message."""
    model = read_configuration(message, experiment)[0].model
    try:
        weights = model_weights(model, vocab_size)
    except SubloraError as error:
        raise SubloraError(f"{origin}: params.{error}") from None
    # The weights, what is drawn for the largest of them (or what is loaded), and their bytes for the fingerprint.
    base = 3 * FLOAT * weights + (LAYER * model.layers if isinstance(model, Gpt) else 0.0)
    refuse_above(Cost(base), f"{origin}: params.model", limits)
    subspace, _, coordinates = message_settings(message, experiment, vocab_size)
    if isinstance(model, Counts):
        symbols = vocab_size + SYMBOLS_OF_A_BYTE * len(message)
        return Cost(SYMBOL * symbols, DECODED * symbols)
    if subspace is None:
        return Cost(base + 2 * FLOAT * weights)
    biases = 0
    if "biases" in subspace.parametrization:
        biases = vocab_size if subspace.tokens == "all" else len(subspace.tokens)
    if subspace.parametrization == "biases":
        trainable = biases
    elif subspace.parametrization in ("sublora", "lora", "lora_b", "tinylora", "lora_b+biases"):
        maps, targets = linear_maps(model, vocab_size), subspace.targets  # of tinylora, what R stands between
        trainable = biases + subspace.rank * sum(maps[name] for name in (maps if targets == ("all",) else targets) if name in maps)
    elif isinstance(model, Gpt) and subspace.parametrization in ("kronecker", "monarch"):
        trainable = 2 * weights + vocab_size * model.width  # the structured head is no longer the embedding
    else:
        trainable = weights
    found = _in_subspace(base, subspace, trainable, coordinates)
    if subspace.parametrization == "tinylora":  # the layers' singular vectors
        found = found.plus(Cost(2 * DOUBLE * weights, SINGULAR * weights * (subspace.rank + 8)))
    return found


def classifier(experiment: Classify, message: bytes, labels: int, origin: str, limits: Limits) -> Cost:
    """The same for a classifier's message."""
    public = read_configuration(message, experiment)[0].model
    weights = LARGEST_HEAD if isinstance(public, Words) else encoder_weights(public, labels)
    base = Cost(FLOAT * weights if isinstance(public, Words) else 3 * FLOAT * weights)
    refuse_above(base, f"{origin}: params.model", limits)
    subspace, model, coordinates = message_settings(message, experiment, labels)
    if isinstance(model, Words):
        weights = (model.buckets + 1) * labels
    return _in_subspace(2 * FLOAT * weights, subspace, 2 * weights, coordinates)


def _in_subspace(base: float, subspace: Subspace | None, trainable: int, coordinates: int) -> Cost:
    """A base model of so many bytes, and its trainable weights as a function of coordinates."""
    made = Cost()
    if subspace is not None and subspace.dimension is not None:
        made = projector(subspace.projector, trainable, min(coordinates, trainable))
    # θ0 twice while it is copied, then once, P w, and their sum.
    return Cost(base + 4 * FLOAT * trainable + 10 * FLOAT * coordinates + made.bytes, made.operations)


def projector(name: str, weights: int, coordinates: int) -> Cost:
    """What it costs to make one of `models.projectors` from `coordinates` d to `weights` D, and to multiply by it once."""
    D, d = float(weights), float(coordinates)
    if name.startswith("film"):  # two projectors, neither larger than one for all weights
        sides = [projector("kron_qr", weights, coordinates)]
        sides += [projector(name.removeprefix("film+"), weights, coordinates)] if name != "film" else []
        return functools.reduce(Cost.plus, sides)
    if name in ("dense", "dense_qr"):
        return Cost(36 * D * d, 4 * D * d * d) if name == "dense_qr" else Cost(FLOAT * D * d, 50 * D * d)
    if name == "sparse":
        return Cost(16 * D**0.5 * d + 12 * D, 100 * D**0.5 * d)
    if name == "kron_one_sided":
        return Cost(8 * D**0.5 * d + 12 * D, 100 * D**0.5 * d)
    if name == "fastfood":
        return Cost(40 * (D + max(2 * d, D**0.5)), 200 * D)
    order = 3 if name.endswith("3") else 2
    factors = list(zip(near_equal_factors(weights, order), near_equal_factors(coordinates, order), strict=True))
    made = sum(float(rows * columns) for rows, columns in factors)
    return Cost(36 * made + 16 * D, sum(4.0 * rows * columns**2 for rows, columns in factors) + 2 * D * d**0.5)


def scoring(experiment: OnText, certificate: Certificate) -> Cost:
    """What it costs to score a language model on the units that the certificate names, by what it says of the corpus."""
    corpus, model, bounds = certificate.corpus, experiment.model, experiment.bounds
    V, block, by_position = corpus.vocab_size, model.block, "position" in bounds.levels
    mean = (corpus.pool or corpus.tokens if by_position else corpus.tokens) / corpus.documents
    window = min(block, corpus.tokens)
    scored, read, single = 0.0, 0.0, 0.0  # tokens of documents and sequences; tokens in windows; predicted one by one
    for level in bounds.levels:
        training = corpus.groups.training if corpus.groups else 1
        units = {"document": corpus.documents, "group": training}.get(level, corpus.tokens)
        n = min(getattr(bounds, level + "s") or units, units) * (1 + bounds.pilot)
        group = corpus.tokens / training  # tokens
        length = {"document": mean, "group": group, "sequence": min(window, mean)}.get(level, 1)
        scored += n * length
        overlapping = level in ("document", "group")
        each = length * _overlap(experiment) if overlapping else length if level == "sequence" else window
        whole = (corpus.pool or corpus.tokens) if by_position else corpus.tokens
        read += min(n * each, whole * _overlap(experiment)) if level in ("token", "position") else n * each  # they share windows
        single += n if level == "token" else 0
    if by_position:
        held_out: float = min(bounds.held_out_positions, corpus.pool or corpus.tokens)
        read += held_out * window
    else:
        apart = min(bounds.held_out_documents, corpus.pool or corpus.documents)
        if corpus.groups is not None:
            apart = min(bounds.held_out_groups, corpus.pool or training) * corpus.documents // training
        held_out = apart * mean * (1 + ("sequence" in bounds.levels))
        read += held_out * _overlap(experiment)
    widest = max(V, 4 * getattr(model, "width", 0))
    rows = max(window, min(bounds.batch_tokens, 2**24 // widest))
    attention = 4.0 * window * model.width * model.layers if isinstance(model, Gpt) else 0.0
    layers = model.layers if isinstance(model, Gpt) else 20
    called = read / max(1, min(rows, bounds.batch_tokens)) * layers * CALL * SPEED["cpu"]
    memory = FLOAT * max(AT_ONCE, 6.0 * rows * widest) + 48 * (scored + held_out) + 150 * single + 64 * (corpus.pool or 0)
    memory += POSITION * scored if by_position else 0.0
    columns = len(ALPHA_GRID) + len(TOP_K)
    made = Cost(memory, read * (2 * model_weights(model, V) + attention) + called + single * V * 20 * columns)
    if experiment.reference.name == "base":  # another model beside the decoded one, scored on the same units
        weights = model_weights(model, V)
        kept = FLOAT * 3 * weights + 48 * (scored + held_out) + 150 * single
        return made.plus(Cost(kept, read * 2 * weights + called))
    numbers, predicted = max(float(window) * V, 2.0**24), scored + held_out + single
    return made.plus(_reference(experiment, corpus.tokens + held_out, V, numbers=numbers, predicted=predicted))


def _reference(experiment: OnText, tokens: float, V: int, *, numbers: float, predicted: float) -> Cost:
    """What it costs to read the training and held-out documents as the reference does, once for each level and for the residual
    model; `numbers` of ln q are held at once for that, of `predicted` tokens in all."""
    reference = experiment.reference
    if reference.name in ("uniform", "base"):
        return Cost()
    passes, spread = 2.0 + len(experiment.bounds.levels), 0.0
    memory = 24 * tokens * (1 + len(experiment.bounds.levels))
    if reference.name == "stream":
        strings = (min(tokens, float(V) ** min(order + 1, 9)) for order in range(1, len(reference.pseudo_counts)))
        memory += COUNTED * sum(strings)
    if isinstance(experiment.model, Gpt) and experiment.model.residual:
        memory, passes, spread = memory + 4 * FLOAT * numbers, passes + 3, predicted * V * SPREAD
    return Cost(memory, passes * tokens * READ + spread)


def _overlap(experiment: OnText) -> float:
    """How often a token of a long document is read."""
    return max(1.0, experiment.model.block / experiment.stride)


def labelling(experiment: Classify, certificate: Certificate, labels: int) -> Cost:
    """What it costs to label all examples, by what the certificate says of them."""
    corpus, model = certificate.corpus, experiment.model
    tokens = corpus.tokens * (corpus.pool or corpus.documents) / corpus.documents
    weights = encoder_weights(model, labels) if isinstance(model, Encoder) else 16 * labels
    return Cost(FLOAT * AT_ONCE + 64 * tokens, 2 * weights * tokens)
