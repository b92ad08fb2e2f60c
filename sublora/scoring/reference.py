"""What a public reference says of units of text: `ln q` of each of their tokens.

A code of counts reads all of them here; a base model is scored as the decoded model is (`scoring.text`), on the same units.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sublora.data import Split, TokenStore
from sublora.experiment import Level, OnText
from sublora.experiment.groups import Reference
from sublora.models.references import DocumentCode, log_probabilities, stream_log_probabilities
from sublora.models.references.document import FLOOR


@dataclass(frozen=True, eq=False)  # one is another's equal only if it is the same
class Population:
    """What the reference says of all training units of a level, in the split's order, and the pool's shortest document in tokens.

    nats: ln q of each unit (of a token: of itself), float64 (units,), float32 for tokens; empty for a base model, which does not
    read all of them. lengths: tokens of each unit. sizes, fewest: the same in bytes and one more, where they were counted.
    members: as in `Scores`, where units are groups: then all else is of their documents.
    """

    nats: np.ndarray
    lengths: np.ndarray
    shortest: int
    sizes: np.ndarray | None = None
    fewest: int = 2
    members: np.ndarray | None = None


def log_q(
    store: TokenStore, documents: np.ndarray, level: Level, experiment: OnText, *, behind: np.ndarray | None = None
) -> np.ndarray:
    """ln q of every token of all units of a level in these documents: float32 (tokens,), not to be written to.

    A document is read from its own start, and a token in its document; the code of a stream has read all tokens of the
    documents that come before, too. At position level `documents` are positions of the store, and the values are theirs.
    behind: for held-out documents, the training documents: each is read by the stream's code as it is at their end, by itself.
    """
    if level == "position":
        return _log_q(store, np.arange(len(store)).tobytes(), experiment.reference, b"")[documents]
    stream = b"" if behind is None or experiment.reference.name != "stream" else behind.tobytes()
    return _log_q(store, documents.tobytes(), experiment.reference, stream)


def populations(
    store: TokenStore, split: Split, levels: Iterable[Level], experiment: OnText, *, shortest: int
) -> dict[Level, Population]:
    """All training units by level: what the reference's own bound is made of. shortest: as in `Population`."""
    found: dict[Level, Population] = {}
    documents, base = split.train, experiment.reference.name == "base"
    for level in levels:
        nats = np.zeros(0) if base else log_q(store, documents, "document" if level == "group" else level, experiment)
        if level in ("token", "position"):
            found[level] = Population(nats, np.broadcast_to(np.int64(1), nats.shape), shortest)
            continue
        lengths = store.lengths[documents]
        summed = nats if base else np.add.reduceat(nats, np.cumsum(lengths) - lengths, dtype=np.float64)
        counted: dict[str, Any] = {}
        if store.sizes is not None:
            counted = {"sizes": store.sizes[documents], "fewest": int(store.sizes.min())}
        if level == "group":
            assert split.groups is not None
            counted["members"] = np.concatenate([[0], np.cumsum(split.groups[0])])
        found[level] = Population(summed, lengths, shortest, **counted)
    return found


def of_base(log_probability: np.ndarray) -> np.ndarray:
    """ln q of each token from the base model's ln p, float32 (tokens,); what is no probability counts as zero."""
    return np.where(np.isfinite(log_probability), np.minimum(log_probability, 0.0), -np.inf).astype(np.float32)


def with_floor(nats: np.ndarray, vocab_size: int) -> np.ndarray:
    """ln of a base's prediction of single tokens mixed with the uniform guess at `FLOOR`, so that no loss is large: float64.

    Documents are mixed with it as wholes (`inequalities.reference`).
    """
    return np.logaddexp(math.log1p(-FLOOR) + np.asarray(nats, np.float64), math.log(FLOOR / vocab_size))


@functools.lru_cache(maxsize=4)  # the pilot, the certifying units, and all units ask for those of the same documents
def _log_q(store: TokenStore, documents: bytes, reference: Reference, behind: bytes) -> np.ndarray:
    vocabulary: dict[str, int] = {"vocab_size": store.vocab_size, "eot": store.eot}
    if reference.name == "stream":
        drawn, apart = np.frombuffer(behind + documents, np.int64), len(documents) // 8 if behind else 0
        starts, lengths, costs = store.offsets[drawn], store.lengths[drawn], reference.pseudo_counts
        found = stream_log_probabilities(store.tokens, starts, lengths, apart=apart, pseudo_counts=costs, **vocabulary)
        found = found[lengths[: len(behind) // 8].sum() :]
    else:
        drawn = np.frombuffer(documents, np.int64)
        starts, lengths = store.offsets[drawn], store.lengths[drawn]
        code = DocumentCode(*reference.of_document)
        found = log_probabilities(store.tokens, starts, lengths, code=code, **vocabulary).astype(np.float32)
    found.flags.writeable = False
    return found
