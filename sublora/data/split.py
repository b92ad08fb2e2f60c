"""Who trains: a seeded, uniformly random split of a finite pool of documents, or of all their tokens' positions."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from sublora.data.store import TokenStore
from sublora.errors import SubloraError
from sublora.experiment import Corpus

OPENWEBTEXT_SHARE, OPENWEBTEXT_SEED = 0.0005, 2357
Rule = Literal["permutation", "positions", "paper"]


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of documents, int64, each array in the order drawn. Together they are every index once.

    `rule` says how they were drawn, and `description` in words. For rule positions they are indices of the store's tokens.
    groups: where groups of documents were drawn, how many documents each has, of train, validation and test in the order drawn; a
    group's documents follow each other. Else None.
    prior: documents that were removed before the pool was split.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    rule: Rule
    description: str
    prior: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def drawn(self) -> tuple[int, int, int]:
        """How many of what was drawn (documents, groups, positions) are in train, validation and test."""
        train, validation, test = map(len, self.groups or (self.train, self.validation, self.test))
        return train, validation, test


def split_of(store: TokenStore, corpus: Corpus) -> Split:
    """`draw_split` of a store's documents; with `corpus.split: positions` of its tokens; with `corpus.group` of its groups.

    Raises SubloraError for a store without the groups that the corpus names.
    """
    if corpus.group is None:
        return draw_split(len(store.tokens) if corpus.split == "positions" else len(store), corpus)
    if store.groups is None:
        raise SubloraError(f"{store.path}: knows no groups of documents; prepare the corpus again, with corpus.group")
    sizes = np.bincount(store.groups)
    drawn = draw_split(len(sizes), corpus)
    members = np.argsort(store.groups, kind="stable")  # group by group, each in the store's order
    first = np.cumsum(sizes) - sizes

    def documents(groups: np.ndarray) -> np.ndarray:
        return np.concatenate([members[first[group] : first[group] + sizes[group]] for group in groups])

    train, validation, test = (documents(groups) for groups in (drawn.train, drawn.validation, drawn.test))
    counts = sizes[drawn.train], sizes[drawn.validation], sizes[drawn.test]
    return Split(train, validation, test, drawn.rule, f"{drawn.description}, of {len(store)} documents", groups=counts)


def draw_split(units: int, corpus: Corpus) -> Split:
    """Split `range(units)` uniformly at random, without looking at any document.

    units: documents; for `corpus.split: positions` the tokens of all documents; with `corpus.group` groups.
    train and validation are `corpus.train` and `corpus.validation` of the units, rounded, at least one each; test is what
    remains. `corpus.prior_documents` of the units leave the pool before that, at random, and no split seed enters their choice, so
    that what is made of them is public for every split of the rest. `corpus.split: paper` is the paper's split of
    openwebtext: 0.05% held out by `datasets.Dataset.train_test_split` with seed 2357, the first half of it for validation.
    Raises SubloraError when there are too few units for three parts.
    """
    many = "positions" if corpus.split == "positions" else "groups" if corpus.group is not None else "documents"
    prior = np.zeros(0, np.int64)
    if corpus.split == "paper":
        # As `datasets` draws it, from a stream that numpy does not promise to keep for ever.
        order = np.random.default_rng(OPENWEBTEXT_SEED).permutation(units)
        validation, test, train = np.split(order, np.cumsum(_sizes(units, corpus)[1:]))
        settings = f"test_size {OPENWEBTEXT_SHARE}, seed {OPENWEBTEXT_SEED}"
        how = f"the paper's rule for openwebtext ({settings}; validation and test halve the held-out part)"
    else:
        prior, pool = np.split(_by_keys(units, b"sublora prior"), [corpus.prior_documents or 0])
        units = len(pool)
        order = np.sort(pool)[permutation(units, corpus.split_seed)]
        train, validation, test = np.split(order, np.cumsum(_sizes(units, corpus)[:2]))
        how = f"a uniformly random permutation from split seed {corpus.split_seed} (order of SHAKE-256 keys)"
    if not (len(train) and len(validation) and len(test)):
        beside = f" are left beside {len(prior):,} prior ones" if len(prior) else ""
        parts = "" if corpus.split == "paper" else f" with train {corpus.train:g} and validation {corpus.validation:g}"
        cures = ["lower corpus.prior_documents"] if len(prior) else ["add documents"]
        cures += ["split the files with corpus.split_on"] * (corpus.source == "text" and corpus.split_on == "file")
        cures += ["change corpus.train and corpus.validation"] * bool(parts)
        raise SubloraError(
            f"corpus: {units:,} {many}{beside}: a split{parts} needs at least {_enough(units, corpus):,}; {' or '.join(cures)}"
        )
    description = f"{units} {many} by {how}: {len(train)} train, {len(validation)} validation, {len(test)} test"
    if len(prior):
        description = f"{len(prior)} documents removed at random (order of SHAKE-256 keys, without a seed), then {description}"
    rule: Rule = "permutation" if corpus.split == "seeded" else corpus.split
    train, validation, test = (part.astype(np.int64, copy=False) for part in (train, validation, test))
    return Split(train, validation, test, rule, description, prior)


def _sizes(units: int, corpus: Corpus) -> tuple[int, int, int]:
    """How many of so many units are train, validation and test, of which there may be none, or less."""
    if corpus.split == "paper":
        held_out = math.ceil(OPENWEBTEXT_SHARE * units)
        return units - held_out, held_out // 2, held_out - held_out // 2
    train, validation = (max(1, round(share * units)) for share in (corpus.train, corpus.validation))
    return train, validation, units - train - validation


def _enough(units: int, corpus: Corpus) -> int:
    """The least number above `units` of which each part has at least one."""
    share = OPENWEBTEXT_SHARE / 3 if corpus.split == "paper" else 1 - (corpus.train + corpus.validation)
    most = max(units + 1, math.ceil(3 / share))  # enough, however the parts are rounded
    return next((n for n in range(units + 1, min(most, units + 10**5)) if min(_sizes(n, corpus)) > 0), most)


def permutation(n: int, seed: int, purpose: str = "split") -> np.ndarray:
    """A uniformly random permutation of range(n), int64, the same on every platform and with every version of numpy.

    The key of index i is bytes 8i..8i+7, little-endian, of SHAKE-256("sublora split " + the seed in decimal); indices are
    sorted by key, then by index. Another purpose stands in the place of `split`: draws of the same seed are independent.
    """
    return _by_keys(n, f"sublora {purpose} {seed}".encode())


def _by_keys(n: int, text: bytes) -> np.ndarray:
    keys = np.frombuffer(hashlib.shake_256(text).digest(8 * n), dtype="<u8")
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
