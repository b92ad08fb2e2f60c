"""Corpora: what counts as a document, in which order, and what happens with bad input."""

import ast
import bz2
import csv
import gzip
import inspect
import json
import lzma
import sys
import sysconfig
import textwrap
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sublora.data import documents, get_tokenizer, prepare
from sublora.data.code import python_functions
from sublora.data.corpora import corpus_identity, corpus_name
from sublora.errors import SubloraError
from sublora.experiment import Corpus

TEXTS = ["first", "second, with a comma", 'a "quote" and\ttab', "ünïcödé 🙂", "two\nlines"]


STDLIB = Corpus(source="python-stdlib")


def file_corpus(path, field="text"):
    return Corpus(source="file", path=str(path), field=field)


def error_of(corpus):
    """The one line that reading the corpus says."""
    with pytest.raises(SubloraError) as caught:
        list(documents(corpus))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- python-stdlib

SOURCE = '''\
import functools


@functools.cache
@(
    staticmethod
)
def decorated(x,
              y=1):
    """Two
    lines."""
    if x:
        def nested(): return lambda: 0
    return nested

class C:
    if True:
        async def method(self):
            try:
                pass
            except E:
                def handler(): pass
            else:
                def otherwise(): pass
            finally:
                def last(): pass
            match x:
                case 1:
                    def case(): pass
            with a:
                for b in c:
                    while d:
                        def deep(): pass
'''


def test_functions_of_a_file():
    texts = python_functions(SOURCE.encode())
    names = ["decorated", "nested", "method", "handler", "otherwise", "last", "case", "deep"]
    assert [next(w for w in text.replace("(", " ").split("def ")[1].split()) for text in texts] == names
    lines = SOURCE.splitlines(keepends=True)
    assert texts[0] == "".join(lines[3:14])  # from the first decorator to the last line
    assert texts[1] == "        def nested(): return lambda: 0\n"  # with its indentation
    assert texts[2] == "".join(lines[17:])


def test_functions_agree_with_ast_walk_on_real_files():
    for module in (ast, csv, inspect, textwrap, lzma):
        text = Path(module.__file__).read_text("utf-8")
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        texts = python_functions(text.encode())
        assert len(texts) == len(functions) > 0
        for function, found in zip(sorted(functions, key=lambda f: f.lineno), texts, strict=True):
            assert found.rstrip("\n").endswith(ast.get_source_segment(text, function).rstrip("\n"))


def test_a_form_feed_ends_no_line_and_line_ends_are_normalized():
    assert python_functions(b"x = '\x0c'\n\x0c\ndef f():\n    return '\x0c\x1c'\n") == ["def f():\n    return '\x0c\x1c'\n"]
    assert python_functions(b"def f():\r\n    pass\r\ndef g(): pass") == ["def f():\n    pass\n", "def g(): pass\n"]
    assert python_functions(b"\xef\xbb\xbfdef f(): pass\n") == ["def f(): pass\n"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", [b"def f(:", b"print 'x'\ndef f(): pass)", b"\xff\ndef f(): pass", b"def f(): pass\0"])
def test_a_file_that_is_not_python_has_no_functions(source):
    assert python_functions(source) == []


def test_comments_below_the_last_statement_are_no_part_of_a_function():
    source = b"def f():\n    if x:\n        pass  # here\n        # below\n    # below\n# outside\n\ndef g(): pass\n"
    assert python_functions(source) == ["def f():\n    if x:\n        pass  # here\n", "def g(): pass\n"]


@pytest.mark.filterwarnings("error")
def test_syntax_warnings_are_silent():
    assert python_functions(b"def f(): return '\\d' is 1\n") == ["def f(): return '\\d' is 1\n"]


@pytest.fixture
def fake_stdlib(tmp_path, monkeypatch):
    root = tmp_path / "lib"
    files = {
        "b.py": "def b(): pass\ndef same(): pass\n",
        "a/z.py": "def same(): pass\ndef a(): pass\n",
        "a.py": "def first(): pass\n",
        "broken.py": "def broken(:\n",
        "note.txt": "def no(): pass\n",
        "site-packages/other.py": "def no(): pass\n",
        "dist-packages/other.py": "def no(): pass\n",
        "a/__pycache__/other.py": "def no(): pass\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    return root


def test_stdlib_order_and_distinctness(fake_stdlib):
    assert [text.split()[1] for text in documents(STDLIB)] == ["first():", "same():", "a():", "b():"]


def test_stdlib_order_does_not_depend_on_the_file_system(fake_stdlib, monkeypatch):
    before = list(documents(STDLIB))
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(rglob(self, pattern))))
    assert list(documents(STDLIB)) == before


def test_stdlib_identity_is_of_the_interpreter(fake_stdlib, monkeypatch):
    identity = corpus_identity(STDLIB)
    assert corpus_identity(Corpus(source="python-stdlib", split_seed=5, train=0.5)) == identity
    monkeypatch.setattr(sys, "version", "3.99")
    assert corpus_identity(STDLIB) != identity


def test_stdlib_without_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert error_of(STDLIB).startswith("python-stdlib: no document with text in " + str(tmp_path.resolve()))


# --- text


def test_text_folder(tmp_path):
    for name, text in {"b.txt": "B\r\n", "a/c.md": "C", "a.txt": "ä", "empty.txt": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "z.txt.xz").write_bytes(lzma.compress(b"Z"))
    corpus = Corpus(source="text", path=str(tmp_path))
    assert list(documents(corpus)) == ["ä", "C", "B\r\n", "Z"]  # "a.txt" < "a/c.md"; the empty one is dropped
    assert corpus_name(corpus) == f"text:{tmp_path.name}"


def test_text_folder_errors(tmp_path):
    corpus = Corpus(source="text", path=str(tmp_path))
    assert error_of(corpus).startswith(f"text: no document with text in {tmp_path}")
    (tmp_path / "empty.txt").touch()
    assert error_of(corpus).startswith(f"text: no document with text in {tmp_path}")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert error_of(corpus).startswith(f"{tmp_path / 'latin.txt'}: not UTF-8 text at byte 3")
    (tmp_path / "cut.xz").write_bytes(lzma.compress(b"text" * 1000)[:-20])
    assert error_of(corpus).startswith(f"{tmp_path / 'cut.xz'}: cannot read")
    assert "not a folder" in error_of(Corpus(source="text", path=str(tmp_path / "empty.txt")))
    assert "does not exist" in error_of(Corpus(source="text", path=str(tmp_path / "nowhere")))


def test_unreadable_file(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # taking permissions away does not keep the superuser from reading
    for corpus in (file_corpus(tmp_path / "a.jsonl"), Corpus(source="text", path=str(tmp_path))):
        assert error_of(corpus).startswith(f"{tmp_path / 'a.jsonl'}: cannot read (Permission denied)")


# --- file

COMPRESS = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("packing", COMPRESS)
def test_jsonl(tmp_path, packing):
    lines = [json.dumps({"id": i, "body": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(TEXTS)]
    lines[2:2] = ["", json.dumps({"body": ""}), json.dumps({"body": None})]  # no text: dropped
    path = tmp_path / f"docs.jsonl{packing}"
    path.write_bytes(COMPRESS[packing](b"\xef\xbb\xbf" + "\n".join(lines).encode()))
    assert list(documents(file_corpus(path, "body"))) == TEXTS


@pytest.mark.parametrize("packing", COMPRESS)
def test_csv(tmp_path, packing):
    texts = [*TEXTS, "long " * 100_000]  # beyond the csv module's default limit of a field
    with open(tmp_path / "plain.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["id", "body"], *enumerate(texts), ["", ""]])
    path = tmp_path / f"docs.csv{packing}"
    path.write_bytes(COMPRESS[packing]((tmp_path / "plain.csv").read_bytes()))
    assert list(documents(file_corpus(path, "body"))) == texts


def test_tsv_knows_no_quoting(tmp_path):
    path = tmp_path / "docs.tsv"
    path.write_text('label\ttext\n1\t"an open quote\n0\tthe "next" row, with a comma\n', "utf-8")
    assert list(documents(file_corpus(path))) == ['"an open quote', 'the "next" row, with a comma']


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, kind):
    path = tmp_path / "docs.parquet"
    column = pa.array([TEXTS[0], None, *TEXTS[1:], ""]).cast(kind)
    pq.write_table(pa.table({"id": range(len(column)), "body": column}), path, row_group_size=2)
    assert list(documents(file_corpus(path, "body"))) == TEXTS


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl: line 2: not a line of JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "a.jsonl: line 2: not a line of JSON in UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n[1]\n', "a.jsonl: line 2: holds list, not a JSON object"),
        ("a.jsonl", b'{"title": "x", "body": ""}\n', "line 1: corpus.field: there is no field 'text'; there are: title, body"),
        ("a.csv", b"title,texts\n1,2\n", "line 2: corpus.field: there is no field 'text'; did you mean 'texts'? there are: title"),
        ("a.jsonl", b'{"text": 3}\n', "a.jsonl: line 1: field 'text' holds int, not text"),
        ("a.jsonl", b"", "file: no document with text in "),
        ("a.jsonl", b'{"text": ""}\n', "file: no document with text in "),
        ("a.jsonl.xz", b"no xz", "a.jsonl.xz: cannot read"),
        ("a.jsonl.xz", lzma.compress(b'{"text": "x"}\n' * 1000)[:-30], "a.jsonl.xz: cannot read"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 1000, mtime=0)[:-30], "a.jsonl.gz: cannot read"),
        ("a.jsonl.bz2", b"no bz2", "a.jsonl.bz2: cannot read"),
        ("a.csv", b"title,body\n1,2\n", "a.csv: line 2: corpus.field: there is no field 'text'; there are: title, body"),
        ("a.csv", b"", "file: no document with text in "),
        ("a.csv", b"id,text\n1\n", "a.csv: line 2: 1 cells, but the header has 2"),
        ("a.csv", b"text,text\n1,2\n", "a.csv: line 1: two columns have the same name"),
        ("a.csv", b"id,text\n1,x\n2,y,z\n", "a.csv: line 3: 3 cells, but the header has 2"),
        ("a.csv", b'id,text\n1,"x"y\n', "a.csv: line 2: ',' expected after '\"'"),
        ("a.csv", b"id,text\n1,\xff\n", "a.csv: line 2: not UTF-8 text"),
        ("a.csv", b"text\n", "file: no document with text in "),
        ("a.csv", b"id,text\n1,x\n2,one\rtwo\n", "a.csv: line 3: a carriage return in a cell without quotes"),
        ("a.csv", b'id,text\n1,x\n2,"open\n3,y\n', "a.csv: line 3: unexpected end of data"),
        ("a.csv", b"text\rone\rtwo\r", "a.csv: line 1: a carriage return"),
        ("a.csv", b'"' + b"an article\x1b[2J\n" * 999 + b'"\n"x"\n', "there are: an article\\x1b[2J\\nan article"),
        ("a.tsv", b"text\ttext\nx\ty\n", "a.tsv: line 1: two columns have the same name 'text'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "x", "text": "y"}\n', "line 2: not a line of JSON in UTF-8 ('text' is there twice"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ' + b"[" * 100_000, "a.jsonl: line 2: not a line of JSON in UTF-8 (RecursionError"),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}\n", "a.jsonl: line 1: not a line of JSON in UTF-8 (Exceeds"),
        ("a.parquet", b"PAR1", "a.parquet: not a readable parquet file"),
        ("a.parquet.xz", b"", "reads .jsonl, .csv, .tsv"),
        ("a.txt", b"x", "reads .jsonl, .csv, .tsv"),
    ],
)
def test_file_errors(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    error = error_of(file_corpus(tmp_path / name))
    assert message in error and len(error) < 400 and error.isprintable()
    assert str(tmp_path) in error


def test_parquet_errors(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": ["x"], "number": [1]}), path)
    assert error_of(file_corpus(path)) == f"{path}: row 1: corpus.field: there is no field 'text'; there are: title, number"
    assert "row 1: field 'number' holds int, not text" in error_of(file_corpus(path, "number"))
    path.write_bytes(path.read_bytes()[:-10])
    assert error_of(file_corpus(path)).startswith(f"{path}: not a readable parquet file")


def parquet_with_bad_utf8(path):
    """Three rows, of which the second is no UTF-8."""
    pq.write_table(pa.table({"text": pa.array([b"one", b"caf\xe9", b"two"], pa.binary()).view(pa.string())}), path)
    return path


def test_a_parquet_row_that_is_no_utf8_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")  # a bar that is off counts nothing
    path = parquet_with_bad_utf8(tmp_path / "a.parquet")
    assert error_of(file_corpus(path)).startswith(f"{path}: row 2: cannot read (UnicodeDecodeError")


def test_a_parquet_column_twice_is_named_and_one_with_a_dot_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a.b", "a"]), path)
    assert list(documents(file_corpus(path, "a.b"))) == ["x"] and list(documents(file_corpus(path, "a"))) == ["y"]
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"]), path)
    assert error_of(file_corpus(path)) == f"{path}: two columns have the same name 'text'; rename one"
    pq.write_table(pa.table({"text": [{"a": "x"}]}), path)
    assert "row 1: field 'text' holds dict, not text" in error_of(file_corpus(path))


def test_a_carriage_return_belongs_to_its_cell(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"id\ttext\r\n1\tone\rtwo\r\n2\tthree\r\n")
    (tmp_path / "a.csv").write_bytes(b'id,text\r\n1,"one\rtwo"\r\n2,three\r\n')
    for name in ("a.tsv", "a.csv"):
        assert list(documents(file_corpus(tmp_path / name))) == ["one\rtwo", "three"]


def test_half_a_surrogate_pair_in_a_file_becomes_the_replacement_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b"}\n', "utf-8")
    store = prepare(file_corpus(tmp_path / "a.jsonl"), tmp_path / "corpora")
    assert get_tokenizer("bytes").decode(store.document(0)) == "a\ufffdb"


def test_documents_without_text_are_counted_on_the_terminal(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": null}\n{"text": ""}\n', "utf-8")
    assert list(documents(file_corpus(tmp_path / "a.jsonl"))) == ["x"]
    assert "note: file:a.jsonl: 2 of 3 documents have no text and are left out\n" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_an_empty_line_of_a_single_column_is_counted(tmp_path, capsys, kind):
    (tmp_path / f"a.{kind}").write_text("text\n\nx\n\n\n", "utf-8")
    assert list(documents(file_corpus(tmp_path / f"a.{kind}"))) == ["x"]
    assert f"note: file:a.{kind}: 3 of 4 documents have no text and are left out\n" in capsys.readouterr().err


def test_the_name_of_a_file_does_not_steer_the_terminal(tmp_path, capsys):
    path = tmp_path / "a\x1b[2J.jsonl"
    path.write_text('{"text": "x"}\n{"text": null}\n', "utf-8")
    assert list(documents(file_corpus(path))) == ["x"]
    said = capsys.readouterr().err
    assert "a\ufffd[2J.jsonl" in said and "\x1b" not in said


# --- folders


def write_folder(folder):
    """A folder with a link to another folder, beside it, and one back to itself."""
    (folder / "texts" / "b").mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    (folder / "texts" / "a.txt").write_text("here")
    (folder / "texts" / "b" / "b.txt").write_text("below")
    (folder / "elsewhere" / "c.txt").write_text("there")
    (folder / "texts" / "linked").symlink_to(folder / "elsewhere")
    (folder / "texts" / "b" / "back").symlink_to(folder / "texts")
    (folder / "texts" / "a-first").symlink_to(folder / "texts" / "b")
    return folder / "texts"


def test_linked_folders_are_read_once_and_watched(tmp_path):
    corpus = Corpus(source="text", path=str(write_folder(tmp_path)))
    assert list(documents(corpus)) == ["here", "below", "there"]
    before = corpus_identity(corpus)
    (tmp_path / "elsewhere" / "c.txt").write_text("changed")
    assert corpus_identity(corpus) != before and list(documents(corpus)) == ["here", "below", "changed"]


@pytest.mark.parametrize("target", ["nowhere", "self"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, target):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "self").symlink_to(tmp_path / target)
    corpus = Corpus(source="text", path=str(tmp_path))
    assert f"{tmp_path / 'self'}: a link that leads nowhere" in error_of(corpus)
    with pytest.raises(SubloraError, match="self: a link that leads nowhere"):
        corpus_identity(corpus)


@pytest.mark.parametrize("path", ["~nouser/x", "x" * 5000])
@pytest.mark.parametrize("source", ["text", "file", "some/set"])
def test_paths_that_cannot_be_are_one_line(path, source):
    assert error_of(Corpus(source=source, path=path)).startswith("corpus.path: ")


def test_missing_file(tmp_path):
    path = tmp_path / "nowhere.jsonl"
    expected = f"{path}: does not exist; set corpus.path to a file (.jsonl, .csv, .tsv or .parquet)"
    assert error_of(file_corpus(path)) == expected
    with pytest.raises(SubloraError, match="does not exist"):
        corpus_identity(file_corpus(path))


def test_a_file_streams(tmp_path):
    path = tmp_path / "big.jsonl.xz"
    line = json.dumps({"text": "a text of some length " * 50}).encode() + b"\n"
    with lzma.open(path, "wb", preset=0) as stream:
        for _ in range(20_000):
            stream.write(line)  # 22 MB
    tracemalloc.start()
    assert sum(1 for _ in documents(file_corpus(path))) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_identity_follows_the_files(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n')
    first = corpus_identity(file_corpus(path))
    assert corpus_identity(file_corpus(path)) == first
    assert corpus_identity(file_corpus(path, "other")) != first
    folder = corpus_identity(Corpus(source="text", path=str(tmp_path)))
    path.write_text('{"text": "xy"}\n')
    assert corpus_identity(file_corpus(path)) != first
    assert corpus_identity(Corpus(source="text", path=str(tmp_path))) != folder


# --- Hugging Face


@pytest.fixture
def local_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"text": [TEXTS[0], None, *TEXTS[1:], ""]}), folder / "train-00000.parquet")
    return folder


def test_hugging_face_folder_streams(local_data_set):
    assert list(documents(Corpus(source=str(local_data_set)))) == TEXTS
    assert list(documents(Corpus(source="openwebtext", path=str(local_data_set)))) == TEXTS


@pytest.mark.parametrize("name", ["a[1]", "a?b", "{a}", "50%", "\u00fc"])
def test_a_local_copy_is_read_by_its_name_and_with_the_readers_of_files(tmp_path, name, capsys):
    for folder in (tmp_path / name, tmp_path / "a1", tmp_path / "acb"):
        folder.mkdir()
        (folder / "train.csv").write_text(f"id,text\n1,NA\n2,{folder.name}\n", "utf-8")
        (folder / "test.csv").write_text("id,text\n1,other\n", "utf-8")
    assert list(documents(Corpus(source="openwebtext", path=str(tmp_path / name)))) == ["NA", name]
    said = capsys.readouterr().err
    assert "1 files without `train` in their names are left out" in said and "are not .jsonl" not in said
    (tmp_path / name / "train-2.jsonl.zst").write_bytes(b"x")
    (tmp_path / name / "train-3.arrow").write_bytes(b"x")
    assert list(documents(Corpus(source="openwebtext", path=str(tmp_path / name)))) == ["NA", name]
    said = capsys.readouterr().err
    assert "2 files are not .jsonl, .csv, .tsv, .parquet, and are left out: train-2.jsonl.zst, train-3.arrow" in said
    (tmp_path / name / "train.csv").write_text("text,text\na,b\n")
    assert "the same name 'text'" in error_of(Corpus(source=str(tmp_path / name)))
    (tmp_path / name / "train.csv").rename(tmp_path / name / "train.jsonl")
    (tmp_path / name / "train.jsonl").write_text('{"text": "a"}\n{"other": "b"}\n')
    assert "train.jsonl: line 2: corpus.field: there is no field 'text'" in error_of(Corpus(source=str(tmp_path / name)))


def test_a_copy_that_is_no_folder_of_tables_is_named(tmp_path):
    (tmp_path / "README.md").write_text("x")
    assert "holds no .jsonl, .csv, .tsv or .parquet file" in error_of(Corpus(source=str(tmp_path)))
    assert "set corpus.source to file" in error_of(Corpus(source=str(tmp_path / "README.md")))
    assert "cannot read (No such file" in error_of(Corpus(source=str(tmp_path), subset="en"))


def test_hugging_face_unknown_field(local_data_set):
    error = error_of(Corpus(source=str(local_data_set), field="body"))
    assert error == f"{local_data_set / 'train-00000.parquet'}: row 1: corpus.field: there is no field 'body'; there are: text"


def test_openwebtext_is_asked_for_by_its_name_on_the_hub(monkeypatch):
    asked = []

    def load_dataset(*arguments, **keywords):
        asked.append((arguments, keywords))
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    error = error_of(Corpus(source="openwebtext"))
    assert error.startswith("Skylion007/openwebtext: cannot load the Hugging Face data set (ConnectionError: no network)")
    assert "check the network" in error
    error_of(Corpus(source="some/set", subset="en"))
    streaming = {"split": "train", "streaming": True}
    assert asked == [(("Skylion007/openwebtext", None), streaming), (("some/set", "en"), streaming)]


def test_hugging_face_data_set_that_fails_on_the_way(monkeypatch):
    def examples():
        yield {"text": "one"}
        raise OSError("connection lost")

    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(examples)
    )
    stream = documents(Corpus(source="some/set"))
    assert next(stream) == "one"
    with pytest.raises(SubloraError, match="^some/set: cannot load .*connection lost"):
        next(stream)
