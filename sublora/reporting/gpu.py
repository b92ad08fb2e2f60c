"""What was measured on a GPU, as a table."""

import pandas as pd

from sublora.reporting.markdown import Markdown, Table, escape

SHOWN = {"tokens_per_second": "tokens a second", "share_of_peak": "share of the card's bf16 peak"}
"""Quantities that are not named by their words alone."""


def measured(rows: pd.DataFrame, reasons: list[str]) -> Markdown | Table:
    """The measurements of `benchmarks/gpu.py`; where there are none, a sentence that says so."""
    if rows.empty:
        return escape(" ".join(reasons))
    return Table(
        [
            {
                "Card": row["device"],
                "Part": row["part"],
                "Method": row["method"],
                "Compiled": "yes" if row["compiled"] else "no",
                "Quantity": SHOWN.get(row["quantity"], row["quantity"].replace("_", " ")),
                "Value": f"{row['value']:,.4g}" if row["value"] < 1000 else f"{row['value']:,.0f}",
            }
            for row in rows.to_dict("records")
        ],
        left=("Method", "Compiled", "Quantity"),
        groups=("Card", "Part"),
    )
