"""What Quarto adds to pandoc's Markdown, as far as the report uses it: a panflute filter.

Captions and equations are numbered, `@fig-x` becomes a link, notes get their title, and links lead to the rendered pages.
"""

import base64
import re
from pathlib import Path

import panflute as pf

from sublora.errors import SubloraError

KINDS = {"fig": "Figure", "tbl": "Table", "eq": "Equation"}
_IMAGES = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}


class Crossref:
    """The filter of one page, `Crossref(path).apply(document)`. Raises SubloraError for what does not resolve."""

    def __init__(self, page: Path):
        self.page = page
        self.numbers: dict[str, int] = {}

    def apply(self, document: pf.Doc) -> None:
        """Change the document; it is walked twice, because a reference may come before what it names."""
        for step in (self._number, self._resolve):
            document.walk(step)

    def _number(self, element: pf.Element, document: pf.Doc) -> pf.Element | None:
        if isinstance(element, pf.Para):
            return self._equation(element)
        if isinstance(element, pf.Div) and element.identifier.partition("-")[0] in KINDS:
            return self._float(element)
        if isinstance(element, pf.Div):
            return self._division(element)
        return None

    def _resolve(self, element: pf.Element, document: pf.Doc) -> pf.Element | list | None:
        if isinstance(element, pf.Cite):
            return self._reference(element)
        if isinstance(element, pf.Link) and "://" not in element.url:
            element.url = re.sub(r"\.(qmd|ipynb)(?=#|$)", ".html", element.url)
        if isinstance(element, pf.Image) and (picture := self.page.parent / element.url).suffix in _IMAGES and picture.is_file():
            element.url = f"data:{_IMAGES[picture.suffix]};base64,{base64.b64encode(picture.read_bytes()).decode()}"
            element.attributes.update(alt=element.attributes.pop("fig-alt", element.attributes.get("alt", "")))
        return None

    def _equation(self, paragraph: pf.Para) -> pf.Para | None:
        """`$$ ... $$ {#eq-x}` becomes an equation with its number behind it."""
        content = list(paragraph.content)
        for index, element in enumerate(content):
            label = re.fullmatch(r"\{#(eq-[\w-]+)\}", element.text) if isinstance(element, pf.Str) else None
            if label and index > 1 and isinstance(content[index - 2], pf.Math):
                number = pf.Span(pf.Str(f"({self._next(label[1])})"), classes=["equation-number"])
                equation = pf.Span(content[index - 2], number, identifier=label[1], classes=["equation"])
                return pf.Para(*content[: index - 2], equation, *content[index + 1 :])
        return None

    def _float(self, division: pf.Div) -> pf.Figure:
        """A division `{#fig-x}` or `{#tbl-x}` becomes a figure whose caption is its last paragraph."""
        *content, caption = division.content
        name = f"{KINDS[division.identifier.partition('-')[0]]}\u00a0{self._next(division.identifier)}: "
        shown = pf.Caption(pf.Plain(pf.Str(name), *caption.content))
        return pf.Figure(*content, caption=shown, identifier=division.identifier, classes=[division.identifier[:3]])

    def _division(self, division: pf.Div) -> pf.Div | None:
        note = re.fullmatch(r"callout-\w+", " ".join(division.classes))
        if note and set(division.attributes) == {"title"}:
            title = pf.Div(pf.Plain(pf.Str(division.attributes["title"])), classes=["callout-title"])
            return pf.Div(title, *division.content, classes=["callout"])
        if division.identifier == "refs":
            return None
        described = " ".join([division.identifier, *division.classes, *division.attributes])
        raise self._error(f'the division ::: {{{described}}} is not understood; use `::: {{.callout-note title="..."}}`')

    def _reference(self, citation: pf.Cite) -> list | None:
        labels = [each.id for each in citation.citations]
        if labels[0].partition("-")[0] not in KINDS:
            return None  # pandoc resolves it in the bibliography
        links = []
        for label in labels:
            if label not in self.numbers:
                raise self._error(f"the reference @{label} does not resolve; nothing on the page has that label")
            text = f"{KINDS[label.partition('-')[0]]}\u00a0{self.numbers[label]}"
            links += [pf.Str(","), pf.Space(), pf.Link(pf.Str(text), url=f"#{label}")]
        return links[2:]

    def _next(self, label: str) -> int:
        if label in self.numbers:
            raise self._error(f"the label {label!r} is used twice; give each its own")
        kind = label.partition("-")[0]
        self.numbers[label] = 1 + sum(other.partition("-")[0] == kind for other in self.numbers)
        return self.numbers[label]

    def _error(self, what: str) -> SubloraError:
        return SubloraError(f"{self.page.name}: {what}")
