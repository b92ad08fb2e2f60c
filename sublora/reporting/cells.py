"""The Python cells of Quarto pages: run in one kernel, and replaced by the Markdown of what they show."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm.auto import tqdm

from sublora.errors import SubloraError

OPTIONS = {"label", "fig-cap", "fig-alt", "tbl-cap"}
"""Options of a cell (`#| name: value`) that are understood; Quarto knows more."""
_CELL = re.compile(r"^```\{python\}[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_BEFORE_A_PAGE = "%reset -f\nfrom matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('svg')"


def executed(pages: list[Path], folder: Path, environment: Mapping[str, str]) -> list[str]:
    """The pages' text with the outputs in the place of the cells; figures become files in `folder`.

    One kernel runs all pages, but each page begins without names. Raises SubloraError when a cell fails or is not understood.
    """
    pieces = [_CELL.split(page.read_text("utf-8")) for page in pages]  # prose and cells by turns
    cells, places, options = [], [], {}
    for page, parts in zip(pages, pieces, strict=True):
        if "{{<" in "".join(parts[::2]):
            raise SubloraError(f"{page.name}: a shortcode ({{{{< ... >}}}}) is not understood; write what it would insert")
        for number, source in enumerate(([_BEFORE_A_PAGE] if parts[1:] else []) + parts[1::2]):
            places.append((page, number))
            cells.append(nbformat.v4.new_code_cell(source))
            options[page, number] = _options(page, number, source)
    if cells:
        _run(cells, places, folder, environment)
    shown = {place: cell.outputs for place, cell in zip(places, cells, strict=True)}
    for page, parts in zip(pages, pieces, strict=True):
        for number in range(1, len(parts) // 2 + 1):
            parts[2 * number - 1] = _markdown(page, number, options[page, number], shown[page, number])
    return ["".join(parts) for parts in pieces]


def _run(cells: list[nbformat.NotebookNode], places: list, folder: Path, environment: Mapping[str, str]) -> None:
    with tqdm(total=len(cells), desc="report", unit="cell") as progress:
        client = NotebookClient(
            nbformat.v4.new_notebook(cells=cells),
            kernel_name="python3",
            timeout=600,
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--log-level=ERROR"],
            on_cell_executed=lambda **_: progress.update(),
        )
        # No kernel specification but this interpreter's own: a `python3` installed elsewhere may lack the package.
        client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
        try:
            client.execute(env=dict(environment))
        except CellExecutionError:
            errors = [(place, o) for place, cell in zip(places, cells, strict=True) for o in cell.outputs if "ename" in o]
            (page, number), error = errors[0]
            reason = " ".join(f"{error.ename}: {error.evalue}".split())
            raise SubloraError(f"{page.name}: cell {number} failed ({reason}); correct the page or the run") from None


def _options(page: Path, number: int, source: str) -> dict[str, Any]:
    options = yaml.safe_load("\n".join(re.findall(r"^#\| (.*)$", source, re.MULTILINE))) or {}
    if unknown := set(options) - OPTIONS:
        raise SubloraError(f"{page.name}: cell {number}: option {min(unknown)!r} is not understood; use {sorted(OPTIONS)}")
    kind = options.get("label", "").partition("-")[0]
    needed = {"fig": {"label", "fig-cap", "fig-alt"}, "tbl": {"label", "tbl-cap"}}.get(kind, set())
    if set(options) != needed:
        raise SubloraError(f"{page.name}: cell {number} needs the options {sorted(needed)} and has {sorted(options)}")
    return options


def _markdown(page: Path, number: int, options: dict[str, Any], outputs: list[nbformat.NotebookNode]) -> str:
    """What a cell shows, as Quarto's Markdown: a figure or table with a label is a division that ends with its caption."""
    label = options.get("label")
    parts: list[str] = []
    for output in outputs:
        data = output.get("data", {})
        if "image/svg+xml" in data and "fig-alt" in options:
            picture = page.with_name(f"{page.stem}-{number}-{len(parts)}.svg")
            picture.write_text(data["image/svg+xml"], "utf-8")
            alternative = options["fig-alt"].replace('"', "&quot;")
            parts.append(f'![]({picture.name}){{alt="{alternative}"}}')
        elif "text/markdown" in data:
            parts.append(data["text/markdown"])
        elif output.get("name") != "stderr":
            raise SubloraError(f"{page.name}: cell {number} shows neither Markdown nor a figure with fig-cap and fig-alt")
    if label and not parts:
        raise SubloraError(f"{page.name}: cell {number}, {label!r}, has a caption but shows nothing")
    if label:
        parts = [f"::: {{#{label}}}", *parts, options.get("fig-cap") or options["tbl-cap"], ":::"]
    return "\n\n".join(parts)
