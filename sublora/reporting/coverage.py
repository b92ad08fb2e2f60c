"""The table of coverage simulations (`make coverage`): how often bounds are violated where the truth is known."""

import os
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.errors import SubloraError
from sublora.reporting.figures import BLUE, ORANGE, _axes, _figure, _in_style, _legend_above, _nothing
from sublora.reporting.markdown import Table
from sublora.reporting.tables import DASH

COLUMNS = (
    "level", "assumption", "inequality", "world", "units", "evaluated", "hypotheses", "message_bits", "delta", "trials",
    "violations", "standard_error", "twin", "twin_violations", "gap_ratio",
)  # fmt: skip
NUMBERS = ("units", "evaluated", "delta", "trials", "violations", "twin_violations", "gap_ratio")
FLOOR = 1e-5  # what a logarithmic axis shows for never


def load_coverage(path: str | Path) -> pd.DataFrame:
    """The rows that benchmarks/coverage.py wrote. Raises SubloraError naming the file, and the column that is wrong."""
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise SubloraError(f"{path}: no coverage table; run `make coverage`") from None
    except (OSError, ValueError) as error:
        raise SubloraError(f"{path}: not a coverage table ({' '.join(str(error).split())}); run `make coverage`") from None
    for column in COLUMNS:
        if column not in frame:
            raise SubloraError(f"{path}: column {column!r} is missing; run `make coverage`")
    for column in NUMBERS:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise SubloraError(f"{path}: column {column!r} holds text; run `make coverage`")
    return frame


def coverage_for_pages() -> tuple[pd.DataFrame, list[str]]:
    """The table in the folder that SUBLORA_RESULTS names, or `../results` beside the report's project; or none, and why."""
    path = Path(os.environ.get("SUBLORA_RESULTS", "../results")) / "coverage.csv"
    try:
        return load_coverage(path), []
    except SubloraError as error:
        return pd.DataFrame(columns=list(COLUMNS)), [str(error)]


def coverage_table(frame: pd.DataFrame) -> Table:
    """One row for each inequality and world: violations of the right bound and of its broken twin, and how wide the gap is."""
    shown = pd.DataFrame({"World": frame["world"], "Inequality": _names(frame)})
    shown["Units"] = [
        f"{row.units:,}" if row.units == row.evaluated else f"{row.evaluated:,} of {row.units:,}" for row in frame.itertuples()
    ]
    shown["Violated"] = [_share(value) for value in frame["violations"]]
    shown["Trials"] = ["exact" if trials == 0 else f"{trials:,}" for trials in frame["trials"]]
    shown["Broken twin"] = frame["twin"]
    shown["Twin violated"] = [_share(value) for value in frame["twin_violations"]]
    shown["Gap ratio"] = [DASH if pd.isna(value) else f"{value:.2f}" for value in frame["gap_ratio"]]
    return Table.of(shown, left=("Inequality", "Broken twin"), groups=("World",))


@_in_style
def coverage_figure(frame: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Violations of every right bound and of its twin, on a logarithmic axis, beside the nominal delta.

    To see: all right bounds lie left of the line; twins that are caught lie right of it.
    """
    ax = _axes(ax, 1.4 + 0.17 * len(frame))
    if frame.empty:
        return _nothing(ax, "no coverage table")
    places = range(len(frame))
    ax.plot(frame["twin_violations"].clip(lower=FLOOR), places, "x", color=ORANGE, label="broken twin")
    ax.plot(frame["violations"].clip(lower=FLOOR), places, "o", color=BLUE, markersize=5, label="bound")
    delta = frame["delta"].iloc[0]
    ax.axvline(delta, color="black", linestyle="--", linewidth=1.2, label=f"nominal δ, {delta:g}")
    ax.set_xscale("log")
    ax.set_xlim(FLOOR / 1.5, 1.5)
    ax.set_yticks(places, [f"{name}, {a}" for name, a in zip(_names(frame), frame["assumption"], strict=True)], fontsize=7.5)
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel(f"share of violations (at the left edge: {FLOOR:g} or fewer)")
    _legend_above(ax)
    return _figure(ax)


def _names(frame: pd.DataFrame) -> list[str]:
    return [name.replace("_", " ") for name in frame["inequality"]]


def _share(value: float) -> str:
    return f"{value:.4f}" if value >= 5e-5 or value == 0 else "< 0.0001"
