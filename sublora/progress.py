"""Progress bars: widgets where a person works in Jupyter, plain lines on a terminal and below `sublora run`."""

import os
import sys

import tqdm.auto
import tqdm.std

PLAIN = "SUBLORA_PLAIN_PROGRESS"
"""Environment variable that `sublora run` sets for the kernels it starts: their bars must reach a terminal."""


def progress_bar(*arguments, **options) -> tqdm.std.tqdm:
    """A `tqdm` bar; below `sublora run` it writes to standard error, at most twice a second."""
    if PLAIN in os.environ:
        return tqdm.std.tqdm(*arguments, file=sys.stderr, mininterval=0.5, **options)
    return tqdm.auto.tqdm(*arguments, **options)
