"""Tables of certificates: numbers as data frames, and the same as Markdown for pages and notebooks."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sublora.certificate.schema import Certificate, Statement
from sublora.reporting.markdown import Markdown, Table, escape, link
from sublora.reporting.reading import (
    SHOWN_K,
    VACUOUS,
    certified,
    headline,
    held_out_value,
    in_percent,
    largest_loss,
    level_prefix,
    main_metric,
    metric_name,
    number,
    scaled,
    verdict,
    written,
)
from sublora.reporting.runs import KeptRun

SPEAKS_OF = {
    "unseen": "unseen: documents not trained on",
    "iid": "iid: a fresh document, if independent",
    "pool": "pool: all documents, training documents included",
    "martingale": "martingale: the next token in the training contexts",
}
DASH = "–"


def bounds_frame(certificate: Certificate) -> pd.DataFrame:
    """The certified model's statements, one a row, in bits and shares, unrounded.

    Columns: level, metric, assumption, inequality, alpha, empirical, bound, held_out (NaN for pool statements, which
    it does not estimate), vacuous_at, verdict.
    """
    keys, rows = {"level", "metric", "assumption", "inequality", "alpha", "empirical", "bound"}, []
    for bound in certified(certificate):
        truth = held_out_value(certificate, bound)
        row = bound.model_dump(include=keys)
        rows.append({**row, "held_out": truth, "vacuous_at": bound.vacuous_at, "verdict": verdict(bound, truth)})
    return pd.DataFrame(rows).astype({"alpha": float, "held_out": float})


def bounds_table(certificate: Certificate) -> Table:
    """Bounds on the main metric (bits; for a classifier, percent) with the training value, the held-out value and the guess."""
    return _bounds(certificate, [main_metric(certificate)], with_alpha=not in_percent(main_metric(certificate)))


def errors_table(certificate: Certificate) -> Table | None:
    """Bounds on top-k errors in percent, k = 1, 10 and 100, or None if the certificate has none."""
    metrics = [f"top{k}_error" for k in SHOWN_K]
    if not any(bound.metric in metrics for bound in certified(certificate)):
        return None
    return _bounds(certificate, metrics, with_alpha=False)


def _bounds(certificate: Certificate, metrics: Sequence[str], with_alpha: bool) -> Table:
    """The certified model's statements on some metrics, one a row."""
    rows = []
    for bound in certified(certificate):
        if bound.metric not in metrics:
            continue
        truth, name = held_out_value(certificate, bound), metric_name(certificate, bound.metric)
        prefix = f"{name}, " if len(metrics) > 1 else ""
        rows.append(
            {
                "Speaks of": _speaks_of(bound, prefix),
                "Inequality": bound.inequality.replace("_", " "),
                **({"α": DASH if bound.alpha is None else f"{bound.alpha:g}"} if with_alpha else {}),
                f"Training ({_unit(bound)})": scaled(bound, bound.empirical),
                "Bound": Markdown(f"**{written(bound)}**"),
                "Held out": DASH if truth is None else scaled(bound, truth),
                "Guess": scaled(bound, bound.vacuous_at),
                "Verdict": verdict(bound, truth),
            }
        )
    return Table(rows, left=("Inequality", "Verdict"), groups=("Speaks of",))


def _speaks_of(bound: Statement, prefix: str) -> str:
    words = SPEAKS_OF[bound.assumption]
    if bound.level == "example":
        words = words.replace("document", "example")
    text = f"{prefix}{level_prefix(bound.level)}{words}"
    return text[0].upper() + text[1:]


def _unit(bound: Statement) -> str:
    return "%" if in_percent(bound.metric) else "bits"


def tightness_table(runs: Sequence[KeptRun]) -> Table:
    """All inequalities of all runs: what each adds to the training value, and its ratio to the paper's.

    In bits; for a classifier in percent. The gap is bound minus training value. The ratio is to hoeffding's gap, or azuma's for
    tokens, under the same assumption. The truth's gap is held-out minus training value: what a perfect inequality would add.
    """
    rows = []
    for run in runs:
        found = [b for b in certified(run.certificate) if b.metric == main_metric(run.certificate)]
        for bound in found:
            same = [b for b in found if (b.level, b.assumption) == (bound.level, bound.assumption)]
            published = next((b for b in same if b.inequality in ("hoeffding", "azuma")), None)
            gap, truth = bound.bound - bound.empirical, held_out_value(run.certificate, bound)
            possible, scale = bound.bound < largest_loss(bound), 100 if in_percent(bound.metric) else 1
            rows.append(
                {
                    "Run": link(run.name, run.page),
                    "Speaks of": f"{level_prefix(bound.level)}{bound.assumption}",
                    "Inequality": bound.inequality.replace("_", " "),
                    "Bound": written(bound, decimals=3),
                    "Gap": number(scale * gap, 3) if possible else DASH,
                    "Ratio": _ratio(gap, published) if possible else DASH,
                    "Truth's gap": DASH if truth is None else number(scale * (truth - bound.empirical), 3),
                }
            )
    return Table(rows, left=("Speaks of", "Inequality"), groups=("Run",))


def _ratio(gap: float, published: Statement | None) -> str:
    return DASH if published is None else number(gap / (published.bound - published.empirical))


def sizes_table(runs: Sequence[KeptRun]) -> Table:
    """One row a run: the size of its message, the amount of training text, and its headline bound."""
    rows = []
    for run in runs:
        certificate, bound = run.certificate, headline(run.certificate)
        rows.append(
            {
                "Run": link(run.name, run.page),
                "Message (bytes)": f"{certificate.message_bits // 8:,}",
                "Bound": _percent(bound, written(bound)),
                "Guess": _percent(bound, scaled(bound, bound.vacuous_at)),
                "Verdict": verdict(bound, held_out_value(certificate, bound)),
                "Speaks of": bound.assumption,
                "Training units": f"{bound.units:,}",
                "Pool": DASH if bound.pool is None else f"{bound.pool:,}",
            }
        )
    return Table(rows, left=("Run", "Verdict", "Speaks of"))


def paper_table(runs: Sequence[KeptRun]) -> Table:
    """One row a run: its size as the paper counts it (not certified) and as the certificate counts it.

    Both bounds are the paper's: hoeffding, iid, of documents (for a classifier: examples), at the certified model's alpha.
    """
    rows = []
    for run in runs:
        certificate, paper = run.certificate, run.certificate.paper_accounting
        wanted = main_metric(certificate), certificate.alpha
        published, ours = (_hoeffding_iid(bounds, *wanted) for bounds in (paper.bounds, certificate.statements))
        rows.append(
            {
                "Run": link(run.name, run.page),
                "Certified size (bits)": f"{certificate.message_bits:,}",
                "As the paper counts (bits)": f"{round(paper.bits):,}",
                "Certified bound": DASH if ours is None else _percent(ours, written(ours)),
                "As the paper counts, not certified": DASH if published is None else _percent(published, written(published)),
            }
        )
    return Table(rows, left=("Run",))


def _hoeffding_iid(bounds: Sequence[Statement], metric: str, alpha: float | None) -> Statement | None:
    wanted = ("document" if metric == "bpd" else "example", metric, "iid", "hoeffding", alpha)
    return next((b for b in bounds if (b.level, b.metric, b.assumption, b.inequality, b.alpha) == wanted), None)


def environment_table(runs: Sequence[KeptRun]) -> Table:
    """One row a run: versions, device, and seconds for each stage."""
    stages = list(dict.fromkeys(stage for run in runs for stage in run.certificate.environment.seconds))
    rows = []
    for run in runs:
        environment = run.certificate.environment
        row: dict[str, str] = {"Run": link(run.name, run.page), "Python": environment.python, "Torch": environment.torch}
        row |= {"Device": environment.device, "Dtype": environment.dtype}
        for stage in stages:
            seconds = environment.seconds.get(stage)
            row[f"{stage.capitalize()} (s)"] = DASH if seconds is None else f"{seconds:,.0f}"
        row["Sum (s)"] = f"{sum(environment.seconds.values()):,.0f}"
        rows.append(row)
    return Table(rows, left=("Run", "Python", "Torch", "Device", "Dtype"))


def _percent(bound: Statement, text: str) -> str:
    """A value on the scale of a bound with its unit where that is percent; bits are the unit of everything else."""
    return f"{text}%" if in_percent(bound.metric) and text != VACUOUS else text


def frame_table(frame: pd.DataFrame, decimals: int = 3) -> Table:
    """Any data frame as a table: numbers rounded to `decimals` places, missing ones as a dash."""
    shown = frame.reset_index(drop=True).map(lambda value: _cell(value, decimals))
    words = tuple(name for name in frame if not pd.api.types.is_numeric_dtype(frame[name]))
    return Table.of(shown, left=words)


def _cell(value: Any, decimals: int) -> str:
    if isinstance(value, Markdown):
        return value
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return DASH
    return f"{value:,.{decimals}f}" if isinstance(value, float) else escape(value)
