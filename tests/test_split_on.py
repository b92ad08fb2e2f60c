"""Text files that hold several documents: where each begins, what a certificate says of it, and hostile patterns."""

import json
import lzma
import time

import pytest
from tiny import put, settings

from sublora.certificate.schema import digest, load_certificate
from sublora.data import documents, prepare
from sublora.data.corpora import corpus_identity, corpus_name
from sublora.data.pieces import AT_ONCE, sections
from sublora.errors import SubloraError
from sublora.experiment import Corpus, as_experiment
from sublora.run import Run
from sublora.verification import verify

BOOK = "\ufeffA book\n\n \t\nChapter 1\nOne.\n\nTwo,\r\ntwo.\r\n\r\nChapter 2 \x0c\u2028Chapter\n\n"


def corpus(folder, **settings):
    return Corpus(source="text", path=str(folder), **settings)


@pytest.fixture
def books(tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "a.txt").write_bytes(BOOK.encode())
    (folder / "b.txt.xz").write_bytes(lzma.compress(b"\n\nChapter 1\nPacked, without an end"))
    (folder / "c.txt").touch()
    return folder


def test_paragraphs_and_sections_are_the_files_own_lines(books):
    assert list(documents(corpus(books))) == [BOOK, "\n\nChapter 1\nPacked, without an end"]
    assert list(documents(corpus(books, split_on="blank-line"))) == [
        "A book\n", "Chapter 1\nOne.\n", "Two,\r\ntwo.\r\n", "Chapter 2 \x0c\u2028Chapter\n", "Chapter 1\nPacked, without an end",
    ]  # fmt: skip
    assert list(documents(corpus(books, split_on="regex:^Chapter [0-9]"))) == [
        "A book\n\n \t\n", "Chapter 1\nOne.\n\nTwo,\r\ntwo.\r\n\r\n", "Chapter 2 \x0c\u2028Chapter\n\n",
        "Chapter 1\nPacked, without an end",
    ]  # fmt: skip
    ends = list(documents(corpus(books, split_on="regex: (?i)TWO.$")))
    assert ends[1:3] == ["Two,\r\n", "two.\r\n\r\nChapter 2 \x0c\u2028Chapter\n\n"], "a line's end is no part of what is matched"


def test_lines_that_are_matched_apart_are_cut_as_together():
    lines = [f"{number}\n" for number in range(2 * AT_ONCE + 2)]
    found = [text.count("\n") for _, text in sections(lines, "00$")]
    assert found == [100] * (2 * AT_ONCE // 100) + [2]
    assert [begun for begun, _ in sections(lines, "^7$")] == [False, True]


def test_a_pattern_that_no_line_matches_is_refused(books):
    with pytest.raises(SubloraError, match="^corpus.split_on: no line in .*books matches '.Part'; correct the pattern$"):
        list(documents(corpus(books, split_on="regex:^Part")))


def test_a_file_that_is_no_text_is_named_with_its_line(books):
    (books / "a.txt").write_bytes(b"one\n\ncaf\xe9\n")
    for split_on in ("blank-line", "regex:o"):
        with pytest.raises(SubloraError, match=r"a\.txt: line 3: not UTF-8 text"):
            list(documents(corpus(books, split_on=split_on)))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("paragraph", "must be file, blank-line, or regex:PATTERN"),
        ("file:x", "must be file, blank-line, or regex:PATTERN"),
        ("blank-line ", "must be file, blank-line, or regex:PATTERN"),
        ("regex", "must be file, blank-line, or regex:PATTERN"),
        ("regex: ", "must be file, blank-line, or regex:PATTERN"),
        ("regex:" + 201 * "x", "of at most 200 characters"),
        ("regex:(", "RE2 does not take the pattern: missing"),
        (r"regex:(a)\1", "RE2 does not take the pattern: invalid escape sequence"),
        ("regex:(?=a)", "RE2 does not take the pattern: invalid perl operator"),
        ("regex:((a{99}){99}){99}", "RE2 does not take the pattern: invalid repetition size"),
        ({"regex": "a"}, "valid string"),
    ],
)
def test_what_is_no_way_to_split_is_refused(value, says):
    with pytest.raises(SubloraError, match="^x: key 'corpus.split_on': ") as caught:
        as_experiment({"name": "x", "corpus": {"source": "text", "path": "x", "split_on": value}}, "x")
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a*)*b", "a*a*a*a*a*a*a*a*c", "(.*)(.*)(.*)(.*)(.*)(.*)x"])
def test_no_pattern_takes_forever(tmp_path, pattern):
    """Python's own `re` needs longer than anyone lives for most of these lines."""
    (tmp_path / "a.txt").write_text("a" * 100_000 + "!\n" + "aac" + "x", "utf-8")
    begun = time.process_time()
    try:
        list(documents(corpus(tmp_path, split_on=f"regex:{pattern}")))
    except SubloraError as error:
        assert "no line in" in str(error)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("source", [{}, {"source": "python-stdlib"}, {"source": "file", "path": "a.csv"}, {"source": "an/other"}])
def test_the_key_has_no_effect_on_another_source(source):
    with pytest.raises(SubloraError, match="split_on has no effect for source"):
        as_experiment({"name": "x", "corpus": {**source, "split_on": "blank-line"}})
    assert "split_on" not in Corpus(**source).model_dump()


def test_the_key_is_part_of_the_corpus_and_its_default_says_what_was_never_said(books):
    ways = [corpus(books, split_on=value) for value in ("file", "blank-line", "regex:^Chapter", "regex:^chapter")]
    assert len({json.dumps(corpus_identity(each)) for each in ways}) == 4
    assert [corpus_name(each) for each in ways[:3]] == ["text:books", "text:books:blank-line", "text:books:regex:^Chapter"]
    plain, said = corpus(books), ways[0]
    assert corpus_identity(plain) == corpus_identity(said) and "split_on" not in {**plain.model_dump(), **corpus_identity(said)}
    assert corpus(books, split_on="regex:  ^Chapter") == ways[2] and ways[2].model_dump()["split_on"] == "regex:^Chapter"


def test_a_certificate_says_how_its_files_are_split_and_verify_splits_them_so(tmp_path, monkeypatch):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "all.txt").write_text("".join(f"Entry {i}\n\nof {i % 7}\n\n" for i in range(250)), "utf-8")
    run = Run(settings(texts, corpus__split_on="regex:^Entry"), tmp_path / "runs")
    path, data = run.folder / "certificate.json", run.certify().data()
    assert data["params"]["corpus"]["split_on"] == "regex:^Entry" and data["corpus"]["pool"] == 250
    assert load_certificate(path).corpus.name == "text:texts:regex:^Entry"
    monkeypatch.chdir(tmp_path)
    assert verify(path, run.corpora) == [] and verify(path, tmp_path / "none", texts) == []
    for other in ("regex:^Entry ", "regex:^of", "blank-line", KeyError):
        changed = put(data, ("params", "corpus", "split_on"), other)
        changed["certificate_sha256"] = digest(changed)
        (tmp_path / "altered.json").write_text(json.dumps(changed, indent=1) + "\n", "utf-8")
        assert [line.split(":")[0] for line in verify(tmp_path / "altered.json", run.corpora)] == ["corpus.name"], other
        if other in ("blank-line", KeyError):
            with pytest.raises(SubloraError, match="another|corpus"):
                verify(tmp_path / "altered.json", tmp_path / "none", texts)


def test_too_few_files_are_told_that_a_file_may_be_split(books):
    run = Run(settings(books), books.parent / "runs")
    with pytest.raises(SubloraError, match=r"2 documents: .* needs at least [0-9]+; .* split the files with corpus.split_on"):
        run.certify()
    assert len(prepare(corpus(books, split_on="blank-line"), books.parent / "corpora")) == 5
