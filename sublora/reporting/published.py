"""What papers state (Lotfi et al. 2024a; arrow-...: Papadopoulos et al. 2024): one table of values, each with where it was read.

`published.csv` has a row for each value: its table; its metric (for points of the figure a size in kilobytes or a complexity in
bits; a setting's name); the method; the value; its unit; and its provenance in words. Empty: not found in public sources.
"""

from importlib.resources import files

import pandas as pd

METHODS = {
    "sublora": "SubLoRA",
    "lora": "LoRA only",
    "subspace": "Subspace only",
    "full": "Original model",
}
"""The paper's four ways to describe a model, in the order of its Table 1, with its names for them."""


def published(table: str) -> pd.DataFrame:
    """The rows of one table, values as text. Raises KeyError for a table that is not there."""
    frame = pd.read_csv(files("sublora.reporting") / "published.csv", dtype=str, keep_default_na=False)
    rows = frame[frame["table"] == table]
    if rows.empty:
        raise KeyError(f"table {table!r} is not in published.csv; it has {', '.join(frame['table'].unique())}")
    return rows.reset_index(drop=True)


def published_value(table: str, metric: str, method: str) -> tuple[str, str]:
    """One value, as text with its unit left out, and its provenance. Raises KeyError when there is none."""
    rows = published(table)
    found = rows[(rows["metric"] == metric) & (rows["method"] == method)]
    if len(found) != 1:
        raise KeyError(f"{len(found)} values for {table}, {metric}, {method} in published.csv; there must be one")
    return found["value"].iloc[0], found["provenance"].iloc[0]


def points(table: str) -> pd.DataFrame:
    """Points of a figure as numbers: columns method, x (kilobytes or bits of complexity) and y (bits per token)."""
    rows = published(table)
    return pd.DataFrame({"method": rows["method"], "x": rows["metric"].astype(float), "y": rows["value"].astype(float)})
