"""Certificates as Markdown, for Jupyter and for the report's pages."""

from collections.abc import Sequence
from pathlib import Path

from sublora.certificate.schema import Certificate
from sublora.reporting import sentences
from sublora.reporting.markdown import Markdown, Table, bullets, escape, link
from sublora.reporting.results import results_folder
from sublora.reporting.runs import KeptRun
from sublora.reporting.tables import bounds_table, errors_table


def certificate(of: Certificate) -> Markdown:
    """How a certificate shows itself in Jupyter: the guarantee in a sentence, tables of bounds, small print."""
    errors = errors_table(of)
    tables = [bounds_table(of)] + ([] if errors is None else [errors])
    parts = [f"**{escape(of.experiment)}**", guarantee(of), *map(str, tables), small_print(of)]
    return Markdown("\n\n".join(parts))


def guarantee(of: Certificate) -> Markdown:
    """The headline sentence, below it the one in bits per byte, and the one about fresh documents, where they are others."""
    first = sentences.guarantee(of)
    others = [text for text in (sentences.guarantee_bytes(of), sentences.guarantee_iid(of)) if text not in (None, first)]
    return Markdown("\n\n".join([f"> **{escape(first)}**", *map(escape, others)]))


def model(of: Certificate) -> Markdown:
    """What the certified model is."""
    return escape(sentences.model(of))


def evidence(run: KeptRun) -> Markdown:
    """Where the headline's numbers come from: the executed notebook, the certificate's digest, and the command that checks it."""
    digest = run.certificate.certificate_sha256[:12]
    made = link("the executed notebook", run.page) if run.page else escape("a notebook that was not kept")
    folder, study = run.path.resolve(), results_folder().resolve().parent
    here = folder.relative_to(study) if folder.is_relative_to(study) else Path(folder.name)
    where = Markdown(f"`{here.as_posix()}/certificate.json`")
    return Markdown(f"Run {escape(run.label)}: made by {made}. `sublora verify` checks {where} (digest {escape(digest)}).")


def small_print(of: Certificate) -> Markdown:
    """How to read the statements together."""
    return escape(sentences.small_print(of))


def reading_order(of: Certificate) -> Markdown:
    """A list: which number to look at first, and why, then which."""
    return bullets(sentences.reading_order(of))


def meanings(of: Certificate) -> Markdown:
    """A list of the headline's numbers with their meanings."""
    rows = sentences.meanings(of)
    return Markdown("".join(f"- **{escape(name)}.** {escape(meaning)}\n" for name, meaning in rows))


def skipped(lines: Sequence[str]) -> Markdown:
    """What was left out of the page, one line each."""
    return bullets(lines) or escape("Every certificate and log could be read.")


def errors(of: Certificate) -> Table | Markdown:
    """The table of bounds on top-k errors, or that the certificate has none."""
    table = errors_table(of)
    return escape("This certificate bounds no top-k error.") if table is None else table


def costs(runs: Sequence[KeptRun]) -> Markdown:
    """What each run cost, from its certificate: minutes by stage, and the device. The name is a link to its notebook."""
    return bullets(
        Markdown(f"{link(run.certificate.experiment, run.page)}: {escape(sentences.cost(run.certificate))}") for run in runs
    )
