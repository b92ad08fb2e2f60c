"""Comparisons of certified models in words and tables, for the terminal and the page."""


from sublora.certificate.comparison import ComparedPair, Comparison, PairedStatement, load_comparison
from sublora.errors import SubloraError, printable
from sublora.reporting.markdown import Markdown, Table
from sublora.reporting.reading import rounded_up
from sublora.reporting.results import results_folder
from sublora.reporting.sentences import confidence

ORDER = ("unseen", "iid", "pool")
DASH = "–"


def kept(folder: str = "compare") -> tuple[list[tuple[str, Comparison]], list[str]]:
    """(name, comparison) of the files in a folder of `results/`, by name, and one line for each thing left out or missing."""
    found, skipped = [], []
    for path in sorted((results_folder() / folder).glob("*.json")):
        try:
            found.append((path.stem, load_comparison(path)))
        except SubloraError as error:
            skipped.append(str(error))
    if not found and not skipped:
        skipped = [f"no comparisons yet; `sublora compare A.json B.json --out results/{folder}/NAME.json` makes one"]
    return found, skipped


def sentence(comparison: Comparison, pair: ComparedPair, statement: PairedStatement) -> str:
    """One statement as an English sentence. Names of experiments are as the certificates have them: escape them."""
    first, other, sign = comparison.first.experiment, pair.other.experiment, f"{confidence(comparison.delta)} confidence"
    mixed, unit = statement.form == "mixture", _unit(comparison, statement)
    one = f"{first}, mixed half and half with {other}," if mixed else first
    end = f"({sign}, from {statement.evaluated:,} {comparison.set_of} {_many(comparison)})"
    if comparison.comparisons > 1 and comparison.set_of == "held-out":
        end = f"{end[:-1]}; all {comparison.comparisons} listed comparisons at once)"
    there = f"on {speaks_of(comparison, statement)}"
    where = there + "," * ("," in there)
    if statement.upper < 0:
        return f"{one} is better than {other} {where} by at least {_down(comparison, -statement.upper, unit)} {end}."
    if statement.lower is not None and statement.lower > 0:
        return f"{other} is better than {first} {where} by at least {_down(comparison, statement.lower, unit)} {end}."
    if mixed:
        most = _up(comparison, statement.upper, unit)
        return f"{one} is not proven to be better than {other} {there}: at worst it loses {most} {end}."
    assert statement.lower is not None
    low, high = -_rounded(comparison, -statement.lower), _rounded(comparison, statement.upper)
    decimals = _decimals(comparison)
    interval = f"{low:,.{decimals}f} to {high:,.{decimals}f}{unit}"
    return f"Neither {first} nor {other} is proven to be better {there}: the interval, {interval}, contains 0 {end}."


def speaks_of(comparison: Comparison, statement: PairedStatement) -> str:
    """What a statement is about, in words."""
    many = _many(comparison)
    size = f"{statement.population or 0:,}"
    if statement.assumption == "iid":
        based = comparison.condition is not None
        classes = comparison.classes_from is not None
        independent = f"fresh {many}, if they are independent" + " of each other and of the public base" * based
        return independent + ", and if the source has no other labels than the examples have" * classes
    if statement.assumption == "pool":
        return f"all {size} {many} of the pool"
    if comparison.set_of == "training":
        return f"the {size} {many} that were not trained on"
    all_read = ", all of which were scored" if statement.population == statement.evaluated else ""
    return f"unseen {many}, the {size} of the test split{all_read}"


def headlines(comparison: Comparison, pair: ComparedPair) -> list[str]:
    """The sentences that a pair opens with: of unseen units, else of fresh ones, the interval and the mixture; by the byte, if they
    are stated so."""
    metric = pair.statements[-1].metric
    stated = [statement for statement in pair.statements if statement.metric == metric]
    first = min((statement.assumption for statement in stated), key=ORDER.index)
    return [sentence(comparison, pair, statement) for statement in stated if statement.assumption == first]


def summary(comparison: Comparison) -> str:
    """The headlines of all pairs and every statement, as plain text."""
    lines = []
    for pair in comparison.pairs:
        lines += headlines(comparison, pair)
        for row in _rows(comparison, pair):
            lines.append("  " + "; ".join(f"{key.lower()} {value}" for key, value in row.items() if value != DASH))
    return "\n".join(map(printable, lines))


def comparisons_table(found: list[tuple[str, Comparison]]) -> Table:
    """Every statement of the kept comparisons, one a row."""
    rows = []
    for _, comparison in found:
        for pair in comparison.pairs:
            title = f"{comparison.first.experiment} and {pair.other.experiment}, {comparison.set_of}"
            rows += [{"Compared": title, **row} for row in _rows(comparison, pair)]
    columns = ("Compared", "Form", "Speaks of", "n", "Mean", "Lower", "Upper", "Unit", "ln e", "Decided")
    return Table(rows, left=("Form", "Speaks of", "Unit"), groups=("Compared",), columns=columns)


def sources_table(found: list[tuple[str, Comparison]]) -> Table:
    """The certificates that the kept comparisons are of, by their digests."""
    rows = []
    for name, comparison in found:
        for model in (comparison.first, *(pair.other for pair in comparison.pairs)):
            digest = Markdown(f"`{model.certificate_sha256[:12]}`")
            bits = f"{model.message_bits:,}"
            rows.append({"File": name, "Model": model.experiment, "Message (bits)": bits, "Certificate": digest})
    return Table(rows, left=("Model", "Certificate"), groups=("File",), columns=("File", "Model", "Message (bits)", "Certificate"))


def _rows(comparison: Comparison, pair: ComparedPair) -> list[dict[str, str]]:
    decimals, rows = _decimals(comparison), []
    for statement in pair.statements:
        lower = DASH if statement.lower is None else f"{-_rounded(comparison, -statement.lower):,.{decimals}f}"
        rows.append(
            {
                "Form": statement.form,
                "Speaks of": speaks_of(comparison, statement),
                "n": f"{statement.evaluated:,}",
                "Mean": f"{statement.mean * _scale(comparison):,.{decimals}f}",
                "Lower": lower,
                "Upper": f"{_rounded(comparison, statement.upper):,.{decimals}f}",
                "Unit": _unit(comparison, statement).strip(),
                "ln e": DASH if statement.log_e is None else f"{-rounded_up(-statement.log_e, 1):,.1f}",
                "Decided": DASH if statement.decided is None else "yes" if statement.decided else "no",
            }
        )
    return rows


def _many(comparison: Comparison) -> str:
    return f"{comparison.level}s"


def _unit(comparison: Comparison, statement: PairedStatement) -> str:
    unit = comparison.unit if statement.metric is None else "byte"
    return " percentage points of error" if comparison.metric == "error" else f" bits per {unit}"


def _scale(comparison: Comparison) -> float:
    return 100.0 if comparison.metric == "error" else 1.0


def _decimals(comparison: Comparison) -> int:
    return 2 if comparison.metric == "error" else 4


def _rounded(comparison: Comparison, value: float) -> float:
    """On the scale that is shown, rounded up."""
    return rounded_up(value * _scale(comparison), _decimals(comparison)) + 0.0


def _up(comparison: Comparison, value: float, unit: str) -> str:
    return f"{_rounded(comparison, value):,.{_decimals(comparison)}f}{unit}"


def _down(comparison: Comparison, value: float, unit: str) -> str:
    """A positive number rounded down, with so many decimals that it does not vanish."""
    decimals = _decimals(comparison)
    while decimals < 12 and rounded_up(-value * _scale(comparison), decimals) == 0.0:
        decimals += 2
    return f"{-rounded_up(-value * _scale(comparison), decimals):,.{decimals}f}{unit}"
