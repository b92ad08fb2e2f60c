"""The report's website without Quarto: cells run by nbclient, pages written by pandoc."""

import base64
import io
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import panflute as pf
import pypandoc
import yaml

from sublora.errors import SubloraError
from sublora.reporting.cells import executed
from sublora.reporting.crossref import Crossref

_WIDE = 100_000  # characters: pandoc divides a table's width by the length of its source only where a line is longer


def write_site(project: Path, environment: Mapping[str, str]) -> None:
    """Write `<project>/_site`: a self-contained page for each `.qmd` file. Raises SubloraError when a page cannot be right."""
    settings = yaml.safe_load((project / "_quarto.yml").read_text("utf-8"))
    _before(project, settings, environment)
    pages = [path for pattern in settings["project"]["render"] for path in sorted(project.glob(pattern))]
    for page, text in zip(pages, executed(pages, project, environment), strict=True):
        target = project / "_site" / page.relative_to(project).with_suffix(".html")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_html(page, text, project, settings), "utf-8")


_TYPST = re.compile(r"^```\{=typst\}\n.*?^```\n", re.MULTILINE | re.DOTALL)
"""What only a PDF needs."""


def _before(project: Path, settings: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Run the project's pre-render script, as Quarto does."""
    if script := settings["project"].get("pre-render"):
        done = subprocess.run([sys.executable, script], cwd=project, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.split("\n")[-2:] or ["no message"])[0]
            raise SubloraError(f"{project / script}: {reason}")


def _html(page: Path, text: str, project: Path, settings: dict[str, Any]) -> str:
    text = _TYPST.sub("", text)
    document = pf.load(io.StringIO(_pandoc(page, text, settings["from"], "json", f"--columns={_WIDE}")))
    Crossref(page).apply(document)
    root = "../" * (len(page.relative_to(project).parts) - 1)
    website, here = settings["website"], page.relative_to(project).as_posix()
    document.metadata["navigation"] = [_navigation(item, root, here) for item in website["navbar"]["left"]]
    document.metadata["site"], document.metadata["brand"] = website["title"], website["navbar"]["title"]
    document.metadata["favicon"] = _embedded(project / website["favicon"])
    document.metadata["footer"] = website["page-footer"]
    with io.StringIO() as written:
        pf.dump(document, written)
        return _pandoc(
            page,
            written.getvalue(),
            "json",
            "html5",
            f"--template={project / '_template.html'}",
            f"--bibliography={project / settings['bibliography']}",
            f"--variable=styles:{(project / settings['format']['html']['css']).read_text('utf-8')}",
            *("--citeproc", "--metadata=link-citations", "--mathml", "--toc", "--toc-depth=3", "--section-divs", "--wrap=none"),
        )


def _navigation(item: Mapping[str, Any], root: str, here: str) -> dict[str, Any]:
    """A page or a menu of pages of the navigation bar, as the template has it."""
    if "menu" in item:
        menu = [_navigation(page, root, here) for page in item["menu"]]
        return {"text": item["text"], "menu": menu, "here": any(page["here"] for page in menu)}
    return {"text": item["text"], "href": root + item["href"].replace(".qmd", ".html"), "here": item["href"] == here}


def _embedded(picture: Path) -> str:
    """A small SVG as an address that holds it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _pandoc(page: Path, text: str, read: str, to: str, *options: str) -> str:
    """Pandoc's output. Its warnings are errors, but not on a notebook's page, which may hold what nobody here has written."""
    strict = [] if page.parent.name == "notebooks" else ["--fail-if-warnings"]
    command = [pypandoc.get_pandoc_path(), f"--from={read}", f"--to={to}", *options, *strict]
    done = subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise SubloraError(f"{page.name}: pandoc: {' '.join(done.stderr.split()):.300}")
    return done.stdout
