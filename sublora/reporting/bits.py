"""What a bit of message buys: bounds of all kept models against the bits of their messages, and what each part of one is worth."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublora.certificate.schema import Statement
from sublora.errors import printable
from sublora.reporting import reading
from sublora.reporting.figures import STYLE, WIDTH, guess_line, nothing
from sublora.reporting.markdown import Markdown, Table, escape, link
from sublora.reporting.published import points as published_points
from sublora.reporting.reading import shown
from sublora.reporting.runs import GROUPS, KeptRun, kept_runs, runs_for_pages
from sublora.reporting.tables import DASH
from sublora.reporting.tradeoff import PUBLISHED_GUESS

FAMILIES = {"subspace": "random subspace", "sublora": "SubLoRA", "lora": "LoRA", "full": "all weights", "kronecker": "structured",
            "monarch": "structured", "lora_b": "LoRA", "biases": "LoRA", "tinylora": "LoRA",
            "lora_b+biases": "LoRA"}  # fmt: skip
KINDS = ("random subspace", "SubLoRA", "LoRA", "all weights", "all weights, penalty on bits", "structured", "n-grams", "pretrained")
COLOURS = dict(zip(KINDS, sns.color_palette("colorblind", 8), strict=True))
LEVELS = ("document", "group", "sequence", "position", "token")
STUDIED = tuple(group for group in GROUPS if group not in ("glue", "tasks", "paper", "ablation", "arrow"))
"""The groups of kept results whose language models are compared; ablations of one model are a table of their own."""
OTHER_KINDS = ("no-reference", "no-penalty", "subspace")
"""Ablations that are compared, too: they are of another kind than the whole, or have no reference."""
ABLATED = {
    "whole": "nothing",
    "no-reference": "the reference: the uniform guess instead, and no logits of it",
    "no-logits": "the reference's logits in the model",
    "half-offset": "the four numbers of the offset: half of the uniform guess instead",
    "top-offset": "any offset: the reference itself instead",
    "no-penalty": "the penalty on bits",
    "kmeans": "the grid with a step for each matrix: one codebook by k-means instead",
    "subspace": "all weights as coordinates: a random subspace instead",
    "subsample": "evaluation of all documents: 5,000 instead",
}
"""What each run of the group ablation lacks."""


class Point(NamedTuple):
    """One kept model at one level: its statement with the uniform guess, and that beside its reference, if there is one."""

    run: KeptRun
    family: str
    panel: str
    bits: int
    plain: Statement
    beside: Statement | None


def studied() -> tuple[list[Point], list[str]]:
    """All kept language models as points, by panel, family and bits; and a line for each group that is missing."""
    runs, missing = list(runs_for_pages()[0]), list[str]()
    for group in STUDIED:
        found, reasons = kept_runs(group)
        runs, missing = runs + found, missing + reasons
    runs += [run for run in kept_runs("ablation")[0] if run.name in OTHER_KINDS]
    unique = {run.certificate.message_sha256: run for run in reversed(runs)}  # a run may be kept, too
    points = [point for run in unique.values() for point in _points(run)]
    return sorted(points, key=lambda p: (LEVELS.index(p.plain.level), p.panel, KINDS.index(p.family), p.bits)), missing


def _points(run: KeptRun) -> Iterator[Point]:
    certificate = run.certificate
    for level in LEVELS:
        found = [b for b in reading.certified(certificate) if (b.level, b.metric) == (level, "bpd")]
        plain = next((b for b in found if b.reference is None), None)
        if plain is not None:
            corpus = certificate.corpus
            panel = f"{level} level, {printable(corpus.name)}, bits per {corpus.unit}"
            beside = next((b for b in found if b.reference is not None), None)
            yield Point(run, _family(certificate.params), panel, certificate.message_bits, plain, beside)


def _family(params: Mapping[str, Any]) -> str:
    kind, compression = params.get("kind"), params.get("compression", {})
    if kind == "ngram":
        return "n-grams"
    if kind in ("round", "finetune", "zeroshot"):
        return "pretrained"
    family = FAMILIES[params.get("subspace", {}).get("parametrization", "sublora")]
    penalty = compression.get("finetune_steps") and compression.get("rate_penalty", 0) != 0
    return family + ", penalty on bits" * bool(family == "all weights" and penalty)


def study_figure(points: Sequence[Point]) -> Figure:
    """Bound against message bits, a panel for each level and text; below them the paper's Fig. 1, as published.

    A hollow dot is the bound with the uniform guess, a full one that beside the reference, whose own value is the cross above or
    below it. A number is the row of `study_table`. To see: how far down the bits bring a bound, and from the cross to the full dot.
    """
    panels = list(dict.fromkeys(point.panel for point in points))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(panels) + 1, 1, figsize=(WIDTH, 3.4 * (len(panels) + 1)), layout="constrained")
        plt.close(figure)
        *measured, paper = np.atleast_1d(axes)
        for panel, ax in zip(panels, measured, strict=True):
            _panel(ax, panel, [(row, point) for row, point in enumerate(points, 1) if point.panel == panel])
        bound = published_points("figure1-bound")
        paper.plot(8000 * bound["x"], bound["y"], "o-", color=COLOURS["SubLoRA"], markerfacecolor="white")
        guess_line(paper.axhline, PUBLISHED_GUESS)
        paper.set(xscale="log", ylim=(0, 1.3 * PUBLISHED_GUESS), xlabel="bits of the message", ylabel="bits per token")
        paper.set_title("published: document level, GPT-2 small", fontsize=10)
        labels = {name: handle for ax in measured for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        if not panels:
            nothing(paper, "no certificates; run make results")
    return figure


def _panel(ax: Axes, panel: str, rows: Sequence[tuple[int, Point]]) -> None:
    guess = max(point.plain.vacuous_at for _, point in rows)
    top = 1.3 * guess
    for family in dict.fromkeys(point.family for _, point in rows):
        of, colour = [(row, point) for row, point in rows if point.family == family], COLOURS[family]
        heights = [min(reading.possible(point.plain), top) for _, point in of]
        ax.plot([p.bits for _, p in of], heights, "o-", color=colour, markerfacecolor="white", linewidth=1, label=family)
        for (row, point), height in zip(of, heights, strict=True):
            ax.annotate(str(row), (point.bits, height), xytext=(4, 4), textcoords="offset points", fontsize=8)
        both = [(p.bits, p.beside) for _, p in of if p.beside is not None]
        if both:
            bits, beside = [bits for bits, _ in both], [bound for _, bound in both]
            ax.plot(bits, [min(b.bound, top) for b in beside], "o-", color=colour, linewidth=1)
            ax.plot(bits, [b.reference_empirical or 0.0 for b in beside], "x", color="black", label="reference alone")
            for x, b in both:
                words = reading.gain_in_words(b).removeprefix(", ").partition(":")[0]
                ax.annotate(words, (x, min(b.bound, top)), xytext=(4, -10), textcoords="offset points", fontsize=8)
    guess_line(ax.axhline, guess, f"guess, {panel.rpartition(' ')[2]}s")
    ax.set(xscale="log", ylim=(0, top * 1.02), xlabel="bits of the message", ylabel=panel.rpartition(", ")[2])
    ax.set_title(panel.rpartition(", ")[0].replace("$", r"\$"), fontsize=10)


def study_table(points: Sequence[Point]) -> Table:
    """One row a point, with its number in the figure: the model, what is proven of it, and the certificate that says so."""
    rows: list[dict[str, object]] = []
    for number, point in enumerate(points, 1):
        run, this = point.run, shown(point.run.certificate, point.plain)
        that = point.beside and shown(run.certificate, point.beside)
        rows.append(
            {
                "No.": str(number),
                "Run": link(run.label, run.page),
                "Bound, uniform guess": this.bound,
                "Verdict": reading.verdicts(run.certificate, {"uniform": point.plain, "reference": point.beside}),
                "Bits": f"{point.bits:,}",
                "Bound beside the reference": that.bound if that else DASH,
                "Reference alone": (that and that.reference) or DASH,
                "Certified gain": (that and that.gain) or DASH,
                "Guess": this.guess,
                "Panel": point.panel,
                "Kind": point.family,
                "By": f"{this.speaks_of}, {this.inequality}",
                "Certificate": run.certificate.certificate_sha256[:12],
            }
        )
    columns = ("No.", "Run", "Bound, uniform guess", "Verdict", "Bits", "Bound beside the reference", "Reference alone",
               "Certified gain", "Guess", "Panel", "Kind", "By", "Certificate")  # fmt: skip
    return Table(rows, left=("Run", "Verdict", "Kind", "By", "Certificate"), groups=("Panel",), columns=columns)


def crossings(points: Sequence[Point]) -> list[str]:
    """Where lines of the figure cross each other, the guess, or a gain of zero, in sentences: between points, in log bits."""
    lines = []
    for panel in dict.fromkeys(point.panel for point in points):
        here, found = [point for point in points if point.panel == panel], []
        curves: dict[str, list[tuple[float, float]]] = {}
        for point in here:
            x = float(np.log2(point.bits))
            curves.setdefault(point.family, []).append((x, reading.possible(point.plain) - point.plain.vacuous_at))
            if point.beside is not None:
                name = f"{point.family} with the reference"
                curves.setdefault(name, []).append((x, point.beside.bound - point.beside.vacuous_at))
                curves.setdefault(f"gain of {name}", []).append((x, point.beside.gain or 0.0))
        for name, curve in curves.items():
            for bits in _zeros(curve, [(x, 0.0) for x, _ in curve]):
                of = f"the {name} is zero" if name.startswith("gain of") else f"{name} crosses the uniform guess"
                found.append(f"{of} at about {bits:,} bits")
        names = [name for name in curves if not name.startswith("gain of")]
        for index, one in enumerate(names):
            for other in names[index + 1 :]:
                found += [f"{one} and {other} cross at about {bits:,} bits" for bits in _zeros(curves[one], curves[other])]
        lines.append(f"{panel}: {'; '.join(found) or 'no two lines cross (a line needs two kept messages)'}.")
    return lines


def _zeros(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> list[int]:
    """The bits at which two broken lines over log2 bits meet, where both are; none of a single point."""
    (x, y), (u, v) = np.array(sorted(one)).T, np.array(sorted(other)).T
    low, high = max(x[0], u[0]), min(x[-1], u[-1])
    places = np.unique([low, high, *(place for place in (*x, *u) if low < place < high)]) if low < high else np.empty(0)
    if places.size < 2:
        return []
    apart = np.interp(places, x, y) - np.interp(places, u, v)
    return [
        round(2.0 ** (a + (b - a) * d / (d - e)))
        for a, b, d, e in zip(places, places[1:], apart, apart[1:], strict=False)
        if d * e < 0 or (d == 0 and e != 0)
    ]


def ablation_table(kept: Sequence[KeptRun]) -> Table | Markdown:
    """One row a run that lacks one part, beside the whole; a sentence where none is kept."""
    if not kept:
        return escape("No ablation is kept yet.")
    runs = {run.name: run for run in kept}
    order = [*(name for name in ABLATED if name in runs), *(name for name in runs if name not in ABLATED)]
    rows = []
    for name in order:
        run = runs[name]
        bound, fresh = reading.headline(run.certificate), reading.first(run.certificate, "iid")
        this = shown(run.certificate, bound)
        rows.append(
            {
                "Left out": link(ABLATED.get(name, name), run.page),
                "Bound, unseen": this.bound if bound.assumption == "unseen" else DASH,
                "Bound, iid": shown(run.certificate, fresh).bound if fresh else DASH,
                "Verdict": reading.verdicts(run.certificate, {bound.assumption: bound, "iid": fresh}),
                "Gain, unseen": (this.gain or DASH) if bound.assumption == "unseen" else DASH,
                "Gain, iid": (fresh and shown(run.certificate, fresh).gain) or DASH,
                "Reference alone": this.reference or DASH,
                "Training": this.training,
                "Held out": this.held_out or DASH,
                "Bits": f"{run.certificate.message_bits:,}",
            }
        )
    return Table(rows, left=("Left out", "Verdict"))
