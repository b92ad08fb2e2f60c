"""The one exception a user sees."""


class SubloraError(ValueError):
    """Something the user can put right: one line that names the file or key and says what to do."""
