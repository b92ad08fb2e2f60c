"""Certificates as Markdown, for Jupyter and for the report's pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from sublora.reporting import sentences
from sublora.reporting.markdown import Markdown, Table, bullets, escape, link
from sublora.reporting.runs import Run
from sublora.reporting.tables import bounds_table, errors_table


class Certificate(dict):
    """A certificate (a plain dictionary) that shows itself in Jupyter as `certificate`."""

    def __repr__(self) -> str:  # a dictionary's own would put the whole file into every executed notebook
        return f"<certificate of {self['experiment']}: {len(self['bounds'])} bounds>"

    def _repr_markdown_(self) -> str:
        return certificate(self)


def certificate(values: Mapping[str, Any]) -> Markdown:
    """How a certificate shows itself in Jupyter: the guarantee in a sentence, tables of bounds, small print."""
    errors = errors_table(values)
    tables = [bounds_table(values)] + ([] if errors is None else [errors])
    parts = [f"**{escape(values['experiment'])}**", guarantee(values), *map(str, tables), small_print(values)]
    return Markdown("\n\n".join(parts))


def guarantee(values: Mapping[str, Any]) -> Markdown:
    """The headline sentence, and the sentence about fresh documents below it where it is another."""
    first, second = sentences.guarantee(values), sentences.guarantee_iid(values)
    text = f"> **{escape(first)}**"
    return Markdown(text if second in (None, first) else f"{text}\n\n{escape(second)}")


def evidence(run: Run) -> Markdown:
    """Where the headline's numbers come from: the executed notebook, the certificate's digest, and the command that checks it."""
    digest = str(run.certificate.get("certificate_sha256", ""))[:12]
    made = link("the executed notebook", run.page) if run.page else escape("a notebook that was not kept")
    where = Markdown(f"`{run.path.name}/certificate.json`")
    return Markdown(f"Run {escape(run.label)}: made by {made}. `sublora verify` checks {where} (digest {escape(digest)}).")


def small_print(values: Mapping[str, Any]) -> Markdown:
    """How to read the statements together."""
    return escape(sentences.small_print(values))


def meanings(values: Mapping[str, Any]) -> Markdown:
    """A list of the headline's numbers with their meanings."""
    rows = sentences.meanings(values)
    return Markdown("".join(f"- **{escape(name)}.** {escape(meaning)}\n" for name, meaning in rows))


def skipped(lines: Sequence[str]) -> Markdown:
    """What was left out of the page, one line each."""
    return bullets(lines) or escape("Nothing was left out: every certificate in the folder could be read.")


def errors(values: Mapping[str, Any]) -> Table | Markdown:
    """The table of bounds on top-k errors, or that the certificate has none."""
    table = errors_table(values)
    return escape("This certificate bounds no top-k error.") if table is None else table


def costs(runs: Sequence[Run]) -> Markdown:
    """What each run cost, from its certificate: minutes by stage, and the device."""
    return bullets(sentences.cost(run.certificate["experiment"], run.certificate) for run in runs)
