"""The one exception a user sees."""


class SubloraError(ValueError):
    """Something the user can put right: one line that names the file or key and says what to do."""


def one_line(error: object, most: int = 150) -> str:
    """The first `most` characters of an error's text, its lines joined."""
    return " ".join(str(error).split())[:most]
