"""The compression page: rate, distortion and bound of every combination (`make compression`), and what projectors cost."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sublora.reporting.figures import by_colour, drawn, guess_line, labelled, nothing
from sublora.reporting.markdown import Table, link
from sublora.reporting.reading import SHOWN_K, number, shown, statement, verdicts
from sublora.reporting.runs import KeptRun
from sublora.reporting.tables import DASH


def shortest_coder(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each quantizer and number of levels the row with the shortest payload, huffman left out: what a message takes."""
    coded = frame[frame["coder"] != "huffman"]
    return coded.loc[coded.groupby(["quantizer", "levels"], sort=False)["payload_bits"].idxmin()]


@drawn(4.0)
def rate_figure(frame: pd.DataFrame, *, ax: Axes) -> None:
    """Rate against distortion, one line a quantizer, by the shortest coder. Lower left is better."""
    if frame.empty:
        return nothing(ax, "no table of combinations")
    by_colour(shortest_coder(frame), "quantizer", "bits_per_coordinate", "distortion", "o-", ax=ax)
    ax.set_yscale("log")
    labelled(ax, "rate (bits per coordinate, codebook included)", "mean squared error (variances)")


def kmeans_against_uniform(frame: pd.DataFrame) -> list[str]:
    """Where the line of kmeans in `rate_figure` is below that of uniform, in a sentence; empty where either is missing.

    Uniform's error at the rate of kmeans is interpolated in its logarithm, between the two rates around it.
    """
    best = shortest_coder(frame)
    lines = {name: best[best["quantizer"] == name].sort_values("bits_per_coordinate") for name in ("kmeans", "uniform")}
    if any(len(rows) < 2 for rows in lines.values()):
        return []
    uniform = lines["uniform"]
    rates, errors = uniform["bits_per_coordinate"].to_numpy(float), np.log(uniform["distortion"].to_numpy(float))
    found: dict[str, list[int]] = {"smaller": [], "larger": []}
    for row in lines["kmeans"].itertuples():
        if rates[0] <= row.bits_per_coordinate <= rates[-1]:
            there = np.interp(row.bits_per_coordinate, rates, errors)
            found["smaller" if np.log(row.distortion) < there else "larger"].append(row.levels)
    parts = [f"{word} at {_listed(levels)} levels" for word, levels in found.items() if levels]
    return [f"At equal rate, the error of kmeans is {' and '.join(parts)} than that of uniform."] if parts else []


def _listed(numbers: Sequence[int]) -> str:
    *first, last = (f"{number:,}" for number in numbers)
    return f"{', '.join(first)} and {last}" if first else last


@drawn(3.4)
def excess_figure(frame: pd.DataFrame, *, ax: Axes) -> None:
    """What each coder adds to the entropy, for every quantizer and number of levels. Lower is better."""
    if frame.empty:
        return nothing(ax, "no table of combinations")
    dimension = (frame["payload_bits"] + frame["codebook_bits"]) / frame["bits_per_coordinate"]
    excess = (frame["payload_bits"] - frame["entropy_bits"]) / dimension
    each = frame.assign(entropy=frame["entropy_bits"] / dimension, excess=excess)
    by_colour(each, "coder", "entropy", "excess", "o", ax=ax, numbers=False)
    labelled(ax, "entropy of the symbols (bits per coordinate)", "beyond it (bits per coordinate)")


@drawn(4.0)
def promise_figure(frame: pd.DataFrame, uniform: float | None = None, unit: str = "bits per byte", *, ax: Axes) -> None:
    """Size of the message against the bound that pilot documents promise, one line a quantizer. Lower is better."""
    if frame.empty:
        return nothing(ax, "no table of combinations")
    by_colour(shortest_coder(frame), "quantizer", "message_bits", "bound", "o-", ax=ax)
    guess_line(ax.axhline, uniform)
    labelled(ax, "size of the message (bits)", f"promised bound ({unit})")


def combinations_table(frame: pd.DataFrame, count: int = 12) -> Table:
    """The combinations with the smallest promised bounds."""
    best = shortest_coder(frame).sort_values("bound").head(count)
    shown = pd.DataFrame({"Quantizer": best["quantizer"].str.replace("_", " "), "Levels": best["levels"], "Coder": best["coder"]})
    shown["Bound (bits)"] = best["bound"].map(number)
    for name in ("Entropy", "Payload", "Message"):
        shown[f"{name} (bits)"] = best[f"{name.lower()}_bits"].map(lambda bits: number(bits, 0))
    shown["Error (variances)"] = best["distortion"].map(lambda error: number(error, 3))
    return Table.of(shown, left=("Quantizer", "Coder"))


def saving_table(frame: pd.DataFrame) -> Table:
    """Size and validation loss of a run's message, and of uniform levels and static counts put on its coordinates afterwards."""
    shown = pd.DataFrame({"Way": frame["way"]})
    shown["Levels"] = [f"{levels:,}" if levels else DASH for levels in frame["levels"]]
    shown["Message (bits)"] = frame["message_bits"].map("{:,}".format)
    shown["Validation loss"] = [number(loss, 3) for loss in frame["validation_loss"]]
    return Table.of(shown, left=("Way",))


def projectors_table(frame: pd.DataFrame) -> Table:
    """Memory and time of every projector, at two sizes; a dash where it was refused or not run."""
    sizes = zip(frame["weights"], frame["coordinates"], strict=True)
    shown = pd.DataFrame({"Size": [f"{weights:,} weights, {d:,} coordinates" for weights, d in sizes]})
    shown["Projector"] = frame["projector"]
    names = {"build_seconds": "Build (ms)", "matvec_seconds": "P w (ms)", "backward_seconds": "Backward (ms)", "megabytes": "MB"}
    for column, name in names.items():
        scale = 1000 if column.endswith("seconds") else 1
        shown[name] = [DASH if pd.isna(value) else number(scale * value, 1) for value in frame[column]]
    return Table.of(shown, left=("Projector",), groups=("Size",))


def tokens_table(runs: Sequence[KeptRun]) -> Table:
    """Training value, both bounds over tokens and the uniform guess, of bits and of top-k errors; several rows a run."""
    rows = []
    for run in runs:
        certificate = run.certificate
        for metric in ("bpd", *(f"top{k}_error" for k in SHOWN_K)):
            freedman, azuma = (statement(certificate, "martingale", metric, by) for by in ("freedman", "azuma"))
            if freedman is None or azuma is None:
                continue
            this = shown(certificate, freedman)
            rows.append(
                {
                    "Run": link(run.name, run.page),
                    "Metric": this.metric + (" (%)" if this.percent else ""),
                    "Freedman": this.bound,
                    "Verdict": verdicts(certificate, {"freedman": freedman, "azuma": azuma}),
                    "Azuma": shown(certificate, azuma).bound,
                    "Uniform guess": this.guess,
                    "Training": this.training,
                    "Training tokens": f"{freedman.units:,}",
                    "Message (bytes)": f"{certificate.message_bits // 8:,}",
                }
            )
    columns = ("Run", "Metric", "Freedman", "Verdict", "Azuma", "Uniform guess", "Training", "Training tokens", "Message (bytes)")
    return Table(rows, ("Metric", "Verdict"), ("Run",), columns)
