"""Token ids on disk: one flat memory-mapped array, where each document begins, and how many bytes its text has."""

import collections
import contextlib
import hashlib
import heapq
import itertools
import json
import os
import platform
import re
import shutil
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, model_validator

from sublora.atomic import write_text
from sublora.data.corpora import corpus_identity, corpus_name, grouped_documents
from sublora.data.estimate import announce
from sublora.data.rows import whole_characters
from sublora.data.tokenizers import Tokenizer, tokenizer_of
from sublora.errors import SubloraError, cannot_write, errors_named
from sublora.experiment import Corpus
from sublora.progress import notice

FORMAT = "sublora-tokens/1"
FILES = ("tokens.bin", "offsets.npy", "meta.json", "sizes.npy", "groups.npy")
"""The last two are where they are needed: the number of bytes goes without saying for tokenizer bytes, and groups are of a
column."""
HASHED_ON_OPEN = 2**30  # bytes of tokens; a larger store is checked in full by `verify` only
CHUNK = 2**24  # tokens looked at together
SECONDS_BETWEEN_SAVES = 30
TOGETHER = 128  # documents that a core tokenizes at once


Text = TypeVar("Text")


class Written(NamedTuple):
    """A document to be written. ids: without the end-of-text id; size: bytes of its text; whole: whether they are the bytes that
    its ids decode to; group: what stands in the column of its group, if there is one."""

    ids: np.ndarray
    size: int
    whole: bool = True
    group: str | None = None


@dataclass(frozen=True, eq=False)
class TokenStore:
    """M documents; document i is `tokens[offsets[i]:offsets[i+1]]`, at least one id and then `eot`.

    tokens: read-only memory map, shape [N], the smallest unsigned integers for `vocab_size` ids; offsets: int64, [M+1].
    sha256 is over tokens, offsets, tokenizer, vocab_size and eot: stores with the same hash hold the same documents.
    sizes: b of each document, the bytes of its text and one more, int64 [M]; None where nobody counted them. altered: how many
    documents the tokenizer does not give back byte for byte.
    groups: the number of each document's group, 0, 1, ... in order of first appearance, int64 [M]; None without a column of groups.
    """

    path: Path
    name: str
    tokenizer: str
    vocab_size: int
    eot: int
    sha256: str
    tokens: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    sizes: np.ndarray | None = field(default=None, repr=False)
    altered: int = 0
    groups: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, its end-of-text included: int64, shape [M]."""
        return np.diff(self.offsets)

    def document(self, i: int) -> np.ndarray:
        """The ids of document i, ending with `eot`: a read-only view, shape [lengths[i]]. IndexError outside 0..M-1."""
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} is outside 0..{len(self) - 1} of {self.path}")
        return np.asarray(self.tokens[self.offsets[i] : self.offsets[i + 1]])

    @classmethod
    def open(cls, path: str | Path) -> "TokenStore":
        """Open the store in folder `path`; up to 1 GiB of tokens are verified too (`verify`), of more only the sizes.

        Raises SubloraError naming the file that is missing, cut, altered or of another format.
        """
        path = Path(path)
        with _errors_named(path / "meta.json"):
            meta = _Meta.model_validate_json((path / "meta.json").read_bytes())
        dtype, documents = token_dtype(meta.vocab_size), meta.documents
        with _errors_named(path / "tokens.bin"):
            tokens = np.memmap(path / "tokens.bin", dtype=dtype, mode="r")
            if len(tokens) != meta.tokens:
                raise ValueError(f"{len(tokens)} tokens, {meta.tokens} expected")
        with _errors_named(path / "offsets.npy"):
            offsets = np.load(path / "offsets.npy", allow_pickle=False)
            if offsets.dtype != np.int64 or offsets.shape != (documents + 1,):
                raise ValueError(f"{offsets.dtype}{list(offsets.shape)}, int64[{documents + 1}] expected")
            if offsets[0] != 0 or offsets[-1] != len(tokens) or np.diff(offsets).min() < 2:
                raise ValueError("it must rise from 0 to the number of tokens, by at least 2 a document")
        offsets.flags.writeable = False
        sizes = np.diff(offsets) if meta.tokenizer == "bytes" else _numbers(path / "sizes.npy", documents, least=2)
        if (groups := _numbers(path / "groups.npy", documents, least=0)) is not None:
            with _errors_named(path / "groups.npy"):
                if groups_sha256(groups) != meta.groups_sha256:
                    raise ValueError("its content has another SHA-256 than meta.json says")
        stated = (meta.name, meta.tokenizer, meta.vocab_size, meta.eot, meta.sha256)
        store = cls(path, *stated, tokens, offsets, sizes, meta.altered, groups)
        if tokens.nbytes <= HASHED_ON_OPEN:
            store.verify()
        return store

    def verify(self) -> None:
        """Read every token. Raises SubloraError: an id >= vocab_size, a document without end, or another SHA-256."""
        digest = hashlib.sha256()
        with _errors_named(self.path / "tokens.bin"):
            for start in range(0, len(self.tokens), CHUNK):
                chunk = self.tokens[start : start + CHUNK]
                if chunk.max() >= self.vocab_size:
                    raise ValueError(f"it holds token id {chunk.max()}, outside 0..{self.vocab_size - 1}")
                digest.update(chunk.data)
            if (self.tokens[self.offsets[1:] - 1] != self.eot).any():
                raise ValueError(f"a document does not end with the end-of-text id {self.eot}")
            if _sha256(digest, self.offsets, self.tokenizer, self.vocab_size, self.eot) != self.sha256:
                raise ValueError("its content, or that of offsets.npy, has another SHA-256 than meta.json says")


def _numbers(file: Path, documents: int, least: int) -> np.ndarray | None:
    """One number a document, from a file of a store; None where it does not have that file."""
    if not file.exists():
        return None
    with _errors_named(file):
        numbers = np.load(file, allow_pickle=False)
        if numbers.dtype != np.int64 or numbers.shape != (documents,) or numbers.min() < least:
            raise ValueError(f"{numbers.dtype}{list(numbers.shape)}, int64[{documents}] of {least} or more expected")
    numbers.flags.writeable = False
    return numbers


def groups_sha256(groups: np.ndarray) -> str:
    """SHA-256 of the numbers of the documents' groups."""
    return hashlib.sha256(groups.astype("<i8").tobytes()).hexdigest()


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest little-endian unsigned integer type that holds the ids 0..vocab_size-1."""
    return np.min_scalar_type(vocab_size - 1).newbyteorder("<")


def prepare(corpus: Corpus, root: str | Path, wheels: Path | None = None, *, local_only: bool = False) -> TokenStore:
    """The token store of `corpus` below the folder `root`: opened if it is there and whole, built otherwise.

    Processes that ask for the same store at the same time build it once. wheels, local_only: as `build_store`, which also
    says what is raised.
    """
    path = store_path(corpus, root)
    if (store := _open_if_whole(path)) is not None:  # without the lock, so that a read-only folder can be used
        return store
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_name(f".{path.name}.lock")))
        except OSError as error:
            raise cannot_write(root, error) from None
        if (store := _open_if_whole(path)) is not None:  # another process has built it meanwhile
            return store
        return build_store(corpus, path, wheels, local_only=local_only)


def store_path(corpus: Corpus, root: str | Path) -> Path:
    """Where `prepare` keeps the store of `corpus` below `root`.

    The folder's name ends in a hash of all that the tokens depend on (`corpus_identity`: files by size and time of
    change, packages by their wheels, the standard library by its interpreter); how the corpus is split is no part of it.
    """
    identity = json.dumps({"format": FORMAT, **corpus_identity(corpus)}, sort_keys=True)
    readable = re.sub(r"[^A-Za-z0-9.-]", "-", f"{corpus_name(corpus)}-{corpus.tokenizer}")[:80]
    return Path(root) / f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def find_store(root: str | Path, sha256: str, groups: str | None = None) -> TokenStore | None:
    """The prepared corpus below the folder `root` with this SHA-256, whatever it was prepared from; None if there is none.

    groups: the SHA-256 of its groups, if it must have some. One that has counts of bytes comes first.
    Raises SubloraError for one that is no longer whole.
    """
    wanted, grouped = (sha256, groups), groups is not None
    stores = [meta.parent for meta in sorted(Path(root).glob("*/meta.json")) if _stated(meta, grouped) == wanted]
    stores.sort(key=lambda path: not (path / "sizes.npy").exists())
    return TokenStore.open(stores[0]) if stores else None


def _stated(meta: Path, grouped: bool) -> tuple[str, str | None] | None:
    with contextlib.suppress(OSError, ValueError):  # no store's
        found = _Meta.model_validate_json(meta.read_bytes())
        return found.sha256, found.groups_sha256 if grouped else None
    return None


def _open_if_whole(path: Path) -> TokenStore | None:
    if not path.exists():
        return None
    try:
        store = TokenStore.open(path)
        return store if store.sizes is not None else None  # prepared before bytes were counted: anew
    except SubloraError as error:
        warnings.warn(f"{error} (building it again now)", stacklevel=3)
        return None


def build_store(corpus: Corpus, path: str | Path, wheels: Path | None = None, *, local_only: bool = False) -> TokenStore:
    """Tokenize the corpus into the folder `path`, replacing a store that is there. Needs one pass and bounded memory.

    What a large corpus will take is said first. An interrupted build is gone on with: the documents that it had are read again, but
    not tokenized.

    `max_documents` keeps a uniform sample of the documents, in their order: those with the smallest
    SHA-256("sublora sample " + position in decimal). No seed enters it, so that the pool is the same for every split; the
    whole corpus is read even so. wheels: the folder of a `python-packages` corpus. local_only: no tokenizer is downloaded.
    Raises SubloraError for what is wrong with the corpus, and when `path` cannot be written.
    """
    tokenizer = tokenizer_of(corpus, local_only)
    texts: Iterable[tuple[str, str | None]] = grouped_documents(corpus, wheels)
    if corpus.max_documents is not None:
        texts = _sample(texts, corpus.max_documents)
    information = {"python": platform.python_version()} if corpus.source == "python-stdlib" else {}
    what: dict[str, Any] = {"tokenizer": tokenizer.name, "vocab_size": tokenizer.vocab_size, "eot": tokenizer.eot}
    announce(corpus, tokenizer, token_dtype(tokenizer.vocab_size).itemsize, Path(path), corpus_name(corpus))

    def written(begun: int) -> Iterator[Written]:
        return _tokenized(tokenizer, itertools.islice(texts, begun, None), corpus.shuffle)

    return write_store(path, written, name=corpus_name(corpus), **what, information=information)


def _tokenized(tokenizer: Tokenizer, texts: Iterable[tuple[str, str | None]], window: int | None) -> Iterator[Written]:
    """The documents (text, group) in their order, some of them at a time on each core. window: as `shuffled` has it; None: none."""
    cores, reading = os.cpu_count() or 1, iter(texts)
    with ThreadPoolExecutor(cores) as pool:
        ahead: collections.deque[Future[list[Written]]] = collections.deque()
        while (some := list(itertools.islice(reading, TOGETHER))) or ahead:
            if some:
                ahead.append(pool.submit(_written, tokenizer, some, window))
            if not some or len(ahead) > 2 * cores:
                yield from ahead.popleft().result()


def _written(tokenizer: Tokenizer, some: list[tuple[str, str | None]], window: int | None) -> list[Written]:
    """The documents, with their sizes. Whether each comes back byte for byte: one that does not could cost next to nothing a
    byte."""
    found = []
    for (text, group), ids in zip(some, tokenizer.encode_all([text for text, _ in some]), strict=True):
        given = whole_characters(text).encode()
        ids = ids if window is None else shuffled(ids, window)
        found.append(Written(ids, len(given), tokenizer.name == "bytes" or tokenizer.to_bytes(ids) == given, group))
    return found


def shuffled(ids: np.ndarray, window: int) -> np.ndarray:
    """A document's tokens, shuffled within consecutive windows of so many; the last one may be shorter.

    A public map of the document alone, applied to the whole pool before the split (section 1 of the theory): a bound on shuffled
    documents is as sound as one on others. The key of token i is bytes 8i..8i+7, little-endian, of
    SHAKE-256("sublora shuffle " + the window in decimal + " " + the ids as little-endian int64). Tokens are sorted by window, then
    by key.
    """
    text = f"sublora shuffle {window} ".encode() + ids.astype("<i8").tobytes()
    keys = np.frombuffer(hashlib.shake_256(text).digest(8 * len(ids)), dtype="<u8")
    return ids[np.lexsort((keys, np.arange(len(ids)) // window))]


def write_store(
    path: str | Path,
    documents: Iterable[np.ndarray | Written] | Callable[[int], Iterable[Written]],
    *,
    name: str,
    tokenizer: str,
    vocab_size: int,
    eot: int,
    information: dict[str, Any] | None = None,
) -> TokenStore:
    """Write documents (arrays of ids without the end-of-text id, which is added) as a store, whole or not at all.

    documents: them, or a function that gives all but so many at their beginning. With the function, what an interrupted build left
    is gone on with: the documents must be the same.
    Where all of them are `Written`, the store has their sizes and, if they have some, their groups. Documents without ids are left
    out; how many is said on standard error. All files are written beside `path` in `.<name>.partial`, which is renamed at the end.
    `information` goes into meta.json, outside the hash.
    Raises SubloraError for an id >= vocab_size, for no document at all, and when the folder cannot be written.
    """
    path = Path(path)
    building = _Building(path.with_name(f".{path.name}.partial"), tokenizer, vocab_size, eot)
    try:
        if path.is_symlink() or path.exists() and not (path.is_dir() and {entry.name for entry in path.iterdir()} <= set(FILES)):
            raise SubloraError(f"{path}: exists and is no token store; choose another folder, or move it away")
        begun = building.begin(again=not callable(documents))
        if begun:
            notice(f"{name}: going on after {begun:,} documents of an interrupted build")
        for each in documents(begun) if callable(documents) else documents:
            building.add(each, name)
        if building.empty:
            notice(f"{name}: {building.empty:,} documents have no token and are left out")
        building.finish(name, information or {})
        if path.exists():
            shutil.rmtree(path)
        building.folder.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        building.close(keep=callable(documents))
    return TokenStore.open(path)


class _Building:
    """A store while it is written. What was noted in `state.json` survives a kill; what came behind is cut off.

    documents.bin has for each document its tokens, its size or 0, and the number of its group or -1, int64.
    """

    def __init__(self, folder: Path, tokenizer: str, vocab_size: int, eot: int):
        self.folder, self.vocab_size, self.eot, self.tokenizer = folder, vocab_size, eot, tokenizer
        self.dtype, self.digest = token_dtype(vocab_size), hashlib.sha256()
        self.documents, self.groups = array("q"), dict[str, int]()
        self.empty = self.altered = self.noted = 0
        self.stream: BinaryIO | None = None
        self.saved = time.monotonic()

    def begin(self, again: bool) -> int:
        """Open the files; returns how many documents an earlier build had read. again: leave nothing of it."""
        tokens, rows = self.folder / "tokens.bin", self.folder / "documents.bin"
        try:
            state = {} if again else json.loads((self.folder / "state.json").read_text("utf-8"))
            counts = [state[name] for name in ("tokens", "documents", "empty", "altered")]
            if state["of"] != self._identity() or tokens.stat().st_size < counts[0] * self.dtype.itemsize:
                raise ValueError("another store's, or cut")
            os.truncate(tokens, counts[0] * self.dtype.itemsize)
            os.truncate(rows, counts[1] * 24)
            self.documents = array("q", rows.read_bytes())
            _, self.noted, self.empty, self.altered = counts
            self.groups = {group: number for number, group in enumerate(state["groups"])}
            if sum(self.documents[::3]) != counts[0] or len(self.documents) != 3 * self.noted:
                raise ValueError("the files do not belong together")
            with open(tokens, "rb") as stream:
                while chunk := stream.read(CHUNK):
                    self.digest.update(chunk)
        except (OSError, ValueError, KeyError, TypeError):  # nothing to go on with
            self.documents, self.groups, self.empty, self.altered, self.noted = array("q"), {}, 0, 0, 0
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        self.stream = open(tokens, "ab")
        return self.noted + self.empty

    def _identity(self) -> list[Any]:
        return [FORMAT, self.tokenizer, self.vocab_size, self.eot]

    def add(self, each: np.ndarray | Written, name: str) -> None:
        """Write a document."""
        assert self.stream is not None
        ids = each.ids if isinstance(each, Written) else each
        if len(ids) == 0:
            self.empty += 1
            return
        if ids.max() >= self.vocab_size or ids.min() < 0:
            wrong = ids[(ids < 0) | (ids >= self.vocab_size)][0]
            allowed = f"0..{self.vocab_size - 1} of tokenizer {self.tokenizer}"
            raise SubloraError(f"{name}: document {len(self.documents) // 3} has token id {wrong}, outside {allowed}")
        data = np.empty(len(ids) + 1, self.dtype)
        data[:-1], data[-1] = ids, self.eot
        self.stream.write(data.data)
        self.digest.update(data.data)
        size, group = 0, -1
        if isinstance(each, Written):
            size = each.size + 1
            self.altered += not each.whole
            if each.group is not None:
                group = self.groups.setdefault(each.group, len(self.groups))
        self.documents.extend((len(data), size, group))
        if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES:
            self._save()

    def _save(self) -> None:
        """Note what there is: tokens and documents first, as the note must not say more than what is written."""
        assert self.stream is not None
        self.stream.flush()
        os.fsync(self.stream.fileno())
        with open(self.folder / "documents.bin", "ab") as rows:
            rows.write(self.documents[3 * self.noted :].tobytes())
            rows.flush()
            os.fsync(rows.fileno())
        self.noted = len(self.documents) // 3
        counts = {"tokens": self.stream.tell() // self.dtype.itemsize, "documents": self.noted}
        state = {"of": self._identity(), **counts, "empty": self.empty, "altered": self.altered, "groups": list(self.groups)}
        write_text(self.folder / "state.json", json.dumps(state))
        self.saved = time.monotonic()

    def finish(self, name: str, information: dict[str, Any]) -> None:
        """Write the rest of the store, and delete what only an interrupted build needs."""
        assert self.stream is not None
        self.stream.close()
        if not self.documents:
            raise SubloraError(f"{name}: the corpus is empty: no document has a token; choose another corpus")
        lengths, sizes, groups = np.frombuffer(self.documents, np.int64).reshape(-1, 3).T
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        counted = {} if self.tokenizer == "bytes" or sizes.min() < 1 else {"sizes": sizes}
        counted |= {} if groups.min() < 0 else {"groups": groups}
        for each, values in {"offsets": bounds, **counted}.items():
            np.save(self.folder / f"{each}.npy", values, allow_pickle=False)
        meta = {
            "format": FORMAT,
            "name": name,
            "tokenizer": self.tokenizer,
            "vocab_size": self.vocab_size,
            "eot": self.eot,
            "documents": len(lengths),
            "tokens": int(bounds[-1]),
            "dtype": self.dtype.name,
            "sha256": _sha256(self.digest, bounds, self.tokenizer, self.vocab_size, self.eot),
            **({"altered": self.altered} if self.altered else {}),
            **({"groups_sha256": groups_sha256(groups)} if "groups" in counted else {}),
            **information,
        }
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", "utf-8")
        for left in ("documents.bin", "state.json"):
            (self.folder / left).unlink(missing_ok=True)

    def close(self, keep: bool) -> None:
        """Close the files. keep: leave what a later build can go on with; else, and if that is nothing, delete all."""
        if self.stream is not None:
            with contextlib.suppress(OSError):  # where it matters, `finish` has closed them, or the disk is full and that is said
                self.stream.close()
        if not (keep and (self.folder / "state.json").exists()):
            shutil.rmtree(self.folder, ignore_errors=True)


def _sample(texts: Iterable[Text], size: int) -> list[Text]:
    """`size` of the texts (all, if there are fewer), uniformly at random by position, in their order."""
    numbered = heapq.nsmallest(size, enumerate(texts), key=lambda pair: hashlib.sha256(b"sublora sample %d" % pair[0]).digest())
    return [text for _, text in sorted(numbered)]


def _sha256(tokens: Any, offsets: np.ndarray, tokenizer: str, vocab_size: int, eot: int) -> str:
    """SHA-256 of: the tokens' SHA-256 (given as a hash object), the offsets' SHA-256, and the rest as canonical JSON."""
    rest = {"format": FORMAT, "tokenizer": tokenizer, "vocab_size": vocab_size, "eot": eot}
    digest = hashlib.sha256(tokens.digest())
    digest.update(hashlib.sha256(offsets.astype("<i8").tobytes()).digest())
    digest.update(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


class _Meta(BaseModel):
    """What meta.json must say."""

    model_config = ConfigDict(strict=True)

    format: Literal["sublora-tokens/1"]
    name: str
    tokenizer: str
    sha256: str
    vocab_size: PositiveInt
    eot: NonNegativeInt
    documents: PositiveInt
    tokens: PositiveInt
    altered: NonNegativeInt = 0
    groups_sha256: str | None = None

    @model_validator(mode="after")
    def _eot_is_a_token(self):
        if self.eot >= self.vocab_size:
            raise ValueError("eot must be below vocab_size")
        return self


def _errors_named(file: Path) -> contextlib.AbstractContextManager[None]:
    """Whatever is wrong with a file of a store, as one line."""
    return errors_named(f"{file}: not a whole token store", "remove its folder and prepare the corpus again")
