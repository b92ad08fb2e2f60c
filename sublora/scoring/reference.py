"""What a public reference says of units of text: `ln q` of each of their tokens. No model takes part."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sublora.data import Split, TokenStore
from sublora.experiment import Level, OnText
from sublora.experiment.groups import Reference
from sublora.models.references import DocumentCode, log_probabilities, stream_log_probabilities
from sublora.scoring.scores import sequences


@dataclass(frozen=True, eq=False)  # one is another's equal only if it is the same
class Population:
    """What the reference says of all training units of a level, in the split's order, and the pool's shortest document in tokens.

    nats: ln q of each unit (of a token: of itself), float64 (units,), float32 for tokens; lengths: tokens of each unit.
    sizes, fewest: the same in bytes and one more, where they were counted. members: as in `Scores`, where units are groups: then
    all else is of their documents.
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

    A document or sequence is read from its own start, and a token in its document; the code of a stream has read all tokens of the
    documents that come before, too. At position level `documents` are positions of the store, and the values are theirs.
    behind: for held-out documents, the training documents: each is read by the stream's code as it is at their end, by itself.
    """
    if level == "position":
        return _log_q(store, np.arange(len(store)).tobytes(), None, experiment.reference, b"")[documents]
    block = experiment.model.block if level == "sequence" else None
    stream = b"" if behind is None or experiment.reference.name != "stream" else behind.tobytes()
    return _log_q(store, documents.tobytes(), block, experiment.reference, stream)


def populations(store: TokenStore, split: Split, levels: Iterable[Level], experiment: OnText) -> dict[Level, Population]:
    """All training units by level: what the reference's own bound is made of."""
    found: dict[Level, Population] = {}
    documents, shortest = split.train, int(store.lengths.min())
    for level in levels:
        nats = log_q(store, documents, "document" if level == "group" else level, experiment)
        if level in ("token", "position"):
            found[level] = Population(nats, np.broadcast_to(np.int64(1), nats.shape), shortest)
            continue
        lengths = store.lengths[documents]
        if level == "sequence":
            _, lengths = sequences(store.offsets[documents], lengths, experiment.model.block)
        summed = np.add.reduceat(nats, np.cumsum(lengths) - lengths, dtype=np.float64)
        counted: dict[str, Any] = {}
        if level != "sequence" and store.sizes is not None:
            counted = {"sizes": store.sizes[documents], "fewest": int(store.sizes.min())}
        if level == "group":
            assert split.groups is not None
            counted["members"] = np.concatenate([[0], np.cumsum(split.groups[0])])
        found[level] = Population(summed, lengths, shortest, **counted)
    return found


@functools.lru_cache(maxsize=4)  # the pilot, the certifying units, and all units ask for those of the same documents
def _log_q(store: TokenStore, documents: bytes, block: int | None, reference: Reference, behind: bytes) -> np.ndarray:
    vocabulary: dict[str, int] = {"vocab_size": store.vocab_size, "eot": store.eot}
    if reference.name == "stream":
        drawn, apart = np.frombuffer(behind + documents, np.int64), len(documents) // 8 if behind else 0
        starts, lengths, costs = store.offsets[drawn], store.lengths[drawn], reference.pseudo_counts
        found = stream_log_probabilities(store.tokens, starts, lengths, apart=apart, pseudo_counts=costs, **vocabulary)
        found = found[lengths[: len(behind) // 8].sum() :]
    else:
        drawn = np.frombuffer(documents, np.int64)
        starts, lengths = store.offsets[drawn], store.lengths[drawn]
        if block is not None:
            starts, lengths = sequences(starts, lengths, block)
        code = DocumentCode(*reference.of_document)
        found = log_probabilities(store.tokens, starts, lengths, code=code, **vocabulary).astype(np.float32)
    found.flags.writeable = False
    return found
