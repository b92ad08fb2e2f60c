"""The paper's Fig. 1, published above and measured below: what a longer description of a model gains, and what it costs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.certificate.schema import Certificate
from sublora.reporting.figures import BLUE, GREEN, ORANGE, VIOLET, WIDTH, _in_style, _nothing
from sublora.reporting.paper import stated
from sublora.reporting.published import METHODS, points
from sublora.reporting.reading import number
from sublora.reporting.runs import KeptRun

METHOD_LOOKS = dict(zip(METHODS, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (VIOLET, "D")), strict=True))
PUBLISHED_GUESS = 15.62  # bits: log2 of the 50,257 tokens of GPT-2
PUBLISHED_TITLE = "Published (digitised): GPT-2 small, OpenWebText"


@_in_style
def size_figure(runs: Sequence[KeptRun]) -> Figure:
    """Bound, training value and complexity in bits against the size of the message, on a logarithmic axis; one run a point.

    Above the paper's curve (points read off its figure), below that of `runs`, by hoeffding and by betting for independent
    documents. To see: with the size the training value falls and the complexity rises; their sum is smallest in between.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 7.4), layout="constrained")
    plt.close(figure)
    bound, risk = points("figure1-bound"), points("figure1-risk")
    _size_panel(above, bound["x"], {"training value": risk["y"], "bound by hoeffding": bound["y"],
                                    "complexity": bound["y"] - risk["y"]}, PUBLISHED_GUESS)  # fmt: skip
    above.set_title(PUBLISHED_TITLE)
    above.set_ylabel("bits per token")
    rows = [row for run in runs if (row := _row(run.certificate)) is not None]
    if not rows:
        _nothing(below, "no certificates; run make figure1")
        return figure
    frame = pd.DataFrame(rows).sort_values("size")
    lines = {"training value": frame["empirical"], "bound by hoeffding": frame["hoeffding"],
             "complexity": frame["complexity"], "bound by betting": frame["betting"]}  # fmt: skip
    _size_panel(below, frame["size"], lines, frame["guess"].iloc[0])
    below.set_title("Measured: small model, embedded corpus")
    below.set_ylabel("bits per byte")
    handles, names = below.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    return figure


@_in_style
def pareto_figure(runs: Sequence[KeptRun]) -> Figure:
    """Complexity against training value in bits, one colour a method; the bound is their sum, equal along dotted lines.

    Above the paper's points, below those of `runs`. To see: near the lower left corner is good; the best of a method is where
    a dotted line touches it first; in the shaded part bounds are vacuous.
    """
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 7.4), layout="constrained")
    plt.close(figure)
    above, below = axes
    _pareto_panel(above, points("figure1-pareto"), PUBLISHED_GUESS)
    above.set_title(PUBLISHED_TITLE)
    above.set_ylabel("training value (bits per token)")
    rows = [{"method": method, "x": row["complexity"], "y": row["empirical"], "guess": row["guess"]}
            for run in runs if (row := _row(run.certificate)) and (method := _method(run)) in METHODS]  # fmt: skip
    if not rows:
        _nothing(below, "no certificates; run make table1")
        return figure
    frame = pd.DataFrame(rows)
    _pareto_panel(below, frame, frame["guess"].iloc[0])
    below.set_title("Measured: small model, embedded corpus")
    below.set_ylabel("training value (bits per byte)")
    handles = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _method(run: KeptRun) -> str:
    return run.certificate.params.get("subspace", {}).get("parametrization", run.name)


def _row(certificate: Certificate) -> dict[str, float] | None:
    """A run as a point of Fig. 1: kilobytes and bits, by hoeffding and betting for independent documents."""
    hoeffding, betting = (stated(certificate, "bpd", by) for by in ("hoeffding", "betting"))
    if hoeffding is None or betting is None:
        return None
    return {
        "size": certificate.message_bits / 8000,
        "empirical": hoeffding.empirical,
        "complexity": hoeffding.bound - hoeffding.empirical,
        "hoeffding": hoeffding.bound,
        "betting": betting.bound,
        "guess": hoeffding.vacuous_at,
    }


_LINES = {"training value": (BLUE, "o"), "bound by hoeffding": ("black", "s"), "complexity": (ORANGE, "^"),
          "bound by betting": (VIOLET, "D")}  # fmt: skip


def _size_panel(ax: Axes, size: pd.Series, lines: Mapping[str, pd.Series], guess: float) -> None:
    for name, values in lines.items():
        colour, marker = _LINES[name]
        ax.plot(size, values, marker=marker, color=colour, markersize=5, linewidth=1.5, label=name)
    ax.axhline(guess, color="black", linestyle="--", linewidth=1.2, label="uniform guess")
    best = lines["bound by hoeffding"].idxmin()
    ax.annotate(number(lines["bound by hoeffding"][best]), (size[best], lines["bound by hoeffding"][best]), xytext=(0, 7),
                textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.set_ylim(0, 1.35 * guess)
    ax.set_xlabel("size of the message (kilobytes)")


def _pareto_panel(ax: Axes, frame: pd.DataFrame, guess: float) -> None:
    right = min(1.15 * frame["x"].max(), 1.2 * guess)
    for method, rows in frame.groupby("method", sort=False):
        colour, marker = METHOD_LOOKS[method]
        far = rows["x"] > right
        ax.plot(rows["x"][~far], rows["y"][~far], marker, color=colour, markersize=6, label=METHODS[method])
        for row in rows[far].itertuples():
            words = f"{METHODS[method]}: complexity {row.x:.0f} →"
            ax.annotate(words, (right, row.y), ha="right", va="bottom", fontsize=9, color=colour)
    lowest = frame["y"].min()
    ax.fill_between([0, right], [guess, guess - right], guess + 1, color="0.93", zorder=0, label="vacuous")
    for bound in [frame.loc[rows.index, ["x", "y"]].sum(axis=1).min() for _, rows in frame.groupby("method")]:
        ax.axline((0, bound), slope=-1, color="grey", linestyle=":", linewidth=1.0)
    ax.set_xlim(0, right)
    ax.set_ylim(0.85 * lowest, guess + 0.5)
    ax.set_xlabel("complexity (bits)")
