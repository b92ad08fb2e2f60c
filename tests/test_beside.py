"""What stands beside a certificate: baselines and near-duplicates, measured once, read by the report."""

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pytest
from tiny import settings, write_texts

from sublora.certificate.schema import load_certificate
from sublora.data import Split, get_tokenizer, split_of, write_store
from sublora.data import duplicates as near
from sublora.experiment import Corpus
from sublora.experiment.groups import Bounds
from sublora.reporting import beside
from sublora.reporting.runs import KeptRun
from sublora.run import Run
from sublora.scoring import baselines as measured


def write(folder, texts, tokenizer="bytes"):
    ids = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    return write_store(folder, ids, name="made", tokenizer=tokenizer, vocab_size=257, eot=256)


def texts(count, words=60):
    random = np.random.default_rng(0)
    letters = ["".join(random.choice(list("abcdefghijklmnop"), random.integers(2, 9))) for _ in range(800)]
    return [" ".join(random.choice(letters, words)) for _ in range(count)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("beside") / "store", texts(400))


def test_each_compressor_is_given_one_document_at_a_time(store):
    split = split_of(store, Corpus(train=0.75))
    frame = measured.baselines(store, split, get_tokenizer("bytes"), Bounds(held_out_documents=20))
    assert tuple(frame.columns) == measured.COLUMNS == beside.BASELINES and set(frame.documents) == {20}
    found = frame.set_index("method").bits_per_byte
    held = [texts(400)[i].encode() for i in split.test[:20]]
    ways = {"gzip -9": lambda text: gzip.compress(text, 9), "bzip2 -9": bz2.compress}
    ways["xz -9e"] = lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    for name, way in ways.items():
        assert found[name] == pytest.approx(np.mean([8 * len(way(text)) / (len(text) + 1) for text in held]), abs=1e-9), name
    counts = np.bincount(np.frombuffer(b"".join(texts(400)[i].encode() for i in split.train), np.uint8), minlength=257) + 1.0
    counts[256] += len(split.train)
    bits = -np.log2(counts / counts.sum())
    by_hand = [(bits[np.frombuffer(text, np.uint8)].sum() + bits[256]) / (len(text) + 1) for text in held]
    assert found["byte histogram"] == pytest.approx(np.mean(by_hand))
    error = frame.set_index("method").standard_error["byte histogram"]
    assert error == pytest.approx(np.std(by_hand, ddof=1) / 20**0.5)
    assert found["5-grams of bytes"] < found["document code"] < 8 and found["zstd -19, trained dictionary"] < found["zstd -19"]
    read = frame.set_index("method").training_bytes
    assert read["gzip -9"] == read["document code"] == 0 < read["5-grams of bytes"]
    assert set(frame.method) == set(beside.WHAT)


def test_codes_tell_where_a_document_ends_and_read_no_other_held_out_one(store):
    """The bits of a document do not depend on which others are measured."""
    seen = [text.encode() for text in texts(30)]
    held = [text.encode() for text in texts(45)[40:]]
    for alone, among in zip(measured._codes(seen, held[2:3], int), measured._codes(seen, held, int), strict=True):
        assert alone[0] == pytest.approx(among[2], rel=1e-6)


def test_too_little_text_makes_no_dictionary_and_says_so(tmp_path, capsys):
    store = write(tmp_path / "store", ["ab", "ba", "aa", "bb", "abab", "baba"])
    split = Split(np.arange(3), np.array([3]), np.array([4, 5]), "permutation", "by hand")
    frame = measured.baselines(store, split, get_tokenizer("bytes"), Bounds())
    assert "zstd -19, trained dictionary" not in set(frame.method) and "too few for a dictionary" in capsys.readouterr().err


def test_a_group_weighs_as_one(store):
    """One of three documents and one of one: the mean of their means."""
    groups = np.array([10]), np.array([2]), np.array([3, 1])
    split = Split(np.arange(10), np.arange(10, 12), np.array([20, 21, 22, 23]), "permutation", "by hand", groups=groups)
    frame = measured.baselines(store, split, get_tokenizer("bytes"), Bounds(levels=("group",)))
    single = [8 * len(gzip.compress(texts(400)[i].encode(), 9)) / (len(texts(400)[i]) + 1) for i in (20, 21, 22, 23)]
    assert frame.set_index("method").bits_per_byte["gzip -9"] == pytest.approx((np.mean(single[:3]) + single[3]) / 2)


def jaccard(a, b, size):
    shingles = [{text[i : i + size] for i in range(max(1, len(text) - size + 1))} for text in (a, b)]
    return len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


def test_near_duplicates_are_found_and_others_are_not(tmp_path):
    """Of each training document a copy, one with a word changed at its end, one half of it, and one of its own."""
    train = texts(60, words=200)
    fresh = texts(200, words=200)[100:160]
    changed = [text.rsplit(" ", 1)[0] + " other" for text in train]
    half = [text[: len(text) // 2] + new[len(new) // 2 :] for text, new in zip(train, fresh, strict=True)]
    assert min(jaccard(a, b, 24) for a, b in zip(train, changed, strict=True)) > 0.92
    assert max(jaccard(a, b, 24) for a, b in zip(train, half, strict=True)) < 0.5
    store = write(tmp_path / "store", [*train, *train, *changed, *half, *fresh, "x", "x"])
    parts = [np.arange(60 * k, 60 * (k + 1)) for k in range(5)]
    for part, identical, like in ((1, 60, 60), (2, 0, 60), (3, 0, 0), (4, 0, 0)):
        split = Split(np.append(parts[0], 300), parts[part], np.array([301]), "permutation", "by hand")
        frame = near.near_duplicates(store, split)
        assert tuple(frame.columns) == near.COLUMNS == beside.DUPLICATES and near.POOL == beside.POOL not in set(frame["part"])
        rows = frame.set_index("part")
        assert rows.loc["validation", ["documents", "identical", "near"]].tolist() == [60, identical, like]
        assert rows.loc["test", ["documents", "identical", "near"]].tolist() == [1, 1, 1], "shorter than a shingle"


def test_the_pool_s_documents_among_those_that_left_it_are_a_row_of_their_own(tmp_path):
    """A base that was made of documents that left the pool has read a pool document that is almost one of them."""
    first, changed = texts(20, words=100), [text.rsplit(" ", 1)[0] + " other" for text in texts(20, words=100)[:15]]
    store = write(tmp_path / "store", [*first, *changed, first[19], *texts(60, words=100)[40:]])
    parts = np.arange(20), np.arange(20, 50), np.arange(50, 53), np.arange(53, 56)
    prior, train, validation, test = parts
    frame = near.near_duplicates(store, Split(train, validation, test, "permutation", "by hand", prior))
    assert frame["part"].tolist() == ["validation", "test", near.POOL]
    assert frame.iloc[2][["documents", "identical", "near"]].tolist() == [36, 1, 16]
    assert frame.iloc[:2]["near"].tolist() == [0, 0], "the other rows are about the training documents"
    said = beside.duplicates_in_words(frame)
    assert "Of the pool, 16 of the 36 documents (44.5%; 1 of them identical) have as much in common with one of the" in said
    assert said.count("pool documents") == 0 and "Of the pool" not in beside.duplicates_in_words(frame.iloc[:2])


def test_the_share_of_equal_minima_estimates_the_share_of_common_shingles(tmp_path):
    texts_ = texts(40, words=120)
    drawn = zip(texts_[:20], texts_[20:], np.linspace(0.1, 1, 20), strict=True)
    pairs = [(text, text[: int(len(text) * share)] + new) for text, new, share in drawn]
    store = write(tmp_path / "store", [text for pair in pairs for text in pair])
    minima = near._minima(store)
    found = (minima[0::2] == minima[1::2]).mean(axis=1)
    truth = np.array([jaccard(a, b, 24) for a, b in pairs])
    assert np.abs(found - truth).max() < 0.3 and abs((found - truth).mean()) < 0.05
    assert np.array_equal(minima, near._minima(store)), "deterministic"


def test_documents_in_small_chunks_have_the_same_minima(store, monkeypatch):
    whole = near._minima(store)
    monkeypatch.setattr(near, "AT_ONCE", 700)
    assert np.array_equal(near._minima(store), whole)


def test_a_run_keeps_them_and_the_report_reads_them(tmp_path):
    run = Run(settings(write_texts(tmp_path / "texts")), tmp_path / "runs")
    certificate = run.certify()
    for name in ("baselines.csv", "duplicates.csv"):
        assert (run.folder / name).is_file() and name in (run.folder / "made-by-sublora.txt").read_text()
    before = (run.folder / "baselines.csv").read_bytes()
    (run.folder / "baselines.csv").unlink()
    again = Run(settings(tmp_path / "texts"), tmp_path / "runs")
    again.certify()
    assert (run.folder / "baselines.csv").read_bytes() == before
    assert load_certificate(run.folder / "certificate.json").statements == certificate.statements
    kept = KeptRun("tiny", run.folder, certificate, None)
    table = str(beside.baselines_table(kept))
    assert "this model, certified" in table and "gzip -9" in table and "no promise about others" in table
    assert "documents" in beside.duplicates(kept) and "iid" in beside.duplicates(kept)
    (run.folder / "baselines.csv").write_text("method\nx\n")
    (run.folder / "duplicates.csv").unlink()
    assert "No baselines were kept" in beside.baselines_table(kept) and "No count" in beside.duplicates(kept)


def test_no_rows_are_no_sentence():
    assert beside.duplicates_in_words(pd.DataFrame(columns=list(near.COLUMNS))) == ""
