"""Certificates as HTML, for Jupyter and for the report's pages. Self-contained: nothing is loaded from anywhere.

Whatever comes from a certificate or a file name is escaped: certificates may come from strangers.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from sublora.reporting import sentences
from sublora.reporting.runs import Run
from sublora.reporting.tables import bounds_table, errors_table


class Certificate(dict):
    """A certificate (a plain dictionary) that shows itself in Jupyter as `certificate_html`."""

    def _repr_html_(self) -> str:
        return certificate_html(self)


def certificate_html(certificate: Mapping[str, Any]) -> str:
    """How a certificate shows itself in Jupyter: the guarantee in a sentence, tables of bounds, small print."""
    errors = errors_table(certificate)
    tables = [bounds_table(certificate)] + ([] if errors is None else [errors])
    return (
        f"<div><p><strong>{escape(certificate['experiment'])}</strong></p>{guarantee_html(certificate)}"
        + "".join(table.as_raw_html() for table in tables)
        + f"<p><small>{escape(sentences.small_print(certificate))}</small></p></div>"
    )


def guarantee_html(certificate: Mapping[str, Any]) -> str:
    """The headline sentence, and the iid one below it where it is another."""
    first, second = sentences.guarantee(certificate), sentences.guarantee_iid(certificate)
    html = f'<p class="guarantee" style="font-size:1.2em;line-height:1.45"><strong>{escape(first)}</strong></p>'
    return html if second in (None, first) else f"{html}<p>{escape(second)}</p>"


def small_print_html(certificate: Mapping[str, Any]) -> str:
    """How the statements are to be read together."""
    return f"<p><small>{escape(sentences.small_print(certificate))}</small></p>"


def meanings_html(certificate: Mapping[str, Any]) -> str:
    """A list of the headline's numbers with their meanings."""
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in sentences.meanings(certificate))
    return f'<dl class="meanings">{"".join(rows)}</dl>'


def skipped_html(skipped: Sequence[str]) -> str:
    """What was left out of the page, one line each."""
    if not skipped:
        return "<p>Nothing was left out: every certificate in the folder could be read.</p>"
    return list_html(skipped)


def list_html(lines: Iterable[str]) -> str:
    """Lines of text as a list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def errors_html(certificate: Mapping[str, Any]) -> str:
    """The table of bounds on top-k errors, or that the certificate has none."""
    table = errors_table(certificate)
    return "<p>This certificate bounds no top-k error.</p>" if table is None else table.as_raw_html()


def costs_html(runs: Sequence[Run]) -> str:
    """What each run cost, from its certificate: minutes by stage, and the device."""
    return list_html(sentences.cost(run.certificate["experiment"], run.certificate) for run in runs)
