"""The report of chosen runs: the project without the pages that are about the paper and the package."""

import re
from pathlib import Path
from typing import Any

import yaml

from sublora.study import packaged

PAGES = ("index.qmd", "runs.qmd", "method.qmd", "certificate.qmd")
"""The package's pages that are about any run. A page that a study has added stays, too."""


def leave_out(project: Path) -> None:
    """Delete the package's other pages from the project, and what leads to them.

    A link to one of them becomes its words, and a sentence that begins with such a link goes.
    """
    gone = {path.name for path in packaged("report").glob("*.qmd")} - set(PAGES)
    for name in gone:
        (project / name).unlink(missing_ok=True)
    settings = yaml.safe_load((project / "_quarto.yml").read_text("utf-8"))
    bar = settings["website"]["navbar"]
    bar["left"] = _without(bar["left"], gone)
    (project / "_quarto.yml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "utf-8")
    link = rf"\[([^\]]*)\]\((?:{'|'.join(map(re.escape, sorted(gone)))})(?:#[^)]*)?\)"
    for page in project.glob("*.qmd"):
        text = re.sub(rf"(?:(?<=\n\n)|(?<=\.\s)){link}.*?\.(?=\s)", "", page.read_text("utf-8"), flags=re.DOTALL)
        page.write_text(re.sub(link, r"\1", text), "utf-8")


def _without(items: list[dict[str, Any]], gone: set[str]) -> list[dict[str, Any]]:
    """The items of a navigation that lead to a page which is there. A menu keeps such items; one of them takes its place."""
    kept = []
    for item in items:
        if "menu" in item:
            inside = _without(item["menu"], gone)
            item = inside[0] if len(inside) == 1 else {**item, "menu": inside}
        if item.get("href") not in gone and item.get("menu") != []:
            kept.append(item)
    return kept
