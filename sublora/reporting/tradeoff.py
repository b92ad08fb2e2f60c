"""The paper's Fig. 1, published above and measured below: what a longer description of a model gains, and what it costs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.reporting.figures import BLUE, GREEN, ORANGE, STYLE, VIOLET, WIDTH, nothing
from sublora.reporting.published import METHODS, points
from sublora.reporting.reading import number, possible, statement
from sublora.reporting.runs import KeptRun

METHOD_LOOKS = dict(zip(METHODS, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (VIOLET, "D")), strict=True))
LINE_LOOKS = {"training value": (BLUE, "o"), "bound by hoeffding": ("black", "s"), "complexity": (ORANGE, "^"),
              "bound by betting": (VIOLET, "D")}  # fmt: skip
PUBLISHED_GUESS = 15.62  # bits: log2 of the 50,257 tokens of GPT-2


def size_figure(runs: Sequence[KeptRun]) -> Figure:
    """Bound, training value and complexity in bits against the size of the message, on a logarithmic axis; one run a point.

    Above the paper's curve (points read off its figure), below that of `runs`, by hoeffding and by betting for independent
    documents. To see: with the size the training value falls and the complexity rises; their sum is smallest in between.
    """
    with plt.rc_context(STYLE):
        figure, above, below = _published_and_measured("bits")
        bound, risk = points("figure1-bound"), points("figure1-risk")
        published = {"size": bound["x"], "training value": risk["y"], "bound by hoeffding": bound["y"]}
        _size_panel(above, pd.DataFrame({**published, "complexity": bound["y"] - risk["y"], "guess": PUBLISHED_GUESS}))
        measured = _measured(runs)
        if measured.empty:
            nothing(below, "no certificates; run make figure1")
        else:
            _size_panel(below, measured.sort_values("size"))
            _legend(figure, below)
    return figure


def pareto_figure(runs: Sequence[KeptRun]) -> Figure:
    """Complexity against training value in bits, one colour a method; the bound is their sum, equal along dotted lines.

    Above the paper's points, below those of `runs`. To see: near the lower left corner is good; the best of a method is where
    a dotted line touches it first; in the shaded part bounds are vacuous.
    """
    with plt.rc_context(STYLE):
        figure, above, below = _published_and_measured("training value (bits")
        published = points("figure1-pareto").rename(columns={"x": "complexity", "y": "training value"})
        _pareto_panel(above, published.assign(guess=PUBLISHED_GUESS))
        measured = _measured(runs)
        measured = measured[measured["method"].isin(METHODS)]
        if measured.empty:
            nothing(below, "no certificates; run make table1")
        else:
            _pareto_panel(below, measured)
            _legend(figure, above, below)
    return figure


def _published_and_measured(what: str) -> tuple[Figure, Axes, Axes]:
    """An empty figure with two panels; `what` is shown of each, per token and per byte."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 7.4), layout="constrained")
    plt.close(figure)
    end = ")" * what.count("(")
    above.set(title="Published (digitised): GPT-2 small, OpenWebText", ylabel=f"{what} per token{end}")
    below.set(title="Measured: small model, embedded corpus", ylabel=f"{what} per byte{end}")
    return figure, above, below


def _legend(figure: Figure, *panels: Axes) -> None:
    handles = {name: handle for ax in panels for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)


def _measured(runs: Sequence[KeptRun]) -> pd.DataFrame:
    """Runs as points of Fig. 1, one a row: kilobytes and bits, by hoeffding and betting for independent documents."""
    rows = []
    for run in runs:
        hoeffding, betting = (statement(run.certificate, "iid", "bpd", by) for by in ("hoeffding", "betting"))
        if hoeffding is None or betting is None:
            continue
        method = run.certificate.params.get("subspace", {}).get("parametrization", run.name)
        bounds = possible(hoeffding), possible(betting)
        complexity = hoeffding.bound - hoeffding.empirical
        rows.append((run.certificate.message_bits / 8000, method, hoeffding.empirical, bounds[0], complexity,
                     bounds[1], hoeffding.vacuous_at))  # fmt: skip
    return pd.DataFrame(rows, columns=["size", "method", *LINE_LOOKS, "guess"])


def _size_panel(ax: Axes, frame: pd.DataFrame) -> None:
    for name, (colour, marker) in LINE_LOOKS.items():
        if name in frame:
            ax.plot(frame["size"], frame[name], marker=marker, color=colour, markersize=5, linewidth=1.5, label=name)
    guess = frame["guess"].iloc[0]
    ax.axhline(guess, color="black", linestyle="--", linewidth=1.2, label="uniform guess")
    best = frame.loc[frame["bound by hoeffding"].idxmin()]
    ax.annotate(number(best["bound by hoeffding"]), (best["size"], best["bound by hoeffding"]), xytext=(0, 7),
                textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
    ax.set(xscale="log", ylim=(0, 1.35 * guess), xlabel="size of the message (kilobytes)")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")


def _pareto_panel(ax: Axes, frame: pd.DataFrame) -> None:
    guess = frame["guess"].iloc[0]
    right = min(1.15 * frame["complexity"].max(), 1.2 * guess)
    for method, rows in frame.groupby("method", sort=False):
        colour, marker = METHOD_LOOKS[method]
        complexity, training = rows["complexity"], rows["training value"]
        near = complexity <= right
        ax.plot(complexity[near], training[near], marker, color=colour, markersize=6, label=METHODS[method])
        for x, y in zip(complexity[~near], training[~near], strict=True):
            words = f"{METHODS[method]}: complexity {x:.0f} →"
            ax.annotate(words, (right, y), ha="right", va="bottom", fontsize=9, color=colour)
        ax.axline((0, (complexity + training).min()), slope=-1, color="grey", linestyle=":", linewidth=1.0)
    ax.fill_between([0, right], [guess, guess - right], guess + 1, color="0.93", zorder=0, label="vacuous")
    ax.set(xlim=(0, right), ylim=(0.85 * frame["training value"].min(), guess + 0.5), xlabel="complexity (bits)")
