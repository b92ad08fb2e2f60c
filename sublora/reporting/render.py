"""The report: Quarto's project folder to a website, by Quarto where it is installed, else by nbclient and nbconvert."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import yaml
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm.auto import tqdm

from sublora.errors import SubloraError
from sublora.reporting.qmd import Page, PageWriter, read_bibliography, read_page
from sublora.reporting.runs import some_runs

BY_QUARTO = "Quarto"
BY_JUPYTER = "nbclient and nbconvert"
_SET_UP = "%reset -f\nfrom matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('svg')"


def render_report(
    project: str | os.PathLike, runs: str | os.PathLike, quarto: str | None = "quarto"
) -> tuple[Path, str]:
    """Render the project folder (`report/`) over the runs folder to `<project>/_site`, which is replaced as a whole.

    `quarto` is the program's name or path; it is used where it can be found, and None never uses it. Returns the path of
    `index.html` and the way taken, `BY_QUARTO` or `BY_JUPYTER`; both give the same pages.

    Raises SubloraError when there is no run, when a cell fails, when a reference does not resolve, when a page would load
    something from the network, or when the folder cannot be written; the site is then as it was.
    """
    project, runs = Path(project).resolve(), Path(runs).resolve()
    if not (project / "_quarto.yml").is_file():
        raise SubloraError(f"{project}: not the report's folder (no _quarto.yml); run this where `report/` is")
    results = project.parent / "results"
    some_runs(runs, results)
    program = shutil.which(quarto) if quarto else None
    environment = {
        **os.environ,
        "SUBLORA_RUNS": str(runs),
        "SUBLORA_RESULTS": str(results),
        "QUARTO_PYTHON": sys.executable,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    with tempfile.TemporaryDirectory(prefix="sublora-report-") as temporary:
        copy = Path(temporary) / "report"
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns("_site", ".*", "*_files", "*.quarto_ipynb"))
        if program:
            _render_by_quarto(copy, program, environment)
        else:
            _render_by_jupyter(copy, environment)
        loads = external_loads(copy / "_site")
        if loads:
            raise SubloraError(f"{project}: a page would load from the network: {loads[0]}; embed it or leave it out")
        _replace_folder(copy / "_site", project / "_site")
    return project / "_site" / "index.html", BY_QUARTO if program else BY_JUPYTER


def external_loads(site: Path) -> list[str]:
    """What the pages and style sheets in a folder would load from the network, as `file: address`."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            parser = _LoadFinder()
            parser.feed(path.read_text("utf-8"))
            found += [f"{path.name}: {address}" for address in parser.loads]
        elif path.suffix == ".css":
            found += [f"{path.name}: {address}" for address in _style_loads(path.read_text("utf-8"))]
    return found


def _render_by_quarto(project: Path, program: str, environment: Mapping[str, str]) -> None:
    lines = []
    with subprocess.Popen(
        [program, "render", str(project)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout:
            sys.stderr.write(line)
            lines.append(line.strip())
    complaints = [line for line in lines if re.search(r"Unable to resolve|[Cc]itation .*not found|^ERROR|Error:", line)]
    if process.returncode or complaints:
        reason = (complaints or [line for line in lines if line] or ["no message"])[-1]
        raise SubloraError(f"{program} render: {reason} (exit {process.returncode}); see its messages above")
    if not (project / "_site" / "index.html").is_file():
        raise SubloraError(f"{program} render: made no _site/index.html; check output-dir in _quarto.yml")


def _render_by_jupyter(project: Path, environment: Mapping[str, str]) -> None:
    settings = yaml.safe_load((project / "_quarto.yml").read_text("utf-8"))
    bibliography = read_bibliography(project / settings["bibliography"])
    pages = [read_page(path) for path in sorted(project.glob("*.qmd")) if not path.name.startswith("_")]
    executed = _execute(pages, project, environment)
    loader = jinja2.Environment(loader=jinja2.FileSystemLoader(project), autoescape=True)
    frame = loader.get_template("_frame.html.j2")
    site = project / "_site"
    site.mkdir()
    navigation = [
        (item["href"].replace(".qmd", ".html"), item["text"]) for item in settings["website"]["navbar"]["left"]
    ]
    for page, outputs in zip(pages, executed, strict=True):
        writer = PageWriter(page, outputs, bibliography)
        body = writer.body()
        text = frame.render(
            site=settings["website"]["title"],
            footer=settings["website"]["page-footer"],
            here=f"{page.path.stem}.html",
            navigation=navigation,
            title=page.front["title"],
            subtitle=page.front.get("subtitle"),
            contents=writer.contents,
            body=body,
            styles=(project / settings["format"]["html"]["css"]).read_text("utf-8"),
        )
        (site / f"{page.path.stem}.html").write_text(text, "utf-8")


def _execute(pages: list[Page], folder: Path, environment: Mapping[str, str]) -> list[list[list[Any]]]:
    """Run all pages' cells, one kernel for all but with names forgotten in between; outputs by page and cell."""
    cells, places = [], []
    for page in pages:
        cells.append(nbformat.v4.new_code_cell(_SET_UP))
        places.append((page, None))
        for cell in page.cells:
            cells.append(nbformat.v4.new_code_cell(cell.source))
            places.append((page, cell))
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
        except CellExecutionError as error:
            failed = next(index for index, cell in enumerate(cells) if _failed(cell))
            page, cell = places[failed]
            where = cell.label if cell and cell.label else f"{failed}"
            reason = " ".join(f"{error.ename}: {error.evalue}".split())
            raise SubloraError(f"{page.path.name}: cell {where!r} failed ({reason}); correct the page or the run") from None
    executed: dict[Path, list[list[Any]]] = {page.path: [] for page in pages}
    for cell, (page, source) in zip(cells, places, strict=True):
        if source is not None:
            executed[page.path].append(cell.outputs)
    return list(executed.values())


def _failed(cell: nbformat.NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.outputs)


def _replace_folder(new: Path, old: Path) -> None:
    """Put a copy of `new` in the place of `old`; on failure `old` is as it was."""
    arriving, leaving = old.with_name(f".{old.name}.arriving"), old.with_name(f".{old.name}.leaving")
    try:
        for path in (arriving, leaving):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(new, arriving)
        if old.exists():
            old.rename(leaving)
        arriving.rename(old)
    except OSError as error:
        if leaving.exists() and not old.exists():
            leaving.rename(old)
        raise SubloraError(f"{old}: cannot write ({error}); free space or choose another folder") from error
    finally:
        for path in (arriving, leaving):
            shutil.rmtree(path, ignore_errors=True)


class _LoadFinder(HTMLParser):
    """Collects the addresses that a browser would fetch from elsewhere when it opens a page (not its links)."""

    LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}

    def __init__(self):
        super().__init__()
        self.loads: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self._in_style = tag == "style"
        addresses = [values.get("src", ""), values.get("data", "") if tag == "object" else "", values.get("poster", "")]
        addresses += [piece.split()[0] for piece in values.get("srcset", "").split(",") if piece.split()]
        if tag == "link" and self.LOADING_LINKS & set(values.get("rel", "").lower().split()):
            addresses.append(values.get("href", ""))
        if tag in ("image", "use"):
            addresses += [values.get("href", ""), values.get("xlink:href", "")]
        self.loads += [address for address in addresses if re.match(r"\s*(https?:)?//", address, re.IGNORECASE)]
        self.loads += _style_loads(values.get("style", ""))

    def handle_endtag(self, tag):
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data):
        if self._in_style:
            self.loads += _style_loads(data)


def _style_loads(text: str) -> list[str]:
    pattern = r"""(?:url\(\s*|@import\s*)['"]?\s*((?:https?:)?//[^'")\s]+)"""
    return re.findall(pattern, text, re.IGNORECASE)
