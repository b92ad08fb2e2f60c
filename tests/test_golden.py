"""Golden: messages, draws, bounds and decoded weights are what they were when `golden` froze them."""

import math
from collections.abc import Iterator
from typing import Any

import golden
import pytest

RELATIVE, ABSOLUTE = 1e-6, 1e-7  # another processor rounds float32 otherwise; all but floats is equal
LARGEST_VOCABULARY = 257  # of the golden kinds

UNITS = ("hoeffding", "kl", "betting")
CLAIMS = {
    *(("document", assumption, inequality) for assumption in ("iid", "pool", "unseen") for inequality in UNITS),
    *(("sequence", "iid", inequality) for inequality in UNITS),
    *(("token", "martingale", inequality) for inequality in ("azuma", "freedman")),
}
ALL_EVALUATED = {(level, "iid", "empirical_bernstein") for level in ("document", "sequence")}
VACUOUS = {*ALL_EVALUATED, ("sequence", "iid", "hoeffding"), ("document", "unseen", "hoeffding"), ("document", "unseen", "kl")}
"""At the largest loss in every golden run with all units evaluated; `test_charges` computes them by hand."""
EXAMPLES = {
    *(("example", assumption, inequality) for assumption in ("iid", "pool", "unseen") for inequality in UNITS),
    ("example", "iid", "binomial_tail"),
}


def differences(frozen: Any, found: Any, where: str) -> Iterator[str]:
    """One line for each leaf of `found` that is not what was frozen."""
    if isinstance(frozen, dict) and isinstance(found, dict):
        for key in {**frozen, **found}:
            yield from differences(frozen.get(key), found.get(key), f"{where}.{key}")
    elif isinstance(frozen, list) and isinstance(found, list) and len(frozen) == len(found):
        size = 0.0
        if ".decoded." in where:  # [count, sum, sum of squares]: a sum near zero is as exact as its summands
            size = frozen[2] ** 0.5
        for index, pair in enumerate(zip(frozen, found, strict=True)):
            if not (size and index == 1 and abs(pair[0] - pair[1]) <= RELATIVE * size):
                yield from differences(*pair, f"{where}[{index}]")
    elif isinstance(frozen, float) and isinstance(found, float):
        if not abs(frozen - found) <= max(ABSOLUTE, RELATIVE * abs(frozen)):
            yield f"{where}: {frozen} was frozen, computed now it is {found}"
    elif frozen != found or type(frozen) is not type(found):
        yield f"{where}: {frozen!r:.70} was frozen, computed now it is {found!r:.70}"


@pytest.mark.parametrize("kind", golden.KINDS)
def test_what_is_computed_is_what_was_frozen(kind, tmp_path):
    assert list(differences(golden.frozen(kind), golden.computed(kind, tmp_path), kind)) == []


def test_every_inequality_and_assumption_is_frozen_with_and_without_a_subsample():
    seen = {True: set(), False: set()}
    for kind in golden.KINDS:
        rows = [dict(zip(golden.COLUMNS, row, strict=True)) for row in golden.frozen(kind).get("bounds", ())]
        for row in rows:
            largest = 1.0 if row["alpha"] is None else math.log2(LARGEST_VOCABULARY / row["alpha"])
            if row["bound"] < largest - 1e-6:  # at the largest loss it would not notice that anything changed
                seen[row["evaluated"] == row["units"]].add((row["level"], row["assumption"], row["inequality"]))
    assert seen[False] == CLAIMS
    assert seen[True] == (CLAIMS | ALL_EVALUATED | EXAMPLES) - VACUOUS


def test_a_message_is_encoded_again_to_the_same_bytes():
    for kind in golden.KINDS:
        frozen = golden.frozen(kind)
        if "message" in frozen:
            assert frozen["encoded_again"] == frozen["sha256"], kind


def test_there_is_a_file_for_each_kind_and_no_other():
    assert sorted(path.stem for path in golden.FROZEN.iterdir()) == sorted(golden.KINDS)


def test_a_difference_is_noticed():
    frozen = {"a": [1, "x", 0.5, None], "decoded": {"w": [9, 0.001, 4.0]}}
    assert not list(differences(frozen, {"a": [1, "x", 0.5 + 4e-7, None], "decoded": {"w": [9, 0.001001, 4.0]}}, ""))
    for other in (2, "y", 0.500001, 0.0, True, [], 1.0):
        for place in range(4):
            changed = {**frozen, "a": [*frozen["a"][:place], other, *frozen["a"][place + 1 :]]}
            assert len(list(differences(frozen, changed, ""))) == 1
    assert list(differences(frozen, {"a": frozen["a"]}, ""))
    assert list(differences(frozen, {**frozen, "decoded": {"w": [9, 0.00101, 4.0]}}, ""))
    assert list(differences(frozen, {**frozen, "more": 1}, ""))
