"""Tables of certificates: numbers as data frames, and the same as Markdown for pages and notebooks."""

from collections.abc import Iterator, Sequence

import pandas as pd

from sublora.certificate.schema import Certificate, Statement
from sublora.reporting import reading
from sublora.reporting.markdown import Markdown, Table, link
from sublora.reporting.reading import certified, number, shown, with_unit
from sublora.reporting.runs import KeptRun

SPEAKS_OF = {
    "unseen": "unseen: documents not trained on",
    "iid": "iid: a fresh document, if independent",
    "pool": "pool: all documents, training documents included",
    "martingale": "martingale: the next token in the training contexts",
}
DASH = "–"


def bounds_frame(certificate: Certificate) -> pd.DataFrame:
    """The certified model's statements, one a row, in bits and shares, unrounded; no bound is above the largest loss.

    Columns: level, metric, assumption, inequality, alpha, empirical, bound, held_out (NaN for pool statements, which
    it does not estimate), vacuous_at, verdict; with a public reference also reference, reference_empirical and gain.
    """
    keys, rows = {"level", "metric", "assumption", "inequality", "alpha", "empirical", "bound"}, []
    keys |= {"reference", "reference_empirical", "gain"}
    for bound in certified(certificate):
        truth = reading.held_out_value(certificate, bound)
        row = bound.model_dump(include=keys) | {"bound": reading.possible(bound)}
        rows.append({**row, "held_out": truth, "vacuous_at": bound.vacuous_at, "verdict": reading.verdict(bound, truth)})
    return pd.DataFrame(rows).astype({"alpha": float, "held_out": float})


def bounds_table(certificate: Certificate) -> Table:
    """Bounds on the main metric (bits; for a classifier, percent) with the training value, the held-out value and the guess.

    Where a token is no byte, also those in bits per byte.
    """
    by_byte = ["bpb"] if any(bound.metric == "bpb" for bound in certified(certificate)) else []
    return _bounds(certificate, [reading.main_metric(certificate), *by_byte])


def headline_table(certificate: Certificate) -> Table:
    """The headline beside what it must be compared with: the reference alone, the paper's own form, and the guess.

    The paper's own form is hoeffding for independent documents (azuma for tokens) with the uniform guess. Of positions it has none.
    """
    bound, metric = reading.headline(certificate), reading.main_metric(certificate)
    assumption = {"token": "martingale", "position": ""}.get(bound.level, "iid")
    papers = reading.statement(certificate, assumption, metric, "azuma" if bound.level == "token" else "hoeffding")
    this = shown(certificate, bound)
    beside = bound.reference is not None

    def row(
        what: str, training: str, held_out: str | None, *, limit: str = DASH, verdict: str = DASH, gain: str | None = None
    ) -> dict[str, object]:
        added = {"Certified gain": gain or DASH} if beside else {}
        return {"What": what, "Bound": limit, "Verdict": verdict, **added, "Training": training, "Held out": held_out or DASH}

    def proven(what: str, that: reading.Shown) -> dict[str, object]:
        return row(what, that.training, that.held_out, limit=that.bound, verdict=that.verdict, gain=that.gain)

    rows = [proven(_named(this) + ", with the reference" * beside, this)]
    if (fresh := reading.first(certificate, "iid")) not in (None, bound):
        assert fresh is not None
        that = shown(certificate, fresh)
        rows.append(proven(_named(that) + ", with the reference" * beside, that))
    for name, value, limit in _test_set_rows(certificate, bound):
        says = "better" if limit < bound.vacuous_at else reading.VACUOUS
        rows.append(row(name, DASH, value, limit=reading.scaled(bound, limit), verdict=says))
    if this.reference is not None:
        rows.append(row("the reference alone: zero bits", this.reference, this.reference_held_out))
    if papers is not None:
        that = shown(certificate, papers)
        rows.append(proven(f"the paper's own form: {_named(that)}, uniform guess", that))
    rows.append(row(reading.guess_name(bound), this.guess, this.guess if bound.level != "example" else None))
    return Table(rows, left=("What", "Verdict"))


def _test_set_rows(certificate: Certificate, bound: Statement) -> Iterator[tuple[str, str, float]]:
    """(what it is, held-out value, bound) of the headline's test-set bounds; none of single tokens, and of older certificates."""
    apart = reading.held_out(certificate, bound)
    if apart is None or apart.test_bound is None:
        return
    stated, (_, many) = apart.test_bound, reading.units_name(certificate, bound.level)
    for assumption, limit in (("unseen", stated.unseen), ("iid", stated.iid)):
        if limit is not None:
            how = f"{apart.n:,} held-out {many}"
            if assumption == "unseen":
                whole = apart.n == stated.population
                how = f"all {apart.n:,} of them" if whole else f"{how} of the test split's {stated.population:,}"
            yield f"{assumption}, test-set bound: {how}", reading.scaled(bound, apart.value), limit


def _named(this: reading.Shown) -> str:
    return f"{this.speaks_of}, {this.inequality}"


def errors_table(certificate: Certificate) -> Table | None:
    """Bounds on top-k errors in percent, k = 1, 10 and 100, or None if the certificate has none."""
    metrics = [f"top{k}_error" for k in reading.SHOWN_K]
    return _bounds(certificate, metrics) if any(bound.metric in metrics for bound in certified(certificate)) else None


def _bounds(certificate: Certificate, metrics: Sequence[str]) -> Table:
    """The certified model's statements on some metrics, one a row."""
    rows, found = [], [bound for bound in certified(certificate) if bound.metric in metrics]
    beside = any(bound.reference for bound in found)
    for bound in found:
        this = shown(certificate, bound)
        rows.append(
            {
                "Speaks of": _speaks_of(bound, f"{this.metric}, " if len(metrics) > 1 else ""),
                "Inequality": this.inequality,
                f"Bound ({this.percent or 'bits'})": Markdown(f"**{this.bound}**"),
                "Verdict": this.verdict,
                **({"Reference": this.reference or DASH, "Gain": this.gain or DASH} if beside else {}),
                "Training": this.training,
                "Held out": this.held_out or DASH,
                "Guess": this.guess,
                **({} if this.percent else {"α": DASH if bound.alpha is None else f"{bound.alpha:g}"}),
            }
        )
    return Table(rows, left=("Inequality", "Verdict"), groups=("Speaks of",))


def _speaks_of(bound: Statement, prefix: str) -> str:
    words = SPEAKS_OF[bound.assumption]
    if bound.level in ("example", "position", "group"):
        words = words.replace("document", bound.level)
    text = f"{prefix}{reading.level_prefix(bound.level)}{words}"
    return text[0].upper() + text[1:]


def tightness_table(runs: Sequence[KeptRun]) -> Table:
    """All inequalities of all runs, with the uniform guess: what each adds to the training value, and its ratio to the paper's.

    In bits; for a classifier in percent. The gap is bound minus training value. The ratio is to hoeffding's gap, or azuma's for
    tokens, under the same assumption. The truth's gap is held-out minus training value: what a perfect inequality would add.
    """
    rows = []
    for run in runs:
        found = [bound for bound in reading.uniform(run.certificate) if bound.metric == reading.main_metric(run.certificate)]
        published = {(b.level, b.assumption): b.bound - b.empirical for b in found if b.inequality in ("hoeffding", "azuma")}
        for bound in found:
            this, truth = shown(run.certificate, bound), reading.held_out_value(run.certificate, bound)
            gap, papers = bound.bound - bound.empirical, published.get((bound.level, bound.assumption))
            possible, scale = this.bound != reading.VACUOUS, 100 if this.percent else 1
            rows.append(
                {
                    "Run": link(run.name, run.page),
                    "Speaks of": this.speaks_of,
                    "Inequality": this.inequality,
                    "Bound": reading.written(bound, decimals=3),
                    "Verdict": this.verdict,
                    "Gap": number(scale * gap, 3) if possible else DASH,
                    "Ratio": number(gap / papers) if possible and papers else DASH,
                    "Truth's gap": DASH if truth is None else number(scale * (truth - bound.empirical), 3),
                }
            )
    return Table(rows, left=("Speaks of", "Inequality", "Verdict"), groups=("Run",))


def sizes_table(runs: Sequence[KeptRun]) -> Table:
    """One row a run: the size of its message, the amount of training text, and its headline bound."""
    rows, beside = [], any(reading.headline(run.certificate).reference for run in runs)
    for run in runs:
        bound = reading.headline(run.certificate)
        this = shown(run.certificate, bound)
        rows.append(
            {
                "Run": link(run.name, run.page),
                "Bound": with_unit(this.bound, this.percent),
                "Verdict": this.verdict,
                **({"Reference": this.reference or DASH, "Gain": this.gain or DASH} if beside else {}),
                "Guess": with_unit(this.guess, this.percent),
                "Message (bytes)": f"{run.certificate.message_bits // 8:,}",
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
        paper = run.certificate.paper_accounting
        certified_bound = _hoeffding_iid(run.certificate, run.certificate.statements)
        rows.append(
            {
                "Run": link(run.name, run.page),
                "Certified bound": _or_dash(certified_bound),
                "Verdict": reading.verdicts(run.certificate, {"certified": certified_bound}),
                "As the paper counts, not certified": _or_dash(_hoeffding_iid(run.certificate, paper.bounds)),
                "Certified size (bits)": f"{run.certificate.message_bits:,}",
                "As the paper counts (bits)": f"{round(paper.bits):,}",
            }
        )
    return Table(rows, left=("Run", "Verdict"))


def _hoeffding_iid(certificate: Certificate, bounds: Sequence[Statement]) -> Statement | None:
    metric = reading.main_metric(certificate)
    wanted = ("document" if metric == "bpd" else "example", metric, "iid", "hoeffding", certificate.alpha)
    return next((b for b in bounds if (b.level, b.metric, b.assumption, b.inequality, b.alpha) == wanted), None)


def _or_dash(bound: Statement | None) -> str:
    return DASH if bound is None else with_unit(reading.written(bound), "%" if reading.in_percent(bound.metric) else "")


def environment_table(runs: Sequence[KeptRun]) -> Table:
    """One row a run: versions, device, and seconds for each stage."""
    stages = list(dict.fromkeys(stage for run in runs for stage in run.certificate.environment.seconds))
    rows = []
    for run in runs:
        environment = run.certificate.environment
        seconds = {name: f"{value:,.0f}" for name, value in environment.seconds.items()}
        row = {"Run": link(run.name, run.page), "Python": environment.python, "Torch": environment.torch}
        row |= {"Device": environment.device, "Dtype": environment.dtype}
        row |= {f"{stage.capitalize()} (s)": seconds.get(stage, DASH) for stage in stages}
        rows.append({**row, "Sum (s)": f"{sum(environment.seconds.values()):,.0f}"})
    return Table(rows, left=("Run", "Python", "Torch", "Device", "Dtype"))
