"""What a page would load from the network: scripts, styles, pictures and fonts, but not where its links lead."""

import re
from html.parser import HTMLParser
from pathlib import Path


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
