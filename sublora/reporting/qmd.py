"""Quarto pages without Quarto: the part of its language that the report uses, turned into a notebook and into HTML.

Understood: YAML front matter with a title; python cells with the options in `CELL_OPTIONS`; cross-references to figures,
tables and equations of the same page; captions; notes (`::: {.callout-note title="..."}`); headings with ids; citations
from a BibTeX file; links between pages; TeX formulas, which become MathML. Anything else that Quarto would treat
specially is refused, so that the two ways of rendering cannot drift apart unseen.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import yaml
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

from sublora.errors import SubloraError

CELL_OPTIONS = {"label", "fig-cap", "fig-alt", "tbl-cap", "echo", "output"}
KINDS = {"fig": "Figure", "tbl": "Table", "eq": "Equation"}
_CODE = re.compile(r"(^```.*?^```[ \t]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_CELL = re.compile(r"^```\{python\}[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A python cell: its options (`#| key: value`) and its source."""

    options: Mapping[str, Any]
    source: str

    @property
    def label(self) -> str:
        return self.options.get("label", "")


@dataclass(frozen=True)
class Page:
    """One .qmd file: where it is, its front matter, and its prose (str) and cells in order."""

    path: Path
    front: Mapping[str, Any]
    blocks: tuple[str | Cell, ...]

    @property
    def cells(self) -> list[Cell]:
        return [block for block in self.blocks if isinstance(block, Cell)]


def read_page(path: Path) -> Page:
    """Parse one .qmd file. Raises SubloraError naming the file and what in it is not understood."""
    text = path.read_text("utf-8")
    front = re.match(r"---\n(.*?)^---[ \t]*\n", text, re.DOTALL | re.MULTILINE)
    if front is None:
        raise SubloraError(f"{path}: no front matter; start the page with `---`, `title: ...`, `---`")
    values = yaml.safe_load(front[1])
    unknown = set(values) - {"title", "subtitle"}
    if unknown or "title" not in values:
        raise SubloraError(f"{path}: front matter needs `title` and may have `subtitle`, not {sorted(unknown)}")
    blocks: list[str | Cell] = []
    pieces = _CELL.split(text[front.end() :])
    for index, piece in enumerate(pieces):
        blocks.append(_cell(path, piece) if index % 2 else piece)
    return Page(path, values, tuple(blocks))


def _cell(path: Path, text: str) -> Cell:
    lines = text.splitlines()
    marked = [line[2:] for line in lines if line.startswith("#|")]
    options = yaml.safe_load("\n".join(marked)) or {}
    unknown = set(options) - CELL_OPTIONS
    if unknown:
        raise SubloraError(f"{path}: cell option {sorted(unknown)[0]!r} is not understood; use {sorted(CELL_OPTIONS)}")
    label = options.get("label", "")
    if label.startswith("fig-") and not (options.get("fig-cap") and options.get("fig-alt")):
        raise SubloraError(f"{path}: cell {label!r} needs the options fig-cap and fig-alt")
    if label.startswith("tbl-") and not options.get("tbl-cap"):
        raise SubloraError(f"{path}: cell {label!r} needs the option tbl-cap")
    return Cell(options, "\n".join(line for line in lines if not line.startswith("#|")))


class PageWriter:
    """Turns one executed page into HTML: `body()` after construction, then `contents`, the page's headings."""

    def __init__(self, page: Page, outputs: list[list[Mapping[str, Any]]], bibliography: Mapping[str, Mapping[str, str]]):
        """`outputs`: for each of the page's cells its notebook outputs; `bibliography`: `read_bibliography`."""
        self.page, self.outputs, self.bibliography = page, outputs, bibliography
        self.contents: list[tuple[str, str]] = []  # (id, HTML) of second-level headings
        self._kept: list[str] = []  # finished HTML, which Markdown must not touch
        self._cited: list[str] = []
        self._numbers = _number(page)

    def body(self) -> str:
        """The page's HTML, without a frame. Raises SubloraError on references that do not resolve."""
        cells, outputs = [], iter(self.outputs)
        for block in self.page.blocks:
            if isinstance(block, Cell):
                cells.append(self._output_cell(block, next(outputs)))
            elif block.strip():
                cells.append(nbformat.v4.new_markdown_cell(self._prose(block)))
        exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
        html, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
        references = self._references()
        if references and not any("⟦references⟧" in kept for kept in self._kept):
            raise SubloraError(f"{self.page.path}: cites but has no place for references; add `::: {{#refs}}` and `:::`")
        for _ in range(2):  # what is kept may hold other kept things: a formula in a heading
            html = re.sub(r"<p>⟦(\d+)⟧</p>|⟦(\d+)⟧", lambda m: self._kept[int(m[1] or m[2])], html)
        return html.replace("⟦references⟧", references)

    def _output_cell(self, cell: Cell, outputs: list[Mapping[str, Any]]) -> nbformat.NotebookNode:
        shown = [o for o in outputs if o.get("name") != "stderr"] if cell.options.get("output", True) else []
        kind = cell.label.split("-")[0]
        if kind in ("fig", "tbl"):
            if not shown:
                raise SubloraError(f"{self.page.path}: cell {cell.label!r} has a caption but shows nothing")
            html = "".join(self._shown(cell, output) for output in shown)
            caption = cell.options[f"{kind}-cap"]
            number = f"{KINDS[kind]}&nbsp;{self._numbers[cell.label]}"
            caption = f"<figcaption>{number}: {self._inline(caption)}</figcaption>"
            html = caption + html if kind == "tbl" else html + caption
            html = f'<figure id="{cell.label}" class="{kind}">{html}</figure>'
            shown = [nbformat.v4.new_output("display_data", {"text/html": html})]
        elif any(mime.startswith("image/") for output in shown for mime in output.get("data", {})):
            raise SubloraError(f"{self.page.path}: a cell shows a figure but has no label `fig-...`, fig-cap and fig-alt")
        new = nbformat.v4.new_code_cell(cell.source, outputs=shown)
        new.metadata["transient"] = {"remove_source": not cell.options.get("echo", False)}
        return new

    def _shown(self, cell: Cell, output: Mapping[str, Any]) -> str:
        data = output.get("data", {})
        if "image/svg+xml" in data:
            image = base64.b64encode(data["image/svg+xml"].encode()).decode()
            return f'<img src="data:image/svg+xml;base64,{image}" alt="{escape(cell.options["fig-alt"])}">'
        if "text/html" in data:
            return data["text/html"]
        raise SubloraError(f"{self.page.path}: cell {cell.label!r} shows neither a figure nor HTML")

    def _prose(self, text: str) -> str:
        """Quarto's Markdown to plain Markdown, with finished HTML put aside."""
        pieces = _CODE.split(text)
        return "".join(piece if index % 2 else self._plain(piece) for index, piece in enumerate(pieces))

    def _plain(self, text: str) -> str:
        text = re.sub(r"\$\$(.+?)\$\$(?:[ \t]*\{#(eq-[\w-]+)\})?", self._display, text, flags=re.DOTALL)
        text = re.sub(r"(?<!\\)\$(?=\S)([^$]+?)(?<=\S)\$", lambda m: self._keep(mathml(m[1])), text)
        text = re.sub(r"\]\(([\w/.-]+)\.qmd(#[\w-]+)?\)", lambda m: f"]({m[1]}.html{m[2] or ''})", text)
        text = re.sub(r"@((?:fig|tbl|eq)-[\w-]*\w)", self._reference, text)
        text = re.sub(r"\[([^\][]*@[^\]]+)\]", self._citations, text)
        text = re.sub(r"(?<![\w.])@([A-Za-z][\w:-]*\w)", lambda m: self._keep(self._cite(m[1], "{} ({})")), text)
        text = re.sub(r"^:::.*$", self._fence, text, flags=re.MULTILINE)
        return re.sub(r"^(#{1,4})[ ]+(.*?)(?:[ ]+\{#([\w-]+)\})?[ ]*$", self._heading, text, flags=re.MULTILINE)

    def _keep(self, html: str) -> str:
        self._kept.append(html)
        return f"⟦{len(self._kept) - 1}⟧"

    def _keep_block(self, html: str) -> str:
        return f"\n\n{self._keep(html)}\n\n"

    def _inline(self, text: str) -> str:
        """One line of Markdown as HTML without a paragraph around it."""
        return re.sub(r"^<p>|</p>$", "", markdown2html(self._prose(text)).strip())

    def _display(self, match: re.Match) -> str:
        formula = mathml(match[1].strip(), display="block")
        if match[2] is None:
            return self._keep_block(f'<div class="equation">{formula}</div>')
        number = f'<span class="equation-number">({self._numbers[match[2]]})</span>'
        return self._keep_block(f'<div class="equation" id="{match[2]}">{formula}{number}</div>')

    def _reference(self, match: re.Match) -> str:
        label = match[1]
        if label not in self._numbers:
            raise SubloraError(f"{self.page.path}: cross-reference @{label} does not resolve; nothing here has that label")
        return self._keep(f'<a href="#{label}">{KINDS[label.split("-")[0]]}&nbsp;{self._numbers[label]}</a>')

    def _citations(self, match: re.Match) -> str:
        cited = []
        for part in match[1].split(";"):
            parsed = re.fullmatch(r"\s*@([A-Za-z][\w:-]*\w)(.*)", part, re.DOTALL)
            if parsed is None:
                raise SubloraError(f"{self.page.path}: citation [{match[1]}] is not understood; write [@key; @key, place]")
            cited.append(self._cite(parsed[1], "{} {}") + parsed[2])
        return self._keep(f"({'; '.join(cited)})")

    def _cite(self, key: str, form: str) -> str:
        if key not in self.bibliography:
            raise SubloraError(f"{self.page.path}: citation @{key} does not resolve; add it to the bibliography")
        if key not in self._cited:
            self._cited.append(key)
        entry = self.bibliography[key]
        names = [author.split(",")[0].strip() for author in entry["author"].split(" and ")]
        who = f"{names[0]} et al." if len(names) > 3 else " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        return f'<a href="#ref-{key}">{escape(form.format(who, entry["year"]))}</a>'

    def _references(self) -> str:
        entries = sorted(self._cited, key=lambda key: (self.bibliography[key]["author"], self.bibliography[key]["year"]))
        return "".join(f'<p id="ref-{key}">{_reference_text(self.bibliography[key])}</p>' for key in entries)

    def _fence(self, match: re.Match) -> str:
        line = match[0].strip()
        if line == ":::":
            return self._keep_block("</div>")
        if line == "::: {#refs}":
            return self._keep_block('<div id="refs">⟦references⟧')
        note = re.fullmatch(r'::: \{\.callout-(note|tip|warning|important) title="([^"]*)"\}', line)
        if note is None:
            raise SubloraError(f"{self.page.path}: {line!r} is not understood; use `::: {{.callout-note title=\"...\"}}`")
        title = f'<p class="callout-title">{self._inline(note[2])}</p>'
        return self._keep_block(f'<div class="callout callout-{note[1]}">{title}')

    def _heading(self, match: re.Match) -> str:
        level, html = len(match[1]), self._inline(match[2])
        plain = re.sub(r"[^\w .-]", "", re.sub(r"<.*?>", "", match[2])).strip().lower()
        name = match[3] or re.sub(r"\s+", "-", plain)  # pandoc's rule for headings without an id
        if level == 2:
            self.contents.append((name, html))
        return self._keep_block(f'<h{level} id="{name}">{html}</h{level}>')


def _number(page: Page) -> dict[str, int]:
    """Labels of figures, tables and equations with their numbers, in the order of the page."""
    labels = []
    for block in page.blocks:
        if isinstance(block, Cell):
            labels += [block.label] if block.label.split("-")[0] in ("fig", "tbl") else []
        else:
            prose = "".join(_CODE.split(block)[::2])
            labels += re.findall(r"\$\$[ \t]*\{#(eq-[\w-]+)\}", prose)
    numbers: dict[str, int] = {}
    for label in labels:
        if label in numbers:
            raise SubloraError(f"{page.path}: the label {label!r} is used twice; give each its own")
        numbers[label] = 1 + sum(other.split("-")[0] == label.split("-")[0] for other in numbers)
    return numbers


def read_bibliography(path: Path) -> dict[str, dict[str, str]]:
    """BibTeX entries by key, each with author, title, year and whatever else it has. Values are in braces, in Unicode."""
    entries = {}
    for key, body in re.findall(r"^@\w+\{([^,\s]+),\n(.*?)^\}", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        fields = dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?\s*$", body, re.MULTILINE))
        entries[key] = {name.lower(): re.sub(r"[{}]", "", value) for name, value in fields.items()}
        for needed in ("author", "title", "year"):
            if needed not in entries[key]:
                raise SubloraError(f"{path}: entry {key!r} has no {needed}; add it on a line of its own, in braces")
    return entries


def _reference_text(entry: Mapping[str, str]) -> str:
    where = entry.get("journal") or entry.get("booktitle") or ""
    volume = " ".join(filter(None, [entry.get("volume", ""), f"({entry['number']})" if "number" in entry else ""]))
    text = f"{escape(entry['author'].replace(' and ', '; ').rstrip('.'))}. {entry['year']}. “{escape(entry['title'])}.”"
    if where:
        text += f" <em>{escape(where)}</em>{' ' + escape(volume) if volume else ''}."
    if "url" in entry:
        text += f' <a href="{escape(entry["url"])}">{escape(entry["url"])}</a>.'
    return text
