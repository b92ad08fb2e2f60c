"""By how much scores move between machines, in words."""

import decimal

import pandas as pd

from sublora.reporting.markdown import Markdown, escape


def determinism(moved: pd.DataFrame, reasons: list[str]) -> Markdown:
    """By how much scores moved between machines (`benchmarks/determinism.py`); where nobody measured it, why nothing is said."""
    if moved.empty:
        return escape(" ".join(reasons))
    text = f"Measured on {moved['model'].nunique()} kept models, decoded once and scored on some hundred units. "
    parts = []
    for kind, unit in (("bits", "bits per token"), ("errors", "in the share of errors")):
        rows = moved[moved["metric"] == kind]
        if len(rows):
            most = rows.loc[rows["largest"].idxmax()]
            where = f" (change: {escape(most['change'])}; model: {escape(most['model'])})" if most["largest"] else ""
            moves = f"at most {_up(most['largest'])} {unit}{where}, a mean by {_up(rows['mean'].max())}"
            parts.append(f"the loss of a unit moved by {moves}")
    changes = ", ".join(map(str, moved["change"].unique()))
    return Markdown(f"{text}Of these, {'; '.join(parts)}. Changes tried: {escape(changes)}.")


def _up(value: float) -> str:
    """Two digits, rounded up."""
    return f"{float(decimal.Context(prec=2, rounding=decimal.ROUND_CEILING).create_decimal(repr(float(value)))):.2g}"
