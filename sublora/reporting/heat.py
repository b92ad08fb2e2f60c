"""A held-out document with the loss of each token in colour, beside text drawn from the message (`benchmarks/heat.py`)."""

import html

from sublora.errors import SubloraError
from sublora.reporting.markdown import Markdown, escape
from sublora.reporting.results import load_table
from sublora.reporting.runs import KeptRun

COLUMNS = ("sampled", "byte", "bits")
MOST = 8.0
"""Bits that have the full colour."""


def heat_map(run: KeptRun) -> Markdown:
    """The table `heat.csv` beside a run as HTML, or a sentence where there is none.

    Its rows are bytes in their order: of the document with their loss in bits, and of the sampled text.
    """
    try:
        frame = load_table(run.path / "heat.csv", COLUMNS, "run `python -P benchmarks/heat.py` and the run's folder")
    except SubloraError:
        return escape("No document with its losses was kept with this run. `python -P benchmarks/heat.py FOLDER` makes one.")
    frame = frame[list(COLUMNS)].clip(0, 255).dropna()
    texts = []
    for sampled in (0, 1):
        rows = frame[frame["sampled"] == sampled]
        values = [0.0] * len(rows) if sampled else [min(MOST, max(0.0, float(bits))) for bits in rows["bits"]]
        codes = [int(code) for code in rows["byte"]]
        texts.append("".join(_span(code, bits) for code, bits in zip(codes, values, strict=True)))
    boxes = "".join(f'<pre class="heat">{text}</pre>' for text in texts)
    return Markdown(f"``````{{=html}}\n<div class=\"heat\">{boxes}</div>\n``````\n")


def _span(code: int, bits: float) -> str:
    """One byte as HTML. What is no printable ASCII is a dot; a new line stays one."""
    text = "\n" if code == 10 else chr(code) if 32 <= code < 127 else "\u00b7"
    shown = html.escape(text).replace("`", "&#96;").replace("\n", "\u21b5\n" if bits else "\n")
    style = f"background:rgba(213,94,0,{0.8 * bits / MOST:.2f})"
    return f'<span title="{bits:.1f} bits" style="{style}">{shown}</span>' if bits else shown
