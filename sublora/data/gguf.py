"""Files of llama.cpp (GGUF): one file holds a model's weights, its configuration and its tokenizer."""

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from sublora.data.files import given_path
from sublora.errors import SubloraError, cannot_write, errors_named
from sublora.progress import notice, silence_transformers
from sublora.study import study_folder

KEPT = Path("data", "gguf")
"""Where what was made of such files stays, in the study."""
MOST_TENSORS, MOST_FIELDS = 10_000, 10_000
"""Real files have some hundreds of tensors, and some dozens of fields."""


def is_gguf(source: str) -> bool:
    """Whether a source is named as such a file."""
    return source.lower().endswith(".gguf")


def kept_folder(source: str, key: str, part: str, make: Callable[[Path, Path], None]) -> Path:
    """The folder that `make` (of the file and an empty folder) fills, once for each content of a GGUF file: `transformers` takes
    minutes to read one, and seconds for its own form. part: "model" or "tokenizer".

    It is below `KEPT`, under the SHA-256 of the file. What is read there later is checked as any other model's folder.
    Raises SubloraError naming `key` for a file that is not there or is no GGUF file; then nothing is written.
    """
    path = given_path(source, key)
    where = f"{key}: {source!r:.200}"
    if not path.is_file():
        raise SubloraError(f"{where}: there is no such file; give the path of a GGUF file")
    with errors_named(f"{where}: cannot be read", "check the file"), open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise SubloraError(f"{where}: not a GGUF file; give one, or a model's folder")
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    folder = study_folder() / KEPT / sha256[:32] / part
    if folder.is_dir():
        return folder
    notice(f"{path.name}: converting its {part}, once; it stays in {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        make(path, Path(scratch))  # in a place of its own first: a file that is refused leaves nothing
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f".{part}.lock")), tempfile.TemporaryDirectory(dir=folder.parent) as beside:
                if not folder.is_dir():
                    shutil.copytree(scratch, Path(beside, part)).rename(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
    return folder


def tokenizer_folder(source: str, key: str) -> Path:
    """The tokenizer in a GGUF file, as a folder of `transformers`. Raises SubloraError for a file without one."""

    def make(path: Path, folder: Path) -> None:
        from transformers import AutoTokenizer  # here, because importing it takes seconds

        if "tokenizer.ggml.tokens" not in fields(path, key):
            raise SubloraError(f"{key}: {source!r:.200} has no tokenizer; give its tokenizer's folder as corpus.tokenizer")
        silence_transformers()
        with errors_named(f"{key}: {source!r:.200} has no tokenizer that can be read", "give a folder with one"):
            AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False).save_pretrained(folder)

    return kept_folder(source, key, "tokenizer", make)


@functools.lru_cache(maxsize=2)  # it takes seconds: each word of the vocabulary is a field
def _reader(path: Path, modified: int, key: str) -> Any:
    with errors_named(f"{key}: {path.name!r:.200} is no whole GGUF file", "get it anew"):
        from gguf import GGUFReader

        with open(path, "rb") as file:
            header = file.read(24)
        tensors, count = (int.from_bytes(header[at : at + 8], "little") for at in (8, 16))
        if len(header) < 24 or tensors > MOST_TENSORS or count > MOST_FIELDS:
            raise ValueError(f"it says that it has {tensors:,} tensors and {count:,} fields")
        reader = GGUFReader(path)
        size = path.stat().st_size
        if any(tensor.data_offset + tensor.n_bytes > size for tensor in reader.tensors):
            raise ValueError("it is cut")
    return reader


def tensors(path: Path, key: str) -> dict[str, tuple[int, str]]:
    """Of each tensor in a GGUF file how many numbers it has, and the name of their type; the numbers are not read."""
    found = _reader(path, path.stat().st_mtime_ns, key).tensors
    return {tensor.name: (int(tensor.n_elements), tensor.tensor_type.name) for tensor in found}


def fields(path: Path, key: str) -> dict[str, Any]:
    """The fields of a GGUF file by name. Raises SubloraError for a file that is none, or is cut."""
    return _reader(path, path.stat().st_mtime_ns, key).fields
