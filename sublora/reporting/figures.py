"""Figures: from a certificate, a training log or an array to a matplotlib Figure, all in one style.

They are drawn 4.8 inches wide with letters of 11 points, so that they can be read on a telephone and in print. A function with
`@drawn(height)` draws into `ax`; where no `ax` is given, into a new figure. It returns the figure.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.certificate.schema import Certificate, Statement
from sublora.errors import printable
from sublora.reporting import reading
from sublora.reporting.reading import number, shown
from sublora.reporting.runs import KeptRun

WIDTH = 4.8  # inches
BLUE, ORANGE, GREEN, RED, VIOLET, BROWN, PINK, GREY = sns.color_palette("colorblind", 8)
ASSUMPTION_COLOURS = {"unseen": BLUE, "iid": ORANGE, "pool": GREY, "martingale": GREEN}
PARTS = {"empirical": ("training value", BLUE), "complexity": ("complexity", ORANGE), "subsampling": ("subsampling", GREEN),
         "price": ("price: what the inequality adds", ORANGE)}  # fmt: skip
STYLE = sns.axes_style("whitegrid") | {
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "axes.edgecolor": "0.6",
    "grid.color": "0.9",
    "figure.facecolor": "white",
    "svg.hashsalt": "sublora",  # the same figure gives the same bytes
    "svg.fonttype": "path",  # letters as shapes: no font is needed to show or print them
}


def drawn(height: float) -> Callable[[Callable[..., None]], Callable[..., Figure]]:
    """A decorator of functions that draw into `ax`: in `STYLE`, by default into a new figure so many inches high; they return it.

    A new figure is closed for pyplot, so that a notebook shows it once.
    """

    def decorate(draw: Callable[..., None]) -> Callable[..., Figure]:
        @functools.wraps(draw)
        def draw_figure(*arguments, ax: Axes | None = None, **options) -> Figure:
            with plt.rc_context(STYLE):
                if ax is None:
                    made, ax = plt.subplots(figsize=(WIDTH, height), layout="constrained")
                    plt.close(made)
                draw(*arguments, **options, ax=ax)
                figure = ax.get_figure(root=True)
                assert figure is not None  # axes have one
                return figure

        return draw_figure

    return decorate


def labelled(ax: Axes, x: str, y: str = "") -> None:
    """Name the axes, and put a legend where it covers no data and takes no width."""
    ax.set(xlabel=x, ylabel=y)
    long = any(len(text) > 45 for text in ax.get_legend_handles_labels()[1])  # two columns would leave no width
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1 if long else 2, frameon=False, fontsize=9)


def nothing(ax: Axes, words: str) -> None:
    """Say in the place of a figure why there is none."""
    ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes, wrap=True)
    ax.set(xticks=[], yticks=[])


def guess_line(draw: Callable[..., Any], value: float | None, name: str = "uniform guess") -> None:
    """A dashed line by `ax.axhline` or `ax.axvline` at the value below which a loss says something; None draws nothing."""
    if value is not None:
        draw(value, color="black", linestyle="--", linewidth=1.2, label=f"{name}, {number(value)}")


def rows_of(ax: Axes, names: Sequence[str], inches: float, **font: Any) -> None:
    """One row a name, from above; where the axes are alone in a figure, it becomes so many inches high."""
    ax.set_yticks(range(len(names)), names, **font)
    ax.set_ylim(len(names) - 0.4, -0.6)
    if isinstance(ax.figure, Figure) and len(ax.figure.axes) == 1:
        ax.figure.set_figheight(inches)


def by_colour(frame: pd.DataFrame, group: str, x: str, y: str, style: str, *, ax: Axes, numbers: bool = True) -> None:
    """A colour for each group of rows, in the order of their x; `numbers` writes beside each point its number of levels."""
    for colour, (name, rows) in zip(sns.color_palette("colorblind"), frame.groupby(group, sort=False), strict=False):
        rows = rows.sort_values(x)
        ax.plot(rows[x], rows[y], style, color=colour, markersize=5 if numbers else 4, label=name.replace("_", " "))
        for place in zip(rows[x], rows[y], rows["levels"], strict=True) if numbers else ():
            ax.annotate(f"{place[2]}", place[:2], xytext=(4, 3), textcoords="offset points", fontsize=8)


@drawn(3.0)
def bounds_overview(certificate: Certificate, every: bool = False, top: float = 0.0, *, ax: Axes) -> None:
    """The main figure: bounds in bits (of a classifier: in percent), between what was measured and the guess.

    It shows a tight inequality and the paper's under each assumption, first beside the public reference, if there is one, then with
    the uniform guess; `every`: all inequalities. A cross is what the reference gets by itself, and its bounds state their gain.
    The axis ends a little above the guess, or at `top` where that is higher (bits or shares): panels side by side have one axis.

    Each line runs from the value on training documents (tick) to the bound (dot, with its number). Dots left of the dashed line
    are better than guessing. A bound far above the guess ends in an arrow at the right edge, with its number, or `vacuous` where no
    loss exceeds it. The diamond is the held-out value; it stands only on lines whose bounded quantity it estimates, and belongs
    left of the dot.
    """
    metric = reading.main_metric(certificate)
    rows = [bound for bound in reading.certified(certificate) if bound.metric == metric]
    rows = [bound for bound in rows if every or bound.inequality in reading.MAIN_INEQUALITIES[bound.level]]
    many = rows[0].level + "s" if rows[0].level in ("example", "position") else "documents"
    scale = 100 if reading.in_percent(metric) else 1
    highest = scale * max(top, axis_top(certificate))  # else a vacuous bound crowds the rest
    labels = {"|": f"value on training {many}", "o": "bound", "D": "held-out value", "X": "the reference by itself"}  # each once
    for y, bound in enumerate(rows):
        measured, proved = scale * bound.empirical, min(scale * bound.bound, highest)
        colour = ASSUMPTION_COLOURS[bound.assumption]
        ax.plot([measured, proved], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(measured, y, "|", color=colour, markersize=18, markeredgewidth=2, label=labels.pop("|", None))
        ax.plot(proved, y, ">" if proved == highest else "o", color=colour, markersize=8, label=labels.pop("o", None))
        if bound.reference_empirical is not None:
            ax.plot(bound.reference_empirical, y, "X", color=VIOLET, markersize=7, zorder=6, label=labels.pop("X", None))
        end = max(proved, bound.reference_empirical or 0.0)
        ax.annotate(reading.written(bound) + reading.gain_in_words(bound), (end, y), xytext=(8, 0), textcoords="offset points",
                    va="center", fontsize=10, zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        truth = reading.held_out_value(certificate, bound)
        if truth is not None:
            ax.plot(scale * truth, y, "D", color="white", markeredgecolor="black", markersize=6, label=labels.pop("D", None))
    guess_line(ax.axvline, scale * rows[0].vacuous_at, reading.guess_name(rows[0]).removeprefix("the "))
    names = [shown(certificate, bound) for bound in rows]
    words = [f"{this.speaks_of.removeprefix('token level: ')}, {this.inequality}" for this in names]  # martingale says so
    if beside := rows[0].reference is not None:
        words = [f"{text} ({'reference' if bound.reference else 'uniform'})" for text, bound in zip(words, rows, strict=True)]
    rows_of(ax, words, 1.7 + 0.38 * len(rows), **({"fontsize": 8} if beside else {}))
    ax.set(xlim=(0, 1.15 * highest), xlabel=f"{names[0].metric}{' in percent' if scale == 100 else ''} (lower is better)")
    ax.grid(axis="y", visible=False)
    ax.figure.legend(loc="outside lower center", ncols=2, frameon=False)


def axis_top(certificate: Certificate) -> float:
    """Where the axis of `bounds_overview` ends by itself: a tenth above the guess and all training values."""
    rows = [bound for bound in reading.certified(certificate) if bound.metric == reading.main_metric(certificate)]
    return 1.1 * max([rows[0].vacuous_at, *(bound.empirical for bound in rows)])


@drawn(3.2)
def loss_curve(
    metrics: pd.DataFrame | None, uniform: float | None = None, unit: str = "bits per token", *, ax: Axes
) -> None:
    """The training log: loss in `unit` at each step, on training batches and on validation documents.

    To see: the loss falls from the uniform guess (dashed, where given) and levels off; in the second phase the
    coordinates are pulled onto a few quantization levels, which costs the step up between the colours.
    """
    if metrics is None or metrics.empty:
        return nothing(ax, "no training log")
    start = 0
    for phase, rows in metrics.groupby("phase", sort=False):
        colour = ORANGE if phase == "quantize" else BLUE
        # A phase may count its steps from one again: it is shown after the phase before it.
        steps = rows["step"] + (start if rows["step"].min() <= start else 0)
        train, validation = rows["train_loss"].notna(), rows["validation_loss"].notna()
        ax.plot(steps[train], rows["train_loss"][train], color=colour, linewidth=1, alpha=0.6, label=f"{phase}, training")
        ax.plot(steps[validation], rows["validation_loss"][validation], "o-", color=colour, markersize=4,
                label=f"{phase}, validation")  # fmt: skip
        start = steps.max()
    guess_line(ax.axhline, uniform)
    labelled(ax, "step", f"loss ({unit})")


@drawn(3.8)
def bound_against_alpha(certificate: Certificate, *, ax: Axes) -> None:
    """The bound in bits at every smoothing weight α, with the uniform guess: bars stack what it is made of.

    The bars are of the headline's assumption and inequality. The line is the paper's inequality: hoeffding, for tokens azuma.

    To see: little smoothing (left) widens the range of the loss, and with it the price; much smoothing (right)
    spoils the predictions. Between them the bound is smallest. Dashed: the uniform guess; the star marks the certified α.
    """
    main = reading.headline(certificate)
    published = "azuma" if main.level == "token" else "hoeffding"
    wanted = (main.level, "bpd", main.assumption, None)
    rows = [b for b in certificate.statements if (b.level, b.metric, b.assumption, b.reference) == wanted and b.alpha is not None]
    stacked = [b for b in rows if b.inequality == main.inequality]
    if not stacked:
        inequality = main.inequality.replace("_", " ")
        return nothing(ax, f"no bound in bits by {inequality} with the uniform guess ({main.assumption}) in this certificate")
    alphas = sorted({bound.alpha for bound in rows if bound.alpha is not None})
    place: dict[float | None, int] = {alpha: index for index, alpha in enumerate(alphas)}
    bottom, tops = np.zeros(len(stacked)), np.array([reading.largest_loss(b) for b in stacked])
    for part, (name, colour) in PARTS.items():
        heights = np.array([_part(b, part) for b in stacked])
        heights = np.minimum(heights, tops - bottom)
        if heights.any():
            ax.bar([place[b.alpha] for b in stacked], heights, 0.7, bottom, color=colour, label=name)
        bottom += heights
    for inequality, marker, colour in ((main.inequality, "s", VIOLET), (published, "o", "black")):
        line = sorted((b for b in rows if b.inequality == inequality), key=lambda b: place[b.alpha])
        if line and (inequality == main.inequality or published != main.inequality):
            ax.plot([place[b.alpha] for b in line], [reading.possible(b) for b in line], marker=marker, color=colour,
                    markeredgecolor="white", linewidth=1.5, label=f"bound by {inequality.replace('_', ' ')}")  # fmt: skip
    guess_line(ax.axhline, stacked[0].vacuous_at)
    labels = [f"{alpha:g}" + ("\n★" if alpha == certificate.alpha else "") for alpha in alphas]
    ax.set_xticks(range(len(alphas)), labels, fontsize=9)
    ax.grid(axis="x", visible=False)
    unit = reading.metric_name(certificate, "bpd")
    labelled(ax, "smoothing weight α (★: the certified model's)", f"{unit},\n{main.assumption}")


def _part(bound: Statement, part: str) -> float:
    """A term of a bound: as the certificate states it, else its training value and its price."""
    if bound.parts is not None:
        return float(getattr(bound.parts, part, 0.0))
    return {"empirical": bound.empirical, "price": bound.bound - bound.empirical}.get(part, 0.0)


@drawn(2.4)
def bounds_if(table: pd.DataFrame, unit: str = "bits per token", *, ax: Axes) -> None:
    """The bounds of `certificate.what_if`, as bars from the training value up; the axis ends at twice the uniform guess.

    To see: which settings move the bound, and which inequality suffers; right of the dashed line it says nothing.
    """
    training, guess = table["empirical"].iloc[0], table["vacuous_at"].iloc[0]
    for y, row in enumerate(table.itertuples()):
        ax.barh(y, row.gap, 0.6, left=row.empirical, color=BLUE if row.bound < guess else GREY)
        place, side = (row.bound, "left") if row.bound < 1.7 * guess else (1.7 * guess, "right")
        ax.text(place, y, f" {number(row.bound)} ", va="center", ha=side, fontsize=10)
    ax.axvline(training, color="black", linewidth=1.2, label=f"training value, {number(training)}")
    guess_line(ax.axvline, guess)
    rows_of(ax, table["inequality"], 2.4)
    ax.set_xlim(0, 2 * guess)
    ax.grid(axis="y", visible=False)
    labelled(ax, f"{unit} (lower is better)")


@drawn(4.2)
def trade_off(ways: pd.DataFrame, uniform: float | None = None, unit: str = "bits per token", *, ax: Axes) -> None:
    """The ways to compress one model (`sublora.search`): loss on training units against what the bound adds, in `unit`.

    To see: few levels (left) make a small message, which costs little, and a worse model; many the other way round. Points on one
    dotted line have the same bound; the star is the smallest. With a public reference, its own value and the gain stand there.
    """
    by_colour(ways, "quantizer", "gap", "empirical", "o", ax=ax)
    best = ways.loc[ways["bound"].idxmin()]
    name = f"smallest bound, {number(best['bound'])}"
    if "gain" in best:
        name += f"{reading.gain_in_words(None, best['gain'])}\n(the reference by itself: {number(best['reference_empirical'])})"
    ax.plot(best["gap"], best["empirical"], "*", color="black", markersize=14, zorder=0, label=name)
    ax.axline((best["gap"], best["empirical"]), slope=-1, color="grey", linestyle=":", linewidth=1.2)
    if uniform is not None and ways["empirical"].max() > uniform:
        guess_line(ax.axhline, uniform)
    labelled(ax, f"what the bound adds ({unit})", f"loss on training units ({unit})")


@drawn(3.0)
def coordinates_histogram(coordinates: np.ndarray, levels: np.ndarray, *, ax: Axes) -> None:
    """The trained coordinates w (any shape) and the quantization levels (k values) they are replaced by.

    To see: each coordinate moves to the nearest line. Lines should lie where the coordinates are.
    """
    sns.histplot(x=np.ravel(coordinates), bins=60, color=BLUE, edgecolor="none", ax=ax, label="coordinates")
    for index, level in enumerate(np.ravel(levels)):
        ax.axvline(level, color=ORANGE, linewidth=1.2, label="quantization levels" if index == 0 else None)
    labelled(ax, "value of a coordinate (no unit)", "coordinates")


@drawn(3.2)
def document_losses_histogram(
    losses: np.ndarray, bound: Statement, *, unit: str = "bits per token", level: str = "document",
    reference: np.ndarray | None = None, ax: Axes
) -> None:  # fmt: skip
    """Losses of documents or other units (n values, in `unit`) with their mean, the bound on the mean, and the uniform guess.

    reference: the public reference's own losses of the same units, whose mean is then a line; the bound states its gain.
    To see: the bound speaks of the mean, not of each unit; single ones may lie right of it.
    """
    sns.histplot(x=np.ravel(losses), bins=60, color=BLUE, edgecolor="none", ax=ax)
    mean, gained = float(np.mean(losses)), reading.gain_in_words(bound)
    ax.axvline(mean, color="black", linewidth=1.5, label=f"mean, {number(mean)}")
    if reference is not None:
        own = float(np.mean(reference))
        ax.axvline(own, color=VIOLET, linewidth=1.5, label=f"mean of the reference by itself, {number(own)}")
    ax.axvline(bound.bound, color=RED, linewidth=1.5, label=f"bound on the mean, {reading.written(bound)}{gained}")
    guess_line(ax.axvline, bound.vacuous_at)
    labelled(ax, f"loss of a {level} ({unit})", f"{level}s")


Draw = Callable[[KeptRun, Axes], Any]


def every_run(runs: Sequence[KeptRun], draw: Draw, height: float | Callable[[KeptRun], float] = 2.8) -> Figure:
    """One panel a run, one below the other, each drawn by `draw(run, ax)` and headed by the run's name.

    One legend stands below all panels. Axes with the same name have the same limits. height: of a panel, in inches.
    """
    with plt.rc_context(STYLE):
        heights = [height(run) if callable(height) else height for run in runs]
        figure = plt.figure(figsize=(WIDTH, 1.2), layout="constrained")
        plt.close(figure)
        if not runs:
            nothing(figure.subplots(), "no runs")
            return figure
        axes = list(figure.subplots(len(runs), squeeze=False, height_ratios=heights).flat)
        for run, ax in zip(runs, axes, strict=True):
            draw(run, ax)
            if (legend := ax.get_legend()) is not None:
                legend.remove()
            ax.set_title(printable(run.name).replace("$", r"\$"), loc="left", fontweight="bold", fontsize=11)
        figure.legends.clear()
        figure.set_figheight(sum(heights) + 0.9)
        _equal_axes(axes)
        handles = {re.sub(r", [\d.,]+$", "", name): handle for ax in axes for handle, name in _handles(ax)}  # a guess may differ
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _handles(ax: Axes) -> Iterator[tuple[Any, str]]:
    return zip(*ax.get_legend_handles_labels(), strict=True)


def _equal_axes(axes: Sequence[Axes]) -> None:
    """Give axes that have the same name the same limits."""
    for ax in axes:
        for name, get, change in ((Axes.get_xlabel, Axes.get_xlim, Axes.set_xlim), (Axes.get_ylabel, Axes.get_ylim, Axes.set_ylim)):
            if name(ax):
                lows, highs = zip(*(get(other) for other in axes if name(other) == name(ax)), strict=True)
                change(ax, min(lows), max(highs))


def draw_loss(run: KeptRun, ax: Axes) -> Figure:
    """`loss_curve` of a run, with the uniform guess of a language model's vocabulary, for `every_run`."""
    corpus = run.certificate.corpus
    of_tokens = reading.main_metric(run.certificate) == "bpd"
    return loss_curve(run.metrics, math.log2(corpus.vocab_size) if of_tokens else None, f"bits per {corpus.unit}", ax=ax)


def draw_alpha(run: KeptRun, ax: Axes) -> Figure:
    """`bound_against_alpha` of a run, for `every_run`: an axis names the unit alone, so that all are equal; a title the rest."""
    figure = bound_against_alpha(run.certificate, ax=ax)
    if ax.get_ylabel():
        unit, _, assumption = ax.get_ylabel().partition(",\n")
        ax.set_ylabel(unit)
        ax.set_title(assumption, loc="right", fontsize=10)
    return figure


def draw_inequalities(runs: Sequence[KeptRun]) -> Draw:
    """`bounds_overview` by all inequalities, for `every_run` of these runs; those with the same unit have the same axis."""

    def draw(run: KeptRun, ax: Axes) -> Figure:
        top = max((axis_top(other.certificate) for other in runs if _unit(other) == _unit(run)), default=0.0)
        return bounds_overview(run.certificate, every=True, top=top, ax=ax)

    return draw


def _unit(run: KeptRun) -> str:
    return reading.metric_name(run.certificate, reading.main_metric(run.certificate))


def inequalities_height(run: KeptRun) -> float:
    """How high a panel of `draw_inequalities` is, in inches: by its rows."""
    metric = reading.main_metric(run.certificate)
    return 1.0 + 0.24 * sum(bound.metric == metric for bound in reading.certified(run.certificate))
