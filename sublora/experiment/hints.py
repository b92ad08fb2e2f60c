"""What is wrong with a params file, in one clause that names the key and, if there is one, the key that was meant."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from sublora.errors import printable

ALIASES = {
    "lr": "learning_rate",
    "min_lr": "min_learning_rate",
    "batch_size": "batch",
    "max_steps": "steps",
    "iterations": "steps",
    "n_layer": "layers",
    "n_head": "heads",
    "n_embd": "width",
    "block_size": "block",
    "context_length": "block",
    "experiment": "name",
    "dim": "dimension",
    "d": "dimension",
    "vocab_size": "tokenizer",
    "confidence": "delta",
    "dataset": "source",
    "pretrained": "rounding",
}
OF_A_UNION = re.compile(r"[\[({]")
"""What pydantic calls the members of a union: no key."""
CUTOFF = 0.7  # how alike a key must be to one that is valid before it is suggested


def explain(error: Mapping[str, Any], kind: str, kinds: Mapping[str, type[BaseModel]]) -> str:
    """One pydantic error of an experiment of this kind as a clause."""
    place = [str(part) for part in error["loc"] if part not in ("encoder", "words")]
    if error["type"] == "extra_forbidden":
        return _unknown(place, kind, kinds)
    where = ".".join(place := [part for part in place if not OF_A_UNION.search(part)])
    message = error["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if error["type"] == "missing":
        return f"key {where!r} is missing"
    return f"key {where!r}: {message}" + ("" if isinstance(error["input"], dict) else f" (got {_short(error['input'])})")


def _unknown(place: list[str], kind: str, kinds: Mapping[str, type[BaseModel]]) -> str:
    *groups, key = place
    where, model = _short(".".join(place)), kinds[kind]
    fields, wanted = _fields(model, groups), ALIASES.get(key, key)
    owners = [name for name, owner in kinds.items() if wanted in owner.model_fields]
    if not groups and owners and kind not in owners:
        it = "it" if wanted == key else repr(wanted)
        return f"unknown key {where} for kind {kind!r}; {it} belongs to kind {' or '.join(map(repr, owners))}"
    if key in fields:  # of another of the models that this group may be
        return f"key {where} does not go with the other keys of {'.'.join(groups)}; remove it"
    found = [".".join([*groups, name]) for name in difflib.get_close_matches(wanted, fields, n=1, cutoff=CUTOFF)]
    if not groups and wanted not in fields:  # where a key of that very name is, comes before where one is that looks like it
        inside = [(name, group) for name in (key, wanted) for group in model.model_fields]
        found = [f"{group}.{name}" for name, group in inside if name in _fields(model, [group])] or found
    if found:
        return f"unknown key {where}; did you mean {' or '.join(map(repr, dict.fromkeys(found)))}?"
    return f"unknown key {where}; the keys{' of ' * bool(groups)}{'.'.join(groups)} are {', '.join(fields)}"


def _fields(model: type[BaseModel], groups: list[str]) -> list[str]:
    """The keys of an experiment, or of a group in it; of a group that may be one of several models, the keys of all."""
    models = [model]
    for group in groups:
        models = [found for each in models if group in each.model_fields for found in _models(each.model_fields[group].annotation)]
    return list(dict.fromkeys(name for each in models for name in each.model_fields))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in get_args(annotation) for found in _models(part)]


def _short(value: Any) -> str:
    """A value of a stranger's file on one short line."""
    text = printable(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."
