"""Progress bars: widgets where a person works in Jupyter, text on a terminal and below `sublora run`."""

import os
import sys

import tqdm.auto
import tqdm.std

from sublora.errors import printable

PLAIN = "SUBLORA_PLAIN_PROGRESS"
"""Environment variable that `sublora run` sets for the kernels it starts: their bars must reach a terminal."""


def progress_bar(*arguments, **options) -> tqdm.std.tqdm:
    """A `tqdm` bar; below `sublora run` it is text on standard error (how wide and how often: tqdm's own TQDM_* variables).

    TQDM_DISABLE hides all bars. In Jupyter, tqdm itself does not read it.
    """
    if os.environ.get("TQDM_DISABLE"):
        options["disable"] = True
    options["desc"] = printable(options.get("desc", ""))  # often the name of a file
    return (_TextBar if PLAIN in os.environ else tqdm.auto.tqdm)(*arguments, **options)


def notice(text: str) -> None:
    """One line on standard error, above an open bar: what a person should know although nothing failed."""
    tqdm.std.tqdm.write(f"note: {printable(text)}", file=sys.stderr)


def silence_transformers() -> None:
    """Neither bars nor reports of `transformers`: an error is one line, and what it reports is checked. Imports it: seconds."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


class _TextBar(tqdm.std.tqdm):
    """A kernel sends standard output and standard error when each is flushed: a finished bar goes before what is printed next."""

    def close(self) -> None:
        super().close()
        sys.stderr.flush()
