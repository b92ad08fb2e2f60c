"""The paper's tables with measured values beside the published ones (Lotfi et al. 2024a, Table 1, GLUE, settings).

A cell that was not run says so; what it would take is in `cost_table`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sublora.certificate.schema import Certificate, Statement
from sublora.errors import SubloraError
from sublora.experiment import Pretrain, as_experiment, load_experiment
from sublora.reporting.experiments import order_of_methods
from sublora.reporting.markdown import Markdown, Table, link
from sublora.reporting.published import METHODS, published, published_value
from sublora.reporting.reading import VACUOUS, certified, headline, number, shown, statement, verdict, verdicts, written
from sublora.reporting.results import results_folder
from sublora.reporting.runs import KeptRun
from sublora.reporting.sentences import confidence
from sublora.reporting.tables import DASH

NOT_RUN = "not run"
METRICS = {"bpd": "Bits per token", "top1_error": "Top-1 error (%)", "top10_error": "Top-10 error (%)",
           "top100_error": "Top-100 error (%)"}  # fmt: skip
SUSTAINED = 1e14
"""Floating-point operations a second that cost estimates assume: about what one A100 sustains when it trains GPT-2 small."""
GLUE_TASKS = {"qqp": ("QQP", 363_846), "cola": ("CoLA", 8_551)}
GLUE_BASES = {"pretrained": "GPT-2", "random": "GPT-2, random weights"}
GLUE_INEQUALITIES = {"binomial_tail": "Binomial tail", "kl": "kl", "hoeffding": "Hoeffding"}
GPT2_SMALL = 124e6  # weights


def table1(kept: Sequence[KeptRun], paper_scale: Sequence[KeptRun] = ()) -> Table:
    """Table 1: for each metric and method the published bound, and those measured, all for independent documents.

    kept: small runs named as the keys of `published.METHODS`; paper_scale: runs of the paper's size, named alike. Bits of a
    small run are per byte of 257, the paper's per token of 50,257: only the order of the methods compares, not the values.
    """
    small, large = ({run.name: run for run in runs} for runs in (kept, paper_scale))
    rows = []
    for metric, title in METRICS.items():
        guess = NOT_RUN
        for method, name in METHODS.items():
            run = small.get(method)
            training, held_out, bound, least = _measured(run, metric, "hoeffding")
            guess = least if guess == NOT_RUN else guess
            rows.append(
                {
                    "Metric": title,
                    "Method": link(name, run.page if run else None),
                    "Published": f"{float(published_value('table1', metric, method)[0]):.2f}",
                    "By hoeffding": bound,
                    "By betting": _measured(run, metric, "betting")[2],
                    "Verdict": _verdict(run, metric),
                    "At the paper's size": _measured(large.get(method), metric, "hoeffding")[2],
                    "Training": training,
                    "Held out": held_out,
                }
            )
        rows.append({"Metric": title, "Method": "Random guess", "Published": published_value("table1", metric, "guess")[0],
                     **dict.fromkeys(("By hoeffding", "By betting"), guess), "Verdict": DASH, "At the paper's size": DASH,
                     "Training": DASH, "Held out": DASH})  # fmt: skip
    return Table(rows, left=("Method", "Verdict"), groups=("Metric",))


def _verdict(run: KeptRun | None, metric: str) -> str:
    bounds = {name: statement(run.certificate, "iid", metric, name) for name in ("hoeffding", "betting")} if run else {}
    return verdicts(run.certificate, bounds) if run else NOT_RUN


def _measured(run: KeptRun | None, metric: str, inequality: str) -> tuple[str, str, str, str]:
    """What a run states for independent documents: training value, held-out value, bound, guess."""
    bound = statement(run.certificate, "iid", metric, inequality) if run else None
    if run is None or bound is None:
        return NOT_RUN, NOT_RUN, NOT_RUN, NOT_RUN
    this = shown(run.certificate, bound)
    return this.training, this.held_out or DASH, this.bound, this.guess


def ranking(kept: Sequence[KeptRun], seeds: Sequence[KeptRun] = ()) -> list[str]:
    """What the measured order of the methods is beside the published one, in sentences: for bits, by hoeffding.

    kept: one run a method, which states no order. seeds: smaller runs with several seeds, whose ranges may allow one.
    """
    bounds, lines = {}, []
    for run in kept:
        bound = statement(run.certificate, "iid", "bpd", "hoeffding")
        if run.name in METHODS and bound:
            bounds[run.name] = bound
            size = f"{METHODS[run.name]}: {run.certificate.message_bits:,} bits"
            training = f"{number(bound.empirical)} on training documents"
            if written(bound) == VACUOUS:
                lines.append(f"{size}; {training}; the price of so many bits exceeds every possible loss: vacuous.")
                continue
            price, verdict = number(bound.bound - bound.empirical), "" if bound.nonvacuous else ": vacuous"
            lines.append(f"{size}; {training}, and {price} for complexity and subsample; the bound is {written(bound)}{verdict}.")
    papers = {name: float(published_value("table1", "bpd", name)[0]) for name in METHODS}
    orders = [f"Published, best first: {_order(papers, {name: number(value) for name, value in papers.items()})}."]
    if bounds:
        ours = {name: bound.bound for name, bound in bounds.items()}
        orders.append(f"Measured, one run each: {_order(ours, {name: written(bound) for name, bound in bounds.items()})}.")
    for inequality in ("hoeffding", "betting") if seeds else ():
        orders.append(f"Smaller models with several seeds, best first. {order_of_methods(seeds, inequality)}")
    return orders + lines


def _order(values: dict[str, float], texts: dict[str, str]) -> str:
    """The paper's methods with their texts, that of the smallest value first."""
    return ", ".join(f"{METHODS[name]} ({texts[name]})" for name in sorted(values, key=values.__getitem__))


def grid_table(frame: pd.DataFrame) -> Table:
    """The rows of `results/table1-grid.csv` (`benchmarks/table1.py`)."""
    best = set(frame.groupby("method")["bound"].idxmin())
    shown = pd.DataFrame({"Method": frame["method"].map(METHODS)})
    for column, name in (("rank", "Rank"), ("dimension", "d"), ("levels", "Levels")):
        shown[name] = [DASH if pd.isna(value) else f"{value:,.0f}" for value in frame[column]]
    shown["Message (bytes)"] = [f"{bits // 8:,}" for bits in frame["message_bits"]]
    shown["Pilot's value"] = frame["empirical"].map(number)
    possible = frame["bound"] < frame["vacuous_at"] - np.log2(frame["alpha"])
    promised = frame["bound"].map(number).where(possible, VACUOUS)
    shown["Promised"] = [text + (" ★" if index in best else "") for index, text in promised.items()]
    return Table.of(shown, left=("Method",))


def cost_table(kept: Sequence[KeptRun]) -> Table:
    """One row a method of Table 1 and scale: the command that makes its numbers, and what it took or is estimated to take.

    Estimates: 6 floating-point operations a weight and training token (Kaplan et al. 2020), at `SUSTAINED` of them a second.
    """
    small = {run.name: run for run in kept}
    here, there = [], []
    for method, name in METHODS.items():
        run, file = small.get(method), f"params/paper/table1-{method}.yaml"
        here.append(
            {
                "Size": "Small model, embedded corpus",
                "Method": link(name, run.page if run else None),
                "Command": Markdown(f"`sublora run params/table1/{method}.yaml`"),
                "Message (bytes)": f"{run.certificate.message_bits // 8:,}" if run else NOT_RUN,
                "Cost": _minutes(run.certificate) if run else NOT_RUN,
            }
        )
        there.append({"Size": "GPT-2 small, OpenWebText", "Method": name, "Command": Markdown(f"`sublora run {file}`"),
                      "Message (bytes)": NOT_RUN, "Cost": _paper_cost(file)})  # fmt: skip
    return Table(here + there, left=("Method", "Command"), groups=("Size",))


def glue_table(runs: Sequence[KeptRun]) -> Table:
    """The paper's GLUE experiments: what was published, the best run here, the command, and its cost.

    runs: any; those named `glue-<task>-<base>-<d>` of `params/glue/` count, of several the one with the smallest bound.
    """
    rows = []
    for task, (title, examples) in GLUE_TASKS.items():
        for base, words in GLUE_BASES.items():
            value, provenance = published_value("glue", task, base)
            mine = [run.certificate for run in runs if run.name.startswith(f"glue-{task}-{base}-")]
            bounds = filter(None, (statement(certificate, "iid", "error", "hoeffding") for certificate in mine))
            best = min(bounds, key=lambda bound: bound.bound, default=None)
            flop = 6 * GPT2_SMALL * examples * 128 * 5  # examples of at most 128 tokens, five times each
            rows.append(
                {
                    "Task": title,
                    "Base model": words,
                    "Published": value or provenance,
                    "Bound (%)": _bound(best),
                    "Verdict": DASH if best is None else verdict(best, None),
                    "Command": Markdown(f"`sublora run params/glue/{task}-{base}.yaml`"),
                    "Cost of each": f"at most {_estimate(flop)}",
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
        this = shown(run.certificate, first)
        rows.append(
            {
                "Run": link(run.name, run.page),
                **{title: _bound(bounds.get(name)) for name, title in GLUE_INEQUALITIES.items()},
                "Verdict": verdicts(run.certificate, {name: bounds.get(name) for name in GLUE_INEQUALITIES}),
                "Commonest label": this.guess,
                "Training": this.training,
                "Held out": this.held_out or DASH,
                "Examples": f"{first.units:,}",
                "Message (bytes)": f"{run.certificate.message_bits // 8:,}",
            }
        )
    columns = ("Run", *GLUE_INEQUALITIES.values(), "Verdict", "Commonest label", "Training", "Held out", "Examples",
               "Message (bytes)")  # fmt: skip
    return Table(rows, ("Run", "Verdict"), columns=columns)


def glue_findings(runs: Sequence[KeptRun]) -> list[str]:
    """What is to be known of classifiers whose headline says nothing, or that err like the commonest label, in sentences."""
    lines = []
    for run in runs:
        bound = headline(run.certificate)
        this, wrong, guess = shown(run.certificate, bound), *(round(x * bound.units) for x in (bound.empirical, bound.vacuous_at))
        said = []
        if not bound.nonvacuous:
            said.append(f"Its bound, {this.bound}%, is vacuous: always answering the commonest label errs on {this.guess}%.")
        if abs(bound.empirical - bound.vacuous_at) < 0.01 and bound.evaluated == bound.units:
            often = "exactly as many" if wrong == guess else f"{wrong:,}, where the label errs on {guess:,},"
            of = f"of {bound.units:,} training examples" + (f" ({wrong:,})" if wrong == guess else "")
            said.append(f"It errs like the commonest label: on {often} {of}. It has learnt nothing that these errors show.")
        if said:
            lines.append(f"{run.name}: {' '.join(said)}")
    return lines


def settings_table(kept: Sequence[KeptRun]) -> Table:
    """The paper's settings beside those of `params/paper/table1-sublora.yaml` and of the small SubLoRA run."""
    paper = _params("params/paper/table1-sublora.yaml")
    found = [_pretraining(as_experiment, run.certificate.params) for run in kept if run.name == "sublora"]
    small = found[0] if found else None
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
    "LoRA": lambda e: (
        f"{', '.join(e.subspace.targets)}; rank {e.subspace.rank}, alpha {e.subspace.lora_alpha:g}, "
        f"dropout {e.subspace.lora_dropout:g}"
    ),
    "subspace": lambda e: f"d = {e.subspace.dimension:,}, {e.subspace.projector}, seed {e.subspace.seed}",
    "optimizer": lambda e: (
        f"AdamW, rate {e.training.learning_rate:g} to {e.training.min_learning_rate:g}, betas "
        f"{e.training.betas[0]:g} and {e.training.betas[1]:g}, weight decay {e.training.weight_decay:g}, clip {e.training.clip:g}"
    ),
    "batch": lambda e: (
        f"{e.training.batch} over all devices" + (f", in {n} parts" if (n := e.training.accumulation) > 1 else "")
    ),
    "steps": lambda e: (
        f"{e.training.steps:,}, warm-up "
        + ("a tenth of them, at most 100" if e.training.warmup is None else f"{e.training.warmup:,}")
    ),
    "quantization": lambda e: (
        f"{e.compression.levels} levels, {e.compression.quantizer}, "
        + (f"then {e.compression.finetune_steps:,} steps of adaptation" if e.compression.finetune_steps else "after training")
    ),
    "documents evaluated": lambda e: f"{e.bounds.documents:,}, and {round(e.bounds.pilot * e.bounds.documents):,} to choose alpha",
    "window": lambda e: f"{e.model.block:,}, moved on by {e.stride}",
    "confidence": lambda e: confidence(e.bounds.delta),
    "smoothing weights": lambda e: "the same",
    "top-k": lambda e: "the same",
}


def _params(file: str) -> Pretrain | None:
    """A params file of the project, which lies beside its folder of results; None where there is none."""
    return _pretraining(load_experiment, results_folder().parent / file)


def _pretraining(load: Callable[[Any], Any], source: Any) -> Pretrain | None:
    """The experiment that `load` makes of the source; None where it cannot (another version made it), or the kind is another."""
    try:
        found = load(source)
    except SubloraError:
        return None
    return found if isinstance(found, Pretrain) else None


def _paper_cost(file: str) -> str:
    params = _params(file)
    if params is None:
        return "not known: its params file is not there"
    return _estimate(6 * GPT2_SMALL * params.training.steps * params.training.batch * params.model.block)


def _estimate(flop: float) -> str:
    hours = flop / SUSTAINED / 3600
    amount, unit = (60 * hours, "minute") if hours < 1 else (hours, "hour") if hours < 48 else (hours / 24, "day")
    return f"{math.ceil(amount)} {unit}{'s' * (amount > 1)} of a GPU (estimate)"


def _minutes(certificate: Certificate) -> str:
    environment = certificate.environment
    return f"{number(sum(environment.seconds.values()) / 60, 1)} minutes, {environment.device}"


def _bound(bound: Statement | None) -> str:
    return NOT_RUN if bound is None else written(bound)
