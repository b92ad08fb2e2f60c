"""The papers' other experiments: what was published, what small runs measured (`results/experiments/`), and their evidence.

A study changes one thing of the run `base`. Its runs are named after the study and the value, such as `rank-16`.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from sublora.certificate.schema import Certificate
from sublora.reporting import reading
from sublora.reporting.markdown import Markdown, Table, escape, link
from sublora.reporting.published import METHODS, published_value
from sublora.reporting.reading import VACUOUS, number, shown, statement
from sublora.reporting.runs import KeptRun
from sublora.reporting.tables import DASH

BASE = "base"


class Study(NamedTuple):
    """What a study changes, and what the run `base` has in its place."""

    changes: str
    base: str


STUDIES = {
    "size": Study("Width", "64"),
    "data": Study("Share of the pool", "0.7"),
    "rank": Study("Rank", "4"),
    "dimension": Study("Coordinates", "484"),
    "levels": Study("Levels", "3"),
    "dropout": Study("Dropout", "0"),
    "shuffle": Study("Shuffled within", "not shuffled"),
    "sequence": Study("Unit", "document"),
    "subsample": Study("Documents evaluated", "400"),
}
SPREAD = "seeds"
CONTEXT = "context"


def study(kept: Sequence[KeptRun], name: str) -> Markdown:
    """What was published of a study, its table, and the command that makes its runs. Bounds are for independent units."""
    what = STUDIES[name]
    rows = [_row(run, what.changes, value) for value, run in _runs_of(kept, name, what.base)]
    table = str(Table(rows, left=(what.changes, "Verdict"))) if len(rows) > 1 else escape("No run of this study is kept.")
    return Markdown(f"{published_claim(name)}\n\n{table}\n\n{_command(name)}")


def context(kept: Sequence[KeptRun], markov: Sequence[KeptRun]) -> Markdown:
    """Models that read k tokens beside Markov chains of order k, all certified over tokens. markov: runs named `order<k>`."""
    chains = {run.name.removeprefix("order"): run.certificate for run in markov}
    rows = []
    for k, run in _runs_of(kept, CONTEXT):
        models: dict[str, Certificate | None] = {"Model": run.certificate, "Markov chain": chains.get(k)}
        rows.append({"k": k} | {key: text for name, one in models.items() for key, text in _over_tokens(name, one).items()})
    table = str(Table(rows)) if rows else escape("No run of this study is kept.")
    return Markdown(f"{published_claim(CONTEXT)}\n\n{table}\n\n{_command(CONTEXT)}")


def _over_tokens(name: str, certificate: Certificate | None) -> dict[str, str]:
    bound = statement(certificate, "martingale", "bpd", "freedman") if certificate else None
    if certificate is None or bound is None:
        return {f"{name}: training": DASH, f"{name}: bound": DASH, f"{name}: bytes": DASH}
    this = shown(certificate, bound)
    return {
        f"{name}: training": this.training,
        f"{name}: bound": Markdown(f"**{this.bound}**"),
        f"{name}: bytes": f"{certificate.message_bits // 8:,}",
    }


def seeds_table(kept: Sequence[KeptRun]) -> Table:
    """The methods of Table 1, each with several seeds: mean and range of the bounds and of the held-out value."""
    rows = []
    for method, name in METHODS.items():
        runs = of_method(kept, method)
        row: dict[str, object] = {"Method": name, "Seeds": str(len(runs))}
        for inequality in ("hoeffding", "betting"):
            row[f"By {inequality}"] = _range(bounds_of(runs, inequality))
        rows.append({**row, "Held out": _range(_held_out_of(runs))})
    return Table(rows, left=("Method",))


def order_of_methods(kept: Sequence[KeptRun], inequality: str) -> str:
    """The order of the methods by their bounds, as far as the ranges over seeds allow one, in a sentence."""
    values = {name: bounds_of(of_method(kept, method), inequality) for method, name in METHODS.items()}
    return f"By {inequality}: {ordered({name: found for name, found in values.items() if len(found) > 1})}"


def ordered(values: Mapping[str, Sequence[float]]) -> str:
    """Names by their values, the smallest first. Neighbours whose ranges overlap are not ordered."""
    if not values:
        return "no method has runs with several seeds, so no order is stated."
    groups: list[list[str]] = []
    for name in sorted(values, key=lambda each: fmean(values[each])):
        if groups and min(values[name]) <= max(value for other in groups[-1] for value in values[other]):
            groups[-1].append(name)
        else:
            groups.append([name])
    if len(groups) == 1 and len(values) > 1:
        return f"the ranges of {' and '.join(groups[0])} overlap, so no order is stated."
    text = ", then ".join(" and ".join(group) for group in groups)
    overlap = [group for group in groups if len(group) > 1]
    return f"{text}." + "".join(f" The ranges of {' and '.join(group)} overlap, so they have no order." for group in overlap)


def of_method(kept: Sequence[KeptRun], method: str) -> list[KeptRun]:
    """The runs of a method of Table 1 with several seeds."""
    return [run for run in kept if run.name.startswith(f"{SPREAD}-{method}-")]


def bounds_of(runs: Sequence[KeptRun], inequality: str) -> list[float]:
    """Their bounds in bits for independent documents, none above the largest loss."""
    found = [statement(run.certificate, "iid", "bpd", inequality) for run in runs]
    return [reading.possible(bound) for bound in found if bound is not None]


def _held_out_of(runs: Sequence[KeptRun]) -> list[float]:
    found = [(run.certificate, statement(run.certificate, "iid", "bpd", "betting")) for run in runs]
    values = [reading.held_out_value(certificate, bound) for certificate, bound in found if bound is not None]
    return [value for value in values if value is not None]


def _range(values: Sequence[float]) -> str:
    return f"{number(fmean(values))} ({number(min(values))} to {number(max(values))})" if values else "not run"


def _runs_of(kept: Sequence[KeptRun], name: str, base: str | None = None) -> list[tuple[str, KeptRun]]:
    """(value, run) of a study, the run `base` first, then by value: numbers by size."""
    found = [(run.name.removeprefix(name).removeprefix("-") or name, run) for run in kept
             if run.name == name or run.name.startswith(f"{name}-")]  # fmt: skip
    found.sort(key=lambda each: (float(each[0]) if each[0].replace(".", "").isdigit() else 0.0))
    return [(f"{base} (base)", run) for run in kept if base is not None and run.name == BASE] + found


def _row(run: KeptRun, changes: str, value: str) -> dict[str, object]:
    certificate = run.certificate
    bounds = {name: statement(certificate, "iid", "bpd", name) for name in ("hoeffding", "betting")}
    row: dict[str, object] = {changes: link(value, run.page), "Message (bytes)": f"{certificate.message_bits // 8:,}"}
    for name, bound in bounds.items():
        row[f"By {name}"] = VACUOUS if bound is None else reading.written(bound)
    row["Verdict"] = reading.verdicts(certificate, bounds)
    betting = bounds["betting"]
    this = shown(certificate, betting) if betting else None
    row |= {"Training": this.training if this else DASH, "Held out": (this and this.held_out) or DASH}
    return {**row, "Scoring (s)": f"{certificate.environment.seconds.get('score', 0):,.0f}"}


def published_claim(name: str) -> Markdown:
    """What was published of a study, and where it was read."""
    value, provenance = published_value("experiments", name, "publication")
    return Markdown(f"**Published.** {escape(value)} ({escape(provenance)}).")


def _command(name: str) -> Markdown:
    return Markdown(f"`sublora run params/experiments/{name}.yaml`; the paper's size: `sublora run params/paper/{name}.yaml`.")


def evidence_table(kept: Sequence[KeptRun]) -> Table | Markdown:
    """One row a run: its certificate, the command that makes it, the package's version, and the certificate's SHA-256."""
    rows = [
        {
            "Run": link(run.name, run.page),
            "Certificate": Markdown(f"`results/experiments/{escape(run.name)}/certificate.json`"),
            "Command": Markdown(f"`sublora run params/experiments/{_file_of(run.name)}.yaml`"),
            "Version": run.certificate.environment.sublora,
            "SHA-256": run.certificate.certificate_sha256[:12],
        }
        for run in kept
    ]
    return Table(rows, left=("Run", "Certificate", "Command", "Version", "SHA-256")) if rows else escape("No run is kept.")


def _file_of(name: str) -> str:
    """The params file of a run: `rank` of `rank-16`, `seeds-lora` of `seeds-lora-2`."""
    return next((file for file in (*STUDIES, CONTEXT) if name.startswith(file)), name.rpartition("-")[0] or name)
