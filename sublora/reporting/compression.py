"""The compression page: rate, distortion and bound of every combination (`make compression`), and what projectors cost."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.errors import SubloraError
from sublora.reporting.figures import _axes, _figure, _in_style, _legend_above, _nothing
from sublora.reporting.markdown import Table, link
from sublora.reporting.reading import SHOWN_K, certified, in_percent, metric_name, number, scaled, written
from sublora.reporting.runs import KeptRun
from sublora.reporting.tables import DASH

COLUMNS = ("quantizer", "levels", "coder", "entropy_bits", "payload_bits", "codebook_bits", "bits_per_coordinate", "distortion")
PROMISED = ("message_bits", "alpha", "empirical", "bound")
SAVING = ("way", "levels", "message_bits", "validation_loss")
PROJECTORS = ("projector", "weights", "coordinates", "build_seconds", "matvec_seconds", "backward_seconds", "megabytes")


def load_table(path: str | Path, columns: tuple[str, ...], command: str) -> pd.DataFrame:
    """A csv with these columns. Raises SubloraError naming the file, the column and the command that makes it."""
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise SubloraError(f"{path}: no such table; run `{command}`") from None
    except (OSError, ValueError) as error:
        raise SubloraError(f"{path}: not a table ({' '.join(str(error).split())}); run `{command}`") from None
    for column in columns:
        if column not in frame:
            raise SubloraError(f"{path}: column {column!r} is missing; run `{command}`")
    return frame


def table_for_pages(name: str) -> tuple[pd.DataFrame, list[str]]:
    """`compression`, `saving` or `projectors` from the folder that SUBLORA_RESULTS names, or `../results`; or none, and why."""
    columns, command = {
        "compression": ((*COLUMNS, *PROMISED), "make compression"),
        "saving": (SAVING, "python benchmarks/saving.py"),
        "projectors": (PROJECTORS, "python benchmarks/projectors.py --csv results/projectors.csv"),
    }[name]
    try:
        return load_table(Path(os.environ.get("SUBLORA_RESULTS", "../results")) / f"{name}.csv", columns, command), []
    except SubloraError as error:
        return pd.DataFrame(columns=list(columns)), [str(error)]


def shortest_coder(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each quantizer and number of levels the row with the shortest payload, huffman left out: what a message takes."""
    coded = frame[frame["coder"] != "huffman"]
    return coded.loc[coded.groupby(["quantizer", "levels"], sort=False)["payload_bits"].idxmin()]


@_in_style
def rate_figure(frame: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Rate against distortion, one line a quantizer, by the shortest coder. Lower left is better."""
    ax = _axes(ax, 4.0)
    if frame.empty:
        return _nothing(ax, "no table of combinations")
    colours = sns.color_palette("colorblind")
    for colour, (quantizer, rows) in zip(colours, shortest_coder(frame).groupby("quantizer", sort=False), strict=False):
        _line(ax, rows, "bits_per_coordinate", "distortion", colour=colour, quantizer=quantizer)
    ax.set_yscale("log")
    ax.set_xlabel("rate (bits per coordinate, codebook included)")
    ax.set_ylabel("mean squared error (variances)")
    _legend_above(ax)
    return _figure(ax)


@_in_style
def excess_figure(frame: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """What each coder adds to the entropy, for every quantizer and number of levels. Lower is better."""
    ax = _axes(ax, 3.4)
    if frame.empty:
        return _nothing(ax, "no table of combinations")
    size = (frame["payload_bits"] + frame["codebook_bits"]) / frame["bits_per_coordinate"]  # d
    excess = (frame["payload_bits"] - frame["entropy_bits"]) / size
    for colour, (coder, rows) in zip(sns.color_palette("colorblind"), frame.groupby("coder", sort=False), strict=False):
        ax.plot(rows["entropy_bits"] / size[rows.index], excess[rows.index], "o", color=colour, markersize=4, label=coder)
    ax.set_xlabel("entropy of the symbols (bits per coordinate)")
    ax.set_ylabel("beyond it (bits per coordinate)")
    _legend_above(ax)
    return _figure(ax)


@_in_style
def promise_figure(frame: pd.DataFrame, uniform: float | None = None, ax: Axes | None = None) -> Figure:
    """Size of the message against the bound that pilot documents promise, one line a quantizer. Lower is better."""
    ax = _axes(ax, 4.0)
    if frame.empty:
        return _nothing(ax, "no table of combinations")
    for colour, (quantizer, rows) in zip(
        sns.color_palette("colorblind"), shortest_coder(frame).groupby("quantizer", sort=False), strict=False
    ):
        _line(ax, rows, "message_bits", "bound", colour=colour, quantizer=quantizer)
    if uniform is not None:
        ax.axhline(uniform, color="black", linestyle="--", linewidth=1.2, label=f"uniform guess, {number(uniform)}")
    ax.set_xlabel("size of the message (bits)")
    ax.set_ylabel("promised bound (bits per token)")
    _legend_above(ax)
    return _figure(ax)


def _line(ax: Axes, rows: pd.DataFrame, x: str, y: str, *, colour: tuple[float, ...], quantizer: str) -> None:
    """One quantizer: a dot for each number of levels, which stands beside it."""
    rows = rows.sort_values(x)
    ax.plot(rows[x], rows[y], "o-", color=colour, markersize=5, label=quantizer.replace("_", " "))
    for place in zip(rows["levels"], rows[x], rows[y], strict=True):
        ax.annotate(f"{place[0]}", place[1:], xytext=(4, 3), textcoords="offset points", fontsize=8)


def combinations_table(frame: pd.DataFrame, count: int = 12) -> Table:
    """The combinations with the smallest promised bounds."""
    best = shortest_coder(frame).sort_values("bound").head(count)
    shown = pd.DataFrame({"Quantizer": best["quantizer"].str.replace("_", " "), "Levels": best["levels"], "Coder": best["coder"]})
    shown["Entropy (bits)"] = [f"{value:,.0f}" for value in best["entropy_bits"]]
    shown["Payload (bits)"] = [f"{value:,.0f}" for value in best["payload_bits"]]
    shown["Message (bits)"] = [f"{value:,.0f}" for value in best["message_bits"]]
    shown["Error (variances)"] = [f"{value:.3f}" for value in best["distortion"]]
    shown["Bound (bits)"] = [number(value) for value in best["bound"]]
    return Table.of(shown, left=("Quantizer", "Coder"))


def saving_table(frame: pd.DataFrame) -> Table:
    """Size and validation loss of a run's message, and of uniform levels and static counts put on its coordinates afterwards."""
    shown = pd.DataFrame({"Way": frame["way"]})
    shown["Levels"] = [f"{levels:,}" if levels else DASH for levels in frame["levels"]]
    shown["Message (bits)"] = [f"{bits:,}" for bits in frame["message_bits"]]
    shown["Validation loss"] = [number(loss, 3) for loss in frame["validation_loss"]]
    return Table.of(shown, left=("Way",))


def projectors_table(frame: pd.DataFrame) -> Table:
    """Memory and time of every projector, at two sizes; a dash where it was refused or not run."""
    shown = pd.DataFrame({"Size": [f"{weights:,} weights, {d:,} coordinates" for weights, d in
                                    zip(frame["weights"], frame["coordinates"], strict=True)]})  # fmt: skip
    shown["Projector"] = frame["projector"]
    names = {"build_seconds": "Build (ms)", "matvec_seconds": "P w (ms)", "backward_seconds": "Backward (ms)", "megabytes": "MB"}
    for column, name in names.items():
        scale = 1000 if column.endswith("seconds") else 1
        shown[name] = [DASH if pd.isna(value) else f"{scale * value:,.1f}" for value in frame[column]]
    return Table.of(shown, left=("Projector",), groups=("Size",))


def tokens_table(runs: Sequence[KeptRun]) -> Table:
    """Training value, both bounds over tokens and the uniform guess, of bits and of top-k errors; several rows a run."""
    rows = []
    for run in runs:
        certificate = run.certificate
        bounds = [bound for bound in certified(certificate) if bound.assumption == "martingale"]
        for metric in ("bpd", *(f"top{k}_error" for k in SHOWN_K)):
            found = {bound.inequality: bound for bound in bounds if bound.metric == metric}
            if "freedman" not in found or "azuma" not in found:
                continue
            first = found["freedman"]
            rows.append(
                {
                    "Run": link(run.name, run.page),
                    "Message (bytes)": f"{certificate.message_bits // 8:,}",
                    "Training tokens": f"{first.units:,}",
                    "Metric": metric_name(certificate, metric) + (" (%)" if in_percent(metric) else ""),
                    "Training": scaled(first, first.empirical),
                    "Freedman": written(first),
                    "Azuma": written(found["azuma"]),
                    "Uniform guess": scaled(first, first.vacuous_at),
                }
            )
    columns = ("Run", "Message (bytes)", "Training tokens", "Metric", "Training", "Freedman", "Azuma", "Uniform guess")
    return Table(rows, ("Metric",), ("Run",), columns)
