"""The table of coverage simulations (`make coverage`): how often bounds are violated where the truth is known."""

import pandas as pd
from matplotlib.axes import Axes

from sublora.reporting.figures import BLUE, ORANGE, drawn, labelled, nothing, rows_of
from sublora.reporting.markdown import Table
from sublora.reporting.reading import number
from sublora.reporting.tables import DASH

FLOOR = 1e-5  # what a logarithmic axis shows for never


def coverage_table(frame: pd.DataFrame) -> Table:
    """One row for each inequality and world: violations of the right bound and of its broken twin, and how wide the gap is."""
    shown = pd.DataFrame({"World": frame["world"], "Inequality": frame["inequality"].str.replace("_", " ")})
    shown["Units"] = [
        f"{row.units:,}" if row.units == row.evaluated else f"{row.evaluated:,} of {row.units:,}" for row in frame.itertuples()
    ]
    shown["Violated"] = frame["violations"].map(_share)
    shown["Trials"] = ["exact" if trials == 0 else f"{trials:,}" for trials in frame["trials"]]
    shown["Broken twin"] = frame["twin"]
    shown["Twin violated"] = frame["twin_violations"].map(_share)
    shown["Gap ratio"] = [DASH if pd.isna(value) else number(value) for value in frame["gap_ratio"]]
    return Table.of(shown, left=("Inequality", "Broken twin"), groups=("World",))


@drawn(1.4)
def coverage_figure(frame: pd.DataFrame, *, ax: Axes) -> None:
    """Violations of every right bound and of its twin, on a logarithmic axis, beside the nominal delta.

    To see: all right bounds lie left of the line; twins that are caught lie right of it.
    """
    if frame.empty:
        return nothing(ax, "no coverage table")
    groups = [rows for _, rows in frame.groupby((frame["world"] != frame["world"].shift()).cumsum(), sort=False)]
    place, names = 0, list[str]()
    for rows in groups:  # a world's name, then its inequalities, in the order of the table
        ax.axhspan(place - 0.45, place + 0.45, color="0.93", zorder=2.5)
        ax.text(0.01, place, _world(rows), transform=ax.get_yaxis_transform(), va="center", fontsize=7, zorder=3)
        places = range(place + 1, place + 1 + len(rows))
        labels = ("broken twin", "bound") if place == 0 else (None, None)
        ax.plot(rows["twin_violations"].clip(lower=FLOOR), places, "x", color=ORANGE, label=labels[0])
        ax.plot(rows["violations"].clip(lower=FLOOR), places, "o", color=BLUE, markersize=5, label=labels[1])
        names += ["", *rows["inequality"].str.replace("_", " ")]
        place = len(names)
    delta = frame["delta"].iloc[0]
    ax.axvline(delta, color="black", linestyle="--", linewidth=1.2, label=f"nominal δ, {delta:g}")
    ax.set(xscale="log", xlim=(FLOOR / 1.5, 1.5))
    rows_of(ax, names, 1.4 + 0.17 * len(names), fontsize=7.5)
    labelled(ax, f"share of violations\n(at the left edge: {FLOOR:g} or fewer)")


def _world(rows: pd.DataFrame) -> str:
    """The heading of a world's rows: its name, what is assumed in it, and its units."""
    units = " and ".join(dict.fromkeys(f"{units:,}" for units in rows["units"]))
    return f"{rows['world'].iloc[0]}; {', '.join(dict.fromkeys(rows['assumption']))}; n = {units}"


def _share(value: float) -> str:
    return number(value, 4)
