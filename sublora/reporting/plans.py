"""A plan as text for a terminal, and as a params file."""

from pathlib import Path
from typing import Any

from sublora.errors import SubloraError
from sublora.experiment.params import as_yaml
from sublora.plan import DEVIATION, LEAST, MOST_UNITS, SHARES, Corpus, Row, Suggestion, to_beat
from sublora.reporting.reading import number

KNOWN = {256: "bytes", 257: "bytes", 50257: "gpt2"}


def places(vocab_size: int, classifier: bool, reference: bool, *, data: Path | None, tokenizer: str | None) -> dict[str, Any]:
    """What a params file says of the data: the keys of `task`, or the groups `corpus` and `reference`.

    Raises SubloraError for a vocabulary that no known tokenizer has.
    """
    if classifier:
        return {} if data is None else {"source": str(data)}
    if (name := tokenizer or KNOWN.get(vocab_size)) is None:
        raise SubloraError(f"--vocab {vocab_size}: neither bytes (257) nor gpt2 (50257); name the tokenizer with --tokenizer")
    corpus = {} if data is None else {"source": "file", "path": str(data)}
    origin = {} if name in KNOWN.values() else {"tokenizer_from": "elsewhere"}
    found: dict[str, Any] = {"corpus": {**corpus, "tokenizer": name, **origin}}
    return found | ({"reference": {"name": "document"}} if reference else {})


def as_text(corpus: Corpus, rows: list[Row], losses: tuple[float, ...], reference: float | None, found: Suggestion | None) -> str:
    """The table, what it assumes, and the suggestion. Bounds are rounded up; those that say nothing are in brackets."""
    unit = "a share of errors" if corpus.classes else "bits per token"
    zero, what = to_beat(corpus, reference), "guessing" if reference is None else "the public reference"
    lines = [f"Bounds at 95% confidence, {unit}; {what} has {number(zero, 3)}. In brackets: not below that."]
    lines += ["Of messages that are larger than the last of a table no bound is below it.", ""]
    headings = ["message", *(f"loss {loss:g}: unseen / iid" for loss in losses)]
    for level in dict.fromkeys(row.level for row in rows):
        m, pool = corpus.units(level)
        lines += [f"level {level}: {m:,} of {pool:,} units to train on"]
        cells = [[f"{row.bytes:,} bytes", *(_cell(zero, each) for each in row.bounds)] for row in rows if row.level == level]
        widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        for cells_of_row in (headings, *cells):
            lines.append("  " + "  ".join(cell.rjust(width) for cell, width in zip(cells_of_row, widths, strict=True)))
        lines.append("")
    lines.append(_assumed(corpus, reference))
    if found is None:
        none = f"No message of {LEAST} bytes or more has such a bound at the middle loss: it takes more documents, or lower losses."
        return "\n".join([*lines, "", none])
    d, of = found.coordinates, "weights of the head" if corpus.classes else "coordinates"
    what = f"a message of about {found.bytes:,} bytes: {d:,} {of}, quantizer {found.quantizer}"
    lines += ["", f"suggested   level {found.level} ({found.assumption}), {what}"]
    lines += [f"it takes    about {number(found.minutes, 0)} minutes on two cores and {number(found.memory, 1)} GiB, by estimate"]
    return "\n".join(lines)


def _cell(zero: float, bounds: tuple[float, float | None]) -> str:
    texts = ["-" if value is None else number(value, 3) for value in bounds]
    return " / ".join(
        text if value is None or value < zero else f"[{text}]" for text, value in zip(texts, bounds, strict=True)
    )


def _assumed(corpus: Corpus, reference: float | None) -> str:
    if corpus.classes:
        return f"Assumed: {corpus.classes} classes of one size; the losses are those of all training examples."
    levels = ("document",) if reference is not None else ("document", "position")
    spreads = ", ".join(f"{number(DEVIATION[level] * corpus.guess, 2)} ({level})" for level in levels)
    text = f"Assumed: stand-in losses with a standard deviation of {spreads} bits; documents of one length."
    if SHARES["document"] * corpus.documents > MOST_UNITS:
        text += f" More than {MOST_UNITS:,} training documents count as so many."
    return text


def params_file(found: Suggestion) -> str:
    """A params file of the suggested experiment: it runs as it is, or with other data by --set."""
    key = "task.source=mine.csv --set task.text=[text] --set task.label=label"
    if found.level != "example":
        key = "corpus.source=file --set corpus.path=mine.jsonl --set corpus.field=text"
    head = [
        f"# By `sublora plan`: a message of about {found.bytes:,} bytes at level {found.level}. Times and sizes are estimates.",
        f"# Other data: sublora run FILE --set {key}",
    ]
    return "\n".join([*head, as_yaml(found.experiment.parameters())])
