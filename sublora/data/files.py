"""Files and folders that a person names."""

import hashlib
from collections import deque
from pathlib import Path

from sublora.errors import SubloraError, errors_named


def given_path(text: str, key: str) -> Path:
    """A path as a person writes it: ~ is a home folder. Raises SubloraError naming the key for one that no file can have."""
    with errors_named(f"{key}: {text!r:.80} cannot be looked up", "give another path"):
        path = Path(text).expanduser()
        path.exists()
    return path


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, in the order of relative paths. Links are followed; a folder that several lead to is read once.

    Raises SubloraError naming what cannot be read, what is neither file nor folder, such as a link that leads nowhere, and a disk.
    """
    files, seen, ahead = [], set(), deque([folder])
    while ahead:
        place = ahead.pop()
        with errors_named(f"{place}: cannot read", "check the folder"):
            real = place.resolve()
            if place == folder and real == Path(real.anchor):
                raise SubloraError(f"{folder}: the root of a disk; name the folder that is meant")
            entries = [] if real in seen else sorted(place.iterdir())
            seen.add(real)
            for entry in entries:
                if entry.is_dir():  # links come last, so that a folder is read in its own place if it has one
                    (ahead.appendleft if entry.is_symlink() else ahead.append)(entry)
                elif entry.is_file():
                    files.append(entry)
                else:
                    raise SubloraError(f"{entry}: a link that leads nowhere, or no regular file; take it out of the folder")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def files_fingerprint(path: Path) -> str:
    """SHA-256 over the resolved path, and every file's relative path, size in bytes and time of last change."""
    with errors_named(f"{path}: cannot read", "check the file"):
        path = path.resolve()
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
        for file in files_below(path) if path.is_dir() else [path]:
            status = file.stat()
            digest.update(f"\n{file.relative_to(path).as_posix()!r} {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()
