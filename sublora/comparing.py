"""Comparing certified models: the same units are scored by both, and what that proves is one typed file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from sublora.certificate.comparison import FORMAT, Compared, Comparison, PairedStatement, UnitsFrom, load_comparison, sealed
from sublora.certificate.paired import Measured, Terms, decisions, paired_statements
from sublora.certificate.schema import AssumptionName, Certificate, load_certificate
from sublora.certificate.statements import reachable, tolerance
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, OWN_TOKENIZERS, Classify, Experiment, as_experiment
from sublora.inequalities.paired import SHARE, TAU
from sublora.limits import DEFAULT, Limits
from sublora.message import MessageError, unwrapped
from sublora.problems import problem_class
from sublora.scoring.text import Drawn
from sublora.verification import EXACT, Verdict, located

LEVELS = ("document", "group", "position", "example")
"""The units that models are compared on. A group's loss is the mean of its documents', which the split drew together. Single
tokens of a stream have no iid, pool or unseen statement. Sequences have iid alone, and pieces of one document are alike: from
held-out ones nothing would be proven."""

MOST = 2**53
"""The most choices that a comparison states: all smaller numbers are exact in JSON."""

NO_MATTER_OF_UNITS = {"source", "packages", "path", "split_on", "field", "subset", "tokenizer", "tokenizer_from", "max_documents",
                      "max_length"}  # fmt: skip
"""Settings of data that do not say which units train: the data's SHA-256 stands for most of them."""


def compare(
    paths: Sequence[str | Path],
    set_of: UnitsFrom = "held-out",
    corpora: str | Path = "runs/corpora",
    corpus: str | Path | None = None,
    *,
    limits: Limits = DEFAULT,
) -> Comparison:
    """The first certificate's model beside each of the others, listed beforehand: limits of the mean difference of their losses.

    held-out: from the first n documents of the test split, without the messages' bits; nothing may have been chosen on them.
    training: the pair is one hypothesis; where n < m, both are scored on n units drawn from the hash of both messages. corpora,
    corpus, limits: as for `verify`. The certificates are taken as they are: whether they are true is for `verify` to say.
    Raises SubloraError: certificates that do not speak of the same corpus, split and units, in one line that says what differs;
    data that cannot be had here; a check that would take more than the limits.
    """
    if set_of not in get_args(UnitsFrom):
        raise SubloraError(f"set_of: {set_of!r:.60} is none of {', '.join(get_args(UnitsFrom))}")
    return sealed(_found(paths, set_of, corpora, corpus, slacks=(1.0,), limits=limits)[0])


def verify_comparison(
    path: str | Path,
    paths: Sequence[str | Path],
    corpora: str | Path = "runs/corpora",
    corpus: str | Path | None = None,
    *,
    limits: Limits = DEFAULT,
) -> Verdict:
    """What is wrong with a comparison, one line each, given its certificates in its order: all of it is computed again.

    A limit must not be tighter than what is proven here, nor further off than twice the tolerance of both models. Arguments and
    errors as of `compare`.
    """
    stated = load_comparison(path)
    by: dict[str, Any] = {"slacks": (1.0, 0.0, 2.0), "limits": limits, "as_before": stated.tau is None}
    found, least, most = _found(paths, stated.set_of, corpora, corpus, **by)
    tight, loose = (
        [[PairedStatement.model_validate(entry) for entry in pair["statements"]] for pair in each["pairs"]]
        for each in (least, most)
    )
    known = {key: value for key, value in stated.data().items() if key not in ("pairs", "comparison_sha256")}
    wrong = [
        f"{key}: the comparison says {known.get(key)!r:.60}, here it is {found.get(key)!r:.60}"
        for key in dict.fromkeys([*known, *found])
        if key != "pairs" and known.get(key) != found.get(key)
    ]
    others = [pair.other.model_dump(mode="json") for pair in stated.pairs]
    if others != [pair["other"] for pair in found["pairs"]]:
        return Verdict([*wrong, "pairs: the comparison lists other certificates"])
    counts = [(len(pair.statements), len(here)) for pair, here in zip(stated.pairs, tight, strict=True)]
    if (other := next((each for each in counts if each[0] != each[1]), None)) is not None:
        return Verdict([*wrong, f"pairs: the comparison has {other[0]} statements of one, here there are {other[1]}"])
    decided = decisions([pair.statements for pair in stated.pairs], stated.delta)
    for index, pair in enumerate(stated.pairs):
        for said, here, off, verdict in zip(pair.statements, tight[index], loose[index], decided[index], strict=True):
            name = " ".join([f"pairs[{index}]", *filter(None, [here.form, here.metric, here.assumption])])
            wrong += [f"{name} {key}: the comparison says {value}" for key, value in _wrong(said, here, off, stated.tolerance)]
            if said.decided != verdict.decided:
                wrong.append(f"{name} decided: the comparison says {said.decided}, by its e-values it is {verdict.decided}")
    return Verdict(wrong)


def _wrong(said: PairedStatement, here: PairedStatement, off: PairedStatement, within: float) -> list[tuple[str, Any]]:
    """The keys of a statement that are not as computed again, with their values. here: without tolerance; off: with twice that."""
    values, again, further = (each.model_dump() for each in (said, here, off))
    wrong = []
    for key, value in values.items():
        low, high = {"upper": (again, further), "lower": (further, again), "log_e": (further, again)}.get(key, (again, again))
        if key == "decided":
            continue
        if isinstance(value, float) and isinstance(low[key], float) and isinstance(high[key], float):
            room = EXACT * max(1.0, abs(high[key])) + (within if key == "mean" else 0.0)
            if not low[key] - room <= value <= high[key] + room:
                wrong.append((key, value))
        elif value != low[key] or type(value) is not type(low[key]):
            wrong.append((key, value))
    return wrong


def _found(
    paths: Sequence[str | Path],
    set_of: UnitsFrom,
    corpora: str | Path,
    corpus: str | Path | None,
    *,
    slacks: tuple[float, ...],
    limits: Limits,
    as_before: bool = False,
) -> list[dict[str, Any]]:
    """The comparison as plain data without its digest, once for each slack (`paired_statements`).

    as_before: as comparisons without `tau` have it, whose tau is `TAU`, and which say nothing of bits per byte.
    """
    if len(paths) < 2:
        raise SubloraError("compare: one certificate; name those that it is to be compared with, too")
    certificates = [load_certificate(path) for path in paths]
    experiments = [as_experiment(each.params, f"{path}: params") for each, path in zip(certificates, paths, strict=True)]
    first, level = certificates[0], _level(certificates, paths)
    for index in range(1, len(paths)):
        if (why := differs(first, certificates[index])) is not None:
            raise SubloraError(f"{paths[0]} and {paths[index]} cannot be compared: {why}")
    given, held_out = None if corpus is None else Path(corpus), set_of == "held-out"
    problems = []
    for path, certificate, experiment in zip(paths, certificates, experiments, strict=True):
        kind, here = problem_class(experiment), located(experiment, given, Path(path))
        kind.refuse_costly(here, certificate, Path(path), limits)
        problems.append(kind.open_for_verification(here, certificate, Path(path), Path(corpora), given))
    there = problems[0].units(level, held_out)[0]
    n = min(problem.units(level, held_out)[1] for problem in problems)
    drawn = Drawn(level, held_out, n)

    def measured(index: int, seed: bytes) -> list[Measured]:
        pilot = min(getattr(each.bounds, "pilot", 1.0) for each in experiments)
        units = drawn if held_out or n == there else drawn._replace(seed=seed, pilot=max(1, round(pilot * n)))
        try:
            found = problems[index].measured(certificates[index].message_bytes, units)
            return [each for each in found if each.metric in metrics]
        except MessageError as error:
            raise SubloraError(f"{paths[index]}: its message is none ({error}); make the run again") from None

    metric = "error" if level == "example" else "bpd"
    metrics, tau = {metric}, None
    if metric == "bpd" and not as_before:
        metrics |= {"bpb"} if all(each.per_byte for each in problems) else set()
        tau = _tau(certificates, experiments)
    alike = held_out or n == there  # then the first model is scored once
    once = measured(0, b"") if alike else None
    rows: list[list[list[PairedStatement]]] = [[] for _ in slacks]
    for index in range(1, len(paths)):
        other = certificates[index]
        seed = first.message_bytes + other.message_bytes
        ones, twos = once or measured(0, seed), measured(index, seed)
        bits, J = _charged(first, other, experiments[0], experiments[index], tuple(ones[0].ranges))
        A = len(paths) - 1
        for each in (experiments[0], experiments[index]):
            A *= getattr(each.bounds, "candidates", 1)
        if max(A, *J.values()) > MOST:
            what = f"of {paths[0]} and {paths[index]} together there would be more than {MOST:,} configurations or candidates"
            raise SubloraError(f"{what} to pay for; compare runs that declare fewer (bounds.configurations, bounds.candidates)")
        terms = Terms(held_out, first.delta, bits, J, A, len(paths) - 1, problems[0].pool_size, tau or TAU)
        for row, slack in zip(rows, slacks, strict=True):
            by_metric = zip(ones, twos, strict=True)
            row.append([each for one, two in by_metric for each in paired_statements(one, two, terms, slack)])
    shared = {
        "format": FORMAT,
        "set_of": set_of,
        "level": level,
        "metric": metric,
        "unit": first.corpus.unit,
        "corpus": first.corpus.name,
        "corpus_sha256": first.corpus.sha256,
        "delta": first.delta,
        "comparisons": len(paths) - 1,
        "share": SHARE,
        **({} if tau is None else {"tau": tau}),
        "tolerance": 2 * tolerance(metric),
        **_conditions(certificates),
        "first": _named(first),
    }
    found = []
    for row in rows:
        pairs = [
            {"other": _named(other), "statements": [each.model_dump(mode="json") for each in statements]}
            for other, statements in zip(certificates[1:], decisions(row, first.delta), strict=True)
        ]
        found.append({**shared, "pairs": pairs})
    return found


def _conditions(certificates: Sequence[Certificate]) -> dict[str, str]:
    """What iid assumes beside independent units, of any of the certificates: by key, where there is something."""
    stated = {key: {getattr(each.public, key, None) for each in certificates} - {None} for key in ("condition", "classes_from")}
    return {key: str(value) for key, values in stated.items() for value in values}


def _named(certificate: Certificate) -> dict[str, Any]:
    known = Compared(
        experiment=certificate.experiment,
        certificate_sha256=certificate.certificate_sha256,
        message_sha256=certificate.message_sha256,
        message_bits=certificate.message_bits,
    )
    return known.model_dump(mode="json")


def _level(certificates: Sequence[Certificate], paths: Sequence[str | Path]) -> Any:
    """The first level of the first certificate that all have."""
    levels = [list(dict.fromkeys(bound.level for bound in each.statements)) for each in certificates]
    common = [level for level in levels[0] if level in LEVELS and all(level in each for each in levels)]
    if not common:
        said = "; ".join(f"{path}: {', '.join(each)}" for path, each in zip(paths, levels, strict=True))
        raise SubloraError(f"no common unit but tokens or sequences ({said}); certify both with bounds.levels [document]")
    return common[0]


def differs(first: Certificate, second: Certificate) -> str | None:
    """Why two certificates do not speak of the same corpus, split and units; None if they do."""
    one, two = first.corpus, second.corpus
    if first.message_sha256 == second.message_sha256:
        return "they hold the same message"
    if (first.alpha is None) != (second.alpha is None):
        return "one is of a language model, the other of a classifier"
    tokenizers = [(getattr(each.public, "tokenizer_sha256", None), each.corpus.vocab_size) for each in (first, second)]
    named = [getattr(each.public, "tokenizer", "") for each in (first, second)]
    own = set(OWN_TOKENIZERS) & set(named)
    if first.alpha is not None and (tokenizers[0] != tokenizers[1] or own and named[0] != named[1]):
        # Bits per byte are comparable between tokenizers: where a metric of bytes is there, such pairs are compared in it.
        return f"bits per token of different tokenizers, {named[0]!r:.80} and {named[1]!r:.80}, are not comparable"
    pairs: list[tuple[Any, ...]] = [("corpus.sha256", one.sha256[:12], two.sha256[:12]), ("corpus.split", one.split, two.split)]
    for group in ("corpus", "task"):
        values = [each.params.get(group, {}) for each in (first, second)]
        hints = NO_MATTER_OF_UNITS | ({"validation"} if group == "task" else set())  # a file
        keys = sorted({*values[0], *values[1]} - hints)
        pairs += [(f"{group}.{key}", *(value.get(key) for value in values)) for key in keys]
    pairs += [("corpus.groups", *(None if of.groups is None else of.groups.model_dump() for of in (one, two)))]
    pairs += [("corpus.documents", one.documents, two.documents), ("corpus.pool", one.pool, two.pool)]
    pairs += [("corpus.tokenizer_from", *(getattr(each.public, "tokenizer_from", None) for each in (first, second)))]
    pairs += [("bounds.delta", first.delta, second.delta)]
    if one.split == "positions":  # the same place is another token in another order
        models = [each.params["model"] for each in (first, second)]
        pairs += [("model.direction", *(each.get("direction", "forward") for each in models))]
        if models[0].get("direction") == "permutation":
            pairs += [(f"model.{key}", *(each.get(key) for each in models)) for key in ("permutation_seed", "block")]
    found = next((pair for pair in pairs if pair[1] != pair[2]), None)
    return None if found is None else f"{found[0]} is {found[1]!r:.60} in one and {found[2]!r:.60} in the other"


def base_of(base: Certificate, other: Certificate) -> bool:
    """Whether the one model is the other's public base as it is: the other's message has all of it but the smoothing weight.

    What is public of it is of the other, too, or the uniform guess: then nothing is left that could have been chosen.
    """
    beside = base.params.get("reference")
    if base.params.get("kind") != "zeroshot" or beside not in (None, {"name": "uniform"}, other.params.get("reference")):
        return False
    stated = [unwrapped(each.message_bytes)[0] for each in (base, other)]
    weights = [getattr(each.public, "base_weights_sha256", None) for each in (base, other)]
    windows = [getattr(each.public, "windows", None) for each in (base, other)]
    return stated[0] is not None and weights[0] is not None and all(a == b for a, b in (stated, weights, windows))


def _tau(certificates: Sequence[Certificate], experiments: Sequence[Experiment]) -> float:
    """The least tau of the experiments whose reference is the base, if each pair is of a model and its base; else `TAU`.

    All of it was fixed beforehand: D is then what these certificates bound, with the same tau.
    """
    first, others = certificates[0], certificates[1:]
    taus = [each.reference.tau for each in experiments if not isinstance(each, Classify) and each.reference.name == "base"]
    of_bases = all(base_of(other, first) or base_of(first, other) for other in others)
    return min(taus, default=TAU) if of_bases else TAU


def _charged(
    first: Certificate, second: Certificate, one: Experiment, two: Experiment, names: Sequence[AssumptionName]
) -> tuple[float, dict[AssumptionName, int]]:
    """(the bits that the pair pays, J of each assumption): those of both, or of the one whose public base the other is.

    The base alone is known but for its smoothing weight, an index in the grid. Both ways to count go together: all messages begin
    with one of few formats, so that Kraft's sum over them is below 2^-4.
    """
    J = {each: (of.bounds.configurations, of.bounds.split_seeds) for each, of in ((0, one), (1, two))}
    paying: tuple[int, ...] = (0, 1)
    bits = float(first.message_bits + second.message_bits)
    alone = (len(ALPHA_GRID) - 1).bit_length()
    if base_of(second, first):
        bits, paying = float(first.message_bits + alone), (0,)
    elif base_of(first, second):
        bits, paying = float(second.message_bits + alone), (1,)
    charges: dict[AssumptionName, int] = {}
    for name in names:
        charges[name] = 1
        for index in paying:
            charges[name] *= reachable(name, *J[index])
    return bits, charges
