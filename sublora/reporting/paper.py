"""The paper's tables with measured values beside the published ones (Lotfi et al. 2024a, Table 1, GLUE, settings).

A cell that was not run says so; what it would take is in `cost_table`.
"""

from collections.abc import Sequence

import pandas as pd

from sublora.certificate.schema import Certificate, Statement
from sublora.errors import SubloraError
from sublora.experiment import Pretrain, as_experiment, load_experiment
from sublora.reporting.markdown import Markdown, Table, link
from sublora.reporting.published import METHODS, published, published_value
from sublora.reporting.reading import VACUOUS, certified, held_out_value, number, scaled, written
from sublora.reporting.runs import KeptRun, results_folder
from sublora.reporting.tables import DASH

NOT_RUN = "not run"
METRICS = {"bpd": "Bits per token", "top1_error": "Top-1 error (%)", "top10_error": "Top-10 error (%)",
           "top100_error": "Top-100 error (%)"}  # fmt: skip
SUSTAINED = 1e14
"""Floating-point operations a second that cost estimates assume: about what one A100 sustains when it trains GPT-2 small."""
GLUE_TASKS = {"qqp": ("QQP", 363_846), "cola": ("CoLA", 8_551)}
GLUE_BASES = {"pretrained": "GPT-2", "random": "GPT-2, random weights"}
GPT2_SMALL = 124e6  # weights


def stated(certificate: Certificate, metric: str, inequality: str, assumption: str = "iid") -> Statement | None:
    """The certified model's statement on a metric by an inequality, or None where the certificate has none."""
    wanted = (metric, inequality, assumption)
    return next((b for b in certified(certificate) if (b.metric, b.inequality, b.assumption) == wanted), None)


def table1(kept: Sequence[KeptRun], paper_scale: Sequence[KeptRun] = ()) -> Table:
    """Table 1: for each metric and method the published bound, and those measured, all for independent documents.

    kept: small runs named as the keys of `published.METHODS`; paper_scale: runs of the paper's size, named alike. Bits of a
    small run are per byte of 257, the paper's per token of 50,257: only the order of the methods compares, not the values.
    """
    small, large = ({run.name: run.certificate for run in runs} for runs in (kept, paper_scale))
    pages = {run.name: run.page for run in kept}
    rows = []
    for metric, title in METRICS.items():
        for method, name in METHODS.items():
            certificate = small.get(method)
            entries = [stated(certificate, metric, by) if certificate else None for by in ("hoeffding", "betting")]
            there = stated(large[method], metric, "hoeffding") if method in large else None
            rows.append(
                {
                    "Metric": title,
                    "Method": link(name, pages.get(method)),
                    "Published": f"{float(published_value('table1', metric, method)[0]):.2f}",
                    "At the paper's size": _bound(there),
                    "By hoeffding": _bound(entries[0]),
                    "By betting": _bound(entries[1]),
                    "Training": _training(entries[0]),
                    "Held out": _held_out(certificate, entries[0]),
                }
            )
        bound = next(filter(None, (stated(c, metric, "hoeffding") for c in small.values())), None)
        guess = NOT_RUN if bound is None else scaled(bound, bound.vacuous_at)
        rows.append({"Metric": title, "Method": "Random guess", "Published": published_value("table1", metric, "guess")[0],
                     "At the paper's size": DASH, **dict.fromkeys(("By hoeffding", "By betting"), guess),
                     "Training": DASH, "Held out": DASH})  # fmt: skip
    return Table(rows, left=("Method",), groups=("Metric",))


def ranking(kept: Sequence[KeptRun]) -> list[str]:
    """What the measured order of the methods is beside the published one, in sentences: for bits, by hoeffding."""
    lines = []
    found = {run.name: stated(run.certificate, "bpd", "hoeffding") for run in kept if run.name in METHODS}
    bounds = {name: bound for name, bound in found.items() if bound}
    for what, values in (
        ("Published", {name: float(published_value("table1", "bpd", name)[0]) for name in METHODS}),
        ("Measured", {name: bound.bound for name, bound in bounds.items()}),
    ):
        if values:
            order = sorted(values, key=values.__getitem__)
            shown = {name: _bound(bounds[name]) if what == "Measured" else number(values[name]) for name in order}
            lines.append(f"{what}, best first: " + ", ".join(f"{METHODS[name]} ({shown[name]})" for name in order) + ".")
    for name, bound in bounds.items():
        certificate = next(run.certificate for run in kept if run.name == name)
        size = f"{METHODS[name]}: {certificate.message_bits:,} bits"
        training = f"{scaled(bound, bound.empirical)} on training documents"
        if written(bound) == VACUOUS:
            lines.append(f"{size}; {training}; the price of so many bits exceeds every possible loss: vacuous.")
            continue
        price, verdict = number(bound.bound - bound.empirical), "" if bound.nonvacuous else ": vacuous"
        lines.append(f"{size}; {training}, and {price} for complexity and subsample; the bound is {written(bound)}{verdict}.")
    return lines


def grid_table() -> Table:
    """The rows of `results/table1-grid.csv` (`benchmarks/table1.py`); without the file, none."""
    try:
        frame = pd.read_csv(results_folder() / "table1-grid.csv", dtype={"rank": "Int64", "dimension": "Int64"})
    except OSError:
        frame = pd.DataFrame(columns=["method", "rank", "dimension", "levels", "message_bits", "alpha", "empirical", "bound"])
    best = frame.groupby("method")["bound"].idxmin()
    shown = pd.DataFrame(
        {
            "Method": frame["method"].map(METHODS),
            "Rank": [DASH if pd.isna(value) else f"{value}" for value in frame["rank"]],
            "d": [DASH if pd.isna(value) else f"{value:,}" for value in frame["dimension"]],
            "Levels": [f"{value}" for value in frame["levels"]],
            "Message (bytes)": [f"{value // 8:,}" for value in frame["message_bits"]],
            "Pilot's value": [number(value) for value in frame["empirical"]],
            "Promised": [f"{number(value)}{' ★' if index in set(best) else ''}" for index, value in frame["bound"].items()],
        }
    )
    return Table.of(shown, left=("Method",))


def cost_table(kept: Sequence[KeptRun]) -> Table:
    """One row a method of Table 1 and scale: the command that makes its numbers, and what it took or is estimated to take.

    Estimates: 6 floating-point operations a weight and training token (Kaplan et al. 2020), at `SUSTAINED` of them a second.
    """
    took = {run.name: run.certificate for run in kept}
    pages = {run.name: run.page for run in kept}
    rows = []
    for method, name in METHODS.items():
        certificate = took.get(method)
        rows.append(
            {
                "Size": "Small model, embedded corpus",
                "Method": link(name, pages.get(method)),
                "Command": Markdown(f"`sublora run params/table1/{method}.yaml`"),
                "Message (bytes)": f"{certificate.message_bits // 8:,}" if certificate else NOT_RUN,
                "Cost": _minutes(certificate) if certificate else NOT_RUN,
            }
        )
    for method, name in METHODS.items():
        file = f"params/paper/table1-{method}.yaml"
        rows.append({"Size": "GPT-2 small, OpenWebText", "Method": name, "Command": Markdown(f"`sublora run {file}`"),
                     "Message (bytes)": NOT_RUN, "Cost": _estimate(_paper_flop(file))})  # fmt: skip
    return Table(rows, left=("Method", "Command"), groups=("Size",))


def glue_table(runs: Sequence[KeptRun]) -> Table:
    """The paper's GLUE experiments: what was published, the best run here, the command, and its cost.

    runs: any; those named `glue-<task>-<base>-<d>` of `params/glue/` count, of several the one with the smallest bound.
    """
    rows = []
    for task, (title, examples) in GLUE_TASKS.items():
        for base, words in GLUE_BASES.items():
            value, provenance = published_value("glue", task, base)
            mine = [run.certificate for run in runs if run.name.startswith(f"glue-{task}-{base}-")]
            best = min(filter(None, (stated(c, "error", "hoeffding") for c in mine)), key=lambda b: b.bound, default=None)
            flop = 6 * GPT2_SMALL * examples * 128 * 5  # examples of at most 128 tokens, five times each
            rows.append(
                {
                    "Task": title,
                    "Base model": words,
                    "Published": value or provenance,
                    "Bound (%)": _bound(best),
                    "Command": Markdown(f"`sublora run params/glue/{task}-{base}.yaml`"),
                    "Cost of each": _estimate(flop, "at most "),
                }
            )
    return Table(rows, left=("Task", "Base model", "Published", "Command"))


def small_glue_table(runs: Sequence[KeptRun]) -> Table:
    """Certified classifiers: message, training and held-out error, bounds, and the commonest label's error, in percent."""
    rows = []
    for run in runs:
        bounds = {b.inequality: b for b in certified(run.certificate) if (b.metric, b.assumption) == ("error", "iid")}
        if not bounds:
            continue
        first = next(iter(bounds.values()))
        rows.append(
            {
                "Run": link(run.name, run.page),
                "Examples": f"{first.units:,}",
                "Message (bytes)": f"{run.certificate.message_bits // 8:,}",
                "Training": _training(first),
                "Held out": _held_out(run.certificate, first),
                "Binomial tail": _bound(bounds.get("binomial_tail")),
                "kl": _bound(bounds.get("kl")),
                "Hoeffding": _bound(bounds.get("hoeffding")),
                "Commonest label": scaled(first, first.vacuous_at),
            }
        )
    columns = ("Run", "Examples", "Message (bytes)", "Training", "Held out", "Binomial tail", "kl", "Hoeffding", "Commonest label")
    return Table(rows, ("Run",), columns=columns)


def settings_table(kept: Sequence[KeptRun]) -> Table:
    """The paper's settings beside those of `params/paper/table1-sublora.yaml` and of the small SubLoRA run."""
    paper = _paper("params/paper/table1-sublora.yaml")
    small = next((found for run in kept if run.name == "sublora" and (found := _pretraining(run))), None)
    rows = []
    for row in published("settings").itertuples():
        says = _SETTINGS.get(row.metric)
        here = [says(one) if says and one else DASH for one in (paper, small)]
        names = {"Setting": row.metric[0].upper() + row.metric[1:], "Published": row.value, "Where read": row.provenance}
        rows.append({**names, "params/paper": here[0], "params/table1": here[1]})
    return Table(rows, left=("Setting", "Published", "Where read", "params/paper", "params/table1"))


_SETTINGS = {
    "corpus": lambda e: f"{e.corpus.source}, {e.corpus.tokenizer}",
    "architecture": lambda e: f"{e.model.layers} layers, {e.model.heads} heads, width {e.model.width}",
    "block": lambda e: f"{e.model.block:,}",
    "LoRA": lambda e: f"{', '.join(e.subspace.targets)}; rank {e.subspace.rank}, alpha {e.subspace.lora_alpha:g}, "
    f"dropout {e.subspace.lora_dropout:g}",
    "subspace": lambda e: f"d = {e.subspace.dimension:,}, {e.subspace.projector}, seed {e.subspace.seed}",
    "optimizer": lambda e: f"AdamW, rate {e.training.learning_rate:g} to {e.training.min_learning_rate:g}, betas "
    f"{e.training.betas[0]:g} and {e.training.betas[1]:g}, weight decay {e.training.weight_decay:g}, clip {e.training.clip:g}",
    "batch": lambda e: f"{e.training.batch} over all devices, in {e.training.accumulation} parts",
    "steps": lambda e: f"{e.training.steps:,}, warm-up "
    + ("a tenth of them, at most 100" if e.training.warmup is None else f"{e.training.warmup:,}"),
    "quantization": lambda e: f"{e.compression.levels} levels, {e.compression.quantizer}, "
    + (f"then {e.compression.finetune_steps:,} steps of adaptation" if e.compression.finetune_steps else "after training"),
    "documents evaluated": lambda e: f"{e.bounds.documents:,}, and {round(e.bounds.pilot * e.bounds.documents):,} to choose alpha",
    "window": lambda e: f"{e.model.block:,}, moved on by {e.stride}",
    "confidence": lambda e: f"{100 * (1 - e.bounds.delta):g}%",
    "smoothing weights": lambda e: "the same",
    "top-k": lambda e: "the same",
}


def _pretraining(run: KeptRun) -> Pretrain | None:
    """The experiment that made a run, where it is one of the paper's kind."""
    try:
        found = as_experiment(run.certificate.params)
    except SubloraError:  # of another version of the package
        return None
    return found if isinstance(found, Pretrain) else None


def _paper(file: str) -> Pretrain | None:
    """A params file of the project, which lies beside its folder of results; None where there is none."""
    try:
        found = load_experiment(results_folder().parent / file)
    except SubloraError:
        return None
    return found if isinstance(found, Pretrain) else None


def _paper_flop(file: str) -> float | None:
    paper = _paper(file)
    if paper is None:
        return None
    training = paper.training
    return 6 * GPT2_SMALL * training.steps * training.batch * paper.model.block


def _estimate(flop: float | None, before: str = "") -> str:
    if flop is None:
        return "not known: its params file is not there"
    hours = flop / SUSTAINED / 3600
    text = f"{60 * hours:.0f} minutes" if hours < 1 else f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
    return f"{before}{text} of a GPU (estimate)"


def _minutes(certificate: Certificate) -> str:
    environment = certificate.environment
    return f"{sum(environment.seconds.values()) / 60:.1f} minutes, {environment.device}"


def _bound(bound: Statement | None) -> str:
    return NOT_RUN if bound is None else written(bound)


def _training(bound: Statement | None) -> str:
    return NOT_RUN if bound is None else scaled(bound, bound.empirical)


def _held_out(certificate: Certificate | None, bound: Statement | None) -> str:
    if certificate is None or bound is None:
        return NOT_RUN
    value = held_out_value(certificate, bound)
    return DASH if value is None else scaled(bound, value)
