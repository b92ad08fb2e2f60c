"""Certificates as plain text for a terminal. Imports neither torch nor pandas, so that it prints at once."""

from pathlib import Path

from sublora.certificate.schema import Certificate, Statement
from sublora.errors import printable
from sublora.reporting import sentences
from sublora.reporting.reading import (
    SHOWN_K,
    VACUOUS,
    bits_per_byte,
    certified,
    guess_name,
    headline,
    main_metric,
    number,
    shown,
    units_name,
    with_unit,
)

ARITHMETIC = (
    "environment, name; losses, counts and sha256 of the data; betting, freedman and empirical_bernstein (kl of a subsample, too) "
    "beyond the least that such losses allow"
)
"""What `verify_arithmetic` leaves unchecked."""


def unchecked(certificate: Certificate, arithmetic: bool, corpus_given: bool) -> str:
    """What a check did not look at, beside settings. A corpus that was found by its SHA-256 may have been made of anything."""
    if arithmetic:
        return ARITHMETIC
    source = certificate.params.get("corpus", {}).get("source")
    found = source is not None and source not in ("python-packages", "python-stdlib") and not corpus_given
    since = certificate.params.get("model", {}).get("public_since") is not None
    of_base = "; since when the base is public" * since
    return "environment, name" + of_base + "; what the corpus was made of (it is known by its SHA-256)" * found


def summary(certificate: Certificate, path: Path, verified: bool = False) -> str:
    """The headline of a certificate in a few lines: bound, reference, guess, held-out value, message, file, and what to do next.

    verified: the certificate was just verified, so that this is not what to do next.
    """
    bound = headline(certificate)
    this, (one, many) = shown(certificate, bound), units_name(certificate, bound.level)
    of = {
        "unseen": f"{many} not trained on",
        "pool": f"all {many} of the pool",
        "iid": f"fresh {many}, if independent",
        "martingale": f"the next {one} in the training contexts",
    }[bound.assumption]
    value = this.bound.upper() if this.bound == VACUOUS else this.bound + this.unit
    if this.bound != VACUOUS and not bound.nonvacuous:
        value += f", {VACUOUS.upper()}"
    what = f"{this.metric}, " if this.percent else ""
    rows = [
        ("bound", f"{value}  ({what}{of}; {this.inequality}, {sentences.confidence(certificate.delta)} confidence)"),
        *([] if this.reference is None else [("reference", f"{this.reference}{this.unit}  ({sentences.beside(this)})")]),
        *_per_byte(certificate),
        ("guess", f"{this.guess}{this.unit}  ({guess_name(bound)})"),
        ("held out", with_unit(this.held_out or "not measured", this.unit)),
        ("message", f"{certificate.message_bits // 8:,} bytes ({certificate.message_bits:,} bits)"),
        ("certificate", str(path)),
        ("next", _advice(bound, path, verified)),
    ]
    return _named(rows)


def _per_byte(certificate: Certificate) -> list[tuple[str, str]]:
    """The line of the headline in bits per byte, where a token is no byte."""
    bound = bits_per_byte(certificate)
    if bound is None or bound.metric != "bpb":
        return []
    this = shown(certificate, bound)
    apart = f"held out {this.held_out}, " if this.held_out else ""
    if this.reference is not None:
        apart = f"{this.reference}: {sentences.beside(this)}; {apart}"
    return [("per byte", f"{with_unit(this.bound, this.unit)}  ({apart}guess {this.guess}{this.unit})")]


def _advice(bound: Statement, path: Path, verified: bool) -> str:
    if bound.nonvacuous:
        report = f"sublora report {path.parent}" if path.name == "certificate.json" else "sublora report"
        return ("" if verified else f"`sublora verify {path}` checks it; ") + f"`{report}` shows it"
    more = f"{bound.level}s" if bound.level in ("position", "group", "example") else "documents"
    return f"a smaller message (fewer coordinates or levels) or more training {more} make the bound smaller"


def details(certificate: Certificate, path: Path) -> str:
    """A whole certificate: its guarantee in words, its statements as a table, and what it is about."""
    corpus, environment = certificate.corpus, certificate.environment
    metrics = (main_metric(certificate), "bpb", *(f"top{k}_error" for k in SHOWN_K))
    first, second = ("", " training") if corpus.split == "positions" else (" training", "")
    columns = ("metric", "speaks of", "inequality", "training", "bound", "reference", "gain", "held out", "guess", "verdict")
    rows: list[tuple[str, ...]] = [columns]
    for this in (shown(certificate, bound) for bound in certified(certificate) if bound.metric in metrics):
        values = (this.training, this.bound, this.reference or "-", this.gain or "-", this.held_out or "-", this.guess)
        numbers = (with_unit(value, this.percent) for value in values)
        rows.append(tuple(map(printable, (this.metric, this.speaks_of, this.inequality, *numbers, this.verdict))))
    if all(row[5] == "-" for row in rows[1:]):
        rows = [(*row[:5], *row[7:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    about = [
        ("corpus", f"{corpus.name}: {corpus.documents:,}{first} documents, {corpus.tokens:,}{second} tokens"),
        ("split", sentences.split(certificate)),
        *([] if (names := sentences.classes(certificate)) is None else [("classes", names)]),
        *(("unit", f"{level}: {sentences.UNITS[level]}") for level in dict.fromkeys(b.level for b in certificate.statements)),
        ("made by", f"sublora {environment.sublora}, python {environment.python}, torch {environment.torch}"),
        ("took", f"{number(sum(environment.seconds.values()) / 60, 1)} minutes on {environment.device}"),
    ]
    parts = [
        printable(certificate.experiment),
        printable(sentences.guarantee(certificate)),
        summary(certificate, path),
        "\n".join(f"  {line}" for line in lines),
        printable(sentences.small_print(certificate)),
        _named(about),
    ]
    return "\n\n".join(parts)


def _named(rows: list[tuple[str, str]]) -> str:
    """Rows on a line each: what a certificate says can neither add a line nor steer the terminal."""
    return "\n".join(f"  {name:<12} {printable(text)}" for name, text in rows)
