"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from sublora.errors import cannot_write
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
