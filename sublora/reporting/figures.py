"""Figures: from a certificate, a training log or an array to a matplotlib Figure, all in one style.

They are drawn 4.8 inches wide with letters of 11 points, so that they can be read on a telephone and in print. With
`ax` a function draws into it and returns its figure; without, it makes a figure of its own, closed for pyplot, so that a
notebook shows it once.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.certificate.schema import Certificate, Statement
from sublora.reporting.reading import (
    MAIN_INEQUALITIES,
    certified,
    guess_name,
    headline,
    held_out_value,
    in_percent,
    largest_loss,
    level_prefix,
    main_metric,
    metric_name,
    number,
    written,
)
from sublora.reporting.runs import KeptRun

WIDTH = 4.8  # inches
BLUE, ORANGE, GREEN, RED, VIOLET, BROWN, PINK, GREY = sns.color_palette("colorblind", 8)
ASSUMPTION_COLOURS = {"unseen": BLUE, "iid": ORANGE, "pool": GREY, "martingale": GREEN}
PART_COLOURS = {"empirical": BLUE, "complexity": ORANGE, "subsampling": GREEN}
PART_NAMES = {
    "empirical": "training value",
    "complexity": "complexity",
    "subsampling": "subsampling",
}
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


def _in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def drawn(*arguments, **options):
        with plt.rc_context(STYLE):
            return draw(*arguments, **options)

    return drawn


def _axes(ax: Axes | None, height: float) -> Axes:
    if ax is None:
        figure, ax = plt.subplots(figsize=(WIDTH, height), layout="constrained")
        plt.close(figure)
    return ax


def _figure(ax: Axes) -> Figure:
    """The figure that is drawn into; a part of a figure counts as the whole of it."""
    figure = ax.get_figure(root=True)
    assert figure is not None, "the axes were removed from their figure"
    return figure


def _legend_above(ax: Axes) -> None:
    """A legend where it covers no data and takes no width."""
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=9)


@_in_style
def bounds_overview(certificate: Certificate, ax: Axes | None = None, every: bool = False) -> Figure:
    """The main figure: bounds in bits (of a classifier: in percent), between what was measured and the guess.

    It shows the tightest inequality and the paper's under each assumption; `every`: all inequalities.

    Each line runs from the value on training documents (tick) to the bound (dot, with its number). Dots left of the dashed line
    are better than guessing. A bound that no loss can exceed ends at the right edge and says `vacuous`. The diamond is the held-out
    value; it stands only on lines whose bounded quantity it estimates, and belongs left of the dot.
    """
    metric = main_metric(certificate)
    scale = 100 if in_percent(metric) else 1
    rows = [bound for bound in certified(certificate) if bound.metric == metric]
    rows = [bound for bound in rows if every or bound.inequality in MAIN_INEQUALITIES[bound.level]]
    unit, many = metric_name(certificate, metric), "examples" if rows[0].level == "example" else "documents"
    ax = _axes(ax, 1.7 + 0.38 * len(rows))
    possible = [value for bound in rows for value in (bound.bound, bound.vacuous_at) if value < largest_loss(bound)]
    highest = scale * max(possible, default=rows[0].vacuous_at)
    for y, bound in enumerate(rows):
        measured, proved = scale * bound.empirical, min(scale * bound.bound, highest)
        colour = ASSUMPTION_COLOURS[bound.assumption]
        first = y == 0
        ax.plot([measured, proved], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(measured, y, "|", color=colour, markersize=18, markeredgewidth=2,
                label=f"value on training {many}" if first else None)  # fmt: skip
        ax.plot(proved, y, "o", color=colour, markersize=8, label="bound" if first else None)
        ax.annotate(written(bound), (proved, y), xytext=(8, 0), textcoords="offset points",
                    va="center", fontsize=10, zorder=5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        truth = held_out_value(certificate, bound)
        if truth is not None:
            named = any(line.get_label() == "held-out value" for line in ax.lines)
            ax.plot(scale * truth, y, "D", color="white", markeredgecolor="black", markersize=6,
                    label=None if named else "held-out value")  # fmt: skip
    guess = scale * rows[0].vacuous_at
    label = f"{guess_name(rows[0]).removeprefix('the ')}, {number(guess)}"
    ax.axvline(guess, color="black", linestyle="--", linewidth=1.2, label=label)
    ax.set_yticks(range(len(rows)), [_row_name(bound) for bound in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1.2 * highest)
    ax.set_xlabel(f"{unit}{' in percent' if scale == 100 else ''} (lower is better)")
    ax.grid(axis="y", visible=False)
    ax.figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _figure(ax)


@_in_style
def loss_curve(metrics: pd.DataFrame | None, ax: Axes | None = None, uniform: float | None = None) -> Figure:
    """The training log: loss in bits per token at each step, on training batches and on validation documents.

    To see: the loss falls from the uniform guess (dashed, where given) and levels off; in the second phase the
    coordinates are pulled onto a few quantization levels, which costs the step up between the colours.
    """
    ax = _axes(ax, 3.2)
    if metrics is None or metrics.empty:
        return _nothing(ax, "no training log")
    start = 0
    for phase, colour in (("pretrain", BLUE), ("finetune", BLUE), ("quantize", ORANGE)):
        rows = metrics[metrics["phase"] == phase]
        if rows.empty:
            continue
        # A phase may count its steps from one again: it is shown after the phase before it.
        steps = rows["step"] + (start if rows["step"].min() <= start else 0)
        train, validation = rows["train_loss"].notna(), rows["validation_loss"].notna()
        ax.plot(steps[train], rows["train_loss"][train], color=colour, linewidth=1, alpha=0.6,
                label=f"{phase}, training")  # fmt: skip
        ax.plot(steps[validation], rows["validation_loss"][validation], "o-", color=colour, markersize=4,
                label=f"{phase}, validation")  # fmt: skip
        start = steps.max()
    if uniform is not None:
        ax.axhline(uniform, color="black", linestyle="--", linewidth=1.2, label=f"uniform guess, {number(uniform)}")
    ax.set_xlabel("step")
    ax.set_ylabel("loss (bits per token)")
    _legend_above(ax)
    return _figure(ax)


@_in_style
def bound_against_alpha(certificate: Certificate, ax: Axes | None = None, assumption: str = "iid") -> Figure:
    """The bound in bits at every smoothing weight α, stacked into its parts.

    Beside hoeffding stands betting (at token level, beside azuma freedman).

    To see: little smoothing (left) widens the range of the loss, and with it the complexity; much smoothing (right)
    spoils the predictions. Between them the bound is smallest. Dashed: the uniform guess; the star marks the certified α.
    """
    ax = _axes(ax, 3.8)
    level, published, tightest = headline(certificate).level, "hoeffding", "betting"
    if level == "token":
        assumption, published, tightest = "martingale", "azuma", "freedman"
    rows = [b for b in certificate.statements if (b.level, b.metric, b.assumption) == (level, "bpd", assumption)]
    stacked = [b for b in rows if b.inequality == published and b.parts]
    if not stacked:
        return _nothing(ax, f"no {assumption} bound by {published} with its parts in this certificate")
    alphas = sorted({bound.alpha for bound in rows if bound.alpha is not None})
    place: dict[float | None, int] = {alpha: index for index, alpha in enumerate(alphas)}
    bottom = np.zeros(len(stacked))
    for part, colour in PART_COLOURS.items():
        heights = np.array([getattr(b.parts, part) for b in stacked])
        if heights.any():
            ax.bar([place[b.alpha] for b in stacked], heights, 0.7, bottom, color=colour, label=PART_NAMES[part])
        bottom += heights
    for inequality, marker, colour in ((published, "o", "black"), (tightest, "s", VIOLET)):
        line = sorted((b for b in rows if b.inequality == inequality), key=lambda b: place[b.alpha])
        if line:
            ax.plot([place[b.alpha] for b in line], [b.bound for b in line], marker=marker, color=colour,
                    markeredgecolor="white", linewidth=1.5, label=f"bound by {inequality}")  # fmt: skip
    guess = stacked[0].vacuous_at
    ax.axhline(guess, color="black", linestyle="--", linewidth=1.2, label=f"uniform guess, {number(guess)}")
    labels = [f"{alpha:g}" + ("\n★" if alpha == certificate.alpha else "") for alpha in alphas]
    ax.set_xticks(range(len(alphas)), labels, fontsize=9)
    ax.set_xlabel("smoothing weight α (★: the certified model's)")
    ax.set_ylabel(f"{metric_name(certificate, 'bpd')}, {assumption}")
    ax.grid(axis="x", visible=False)
    _legend_above(ax)
    return _figure(ax)


@_in_style
def bounds_if(table: pd.DataFrame, unit: str = "bits per token", ax: Axes | None = None) -> Figure:
    """The bounds of `certificate.what_if`, as bars from the training value up; the axis ends at twice the uniform guess.

    To see: which settings move the bound, and which inequality suffers; right of the dashed line it says nothing.
    """
    ax = _axes(ax, 2.4)
    guess = table["vacuous_at"].iloc[0]
    for y, row in enumerate(table.itertuples()):
        ax.barh(y, row.gap, 0.6, left=row.empirical, color=BLUE if row.bound < guess else GREY)
        place, side = (row.bound, "left") if row.bound < 1.7 * guess else (1.7 * guess, "right")
        ax.text(place, y, f" {number(row.bound)} ", va="center", ha=side, fontsize=10)
    training = table["empirical"].iloc[0]
    ax.axvline(training, color="black", linewidth=1.2, label=f"training value, {number(training)}")
    ax.axvline(guess, color="black", linestyle="--", linewidth=1.2, label=f"uniform guess, {number(guess)}")
    ax.set_yticks(range(len(table)), table["inequality"])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlim(0, 2 * guess)
    ax.set_xlabel(f"{unit} (lower is better)")
    ax.grid(axis="y", visible=False)
    _legend_above(ax)
    return _figure(ax)


@_in_style
def trade_off(ways: pd.DataFrame, uniform: float | None = None, ax: Axes | None = None) -> Figure:
    """The ways to compress one model (`sublora.search`): loss on training units against what the bound adds, in bits per token.

    To see: few levels (left) make a small message, which costs little, and a worse model; many the other way round. Points on one
    dotted line have the same bound; the star is the smallest.
    """
    ax = _axes(ax, 4.2)
    colours = dict(zip(dict.fromkeys(ways["quantizer"]), sns.color_palette("colorblind"), strict=False))
    for quantizer, rows in ways.groupby("quantizer", sort=False):
        ax.plot(rows["gap"], rows["empirical"], "o", color=colours[quantizer], markersize=5, label=quantizer.replace("_", " "))
        for row in rows.itertuples():
            ax.annotate(f"{row.levels}", (row.gap, row.empirical), xytext=(4, 3), textcoords="offset points", fontsize=8)
    best = ways.loc[ways["bound"].idxmin()]
    name = f"smallest bound, {number(best['bound'])}"
    ax.plot(best["gap"], best["empirical"], "*", color="black", markersize=14, zorder=0, label=name)
    ax.axline((best["gap"], best["empirical"]), slope=-1, color="grey", linestyle=":", linewidth=1.2)
    ax.set_xlabel("what the bound adds (bits per token)")
    ax.set_ylabel("loss on training units (bits per token)")
    if uniform is not None and ways["empirical"].max() > uniform:
        ax.axhline(uniform, color="black", linestyle="--", linewidth=1.2, label=f"uniform guess, {number(uniform)}")
    _legend_above(ax)
    return _figure(ax)


@_in_style
def coordinates_histogram(coordinates: np.ndarray, levels: np.ndarray, ax: Axes | None = None) -> Figure:
    """The trained coordinates w (any shape) and the quantization levels (k values) they are replaced by.

    To see: each coordinate moves to the nearest line. Lines should lie where the coordinates are.
    """
    ax = _axes(ax, 3.0)
    sns.histplot(x=np.ravel(coordinates), bins=60, color=BLUE, edgecolor="none", ax=ax, label="coordinates")
    for index, level in enumerate(np.ravel(levels)):
        ax.axvline(level, color=ORANGE, linewidth=1.2, label="quantization levels" if index == 0 else None)
    ax.set_xlabel("value of a coordinate (no unit)")
    ax.set_ylabel("coordinates")
    _legend_above(ax)
    return _figure(ax)


@_in_style
def document_losses_histogram(
    losses: np.ndarray,
    bound: float | None = None,
    uniform: float | None = None,
    unit: str = "bits per token",
    ax: Axes | None = None,
) -> Figure:
    """Losses of documents (n values, in `unit`) with their mean, the bound on the mean, and the uniform guess.

    To see: the bound speaks of the mean, not of each document; single documents may lie right of it.
    """
    ax = _axes(ax, 3.2)
    losses = np.ravel(losses)
    sns.histplot(x=losses, bins=60, color=BLUE, edgecolor="none", ax=ax)
    mean = float(losses.mean())
    ax.axvline(mean, color="black", linewidth=1.5, label=f"mean, {number(mean)}")
    if bound is not None:
        ax.axvline(bound, color=RED, linewidth=1.5, label=f"bound on the mean, {number(bound)}")
    if uniform is not None:
        ax.axvline(uniform, color="black", linestyle="--", linewidth=1.2, label=f"uniform guess, {number(uniform)}")
    ax.set_xlabel(f"loss of a document ({unit})")
    ax.set_ylabel("documents")
    _legend_above(ax)
    return _figure(ax)


@_in_style
def every_run(runs: Sequence[KeptRun], draw: Callable[[KeptRun, Axes], Any], height: float = 3.4) -> Figure:
    """One panel a run, one below the other, each drawn by `draw(run, ax)` and headed by the run's name."""
    if not runs:
        return _nothing(_axes(None, 1.2), "no runs")
    figure = plt.figure(figsize=(WIDTH, height * len(runs)), layout="constrained")
    plt.close(figure)
    for run, panel in zip(runs, figure.subfigures(len(runs), squeeze=False).flat, strict=True):
        draw(run, panel.subplots())
        panel.suptitle(run.name.replace("$", r"\$"), x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def draw_loss(run: KeptRun, ax: Axes) -> Figure:
    """`loss_curve` of a run, with the uniform guess of a language model's vocabulary, for `every_run`."""
    of_tokens = main_metric(run.certificate) == "bpd"
    return loss_curve(run.metrics, ax, math.log2(run.certificate.corpus.vocab_size) if of_tokens else None)


def draw_alpha(run: KeptRun, ax: Axes) -> Figure:
    """`bound_against_alpha` of a run, for `every_run`."""
    return bound_against_alpha(run.certificate, ax)


def draw_inequalities(run: KeptRun, ax: Axes) -> Figure:
    """`bounds_overview` of a run by all inequalities, for `every_run`."""
    return bounds_overview(run.certificate, ax, every=True)


def _row_name(bound: Statement) -> str:
    return f"{level_prefix(bound.level)}{bound.assumption}, {bound.inequality.replace('_', ' ')}"


def _nothing(ax: Axes, words: str) -> Figure:
    ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes, wrap=True)
    ax.set_xticks([])
    ax.set_yticks([])
    return _figure(ax)
