"""What stands beside a certificate and is no part of it: baselines on the same held-out documents, and near-duplicates."""

from collections.abc import Sequence

import pandas as pd

from sublora.certificate.schema import Certificate
from sublora.errors import SubloraError
from sublora.reporting import reading
from sublora.reporting.markdown import Markdown, Table, escape
from sublora.reporting.reading import number, shown
from sublora.reporting.results import load_table
from sublora.reporting.runs import KeptRun

BASELINES = ("method", "training_bytes", "documents", "bits_per_byte", "standard_error")
DUPLICATES = ("part", "documents", "identical", "near")
POOL = "pool"
WHAT = {
    "byte histogram": "how often each byte occurs in training text",
    "document code": "a public code that adapts to the bytes of one document, orders 0 to 3; nothing is trained",
    "5-grams of bytes": "all counts of training text, which no message holds",
    "gzip -9": "each document by itself, with the header of its format",
    "bzip2 -9": "each document by itself, with the header of its format",
    "xz -9e": "each document by itself, with the header of its format",
    "zstd -19": "each document by itself, with the header of its format",
    "zstd -19, trained dictionary": "each document by itself, behind a dictionary of training text that is not counted",
}
AGAIN = "certify the run again"
MEASURED = "a measurement on these documents, which nothing was chosen on; by itself no promise about others"


def baselines_table(run: KeptRun) -> Table | Markdown:
    """The model and the baselines in bits per byte, and what each number can promise; a sentence where there are none."""
    try:
        frame = _kept(run, "baselines", BASELINES)
    except SubloraError as error:
        return escape(f"No baselines were kept with this run{_why(run, error)}.")
    rows = [*_of_certificate(run.certificate)]
    for row in frame.to_dict("records"):
        name = str(row["method"])
        spread = "" if pd.isna(row["standard_error"]) else f" ± {number(float(row['standard_error']), 3)}"
        read = int(row["training_bytes"])
        seen = f"{read:,} bytes of training text" if read else "nothing"
        what = f"{WHAT.get(name, 'another method')}; {MEASURED}"
        rows.append(_row(name, f"{number(float(row['bits_per_byte']), 3)}{spread}", seen, what))
    return Table(rows, left=("Way", "It has read", "What it is, and can promise"))


def _kept(run: KeptRun, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table beside a certificate. Raises SubloraError where there is none, or where it lacks a value."""
    frame = load_table(path := run.path / f"{name}.csv", columns, AGAIN)
    needed = frame[[column for column in columns if column != "standard_error"]]
    if needed.isna().any(axis=None) or (needed.select_dtypes("number").abs() > 1e15).any(axis=None):
        raise SubloraError(f"{path}: a value is missing or impossible; {AGAIN}")
    return frame


def _row(way: str, value: str, read: str, promise: str) -> dict[str, object]:
    return {"Way": way, "Bits per byte": value, "It has read": read, "What it is, and can promise": promise}


def _of_certificate(certificate: Certificate) -> list[dict[str, object]]:
    """The model's own rows: bound and held-out value in bits per byte, and the reference's, as far as the certificate has them."""
    bound = reading.bits_per_byte(certificate)
    if bound is None:
        return []
    this, many = shown(certificate, bound), reading.units_name(certificate, bound.level)[1]
    about = {"unseen": f"all {many} of the pool that it was not trained on", "iid": f"fresh {many}, if they are independent"}
    whom = about.get(bound.assumption, f"all {many} of the pool")
    holds = f"a bound on the mean over {whom}; the message is paid for"
    if this.reference is not None:  # without which such a bound must not stand
        gained = this.gain or "not stated"
        alone = f"its reference alone,{mixed}," if (mixed := reading.mixed_in(certificate, bound)) else "its reference alone"
        holds += f"; {alone} gets {this.reference} on training text; certified gain over it: {gained}"
    rows = [_row("this model, certified", this.bound, "the training text; its message is counted in the bound", holds)]
    if this.held_out is not None:
        rows.append(_row("this model, held out", this.held_out, "the training text; its message is not counted", MEASURED))
    if this.reference is not None and this.reference_held_out is not None:
        rows.append(_row("its reference alone, held out", this.reference_held_out, "what is public", MEASURED))
    return rows


def baselines_of(runs: Sequence[KeptRun]) -> Markdown:
    """`baselines_table` and `duplicates` of each run of text, below its name; a sentence where there is none."""
    of_text = [run for run in runs if run.certificate.params.get("kind") != "classify"]
    parts = [f"**{escape(run.label)}**\n\n{baselines_table(run)}\n\n{duplicates(run)}" for run in of_text]
    return Markdown("\n\n".join(parts) or "There is no run of text.")


def _why(run: KeptRun, error: SubloraError) -> str:
    """What is wrong with a file that is there, without the folder, which is another on every machine."""
    said = str(error).replace(f"{run.path}/", "")
    return "" if "no such table" in said else f": {said}"


def duplicates(run: KeptRun) -> Markdown:
    """How many held-out documents stand among the training documents, and what that weakens, in sentences."""
    try:
        frame = _kept(run, "duplicates", DUPLICATES)
    except SubloraError as error:
        return escape(f"No count of near-duplicates was kept with this run{_why(run, error)}.")
    return escape(duplicates_in_words(frame) or "Near-duplicates were not counted.")


def duplicates_in_words(frame: pd.DataFrame) -> str:
    """The counts of `sublora.data.duplicates` as sentences; empty without rows."""
    found, of_pool = [], ""
    for row in frame.to_dict("records"):
        near, total, same = int(row["near"]), int(row["documents"]), int(row["identical"])
        share = number(100 * near / max(1, total), 1)
        counted = f"{near:,} of the {total:,} {row['part']} documents ({share}%; {same:,} of them identical)"
        if row["part"] == POOL:
            of_pool = (
                f" Of the pool, {counted.replace(' pool documents', ' documents')} have as much in common with one of the documents"
                " that left it before the split. A base that was made of those has read almost the same: no bound breaks by that,"
                " but such documents are no new text to it."
            )
        else:
            found.append(counted)
    if not found:
        return ""
    return _of_split(found) + of_pool


def _of_split(found: Sequence[str]) -> str:
    """What stands across the split, and what it weakens."""
    return (
        f"Near-duplicates across the split: {' and '.join(found)} have at least about four fifths of their text in common with one"
        " training document. Pool and unseen bounds hold in spite of that. It weakens what iid means, since such documents are no"
        " independent draws, and it makes held-out values look better than those of new documents."
    )
