"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from sublora.errors import SubloraError, cannot_write
from sublora.own import TEMPORARY, note


@contextlib.contextmanager
def replaced_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it replaces `path`, on failure it is removed.

    A run's file is noted first (`own.note`). Raises SubloraError when the folder cannot be written or the disk is full, and for
    a file of somebody else in a run's folder; `path` is then as it was.
    """
    path = Path(path)
    temporary = None
    try:
        note(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with replaced_atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def read_text(path: str | os.PathLike, most: int, what: str) -> str:
    """The text (UTF-8) of a file of at most `most` bytes. what: "a params file", for errors.

    Raises SubloraError for a larger file and for what is no file, such as a pipe or a device, which might never end; OSError and
    UnicodeDecodeError as Python does.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise SubloraError(f"{path}: not a regular file, so it is not {what}; give the path of a file")
    with open(path, "rb") as file:
        content = file.read(most + 1)  # the size that the system states may be 0, as below /proc
    if len(content) > most:
        raise SubloraError(f"{path}: larger than {most >> 20} MiB, so it is not {what}; remove it")
    return content.decode("utf-8")
