"""Foreign models as their files have them: every weight that the configuration builds, and no other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from sublora.data.files import given_path
from sublora.errors import SubloraError, errors_named, listed
from sublora.models.llama2c import LARGEST
from sublora.progress import silence_transformers

MOST = 1000
"""Layers and heads; a configuration that asks for more is refused before anything is built."""
ADAPTER = "adapter_config.json"
NOT_REAL = ("I", "U", "BOOL", "C")
"""How safetensors files name types of integers and complex numbers."""


def load_config(source: str, local_only: bool = False, **settings: Any) -> Any:
    """The configuration of the model in a folder or on the hub, with these settings changed. No code of its own is run.

    local_only: nothing is downloaded. Raises SubloraError for one that cannot be read, for one that names code of the model's own
    (without that it may be another model), and for a folder with an adapter.
    """
    from transformers import AutoConfig  # here, because importing it takes seconds

    silence_transformers()
    folder = given_path(source, "model.source")
    if (folder / ADAPTER).is_file():
        raise _adapter(source)
    what = "holds no model's config.json that can be read"
    if not folder.is_dir():
        what = "is no local folder, and the hub does not give it" + " (nothing is downloaded to verify)" * local_only
    with errors_named(f"model.source: cannot load {source!r}: it {what}", "give a model's folder, or load it once with a network"):
        config = AutoConfig.from_pretrained(source, local_files_only=local_only, trust_remote_code=False, **settings)
    if getattr(config, "auto_map", None):
        cure = f"without auto_map it is {config.model_type} of transformers"
        raise SubloraError(f"model.source: {source!r}: its config.json names code of its own (auto_map), which is not run; {cure}")
    return config


def refuse_family(config: Any, families: tuple[str, ...], where: str) -> None:
    """Raises SubloraError, which begins with `where`, for a configuration of a type that is not built."""
    if (kind := config.model_type) not in families:
        why = f"type {kind!r:.40} is none of {', '.join(families)}"
        if any("expert" in key for key in config.to_dict()):
            why = f"type {kind!r:.40} is a mixture of experts, whose choice by rounded numbers makes one message two models"
        raise SubloraError(f"{where}: {why}; give a dense model")


def load_weights(auto: Any, source: str, config: Any, local_only: bool = False, head: bool = False) -> Any:
    """The model that `auto` (a class such as AutoModelForCausalLM) builds of `config`, float32, its weights from safetensors files.

    head: the weights outside the model's body are another task's, or are drawn at random; those of the body are all in the files.
    Raises SubloraError before loading for more than `LARGEST` weights; for files that cannot be read, that lack a weight, or have
    one that is unexpected, of another size, or not finite; and for weights of their own where `config` ties two into one.
    """
    where = f"model.source: {source!r}"
    blank = refuse_large(auto, config, where)
    built, body = dict(blank.named_parameters()), f"{blank.base_model_prefix}."
    parts = {_part(name, body) for name in built if name.startswith(body)}
    cure = "save the model itself as safetensors with save_pretrained, or give another one"
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": local_only, "trust_remote_code": False}
    options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    options["adapter_kwargs"] = {"local_files_only": local_only}  # transformers looks for adapters, too
    with errors_named(f"model.source: cannot load {source!r}: no weights that can be loaded as safetensors", cure):
        if unreal := _unreal(source, {*built, *(name.removeprefix(body) for name in built)}):
            raise ValueError(f"no real numbers in {listed(unreal, most=4)}")
        model, report = auto.from_pretrained(source, config=config, **options)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise _adapter(source)
    missing = [name for name in report["missing_keys"] if not (head and parts and not name.startswith(body))]
    another = head and parts and not missing  # its weights may be there
    unexpected = [name for name in report["unexpected_keys"] if not (another and _part(name, body) not in parts)]
    own = [each for each in report["mismatched_keys"] if not another or each[0].startswith(body)]  # a head may have other classes
    resized = [f"{name} {list(here)} instead of {list(size)}" for name, here, size in own]
    wrong = {"lack": missing, "have the unexpected": unexpected, "have other sizes:": resized}
    found = [f"{what} {listed(sorted(names), most=4)}" for what, names in wrong.items() if names]
    if found:
        raise SubloraError(f"{where}: not the weights that its config.json builds: the files {'; they '.join(found)}; {cure}")
    if untied := sorted({name for name, _ in model.named_parameters()} - built.keys()):
        cure = "set tie_word_embeddings to false in config.json, or take it out of the file"
        raise SubloraError(f"{where}: the configuration ties {listed(untied)} to another weight, the file has its own; {cure}")
    refuse_infinite(model.state_dict().items(), where)
    return model


def random_model(auto: Any, source: str, config: Any) -> Any:
    """The model that `auto` builds of `config`, float32, its weights drawn by torch. Raises SubloraError as `load_weights`."""
    where = f"model.source: {source!r}"
    refuse_large(auto, config, where)
    with errors_named(f"{where}: no configuration of such a model", "give another model"):
        return auto.from_config(config, dtype=torch.float32, trust_remote_code=False)


def blank_weights(auto: Any, source: str, config: Any) -> int:
    """How many weights the model that `auto` builds of `config` has. Raises SubloraError for one that is none, or is too large."""
    return sum(weight.numel() for weight in refuse_large(auto, config, f"model.source: {source!r}").parameters())


def refuse_infinite(weights: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Raises SubloraError, which begins with `where`, naming the first weight with an element that is not a finite number."""
    for name, weight in weights:
        if weight.is_floating_point() and not weight.isfinite().all():
            raise SubloraError(f"{where}: the weight {listed([name])} has an element that is not finite; give a model without")


def refuse_large(auto: Any, config: Any, where: str) -> Any:
    """A model of this configuration without memory for its weights. Raises SubloraError for one that is none, or is too large."""
    layers = getattr(config, "num_hidden_layers", 1)
    if isinstance(layers, int) and layers > MOST:
        raise SubloraError(f"{where}: {layers:,} layers; at most {MOST:,} are built")
    with errors_named(f"{where}: no configuration of such a model", "give another model"), torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=False)
    if (count := sum(weight.numel() for weight in model.parameters())) > LARGEST:
        raise SubloraError(f"{where}: {count:,} weights; at most {LARGEST:,} are loaded")
    return model


def _unreal(source: str, names: set[str]) -> list[str]:
    """Those of the weights that a folder's files have as integers, which mean nothing without scales, or as complex numbers."""
    found = []
    for path in Path(source).glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found += [name for name in names & set(file.keys()) if file.get_slice(name).get_dtype().startswith(NOT_REAL)]
    return found


def _part(name: str, body: str) -> str:
    """The first word of a weight's name inside the body: files may leave out what the body is called in the whole model."""
    return name.removeprefix(body).split(".")[0]


def _adapter(source: str) -> SubloraError:
    cure = "merge it into its base with peft's merge_and_unload, and save that"
    return SubloraError(f"model.source: {source!r} holds an adapter ({ADAPTER}), not a whole model; {cure}")
