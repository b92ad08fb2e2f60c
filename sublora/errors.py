"""The one exception a user sees, and how text from elsewhere may be shown."""

import errno
import os

FULL = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system says of a full disk. None: a library that tells no number."""


class SubloraError(ValueError):
    """Something the user can put right: one line that names the file or key and says what to do."""


def printable(text: object, keep: str = "") -> str:
    """The text with U+FFFD for each character that is not seen, but those in `keep`.

    What certificates, params files and data say goes through here before it is shown: it must not steer a terminal or a page.
    """
    return "".join(c if c.isprintable() or c in keep else "\ufffd" for c in str(text))


def one_line(error: object, most: int = 150) -> str:
    """The first `most` characters of an error's text, its lines joined."""
    return printable(" ".join(str(error).split()))[:most]


def cannot_write(path: str | os.PathLike, error: Exception) -> SubloraError:
    """What to say when the operating system, or a library that does not say why, fails to write `path`."""
    why, number = getattr(error, "strerror", None) or error, getattr(error, "errno", None)
    return SubloraError(f"{path}: cannot write ({why}); {'free space or ' * (number in FULL)}choose another folder")
