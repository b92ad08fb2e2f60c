"""The token store: round trips, the smallest type, atomic builds, and every way in which a store can be broken."""

import hashlib
import json
import lzma
import multiprocessing
import platform
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sublora.data import TokenStore, build_store, draw_split, estimate, get_tokenizer, prepare, store, write_store
from sublora.errors import SubloraError
from sublora.experiment import Corpus

TEXTS = ["one", "", "two ünï", "three\n", "one"]
KEPT = ["one", "two ünï", "three\n", "one"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return Corpus(source="file", path=str(path))


@pytest.fixture
def built(tmp_path, corpus):
    return build_store(corpus, tmp_path / "store")


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def texts(store):
    decode = get_tokenizer(store.tokenizer).decode
    return [decode(store.document(i)) for i in range(len(store))]


def toy(path, arrays, vocab_size=256, eot=255):
    return write_store(path, arrays, name="toy", tokenizer="toy", vocab_size=vocab_size, eot=eot)


# --- what a store holds


def test_a_corpus_may_have_a_long_name_in_any_script(tmp_path):
    folder = tmp_path / ("\u6771" * 80)  # 240 bytes: with the hash and ".partial" behind it, more than a file's name may have
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    assert len(prepare(Corpus(source="text", path=str(folder)), tmp_path / "corpora")) == 1


def test_an_interrupted_build_goes_on_and_ends_with_the_same_store(tmp_path, monkeypatch, capsys):
    path = tmp_path / "docs.csv"
    rows = [f"{'' if number % 7 == 3 else f'text {number}'},{number % 5}" for number in range(60)]
    path.write_text("\n".join(["text,author", *rows, ""]))
    corpus = Corpus(source="file", path=str(path), group="author")
    whole = build_store(corpus, tmp_path / "whole")
    original, encoded, stop = get_tokenizer("bytes").encode, [], 20
    monkeypatch.setattr(store, "SECONDS_BETWEEN_SAVES", -1)

    def encode(text):
        encoded.append(text)
        if len(encoded) == stop:
            raise KeyboardInterrupt
        return original(text)

    monkeypatch.setattr(store, "TOGETHER", 1)
    monkeypatch.setattr(store.os, "cpu_count", lambda: 0)  # one document after the other
    tokenizer = SimpleNamespace(name="bytes", vocab_size=257, eot=256, encode_all=lambda texts: [encode(text) for text in texts])
    monkeypatch.setattr(store, "tokenizer_of", lambda *_: tokenizer)
    with pytest.raises(KeyboardInterrupt):
        build_store(corpus, tmp_path / "made")
    partial = tmp_path / ".made.partial"
    with open(partial / "tokens.bin", "ab") as tokens, open(partial / "documents.bin", "ab") as documents:
        tokens.write(b"written after the last note")
        documents.write(b"so was this")
    shutil.copytree(partial, tmp_path / ".cut.partial")
    (tmp_path / ".cut.partial" / "tokens.bin").write_bytes(b"short")
    stop = None
    capsys.readouterr()
    made = build_store(corpus, tmp_path / "made")
    assert "note: file:docs.csv: going on after 19 documents of an interrupted build" in capsys.readouterr().err
    assert len(whole) < len(encoded) <= len(whole) + 4  # those that were ahead when it was interrupted, twice
    cut = build_store(corpus, tmp_path / "cut")  # what cannot be gone on with is made anew
    for other in (made, cut):
        assert other.sha256 == whole.sha256 and {file.name for file in other.path.iterdir()} <= set(store.FILES)
        assert np.array_equal(other.groups, whole.groups) and np.array_equal(other.sizes, whole.sizes)


def test_a_large_corpus_is_announced_and_refused_where_the_disk_is_too_small(tmp_path, monkeypatch, capsys):
    draw = np.random.default_rng(0)
    lines = [json.dumps({"text": draw.bytes(int(draw.integers(1, 200))).hex()}) for _ in range(5000)]
    for suffix, opened in ((".jsonl", open), (".jsonl.xz", lzma.open)):
        path = tmp_path / f"docs{suffix}"
        with opened(path, "wt") as file:
            file.write("\n".join(lines))
        corpus, tokenizer = Corpus(source="file", path=str(path)), get_tokenizer("bytes")
        assert estimate.estimate(corpus, tokenizer, 2) is None  # small
        monkeypatch.setattr(estimate, "LARGE", 0)
        found = estimate.estimate(corpus, tokenizer, 2)
        made = build_store(corpus, tmp_path / suffix)
        assert "docs" in capsys.readouterr().err and found.seconds >= 0
        on_disk = sum(file.stat().st_size for file in made.path.iterdir())
        for about, real in ((found.documents, len(made)), (found.tokens, len(made.tokens)), (found.size, on_disk)):
            assert abs(about / real - 1) < 0.25
        monkeypatch.setattr(estimate, "LARGE", 2**26)
    monkeypatch.setattr(estimate, "LARGE", 0)
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SubloraError, match="0.0 GB are free, but the tokens need") as caught:
        build_store(corpus, tmp_path / "none")
    one_line(caught)


def test_documents_without_tokens_are_counted_on_the_terminal(tmp_path, capsys):
    assert len(toy(tmp_path / "toy", [np.array([1]), np.array([], np.int64), np.array([2])])) == 2
    assert capsys.readouterr().err == "note: toy: 1 documents have no token and are left out\n"


@pytest.mark.parametrize("content", [b"\x93NUMPY", b"PK\x03\x04", b"[" * 100_000], ids=["header", "zip", "nested"])
@pytest.mark.parametrize("name", ["offsets.npy", "meta.json"])
def test_a_file_of_another_kind_is_one_line(built, name, content):
    (built.path / name).write_bytes(content)
    with pytest.raises(SubloraError, match=f"{name}: not a whole token store") as caught:
        TokenStore.open(built.path)
    one_line(caught)


def test_round_trip(built):
    assert texts(built) == KEPT
    assert built.lengths.tolist() == [len(text.encode()) + 1 for text in KEPT]
    assert all(built.document(i)[-1] == built.eot == 256 for i in range(len(built)))
    assert (len(built), built.vocab_size, built.name, built.tokenizer) == (4, 257, "file:docs.jsonl", "bytes")
    assert built.tokens.dtype == np.uint16 and built.offsets.dtype == np.int64
    assert isinstance(built.tokens, np.memmap)


def test_a_store_is_read_only(built):
    for array in (built.tokens, built.offsets, built.document(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("i", [-1, 4])
def test_document_outside(built, i):
    with pytest.raises(IndexError, match=rf"document {i} is outside 0\.\.3"):
        built.document(i)


@pytest.mark.parametrize(
    "vocab_size, dtype", [(2, "u1"), (256, "u1"), (257, "<u2"), (50257, "<u2"), (65536, "<u2"), (65537, "<u4")]
)
def test_smallest_integer_type(tmp_path, vocab_size, dtype):
    ids = [np.array([0, vocab_size - 2]), np.array([0])]
    written = toy(tmp_path / "store", ids, vocab_size, vocab_size - 1)
    assert written.tokens.dtype == np.dtype(dtype)
    assert (tmp_path / "store" / "tokens.bin").stat().st_size == 5 * np.dtype(dtype).itemsize
    assert written.tokens.tolist() == [0, vocab_size - 2, vocab_size - 1, 0, vocab_size - 1]


def test_meta_says_what_is_there(built):
    meta = json.loads((built.path / "meta.json").read_text())
    assert meta == {
        "format": "sublora-tokens/1",
        "name": "file:docs.jsonl",
        "tokenizer": "bytes",
        "vocab_size": 257,
        "eot": 256,
        "documents": 4,
        "tokens": sum(len(text.encode()) + 1 for text in KEPT),
        "dtype": "uint16",
        "sha256": built.sha256,
    }


def test_sha256_follows_its_definition(built):
    rest = b'{"eot":256,"format":"sublora-tokens/1","tokenizer":"bytes","vocab_size":257}'
    tokens = (built.path / "tokens.bin").read_bytes()
    parts = hashlib.sha256(tokens).digest() + hashlib.sha256(built.offsets.tobytes()).digest() + rest
    assert hashlib.sha256(parts).hexdigest() == built.sha256


def test_sha256_depends_on_all_that_defines_the_documents(tmp_path):
    arrays = [np.array([1, 2]), np.array([3])]
    settings = {"name": "a", "tokenizer": "t", "vocab_size": 9, "eot": 8}
    stores = [
        write_store(tmp_path / "0", arrays, **settings),
        write_store(tmp_path / "1", arrays, **settings | {"tokenizer": "u"}),
        write_store(tmp_path / "2", arrays, **settings | {"vocab_size": 10}),
        write_store(tmp_path / "3", arrays, **settings | {"eot": 7}),
        write_store(tmp_path / "4", arrays[::-1], **settings),
        write_store(tmp_path / "5", [np.array([1, 2, 8, 3])], **settings),  # the same tokens, another boundary
    ]
    assert len({s.sha256 for s in stores}) == len(stores)
    same = write_store(tmp_path / "6", arrays, **settings | {"name": "b"}, information={"python": "x"})
    assert same.sha256 == stores[0].sha256


# --- the embedded corpus


def test_the_embedded_corpus(tmp_path):
    """Kept certificates depend on these numbers."""
    functions = prepare(Corpus(), tmp_path)
    known = (56_748, 43_575_430, "433bbdaa4a11d6b4e35d8787f1ff354e6f3f6b0a20a472a8913bc2c4b7702596")
    assert (len(functions), len(functions.tokens), functions.sha256) == known
    assert len({functions.document(i).tobytes() for i in range(len(functions))}) == len(functions)
    for i in draw_split(len(functions), Corpus()).test[:100]:
        text = get_tokenizer("bytes").decode(functions.document(i))
        assert "def " in text and text.endswith("\n")
    again = prepare(Corpus(split_seed=1, train=0.5), tmp_path)  # the split is no part of the key
    assert again.path == functions.path and again.sha256 == functions.sha256


# --- max_documents


def test_max_documents_keeps_a_uniform_sample_in_order(tmp_path):
    pool = [f"document {i}" for i in range(200)]
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in pool))
    corpus = Corpus(source="file", path=str(path), max_documents=50)
    keys = [hashlib.sha256(b"sublora sample %d" % i).digest() for i in range(200)]
    expected = [pool[i] for i in sorted(sorted(range(200), key=keys.__getitem__)[:50])]
    assert texts(build_store(corpus, tmp_path / "store")) == expected
    assert 80 < np.mean([pool.index(text) for text in expected]) < 120  # neither the head nor the tail
    everything = build_store(corpus.model_copy(update={"max_documents": 1000}), tmp_path / "store")
    assert texts(everything) == pool


# --- building


@pytest.mark.parametrize("ids, wrong", [([1, 9], 9), ([2**40], 2**40), ([3, -1], -1)])
def test_token_id_outside_the_vocabulary(tmp_path, ids, wrong):
    with pytest.raises(SubloraError) as caught:
        toy(tmp_path / "store", [np.array([1]), np.array(ids)], vocab_size=9, eot=8)
    assert one_line(caught) == f"toy: document 1 has token id {wrong}, outside 0..8 of tokenizer toy"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arrays", [[], [np.array([], dtype=int)] * 3])
def test_no_document_with_a_token(tmp_path, arrays):
    with pytest.raises(SubloraError, match="^toy: the corpus is empty: no document has a token"):
        toy(tmp_path / "store", arrays)
    assert list(tmp_path.iterdir()) == []


def test_documents_without_tokens_are_dropped(tmp_path):
    assert len(toy(tmp_path / "store", [np.array([], dtype=int), np.array([1]), np.array([], dtype=int)])) == 1


def test_a_corpus_of_empty_documents(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text('{"text": ""}\n' * 3)
    with pytest.raises(SubloraError, match=f"^file: no document with text in {path}"):
        build_store(Corpus(source="file", path=str(path)), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_leaves_nothing_and_keeps_the_old_store(tmp_path, built, error):
    def interrupted():
        yield np.array([1])
        raise error

    for path in (tmp_path / "new", built.path):
        with pytest.raises(error):
            toy(path, interrupted())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["docs.jsonl", "store"]
    assert texts(TokenStore.open(built.path)) == KEPT


def test_a_killed_build_is_not_accepted_and_a_new_one_starts_cleanly(tmp_path, corpus):
    partial = tmp_path / ".store.partial"
    partial.mkdir()
    (partial / "tokens.bin").write_bytes(b"half")
    (partial / "left.over").touch()
    with pytest.raises(SubloraError, match="meta.json"):
        TokenStore.open(tmp_path / "store")
    assert texts(build_store(corpus, tmp_path / "store")) == KEPT
    assert not partial.exists()


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path, corpus):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "letter").write_text("dear")
    for name in ("home", "letter"):
        with pytest.raises(SubloraError, match=f"{name}: exists and is no token store"):
            build_store(corpus, tmp_path / name)
    assert (tmp_path / "home" / "thesis.tex").exists() and (tmp_path / "letter").exists()


def test_unwritable_folder(tmp_path, corpus):
    (tmp_path / "file").touch()  # nothing can be written below a file, not even by the superuser
    for write in (lambda: build_store(corpus, tmp_path / "file" / "store"), lambda: prepare(corpus, tmp_path / "file")):
        with pytest.raises(SubloraError, match="file.*: cannot write .*choose another folder") as caught:
            write()
        one_line(caught)


def test_disk_full(tmp_path):
    def documents():
        yield np.array([1])
        raise OSError(28, "No space left on device")

    with pytest.raises(SubloraError, match="cannot write .No space left on device.; free space"):
        toy(tmp_path / "store", documents())
    assert list(tmp_path.iterdir()) == []


# --- broken stores


def change_meta(path, **changes):
    meta = json.loads((path / "meta.json").read_text()) | changes
    (path / "meta.json").write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


BREAK = {
    "tokens cut": ("tokens.bin", lambda path: cut(path / "tokens.bin", -2)),
    "tokens cut to nothing": ("tokens.bin", lambda path: cut(path / "tokens.bin", 0)),
    "tokens cut inside an id": ("tokens.bin", lambda path: cut(path / "tokens.bin", -1)),
    "tokens longer": ("tokens.bin", lambda path: (path / "tokens.bin").write_bytes(bytes(1000))),
    "tokens missing": ("tokens.bin", lambda path: (path / "tokens.bin").unlink()),
    "token changed": ("tokens.bin", lambda path: flip(path / "tokens.bin", 0)),
    "token id >= V": ("tokens.bin", lambda path: flip(path / "tokens.bin", 1)),  # "o" + 256
    "end changed": ("tokens.bin", lambda path: flip(path / "tokens.bin", -2)),
    "offsets cut": ("offsets.npy", lambda path: cut(path / "offsets.npy", -8)),
    "offsets cut in the header": ("offsets.npy", lambda path: cut(path / "offsets.npy", 20)),
    "offsets empty": ("offsets.npy", lambda path: cut(path / "offsets.npy", 0)),
    "offsets missing": ("offsets.npy", lambda path: (path / "offsets.npy").unlink()),
    "offsets of another number": ("offsets.npy", lambda path: np.save(path / "offsets.npy", np.arange(3))),
    "offsets of another type": ("offsets.npy", lambda path: np.save(path / "offsets.npy", np.zeros(5))),
    "offsets pickled": ("offsets.npy", lambda path: np.save(path / "offsets.npy", np.array([{}] * 5))),
    "offsets not rising": ("offsets.npy", lambda path: np.save(path / "offsets.npy", np.array([0, 4, 4, 21, 25]))),
    "offsets from 1": ("offsets.npy", lambda path: np.save(path / "offsets.npy", np.array([1, 4, 14, 21, 25]))),
    "offsets beyond": ("offsets.npy", lambda path: np.save(path / "offsets.npy", np.array([0, 4, 14, 21, 26]))),
    "boundary moved": ("tokens.bin", lambda path: np.save(path / "offsets.npy", np.array([0, 5, 14, 21, 25]))),
    "meta missing": ("meta.json", lambda path: (path / "meta.json").unlink()),
    "meta no JSON": ("meta.json", lambda path: cut(path / "meta.json", -5)),
    "meta no text": ("meta.json", lambda path: (path / "meta.json").write_bytes(b"\xff")),
    "meta a list": ("meta.json", lambda path: (path / "meta.json").write_text("[]")),
    "other format": ("meta.json", lambda path: change_meta(path, format="sublora-tokens/2")),
    "no vocab_size": ("meta.json", lambda path: change_meta(path, vocab_size=None)),
    "vocab_size a text": ("meta.json", lambda path: change_meta(path, vocab_size="257")),
    "vocab_size true": ("meta.json", lambda path: change_meta(path, vocab_size=True)),
    "eot >= V": ("meta.json", lambda path: change_meta(path, eot=257)),
    "negative": ("meta.json", lambda path: change_meta(path, tokens=-1)),
    "no documents": ("meta.json", lambda path: change_meta(path, documents=0)),
    "another tokenizer": ("tokens.bin", lambda path: change_meta(path, tokenizer="other")),
    "another vocab_size": ("tokens.bin", lambda path: change_meta(path, vocab_size=258)),
    "another hash": ("tokens.bin", lambda path: change_meta(path, sha256="0" * 64)),
    "folder missing": ("meta.json", lambda path: shutil.rmtree(path)),
}


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_store_is_refused(built, how):
    file, damage = BREAK[how]
    damage(built.path)
    with pytest.raises(SubloraError) as caught:
        TokenStore.open(built.path)
    assert one_line(caught).startswith(f"{built.path / file}: not a whole token store (")


def test_an_id_beyond_the_vocabulary_is_named(built):
    flip(built.path / "tokens.bin", 1)
    with pytest.raises(SubloraError, match=rf"token id {256 + ord('o')}, outside 0\.\.256"):
        TokenStore.open(built.path)


def test_large_stores_are_verified_on_request(built, monkeypatch):
    monkeypatch.setattr(store, "HASHED_ON_OPEN", 10)
    monkeypatch.setattr(store, "CHUNK", 3)  # several chunks
    TokenStore.open(built.path).verify()
    flip(built.path / "tokens.bin", 0)
    opened = TokenStore.open(built.path)
    with pytest.raises(SubloraError, match="another SHA-256"):
        opened.verify()


# --- prepare


def test_prepare_builds_once(tmp_path, corpus, monkeypatch):
    first = prepare(corpus, tmp_path / "stores")
    assert first.path.name.startswith("file-docs.jsonl-bytes-")

    def never(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(store, "build_store", never)
    again = prepare(corpus.model_copy(update={"split_seed": 9, "validation": 0.1}), tmp_path / "stores")
    assert again.path == first.path and texts(again) == KEPT


def test_prepare_notices_what_changed(tmp_path, corpus, monkeypatch):
    root = tmp_path / "stores"
    first = prepare(corpus, root)
    assert prepare(corpus.model_copy(update={"max_documents": 2}), root).path != first.path
    Path(corpus.path).write_text('{"text": "other"}\n')
    assert texts(prepare(corpus, root)) == ["other"]


def test_prepare_replaces_a_broken_store_and_says_so(tmp_path, corpus):
    first = prepare(corpus, tmp_path)
    cut(first.path / "tokens.bin", -2)
    with pytest.warns(UserWarning, match="tokens.bin: not a whole token store .*building it again"):
        assert texts(prepare(corpus, tmp_path)) == KEPT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(corpus, tmp_path)


def test_prepare_names_a_missing_file(tmp_path):
    with pytest.raises(SubloraError, match="nowhere.csv: does not exist"):
        prepare(Corpus(source="file", path=str(tmp_path / "nowhere.csv")), tmp_path / "stores")
    assert not (tmp_path / "stores").exists()


def test_another_interpreter_has_another_store(tmp_path, monkeypatch):
    root, stdlib = tmp_path / "lib", Corpus(source="python-stdlib")
    root.mkdir()
    (root / "a.py").write_text("def f(): pass\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(root))
    first = prepare(stdlib, tmp_path / "stores")
    assert json.loads((first.path / "meta.json").read_text())["python"] == platform.python_version()
    monkeypatch.setattr(sys, "version", sys.version.replace(platform.python_version(), "3.99.0"))
    assert prepare(stdlib, tmp_path / "stores").path != first.path


def _prepare_and_say_when_built(corpus, root, results):
    results.put(prepare(corpus, root).path.stat().st_ino)


def test_two_processes_build_one_store(tmp_path, corpus):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (corpus, tmp_path / "stores", results)
    processes = [context.Process(target=_prepare_and_say_when_built, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert results.get() == results.get()  # the same folder, not one that replaced the other's


# --- shuffled tokens


def test_tokens_are_shuffled_within_windows_in_an_order_that_the_document_alone_fixes(tmp_path, corpus):
    ids = np.arange(100, 123).astype(np.uint16)
    mixed = store.shuffled(ids, 5)
    for begin in range(0, 23, 5):
        assert sorted(mixed[begin : begin + 5]) == list(ids[begin : begin + 5])
    key = hashlib.shake_256(b"sublora shuffle 5 " + ids.astype("<i8").tobytes()).digest(8 * 23)
    keys = [int.from_bytes(key[8 * i : 8 * i + 8], "little") for i in range(23)]
    assert list(mixed) == [ids[i] for i in sorted(range(23), key=lambda i: (i // 5, keys[i]))]
    assert sorted(store.shuffled(ids, 1000)) == list(ids) != list(store.shuffled(ids, 1000))
    plain = prepare(corpus, tmp_path / "corpora")
    within = prepare(corpus.model_copy(update={"shuffle": 1000}), tmp_path / "corpora")
    assert within.sha256 != plain.sha256 and within.name.endswith("shuffled within 1,000")
    assert [sorted(within.document(i)) for i in range(4)] == [sorted(plain.document(i)) for i in range(4)]
    assert texts(within)[0] == texts(within)[3] and list(within.tokens) != list(plain.tokens)


def test_windows_of_one_token_would_shuffle_nothing():
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Corpus(shuffle=1)
    assert "shuffle" not in Corpus().model_dump()
