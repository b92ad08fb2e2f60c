"""The arrow of time: pairs of runs that differ in direction alone, their curves, differences and tests.

The arrow is the backward model's loss minus the forward model's, on the same held-out documents.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.certificate.comparison import Comparison, PairedStatement
from sublora.certificate.schema import Certificate
from sublora.data.exact import document_tokens, floor
from sublora.experiment import Exact
from sublora.inequalities.paired import holm, mixed, sign_test
from sublora.reporting.comparisons import DASH
from sublora.reporting.figures import BLUE, ORANGE, drawn, every_run, guess_line, labelled, nothing, rows_of
from sublora.reporting.markdown import Table
from sublora.reporting.published import published
from sublora.reporting.reading import headline, held_out_value, rounded_up
from sublora.reporting.runs import KeptRun

SEEDS = ("seed", "split_seed")


class Pair(NamedTuple):
    """Two runs that differ in direction alone. found: the interval of the arrow on fresh documents, and that on unseen ones."""

    forward: KeptRun
    backward: KeptRun
    found: Mapping[str, PairedStatement]

    @property
    def of(self) -> Certificate:
        return self.forward.certificate


def direction(certificate: Certificate) -> str:
    """forward, backward or permutation."""
    return certificate.params.get("model", {}).get("direction", "forward")


def pairs(kept: Sequence[KeptRun], compared: Sequence[tuple[str, Comparison]]) -> tuple[list[Pair], list[str]]:
    """The pairs in the order of their forward runs, and one line for each run without a partner or a comparison.

    compared: comparisons of a backward run, which comes first in them, with others, on held-out documents.
    """
    by_settings: dict[str, dict[str, KeptRun]] = {}
    for run in kept:
        by_settings.setdefault(_settings(run.certificate), {})[direction(run.certificate)] = run
    found, missing = [], []
    for runs in by_settings.values():
        forward, backward = runs.get("forward"), runs.get("backward")
        if forward is None or backward is None:
            missing.append(f"{next(iter(runs.values())).label}: there is no such run of the other direction; run `make arrow`")
            continue
        known = _intervals(forward.certificate, backward.certificate, compared)
        if not known:
            missing.append(f"{forward.label} and {backward.label}: they are not compared; run `make arrow`")
        found.append(Pair(forward, backward, known))
    return found, missing


def _settings(certificate: Certificate, seeds: bool = True) -> str:
    """What a pair has in common, as one text. Without seeds: what pairs of several seeds have in common."""
    groups = {key: dict(value) for key, value in certificate.params.items() if isinstance(value, Mapping)}
    groups.get("model", {}).pop("direction", None)
    for group in groups.values() if not seeds else ():
        for key in SEEDS:
            group.pop(key, None)
    return json.dumps(groups, sort_keys=True)


def _intervals(
    forward: Certificate, backward: Certificate, compared: Sequence[tuple[str, Comparison]]
) -> dict[str, PairedStatement]:
    for _, each in compared:
        if each.set_of == "held-out" and each.first.certificate_sha256 == backward.certificate_sha256:
            for pair in each.pairs:
                if pair.other.certificate_sha256 == forward.certificate_sha256:
                    return {one.assumption: one for one in pair.statements if one.form == "interval"}
    return {}


def language(certificate: Certificate) -> Exact | None:
    """The exact language that a run is trained on; None for other text."""
    stated = certificate.params["corpus"].get("exact")
    return None if stated is None else Exact(**stated)


def text_name(certificate: Certificate) -> str:
    """What a run is trained on, in a few words."""
    if (exact := language(certificate)) is None:
        return certificate.corpus.name
    if exact.language == "primes":
        return f"products of primes of {exact.bits} bits"
    what = "permutation" if exact.language == "linear" and not exact.nonzeros else exact.language
    return f"{what}, {exact.bits} + {exact.bits} bits" + f", {exact.nonzeros} nonzeros" * bool(exact.nonzeros)


def model_name(certificate: Certificate) -> str:
    """Architecture, layers, width and context."""
    model = certificate.params["model"]
    name = str(model.get("architecture", "gpt")).upper()
    return f"{name} {model['layers']} x {model['width']}, context {model['block']}"


def loss(run: KeptRun) -> float:
    """Of the certified model on held-out documents, bits per token."""
    found = held_out_value(run.certificate, headline(run.certificate))
    assert found is not None  # of documents there always is one
    return found


def arrows_table(found: Sequence[Pair]) -> Table:
    """Every pair: both losses, the arrow, and what is proven of it."""
    rows = []
    for pair in found:
        forward, backward = loss(pair.forward), loss(pair.backward)
        row = {"Text": text_name(pair.of), "Model": model_name(pair.of), "Seed": str(pair.of.params["model"].get("seed", 0))}
        row |= {"n": DASH, "Forward": f"{forward:.4f}", "Backward": f"{backward:.4f}"}
        row |= {"Arrow": f"{backward - forward:+.4f}", "%": f"{200 * (backward - forward) / (backward + forward):+.2f}"}
        row |= {"Fresh": DASH, "Unseen": DASH, "ln e": DASH}
        for assumption, one in pair.found.items():
            row["n"] = f"{one.evaluated:,}"
            row["Fresh" if assumption == "iid" else "Unseen"] = interval(one)
            if one.log_e is not None and assumption == "iid":
                row["ln e"] = f"{-rounded_up(-one.log_e, 1):,.1f}"
        rows.append(row)
    columns = ("Text", "Model", "Seed", "n", "Forward", "Backward", "Arrow", "%", "Fresh", "Unseen", "ln e")
    return Table(rows, left=("Model",), groups=("Text",), columns=columns)


def interval(one: PairedStatement) -> str:
    """Its limits, rounded outwards."""
    assert one.lower is not None  # it is no mixture
    return f"{-rounded_up(-one.lower, 4):+.4f} to {rounded_up(one.upper, 4):+.4f}"


def sentences(found: Sequence[Pair]) -> list[str]:
    """What is proven of each pair on fresh documents, the exact languages beside their floor."""
    lines = []
    for pair in found:
        where = f"{text_name(pair.of)} ({model_name(pair.of)}, seed {pair.of.params['model'].get('seed', 0)})"
        one = pair.found.get("iid") or pair.found.get("unseen")
        if one is None or one.lower is None:
            continue
        if one.lower > 0 or one.upper < 0:
            better, least = ("forward", one.lower) if one.lower > 0 else ("backward", -one.upper)
            said = f"{better} is better by at least {-rounded_up(-least, 4):.4f} bits per token"
        else:
            said = f"no direction is proven to be better: the interval, {interval(one)}, contains 0"
        if (exact := language(pair.of)) is not None:
            above = [100 * (loss(run) / floor(exact) - 1) for run in (pair.forward, pair.backward)]
            said += f"; forward is {above[0]:.2f}% above the entropy, and backward {above[1]:.2f}%"
        lines.append(f"On {where} {said}.")
    return lines


def exact_table(found: Sequence[Pair]) -> Table:
    """The exact languages in the paper's unit: nats per token of the language, without the end of text, which costs nothing."""
    stated, rows = published("arrow-linear").set_index("metric")["value"], []
    for pair in found:
        if (exact := language(pair.of)) is None:
            continue
        T = document_tokens(exact)
        values = (floor(exact), loss(pair.forward), loss(pair.backward))
        least, forward, backward = (value * (T + 1) / T * math.log(2) for value in values)
        linear = exact.language == "linear"
        row = {"Language": text_name(pair.of), "Entropy": f"{least:.4f}"}
        row |= {"Forward": f"{forward:.4f}", "Backward": f"{backward:.4f}"}
        for name, value in (("Forward", forward), ("Backward", backward)):
            row[f"{name} above it (%)"] = f"{100 * (value / least - 1):.2f}"
        rows.append(row | {"Published": stated.get(str(exact.nonzeros), DASH) if linear else DASH})
    columns = ("Language", "Entropy", "Forward", "Backward", "Forward above it (%)", "Backward above it (%)", "Published")
    return Table(rows, left=("Language",), columns=columns)


def seeds_table(found: Sequence[Pair], delta: float = 0.05) -> Table:
    """Pairs that differ in seeds alone, taken together: the sign test over seeds, and Holm's procedure over the texts and models.

    The e-value is the mean of those of the seeds, which may depend on each other; each is against a mean difference of 0.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in found:
        if "iid" in pair.found and pair.found["iid"].log_e is not None:
            groups.setdefault(_settings(pair.of, seeds=False), []).append(pair)
    evidence = [mixed(np.array([each.found["iid"].log_e for each in group])) for group in groups.values()]
    rows = []
    for group, log_e, decided in zip(groups.values(), evidence, holm(evidence, delta), strict=True):
        arrows = [each.found["iid"].mean for each in group]
        row = {"Text": text_name(group[0].of), "Model": model_name(group[0].of), "Seeds": str(len(group))}
        row |= {"Mean arrow": f"{np.mean(arrows):+.4f}", "Least": f"{min(arrows):+.4f}", "Most": f"{max(arrows):+.4f}"}
        row |= {"Sign test p": f"{rounded_up(sign_test(arrows), 3):.3f}", "ln e": f"{-rounded_up(-log_e, 1):,.1f}"}
        rows.append(row | {"Decided": "yes" if decided else "no"})
    columns = ("Text", "Model", "Seeds", "Mean arrow", "Least", "Most", "Sign test p", "ln e", "Decided")
    return Table(rows, left=("Model", "Decided"), groups=("Text",), columns=columns)


@drawn(3.0)
def arrows_figure(found: Sequence[Pair], *, ax: Axes) -> None:
    """The arrow of each pair with its interval on fresh documents: left of 0 backward is better, right of it forward."""
    shown = [(pair, one) for pair in found if (one := pair.found.get("iid") or pair.found.get("unseen")) is not None]
    if not shown:
        return nothing(ax, "no pair is compared")
    names = [f"{text_name(pair.of)}\n{model_name(pair.of)}, seed {pair.of.params['model'].get('seed', 0)}" for pair, _ in shown]
    for row, (_, one) in enumerate(shown):
        assert one.lower is not None  # it is no mixture
        ax.plot([one.lower, one.upper], [row, row], color=BLUE, linewidth=2)
        ax.plot(one.mean, row, "o", color=BLUE, markersize=5)
    ax.axvline(0.0, color="black", linewidth=1)
    rows_of(ax, names, 0.9 + 0.42 * len(names), fontsize=8)
    ax.set_xlabel("backward minus forward (bits per token)")


def curves(found: Sequence[Pair]) -> Figure:
    """Validation loss while training, both ways, one panel a pair."""
    partners = {id(pair.forward): pair for pair in found}

    def draw(run: KeptRun, ax: Axes, runs: Sequence[KeptRun] = ()) -> Figure:
        pair, exact = partners[id(run)], language(run.certificate)
        logs = {"forward": pair.forward.metrics, "backward": pair.backward.metrics}
        return both_ways(logs, None if exact is None else floor(exact), ax=ax)

    return every_run([pair.forward for pair in found], draw)


@drawn(3.2)
def both_ways(logs: Mapping[str, pd.DataFrame | None], least: float | None = None, *, ax: Axes) -> None:
    """Validation loss by direction while training, before compression. least: the entropy per token, where it is known."""
    for (name, log), colour in zip(logs.items(), (BLUE, ORANGE), strict=True):
        if log is not None:
            rows = log[(log["phase"] == "pretrain") & log["validation_loss"].notna()]
            ax.plot(rows["step"], rows["validation_loss"], "o-", color=colour, markersize=3, label=name)
    guess_line(ax.axhline, least, "entropy")
    labelled(ax, "step", "bits per token")


def published_table(table: str) -> Table:
    """The published values of one table, each with where it was read."""
    names = {"arrow-linear": "Nonzeros", "arrow-updates": "Steps", "arrow-language": "Language"}
    names |= {"arrow-context": "Context (tokens)", "arrow-size": "Million weights"}
    rows: list[dict[str, Any]] = [
        {names[table]: row["metric"], "Of": row["method"], "Value": row["value"], "Unit": row["unit"], "Read": row["provenance"]}
        for row in published(table).to_dict("records")
    ]
    return Table(rows, left=("Of", "Unit", "Read"))
