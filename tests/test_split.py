"""Splits: partitions, known values, uniformity, and OpenWebText's published split."""

import hashlib
import re

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats

from sublora.data import draw_split, prepare
from sublora.data.split import permutation
from sublora.errors import SubloraError
from sublora.experiment import Corpus

PAPER = Corpus(source="openwebtext", split="paper")


def parts(split):
    return split.train, split.validation, split.test


@pytest.mark.parametrize("documents", [4, 57, 1000, 55_381])
def test_parts_partition_the_pool(documents):
    corpus = Corpus(train=0.5, validation=0.1)
    split = draw_split(documents, corpus)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(documents))
    assert len(split.train) == round(0.5 * documents)
    assert len(split.validation) == max(1, round(0.1 * documents))
    assert all(part.dtype == np.int64 for part in parts(split))


def test_drawn_order_is_kept():
    corpus = Corpus()
    assert np.concatenate(parts(draw_split(500, corpus))).tolist() == permutation(500, corpus.split_seed).tolist()


def test_permutation_follows_its_definition():
    stream = hashlib.shake_256(b"sublora split 11").digest(8 * 1000)
    keys = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(1000)]
    assert permutation(1000, 11).tolist() == sorted(range(1000), key=keys.__getitem__)


def test_permutation_known_values():
    """Certificates depend on these numbers: they must never change."""
    assert permutation(10, 0).tolist() == [7, 3, 2, 5, 6, 9, 4, 1, 8, 0]
    assert permutation(10, 137).tolist() == [8, 5, 0, 2, 6, 1, 4, 9, 3, 7]
    digest = hashlib.sha256(permutation(55_381, 0).astype("<i8").tobytes()).hexdigest()
    assert digest == "8bd385b4d419ad81ed7abceaf8631cc474524a4749c30d5b3d28d3a26da46d58"


def test_permutation_is_uniform():
    """All 24 orders of 4 documents are equally frequent over seeds; a biased order would be seen."""
    orders = [tuple(permutation(4, seed).tolist()) for seed in range(4800)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_seeds_give_different_splits_and_the_same_seed_the_same():
    first, again, other = (draw_split(1000, Corpus(split_seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)
    assert permutation(5, 2**200).tolist() != permutation(5, 2**200 + 1).tolist()  # any seed may be given


def test_description_says_how_it_was_drawn():
    description = draw_split(100, Corpus(split_seed=3)).description
    assert description == (
        "100 documents by a uniformly random permutation from split seed 3 (order of SHAKE-256 keys): "
        "75 train, 2 validation, 23 test"
    )


@pytest.mark.parametrize("documents", [2001, 10_000, 123_457])
def test_openwebtext_has_the_publications_split(documents):
    published = Dataset.from_dict({"i": range(documents)}).train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    split = draw_split(documents, PAPER)
    assert split.train.tolist() == published["train"]["i"][:]
    assert np.concatenate([split.validation, split.test]).tolist() == published["test"]["i"][:]
    assert len(split.test) - len(split.validation) in (0, 1)
    assert "openwebtext" in split.description and "2357" in split.description


def test_openwebtext_honours_seed_and_shares(tmp_path):
    """The broken form: one split for all seeds and shares, which is what `split: paper` says."""
    (tmp_path / "train.jsonl").write_text("".join(f'{{"text": "document {i}"}}\n' for i in range(100)), "utf-8")
    corpora = [Corpus(source="openwebtext", path=str(tmp_path), **settings) for settings in (
        {"split_seed": 1}, {"split_seed": 2}, {"split_seed": 1, "train": 0.3})]  # fmt: skip
    store = prepare(corpora[0], tmp_path / "corpora")
    first, other, fewer = (draw_split(len(store), corpus) for corpus in corpora)
    trained = [{store.document(i).tobytes() for i in split.train} for split in (first, other, fewer)]
    assert trained[0] != trained[1] and [len(each) for each in trained] == [75, 75, 30]
    assert {split.rule for split in (first, other, fewer)} == {"permutation"}
    assert all(np.array_equal(a, b) for a, b in zip(parts(first), parts(draw_split(100, Corpus(split_seed=1))), strict=True))


def test_openwebtext_has_the_published_number_of_documents():
    assert len(draw_split(8_013_769, PAPER).train) == 8_009_762


@pytest.mark.parametrize(
    "documents, corpus, needed",
    [
        (0, Corpus(), "a split with train 0.75 and validation 0.02 needs at least 6; add documents or change"),
        (3, Corpus(validation=0.01), "a split with train 0.75 and validation 0.01 needs at least 6; "),
        (8, Corpus(train=0.7, validation=0.2), "a split with train 0.7 and validation 0.2 needs at least 9; "),  # 7 are enough, too
        (3, Corpus(train=0.9), "a split with train 0.9 and validation 0.02 needs at least 16; "),
        (2000, PAPER, "a split needs at least 2,001; add documents$"),
        (3, Corpus(source="text", path="x"), ".* add documents or split the files with corpus.split_on or change"),
        (5, Corpus(prior_documents=3), "a split .* needs at least 6; "),
        (3, Corpus(train=1 - 1e-13, validation=1e-14), "a split .* needs at least 3[0-9,]{15,};"),
    ],
)
def test_too_few_documents_are_said_with_the_number_that_is_needed(documents, corpus, needed):
    prior = corpus.prior_documents or 0
    beside = f" are left beside {prior} prior ones" if prior else ""
    with pytest.raises(SubloraError, match=f"^corpus: {documents - prior:,} documents{beside}: {needed}") as caught:
        draw_split(documents, corpus)
    enough = int(re.search(r"at least ([\d,]+)", str(caught.value))[1].replace(",", ""))
    if enough < 10**5:
        assert all(map(len, parts(draw_split(enough + prior, corpus))[:3]))
        with pytest.raises(SubloraError):
            draw_split(enough - 1 + prior, corpus)
