"""Models in files of llama.cpp (GGUF), as folders of `transformers`. A quantized weight becomes the number that it stands for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from sublora.data.gguf import fields, kept_folder, tensors
from sublora.errors import SubloraError, errors_named, listed
from sublora.models.llama2c import LARGEST
from sublora.models.loading import refuse_family, refuse_infinite, refuse_large
from sublora.progress import silence_transformers

KEY = "model.source"
NOT_REAL = ("I8", "I16", "I32", "I64")
UNSAVED = ("quantization_config", "_name_or_path", "transformers_version", "dtype", "torch_dtype")


def model_folder(source: str, families: tuple[str, ...]) -> Path:
    """The model in a GGUF file, as a folder with its configuration and its weights in float32, made once (`kept_folder`).

    families: types of configuration that may be built. Raises SubloraError, before anything large is allocated, for another type
    and for more than `LARGEST` weights; for weights that are missing, that nobody asked for, or that are not finite.
    """

    def make(path: Path, folder: Path) -> None:
        config, weights = _read(path, source, families)
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True), "utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return kept_folder(source, KEY, "model", make)


def _read(path: Path, source: str, families: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from transformers import AutoConfig, AutoModelForCausalLM  # here, because importing it takes seconds

    silence_transformers()
    where, cure = f"{KEY}: {source!r:.200}", "give another file, or the model's folder"
    there = tensors(path, KEY)
    if (count := sum(numbers for numbers, _ in there.values())) > LARGEST:
        raise SubloraError(f"{where}: {count:,} weights; at most {LARGEST:,} are loaded")
    if unreal := [name for name, (_, kind) in there.items() if kind in NOT_REAL]:
        raise SubloraError(f"{where}: no real numbers in {listed(unreal, most=4)}; {cure}")
    with errors_named(f"{where}: cannot be loaded", cure):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    refuse_family(config, families, where)
    blank = refuse_large(AutoModelForCausalLM, config, where)
    if unknown := sorted(there.keys() - _names(blank, path)):
        raise SubloraError(f"{where}: it has the unexpected {listed(unknown, most=4)}, which the model does not read; {cure}")
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False, "output_loading_info": True}
    with errors_named(f"{where}: cannot be loaded", cure):
        loaded: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)
    model, report = loaded  # a pair, since the report was asked for
    wrong = {"lacks": report["missing_keys"], "has other sizes for": [name for name, *_ in report["mismatched_keys"]]}
    wrong["has the unexpected"] = report["unexpected_keys"]
    if found := [f"{what} {listed(sorted(names), most=4)}" for what, names in wrong.items() if names]:
        raise SubloraError(f"{where}: not the weights of its configuration: it {'; it '.join(found)}; {cure}")
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    refuse_infinite(weights.items(), where)
    return {key: _shortest(value) for key, value in config.to_dict().items() if key not in UNSAVED}, weights


def _names(blank: Any, path: Path) -> set[str]:
    """What the file calls the weights of a model."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = fields(path, KEY)["general.architecture"].contents()
    architecture = next(number for number, name in MODEL_ARCH_NAMES.items() if name == kind)
    names = get_tensor_name_map(architecture, blank.config.num_hidden_layers)
    parameters = {name for name, _ in blank.named_parameters(remove_duplicate=False)}
    return {found for name in parameters if (found := names.get_name(name, (".weight", ".bias")))}


def _shortest(value: Any) -> Any:
    """The same data, each number that the file has in 32 bits written as the shortest one that is it: a message holds the text."""
    if isinstance(value, dict):
        return {key: _shortest(each) for key, each in value.items()}
    return float(str(np.float32(value))) if isinstance(value, float) else value
