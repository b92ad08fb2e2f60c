"""Checkpoints: tensors and a few words in one `safetensors` file, replaced atomically."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sublora.atomic import replaced_atomically
from sublora.errors import SubloraError


def save_checkpoint(path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write named tensors and JSON-able facts. Raises SubloraError when the disk is full or the folder unwritable."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replaced_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"sublora": json.dumps(facts, sort_keys=True)})


def load_checkpoint(path: str | os.PathLike, expected: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint whose facts must agree with `expected`.

    Raises SubloraError naming the file when it is damaged, or made by another model or other settings (it names the first that
    differs).
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            facts = json.loads((file.metadata() or {})["sublora"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise SubloraError(f"{path}: not a readable checkpoint ({error}); delete it to train anew") from None
    if difference := _first_difference(facts, expected):
        key, found, value = difference
        raise SubloraError(f"{Path(path)}: the checkpoint has {key} {found!r}, not {value!r}; delete it or undo the change")
    return tensors, facts


def _first_difference(facts: Any, expected: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """(key, found, expected) of the first expected leaf that `facts` does not have."""
    if isinstance(facts, dict) and isinstance(expected, Mapping):
        found = (_first_difference(facts.get(key), value, f"{where}.{key}".lstrip(".")) for key, value in expected.items())
        return next(filter(None, found), None)
    return None if facts == expected else (where, facts, expected)
