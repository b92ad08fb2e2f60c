"""Documents of a text file that holds several: its paragraphs, or the sections that begin at certain lines."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

import pyarrow as pa
import pyarrow.compute as pc

AT_ONCE = 10_000  # lines that are matched together


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The lines between blank ones, as they are. A blank line has no characters but white space."""
    for blank, together in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            yield "".join(together)


def sections(lines: Iterable[str], pattern: str) -> Iterator[tuple[bool, str]]:
    """(whether the pattern was found in its first line, a section): a section begins there, and with the first line of all.

    The line's end is no part of what is matched. RE2 needs time linear in the text, whatever the pattern.
    """
    found, section = False, list[str]()
    for line, begins in _matched(iter(lines), pattern):
        if begins and section:
            yield found, "".join(section)
            section = []
        found = begins or found and bool(section)
        section.append(line)
    if section:
        yield found, "".join(section)


def _matched(lines: Iterator[str], pattern: str) -> Iterator[tuple[str, bool]]:
    while together := list(islice(lines, AT_ONCE)):
        shown = pa.array([line.rstrip("\r\n") for line in together], pa.large_string())
        yield from zip(together, pc.match_substring_regex(shown, pattern).to_pylist(), strict=True)
