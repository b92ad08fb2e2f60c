"""Markdown that Jupyter, Quarto and pandoc all show: text, lists and tables. Nothing is loaded from anywhere.

Text from a certificate or a file name is escaped: certificates may come from strangers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sublora.errors import printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|$~^@])")
_SHORTEST_RULE = 3  # dashes: what pandoc and Jupyter need to see a column


class Markdown(str):
    """A string of finished Markdown, which notebooks and pages show as such."""

    def _repr_markdown_(self) -> str:
        return str(self)


def escape(text: object) -> Markdown:
    """The text as Markdown that shows exactly its characters, on one line; control characters become U+FFFD."""
    if isinstance(text, Markdown):
        return text
    line = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markdown(_SPECIAL.sub(r"\\\1", line))


def bullets(lines: Iterable[object]) -> Markdown:
    """Lines of text as a list; no lines give an empty string."""
    return Markdown("".join(f"- {escape(line)}\n" for line in lines))


def link(text: object, target: str | None) -> Markdown:
    """The text as a link to a page, or the text alone where there is no page."""
    return Markdown(f"[{escape(text)}]({target})") if target else escape(text)


@dataclass(frozen=True)
class Table:
    """A table of words and formatted numbers, shown as a Markdown pipe table.

    rows: one mapping from column to cell each, all with the same columns. Cells are escaped unless they are `Markdown`. A column
    named in `groups` is printed in bold, and only where its value changes. Columns in `left` and `groups` are flush left, all
    others flush right. columns: needed only for a table without rows.
    """

    rows: Sequence[Mapping[str, object]]
    left: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: pd.DataFrame, left: tuple[str, ...] = (), groups: tuple[str, ...] = ()) -> "Table":
        """The table of a data frame of finished text."""
        return cls(frame.to_dict("records"), left, groups, tuple(frame.columns))

    def _repr_markdown_(self) -> str:
        names = self.columns or tuple(self.rows[0])
        columns = [self._cells(name) for name in names]
        widths = [max(_SHORTEST_RULE, *(len(cell) for cell in cells)) for cells in columns]
        rules = [
            "-" * width if name in (*self.left, *self.groups) else "-" * (width - 1) + ":"
            for name, width in zip(names, widths, strict=True)
        ]
        first, *rest = zip(*columns, strict=True)
        return "\n".join("| " + " | ".join(cells) + " |" for cells in (first, rules, *rest)) + "\n"

    def __str__(self) -> str:
        return self._repr_markdown_()

    def _cells(self, name: str) -> list[str]:
        """The heading and the cells of one column, in Markdown."""
        cells: list[str] = [escape(row[name]) for row in self.rows]
        if name in self.groups:
            cells = [f"**{cell}**" if cell != before else "" for before, cell in zip([None, *cells], cells, strict=False)]
        return [escape(name), *cells]
