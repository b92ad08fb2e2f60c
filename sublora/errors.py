"""The one exception a user sees."""

import contextlib
from collections.abc import Iterable, Iterator


class SubloraError(ValueError):
    """Something the user can put right: one line that names the file or key and says what to do."""


def one_line(error: object, most: int = 150) -> str:
    """The first `most` characters of an error's text, its lines joined."""
    return " ".join(str(error).split())[:most]


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names out of a file for a message: escaped, each cut to 60 characters, the first `most` of them."""
    shown = [ascii(str(name)[:60])[1:-1] for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


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
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {one_line(error)}"
        raise SubloraError(f"{what} ({why}); {cure}") from None
