"""The one exception a user sees, and how text from elsewhere may be shown."""

import contextlib
import difflib
import errno
import os
from collections.abc import Iterable, Iterator

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


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names out of a file for a message: escaped, each cut to 100 characters, the first `most` of them."""
    shown = [ascii(str(name)[:100])[1:-1] for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def no_such(name: str, names: Iterable[object], most: int = 8) -> str:
    """What to say of a name that is none of `names`: it, the nearest one, and which there are, all of them escaped."""
    there = list(map(str, names))
    near = difflib.get_close_matches(name.casefold().strip(), {each.casefold().strip(): each for each in there}, n=1)
    meant = [each for each in there if near and each.casefold().strip() == near[0]]
    hint = f"did you mean {ascii(meant[0][:60])}? " if meant else ""
    return f"{ascii(name):.80}; {hint}there are: {listed(there, most)}"


@contextlib.contextmanager
def errors_named(what: str, cure: str) -> Iterator[None]:
    """Whatever a library raises becomes the SubloraError "<what> (<why>); <cure>".

    Libraries pass on what their parsers, downloaders and file systems raise; a panic in Rust is not even an `Exception`.
    """
    try:
        yield
    except (SubloraError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "  # a plain one says it in words
        why = getattr(error, "strerror", None) or f"{kind}{one_line(error)}"
        raise SubloraError(f"{what} ({why}); {cure}") from None
