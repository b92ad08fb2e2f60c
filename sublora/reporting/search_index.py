"""The search of Quarto's website without a server: its index in a script, since a page opened from disk can fetch nothing."""

import json
from pathlib import Path

SCRIPT, INDEX = Path("site_libs/quarto-search/quarto-search.js"), Path("search.json")
REFUSES = 'window.location.protocol === "file:" && !shownWarning'
FETCHES = 'await fetch(offsetURL("search.json"))'
NAME = "sublora_search_index"


def embed_index(site: Path) -> str | None:
    """Write the index of a site that Quarto has rendered into its search script, which then neither fetches it nor warns.

    Returns why not, in a line, if the site has no search index, or if Quarto's script is not the one that this was written for. The
    search then needs a web server, and says so.
    """
    try:
        script, index = (site / SCRIPT).read_text("utf-8"), json.loads((site / INDEX).read_text("utf-8"))
    except (OSError, ValueError) as error:
        return f"the search has no index ({error})"
    if script.startswith(f"const {NAME}"):  # a page was rendered again, and Quarto kept the script
        script = script.partition("\n")[2]
    elif REFUSES in script and FETCHES in script:
        script = script.replace(REFUSES, "false").replace(FETCHES, f"{{ status: 200, json: async () => {NAME} }}")
    else:
        return "this version of Quarto searches in another way: the search needs a web server"
    (site / SCRIPT).write_text(f"const {NAME} = {json.dumps(index)};\n{script}", "utf-8")
    return None
