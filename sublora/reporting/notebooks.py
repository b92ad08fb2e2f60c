"""Executed notebooks as pages of the report, cleaned: like certificates, they may come from strangers.

A page is Markdown without a cell to run, so that Quarto and pandoc only show it. A character that is not seen (U+200B) breaks
whatever would be more than text there: HTML, attributes, links, shortcodes, metadata.
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat

from sublora.reporting.markdown import Markdown, escape, link
from sublora.reporting.runs import GROUPS, KeptRun, chosen, kept_runs, runs_for_pages

NEVER = re.compile(r"^(?=[ \t]*(?:---|\.\.\.))|(?<=\{\{)(?=<)", re.MULTILINE)
"""Where metadata (also in code) and a shortcode of Quarto would begin."""
FENCE = re.compile(r"^(?=[ \t>]*(?:```|~~~))", re.MULTILINE)
"""Where a block of code would begin or end."""
IN_MARKDOWN = re.compile(r"(?<=[<{@])|(?<=\])(?=[(:\[])|(?<=&)(?!(?:lt|gt|amp);)|^(?=[ \t>]*:::)", re.MULTILINE)
"""Where HTML, an attribute, a citation, a link, a picture or a division would begin."""
IMAGES = {"image/png": (b"\x89PNG", "png"), "image/jpeg": (b"\xff\xd8\xff", "jpg")}  # not SVG, which may hold a script
_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029]")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")  # a terminal's colours, and what is no text


def write_pages(folder: Path) -> None:
    """Write `<folder>/<run>-<notebook>.qmd`, with its images, for each executed notebook of each run on the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob("*.qmd"), *folder.glob("*.png"), *folder.glob("*.jpg")]:
        path.unlink()
    for run in _every_run():
        for notebook, page in zip(run.notebooks, run.pages, strict=True):
            target = folder / Path(page).name
            target.write_text(_page(notebook, target, f"{run.name}, {notebook.name}"), "utf-8")


def notebook_list(runs: Sequence[KeptRun] | None = None) -> Markdown:
    """The executed notebooks of these runs (by default of all) as a list of links, or that none is kept."""
    lines = []
    for run in _every_run() if runs is None else runs:
        links = [link(path.name, page) for path, page in zip(run.notebooks, run.pages, strict=True)]
        lines += [f"- {escape(run.label)}: {', '.join(links)}\n"] if links else []
    return Markdown("".join(lines)) if lines else escape("No run has kept its executed notebooks.")


def _every_run() -> list[KeptRun]:
    groups = () if chosen() else GROUPS
    return [*runs_for_pages()[0], *(run for group in groups for run in kept_runs(group)[0])]


def _page(notebook: Path, target: Path, title: str) -> str:
    """A page of Quarto's Markdown. What cannot be read is a page that says why."""
    front = f"---\ntitle: {json.dumps(harmless(escape(title)), ensure_ascii=False)}\nengine: markdown\n---\n\n"
    try:
        content = nbformat.read(notebook, as_version=4)
        nbformat.validate(content)
    except Exception as error:  # nbformat raises many kinds on what is not a notebook
        return front + harmless(escape(f"{notebook.name} cannot be read: {error}"))
    parts = []
    for cell in content.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"^(?=#{1,5} )", "#", harmless(cell.source), flags=re.MULTILINE))
        elif cell.cell_type == "code" and cell.source.strip():
            parts += ["<details><summary>Code</summary>", _code(cell.source, "python"), "</details>"]
            parts += [_output(output, target, len(parts) + index) for index, output in enumerate(cell.outputs)]
    return front + "\n\n".join(parts) + "\n"


def _output(output: nbformat.NotebookNode, target: Path, number: int) -> str:
    """One output in the richest form that is harmless: Markdown, an image, text; and "" for any other."""
    if output.output_type == "stream":
        return _code(output.text, "text")
    if output.output_type == "error":
        return _code(f"{output.ename}: {output.evalue}", "text")
    if "text/markdown" in output.data:
        return harmless(output.data["text/markdown"])
    for kind, (beginning, ending) in IMAGES.items():
        image = _decoded(output.data.get(kind, ""))
        if image.startswith(beginning):
            path = target.with_name(f"{target.stem}-{number}.{ending}")
            path.write_bytes(image)
            return f'![]({path.name}){{fig-alt="Figure made by the code above"}}'
    return _code(output.data["text/plain"], "text") if "text/plain" in output.data else ""


def harmless(markdown: str) -> str:
    """Markdown that shows the same, but in which HTML, attributes, links, citations and shortcodes are text."""
    return _broken(markdown, NEVER, FENCE, IN_MARKDOWN)


def _code(text: str, language: str) -> str:
    return f"```{language}\n{_broken(text, NEVER, FENCE).strip()}\n```"


def _broken(text: str, *places: re.Pattern) -> str:
    text = _CONTROL.sub("", _LINE_ENDS.sub("\n", text))
    for place in places:
        text = place.sub("\u200b", text)
    return text


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""
