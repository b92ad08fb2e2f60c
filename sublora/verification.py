"""Checking a certificate: decode the model, score it again, compute every statement again, compare."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sublora.certificate.arithmetic import EXACT, determined
from sublora.certificate.build import facts
from sublora.certificate.schema import Certificate, LabelPublic, certificate_of, digest, read_json
from sublora.certificate.statements import tolerance
from sublora.data.corpora import corpus_name, on_hub
from sublora.data.labelled import task_name
from sublora.errors import SubloraError, errors_named
from sublora.experiment import OWN_TOKENIZERS, Classify, Experiment, OnText, Pretrain, as_experiment
from sublora.limits import DEFAULT, Limits
from sublora.message import MessageError, decode
from sublora.models import base_model, base_sha256
from sublora.problems import problem_class
from sublora.problems.labels import stated_labels
from sublora.problems.text import reference_configuration

UNVERIFIED = ("environment", "certificate_sha256")
"""Keys that nobody can compute again: where the certificate was made, and how long that took."""
MEASURED = {"empirical", "reference_empirical", "bound", "gain", "value", "reference_value", "accuracy", "f1", "matthews"}
"""Keys of values that float32 arithmetic moves a little on another machine. A stated bound has `DETERMINISM` on top, unless no loss
is so large. It must not be below what is proven here, nor more than twice that above it; for a gain, the reverse."""
CALCULATED = {"complexity", "subsampling"}
"""Keys of values that float64 arithmetic alone moves, by a share of `EXACT` at most. Everything else must be equal."""
FOLLOWS = {"nonvacuous"}
"""Keys that a certificate must have as its other keys make them, or it cannot be read."""
PLACES = (
    *(("corpus", key) for key in ("path", "tokenizer")),
    ("model", "source"),
    *(("task", key) for key in ("path", "source", "validation")),
)
"""Settings that name a file or folder of the machine where a certificate was made."""
VALUES = {"evaluated", "inequalities", "assumptions", "determinism", "reference"}
"""Keys of dictionaries that are values, not settings: none of their keys may be missing, nor of the dictionaries in them."""


class Verdict(list[str]):
    """What is wrong with a certificate, one line each. It shows itself as a sentence, since an empty list says little."""

    def __repr__(self) -> str:
        return "\n".join(["NOT verified", *self]) if self else "verified: the model and every bound agree"


def verify(
    path: str | Path,
    corpora: str | Path = "runs/corpora",
    corpus: str | Path | None = None,
    *,
    limits: Limits = DEFAULT,
) -> Verdict:
    """What is wrong with a certificate, one line each; empty if everything agrees.

    Everything that the certificate states is computed again from message, params and data, and compared. Measured values
    may differ by `DETERMINISM`, and bounds may be above what is proven here by twice as much, but neither from each other
    (`determined`); all else must be equal. What the certificate does not
    state, such as a setting of a later version, is not compared; but every required key must be there, and every bound that the
    settings imply. A setting that is not stated has its default. How the model was searched for (`SEARCH`) nobody can compute
    again.
    corpora: folder of prepared corpora (a problem's `open_for_verification` says which data are read).
    corpus: the file or folder with the certificate's data (`located`). limits: what the check may take, by estimate: the command
    line enforces them, too, in a process of its own.
    Raises SubloraError when the certificate cannot be read, its data cannot be had here, or the check would take more.
    """
    path, corpora = Path(path), Path(corpora)
    certificate, claimed, stated, wrong = _read(path)
    given = None if corpus is None else Path(corpus)
    kind, here = problem_class(stated), located(stated, given, path)
    try:
        kind.refuse_costly(here, certificate, path, limits)
        problem = kind.open_for_verification(here, certificate, path, corpora, given)
        again = facts(problem, certificate.message_bytes, problem.evaluate(certificate.message_bytes), tolerant=False)
    except MessageError as error:
        return Verdict([*wrong, f"message: {error}"])
    except OverflowError:
        raise SubloraError(f"{path}: a number in it is beyond any use") from None
    again = _with_places_of(stated, again)
    lines = [*_differences(claimed, again, ""), *_unfounded(certificate, claimed, stated)]
    return Verdict(wrong + list({line.partition(": ")[0]: line for line in reversed(lines)}.values())[::-1])


def verify_arithmetic(path: str | Path, corpus: str | Path | None = None, *, limits: Limits = DEFAULT) -> Verdict:
    """What is wrong with a certificate whose data one does not have: `verify` without the losses, which are taken as stated.

    The message is decoded, and what it says is compared with params. Everything that settings and stated losses determine is
    computed again (`determined`). Not checked: losses, the data's SHA-256 and counts, and bounds that need the losses themselves,
    beyond the least that they can be. Raises SubloraError as `verify`; a pretrained base model must be here.
    """
    path = Path(path)
    certificate, claimed, stated, wrong = _read(path)
    here = located(stated, None if corpus is None else Path(corpus), path)
    size = stated_labels(stated, certificate) if isinstance(stated, Classify) else certificate.corpus.vocab_size
    if isinstance(certificate.public, LabelPublic) != isinstance(stated, Classify) or size != certificate.corpus.vocab_size:
        return Verdict([*wrong, "public: it belongs to another kind of experiment than params"])
    try:
        problem_class(stated).refuse_costly(here, certificate, path, limits, scored=False)
        hypothesis = decode(certificate.message_bytes, here, size, local_only=True)
    except MessageError as error:
        return Verdict([*wrong, f"message: {error}"])
    params = {group: {**claimed["params"][group], **values} for group, values in hypothesis.said.items()}
    again = {**claimed, "params": {**claimed["params"], **params}, "alpha": hypothesis.alpha}
    again["paper_accounting"] = {**claimed["paper_accounting"], "bits": hypothesis.published_bits}
    if isinstance(here, Pretrain) or isinstance(here, OnText) and here.needs_base:  # a rounded model starts from no weights
        base = base_sha256(base_model(here.model, size, local_only=True))
        again["public"] = {**claimed["public"], "base_weights_sha256": base}
        if isinstance(here, OnText) and (own := reference_configuration(here, size, local_only=True)) is not None:
            again["public"]["base_configuration_sha256"] = own
    return Verdict([*wrong, *_differences(claimed, again, ""), *_unfounded(certificate, claimed, stated)])


def _read(path: Path) -> tuple[Certificate, dict[str, Any], Experiment, list[str]]:
    """(the certificate, what is to be verified of its data, its experiment, what is wrong with its file)."""
    data = read_json(path)
    certificate = certificate_of(data, path)
    wrong = []
    if certificate.certificate_sha256 != digest(data):
        wrong.append("certificate_sha256: the file was altered after it was made")
    if path.read_text("utf-8") != json.dumps(data, indent=1) + "\n":
        wrong.append("the file is not as sublora writes it: it was edited")
    stated = as_experiment(certificate.params, f"{path}: params")
    claimed = {key: value for key, value in data.items() if key not in UNVERIFIED} | {"params": stated.parameters()}
    return certificate, claimed, stated, wrong


def _unfounded(certificate: Certificate, claimed: dict[str, Any], stated: Experiment) -> Iterator[str]:
    """One line for each stated value that the settings and the other stated values contradict."""
    try:
        again = determined(certificate, stated)
    except SubloraError as error:  # numbers that no inequality takes
        yield f"bounds: {error}"
    else:
        yield from _differences({key: claimed[key] for key in again}, again, "", within=EXACT)


def located(experiment: Experiment, given: Path | None, origin: Path) -> Experiment:
    """The experiment with its `PLACES` where the data are here: what a certificate says of them is a hint.

    given: a file, which is the data, or a folder: what has a place's own name in it is meant, or else the folder is the data.
    Without it a corpus is known by its hash alone, and no other place may lead out of the current folder: a stranger's certificate
    must not choose what is read. A name on the hub is taken for such a place; nothing is downloaded.
    Raises SubloraError for a place that leads elsewhere. origin: the certificate, for this line.
    """
    moved: dict[str, dict[str, str]] = {}
    if given is not None and not given.exists():
        raise SubloraError(f"{given}: not there; say where the data is with --corpus")
    if given is not None and isinstance(experiment, OnText) and experiment.corpus.path is None and on_hub(experiment.corpus):
        moved["corpus"] = {"path": str(given)}
    for group, key in PLACES:
        stated = getattr(getattr(experiment, group, None), key, None)
        if stated is None or (group, key) == ("corpus", "tokenizer") and stated in OWN_TOKENIZERS:
            continue
        name, is_data = Path(stated).name, key == "path" or (group, key) == ("task", "source")
        with errors_named(f"{origin}: its {group}.{key} {stated!r:.80} cannot be looked up", "say where the data is with --corpus"):
            beside = given is not None and name not in ("", "..") and (given / name).exists()
        if given is not None and (beside or is_data):
            moved.setdefault(group, {})[key] = str(given / name if beside else given)
        elif (group, key) != ("corpus", "path") and (stated.startswith("~") or not _inside(Path(stated))):
            raise SubloraError(f"{origin}: its {group}.{key} {stated!r:.80} is not followed; say where the data is with --corpus")
    groups = {group: getattr(experiment, group).model_copy(update=values) for group, values in moved.items()}
    return experiment.model_copy(update=groups)


def _inside(path: Path) -> bool:
    """Whether a path, as it is written, leads into the current folder."""
    return Path.cwd() in Path(os.path.normpath(Path.cwd() / path)).parents


def _with_places_of(stated: Experiment, again: dict[str, Any]) -> dict[str, Any]:
    """What was computed again, with the certificate's own places: they are hints, and the data's hash is what counts."""
    params = {**again["params"]}
    for group, key in PLACES:
        if group in params and key in params[group]:
            params[group] = {**params[group], key: getattr(getattr(stated, group), key)}
    if isinstance(stated, Classify):
        return {**again, "params": params, "corpus": {**again["corpus"], "name": task_name(stated.task)}}
    public = {**again["public"], "tokenizer": stated.corpus.tokenizer}
    return {**again, "params": params, "public": public, "corpus": {**again["corpus"], "name": corpus_name(stated.corpus)}}


def _differences(
    stated: Any, found: Any, where: str, *, key: str = "", whole: bool = False, within: float | None = None, metric: str = ""
) -> Iterator[str]:
    """One line for each stated leaf that was found otherwise; where `whole`, also for keys that only one of them has.

    within: how far measured values may differ; by default as `metric`, that of their statement, allows.
    """
    whole |= key in VALUES
    inner: dict[str, Any] = {"whole": whole, "within": within}
    if isinstance(stated, dict) and isinstance(found, dict):
        if whole and stated.keys() != found.keys():
            yield f"{where}: the certificate has {_short(sorted(stated))}, computed again there are {_short(sorted(found))}"
        metric = str(stated.get("metric", metric))
        for name in (name for name in stated if name not in FOLLOWS):
            yield from _differences(stated[name], found.get(name), f"{where}.{name}".lstrip("."), key=name, metric=metric, **inner)
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for index, pair in enumerate(zip(stated, found, strict=True)):
            yield from _differences(*pair, f"{where}[{_label(pair[0], index)}]", key=key, metric=metric, **inner)
    elif isinstance(stated, list) and isinstance(found, list) and {dict} <= set(map(type, stated + found)):
        yield f"{where}: the certificate has {len(stated)} entries, computed again there are {len(found)}"
    elif _is_bound(key, where) and within is None and type(stated) is type(found) is float:
        if not found - EXACT <= stated <= found + 2 * tolerance(metric) + EXACT:
            yield f"{where}: the certificate says {stated}, computed again it is at least {found}, and not far above"
    elif key == "gain" and within is None and type(stated) is type(found) is float:
        if not found - 2 * tolerance(metric) - EXACT <= stated <= found + EXACT:
            yield f"{where}: the certificate says {stated}, computed again it is at most {found}, and not far below"
    elif key in MEASURED | CALCULATED and isinstance(found, float) and isinstance(stated, float):
        allowed = EXACT * abs(found) + 1e-13 if key in CALCULATED else tolerance(metric) if within is None else within
        if not abs(stated - found) <= allowed:
            yield f"{where}: the certificate says {stated}, computed again it is {found}"
    elif stated != found or type(stated) is not type(found):
        yield f"{where}: the certificate says {_short(stated)}, computed again it is {_short(found)}"


def _is_bound(key: str, where: str) -> bool:
    """Whether a value is an upper limit, which may be above what is proven here, but not below it."""
    return key == "bound" and where.startswith("bounds[") or where.endswith((".test_bound.iid", ".test_bound.unseen"))


def _label(entry: Any, index: int) -> str:
    """How a line names an entry of a list."""
    if isinstance(entry, Mapping) and "metric" in entry:
        parts = (entry.get(key) for key in ("level", "metric", "assumption", "inequality", "alpha"))
        return " ".join(str(part) for part in parts if part is not None)
    return str(index)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
