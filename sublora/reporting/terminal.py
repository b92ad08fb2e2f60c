"""Certificates as plain text for a terminal. Imports neither torch nor pandas, so that it prints at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sublora.certificate.schema import Certificate, Statement
from sublora.reporting import sentences
from sublora.reporting.reading import (
    SHOWN_K,
    VACUOUS,
    certified,
    guess_name,
    headline,
    held_out_value,
    in_percent,
    level_prefix,
    main_metric,
    metric_name,
    scaled,
    units_name,
    verdict,
    written,
)


def printable(text: str) -> str:
    """The text with every control character but the line break replaced: a certificate must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def summary(certificate: Certificate, path: Path) -> str:
    """The headline of a certificate in six lines: bound, guess, held-out value, message, the file, and what to do next."""
    bound = headline(certificate)
    truth = held_out_value(certificate, bound)
    unit = "%" if in_percent(bound.metric) else f" {metric_name(certificate, bound.metric)}"
    many = units_name(certificate, bound.level)[1]
    of = {
        "unseen": f"{many} not trained on",
        "pool": f"all {many} of the pool",
        "iid": f"fresh {many}, if independent",
        "martingale": f"the next {units_name(certificate, bound.level)[0]} in the training contexts",
    }[bound.assumption]
    value = written(bound)
    what = metric_name(certificate, bound.metric) + ", " if in_percent(bound.metric) else ""
    shown = VACUOUS.upper() if value == VACUOUS else f"{value}{unit}"
    if value != VACUOUS and not bound.nonvacuous:
        shown += f", {VACUOUS.upper()}"
    inequality, confidence = bound.inequality.replace("_", " "), sentences.confidence(certificate)
    rows = [
        ("bound", f"{shown}  ({what}{of}; {inequality}, {confidence} confidence)"),
        ("guess", f"{scaled(bound, bound.vacuous_at)}{unit}  ({guess_name(bound)})"),
        ("held out", "not measured" if truth is None else f"{scaled(bound, truth)}{unit}"),
        ("message", f"{certificate.message_bits // 8:,} bytes ({certificate.message_bits:,} bits)"),
        ("certificate", str(path)),
        ("next", _advice(bound, path)),
    ]
    return printable("\n".join(f"  {name:<12} {text}" for name, text in rows))


def _advice(bound: Statement, path: Path) -> str:
    if bound.nonvacuous:
        return f"`sublora verify {path}` checks it; `sublora report` shows it"
    return "a smaller message (fewer coordinates or levels) or more training documents make the bound smaller"


def details(certificate: Certificate, path: Path) -> str:
    """A whole certificate: its guarantee in words, its statements as a table, and what it is about."""
    corpus, environment = certificate.corpus, certificate.environment
    shown = (main_metric(certificate), *(f"top{k}_error" for k in SHOWN_K))
    rows: list[tuple[str, ...]] = [("metric", "speaks of", "inequality", "training", "bound", "held out", "guess", "verdict")]
    for bound in certified(certificate):
        if bound.metric in shown:
            truth = held_out_value(certificate, bound)
            percent = "%" if in_percent(bound.metric) else ""
            values = [scaled(bound, bound.empirical), written(bound), "-" if truth is None else scaled(bound, truth)]
            rows.append(
                (
                    metric_name(certificate, bound.metric),
                    level_prefix(bound.level) + bound.assumption,
                    bound.inequality.replace("_", " "),
                    *(value if value in ("-", VACUOUS) else value + percent for value in values),
                    scaled(bound, bound.vacuous_at) + percent,
                    verdict(bound, truth),
                )
            )
    about = [
        ("corpus", f"{corpus.name}: {corpus.documents:,} training documents, {corpus.tokens:,} tokens"),
        ("split", corpus.split),
        ("made by", f"sublora {environment.sublora}, python {environment.python}, torch {environment.torch}"),
        ("took", f"{sum(environment.seconds.values()) / 60:.1f} minutes on {environment.device}"),
    ]
    parts = [
        certificate.experiment,
        sentences.guarantee(certificate),
        summary(certificate, path),
        "\n".join(_aligned(rows)),
        sentences.small_print(certificate),
        "\n".join(f"  {name:<12} {text}" for name, text in about),
    ]
    return printable("\n\n".join(parts))


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
