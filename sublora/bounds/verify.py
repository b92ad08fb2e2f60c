"""Checking a certificate: decode the model, score it again, compute every bound again, compare."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sublora.bounds.certificate import TOLERANCE, contents, digest
from sublora.bounds.evaluation import evaluate
from sublora.bounds.format import load_certificate, message_of
from sublora.compression import MessageError, refuse_large_model
from sublora.config import Corpus, Experiment
from sublora.data import TokenStore, draw_split, prepare, store_path
from sublora.errors import SubloraError
from sublora.finetune.verify import again as classifier_again

UNSCORED = ("environment", "certificate_sha256")
"""Keys that no one can compute again: how long it took, on what."""


def verify(path: Path, corpora: Path) -> list[str]:
    """What is wrong with a certificate, one line each; empty if everything agrees.

    Everything is computed anew from the message, the params and the corpus. Counts and texts must be equal, measured values and
    bounds within `TOLERANCE`. corpora: folder of prepared corpora. The embedded corpus is made there if it is missing; any
    other, or one of another tokenizer, must have been prepared before: a stranger's certificate shall not choose which files are
    read. Nor does it choose how much memory is taken (`refuse_large_model`).
    Raises SubloraError when the certificate cannot be read, or its corpus cannot be had here.
    """
    certificate = load_certificate(path)
    wrong = []
    if certificate.get("certificate_sha256") != digest(certificate):
        wrong.append("certificate_sha256: the file was altered after it was made")
    if path.read_text("utf-8") != json.dumps(certificate, indent=1) + "\n":
        wrong.append("the file is not as sublora writes it: it was edited")
    experiment = Experiment.from_parameters(certificate["params"], f"{path}: params")
    message = message_of(certificate)
    if experiment.task:
        return wrong + _compared(certificate, lambda: classifier_again(path, certificate, message, experiment))
    refuse_large_model(f"{path}: params", experiment, certificate["corpus"]["vocab_size"])
    store = _corpus(path, experiment.corpus, corpora)
    if store.sha256 != certificate["corpus"]["sha256"]:
        made = certificate["environment"].get("python")
        raise SubloraError(
            f"{path}: the certificate speaks of a corpus with sha256 {certificate['corpus']['sha256']:.12}, here it is "
            f"{store.sha256:.12}; use the data it was made from (for python-stdlib, the same interpreter: Python {made})"
        )
    split = draw_split(len(store), experiment.corpus)
    return wrong + _compared(
        certificate, lambda: contents(message, store, split, experiment, evaluate(message, store, split, experiment))
    )


def _compared(certificate: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> list[str]:
    """One line for each thing that the certificate states otherwise than `compute` finds it; one if the message is none."""
    try:
        again = compute()
    except MessageError as error:
        return [f"message: {error}"]
    stated = {key: value for key, value in certificate.items() if key not in UNSCORED}
    return list(_differences(stated, again, ""))


def _corpus(path: Path, corpus: Corpus, corpora: Path) -> TokenStore:
    ours = corpus.source == "python-stdlib" and corpus.tokenizer in ("bytes", "gpt2")
    if not ours and not store_path(corpus, corpora).exists():
        raise SubloraError(
            f"{path}: its corpus ({corpus.source}, path {corpus.path}, tokenizer {corpus.tokenizer}) is not prepared in "
            f"{corpora}; if you trust the certificate's choice of data, prepare it with `sublora data`"
        )
    return prepare(corpus, corpora)


def _differences(stated: Any, found: Any, where: str) -> Iterator[str]:
    """One line for each leaf that differs."""
    if isinstance(stated, dict) and isinstance(found, dict):
        for key in [*stated, *(key for key in found if key not in stated)]:
            yield from _differences(stated.get(key), found.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for index, pair in enumerate(zip(stated, found, strict=True)):
            yield from _differences(*pair, f"{where}[{_label(pair[0], index)}]")
    elif isinstance(found, float) and isinstance(stated, float):
        if not abs(stated - found) <= TOLERANCE:
            yield f"{where}: the certificate says {stated}, computed again it is {found}"
    elif stated != found or isinstance(stated, bool) != isinstance(found, bool):
        yield f"{where}: the certificate says {_short(stated)}, computed again it is {_short(found)}"


def _label(entry: Any, index: int) -> str:
    """How a line names an entry of a list."""
    if isinstance(entry, Mapping) and "metric" in entry:
        parts = (entry.get(key) for key in ("level", "metric", "assumption", "inequality", "alpha"))
        return " ".join(str(part) for part in parts if part is not None)
    return str(index)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
