"""What the package computes for one tiny run of each kind, as plain data; `python tests/golden.py [KIND ...]` freezes it in files.

All that is known here of the package's functions is in this file. Nothing is trained, since that depends on the number of threads:
coordinates, weights and texts come from the raw integers of a NumPy generator, by exact arithmetic.
"""

import csv
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from sublora.certificate.build import facts  # before torch, as the package asks
from sublora.compression import coder, quantizers
from sublora.data import draw_split, prepare
from sublora.data.split import permutation
from sublora.experiment import ALPHA_GRID, Gpt, as_experiment
from sublora.inequalities.subsampling import subsample
from sublora.message import Coded, configured, decode, ngram, unwrapped, whole, with_alpha
from sublora.message import classifier as classifier_message
from sublora.message import language as language_message
from sublora.models import layer_names
from sublora.models.pretrained import load_causal
from sublora.models.projectors import PROJECTORS, make_projector
from sublora.problems import problem_class

FROZEN = Path(__file__).with_suffix("")
COLUMNS = ("level", "metric", "assumption", "inequality", "alpha", "units", "pool", "evaluated", "empirical", "bound")
WORDS = "the a river stone bird old cold bright film was is lovely fine warm dull awful stale story ?".split()
GOOD, BAD = WORDS[11:14], WORDS[14:17]
DIGITS = 10  # of the numbers in the files


# what all kinds are made of


def raw(seed: int, count: int, below: int) -> list[int]:
    """`count` integers in [0, below)."""
    return [int(number) % below for number in np.random.Philox(key=seed).random_raw(count)]


def normal(seed: int, count: int) -> np.ndarray:
    """Float64 (count,), nearly normal: sums of twelve uniform numbers, exact on every machine."""
    numbers = np.random.Philox(key=seed).random_raw(12 * count) >> np.uint64(32)
    return numbers.reshape(count, 12).sum(1).astype(np.float64) / 2**32 - 6


def write_texts(folder: Path, documents: int = 300) -> Path:
    """A folder of texts of 1 to 16 words: some are longer than a window."""
    folder.mkdir(parents=True)
    for i, size in enumerate(raw(1, documents, 16)):
        words = [WORDS[k] for k in raw(100_000 + i, size + 1, len(WORDS))]
        (folder / f"{i:03}.txt").write_text(" ".join(words) + "\n", "utf-8")
    return folder


def write_task(folder: Path, name: str, examples: int) -> Path:
    """A training and a validation file: sentences with one telling word, or pairs of them with three labels; some labels lie."""
    folder.mkdir(parents=True)
    pairs = name == "mnli"
    for number, (file, count) in enumerate((("train", examples), ("dev_matched" if pairs else "dev", 80))):
        rows = [["premise", "hypothesis", "label"] if pairs else ["sentence", "label"]]
        for i in range(count):
            lie, first, second, *rest = raw(10_000 * (1 + number) + i, 9, 30)
            telling = [(GOOD, BAD)[k % 2][k % 3] for k in (first, second)]
            texts = [" ".join([*(WORDS[k % 11] for k in rest[3 * j : 3 * j + 3]), telling[j]]) for j in range(1 + pairs)]
            label = (first + second) % 2 + (lie % 3 == 0) if pairs else int(first % 2 == (lie == 0))
            rows.append([*texts, str(label)])
        with open(folder / f"{file}.tsv", "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n").writerows(rows)
    return folder / "train.tsv"


def save_model(folder: Path, kind: str) -> Path:
    """A model of `transformers` with weights of ours: a causal one over bytes, or a classifier with its tokenizer of words."""
    import transformers
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    narrow = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
    wide = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = ["<end>", "<unk>", *WORDS]
    if kind == "gpt2":
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=264, **{**narrow, "n_embd": 2}))
    elif kind == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=257, max_position_embeddings=32, **wide))
    elif kind == "gpt2 classifier":
        settings = transformers.GPT2Config(vocab_size=len(words), pad_token_id=0, **narrow)
        model = transformers.GPT2ForSequenceClassification(settings)
    else:
        model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=len(words), **wide))
    model.save_pretrained(folder)
    if "classifier" in kind:
        tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        tokens.pre_tokenizer = pre_tokenizers.Whitespace()
        special = {"eos_token": "<end>", "unk_token": "<unk>", "pad_token": "<end>"}
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, **special).save_pretrained(folder)
    tensors, std = load_file(folder / "model.safetensors"), 0.08 if kind == "gpt2" else 0.25
    for i, (name, tensor) in enumerate(sorted(tensors.items())):
        centre = float(tensor.ndim == 1 and name.endswith("weight"))  # of a norm
        tensors[name] = (centre + std * normal(100 + i, tensor.size)).astype(np.float32).reshape(tensor.shape)
    if kind == "gpt2":  # it knows letters from other bytes, and so wants little smoothing
        tensors["transformer.ln_f.bias"][0] = 3.0
        tensors["transformer.wte.weight"][:, 0] = np.where(np.isin(np.arange(264), list(b" abcdefghilmnorstuvwy")), 1, -1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hashed(integers: np.ndarray) -> list:
    """[count, SHA-256 of the int64 bytes]"""
    return [len(integers), sha256(np.asarray(integers, "<i8").tobytes())]


def sums(tensors: Iterable[tuple[str, Any]]) -> dict[str, list]:
    """By name [count, sum, sum of squares] of the tensors' elements, float64."""
    arrays = {name: tensor.detach().cpu().double().numpy() for name, tensor in tensors}
    return {name: [array.size, float(array.sum()), float((array**2).sum())] for name, array in arrays.items()}


def opened(experiment, folder: Path):
    """The problem of an experiment, its corpora in a folder below `folder`."""
    return problem_class(experiment).open(experiment, folder / "corpora")


def rows(entries: Iterable[dict[str, Any]]) -> list[list]:
    return [[entry[column] for column in COLUMNS] for entry in entries]


def stated(found: dict[str, Any]) -> dict[str, Any]:
    """The bounds of a certificate, what was measured on held-out data, and the size and bounds as published."""
    return {
        "bounds": rows(found["bounds"]),
        "guesses": [list(pair) for pair in dict.fromkeys((b["metric"], b["vacuous_at"]) for b in found["bounds"])],
        "parts": [list(b["parts"].values()) for b in found["bounds"] if b["parts"]],
        "held_out": [[e["split"] or e["level"], e["metric"], e["alpha"], e["n"], e["value"]] for e in found["held_out"]],
        "published": [found["paper_accounting"]["bits"], *rows(found["paper_accounting"]["bounds"])],
    }


# language models


def language_values(texts: Path, **groups: Any) -> dict[str, Any]:
    corpus = {"source": "text", "path": str(texts), "train": 0.7, "validation": 0.05, "split_seed": 3}
    values = {
        "name": "golden",
        "corpus": corpus | groups.pop("corpus", {}),
        "model": {"layers": 1, "heads": 2, "width": 16, "block": 32, "embedding_std": 0.2, "weight_std": 0.2, "seed": 5},
    }
    return values | groups


def certified(draft: bytes, problem) -> dict[str, Any]:
    """The sealed message of a language model with its draws, losses, bounds and decoded weights."""
    store, split, experiment = problem.store, problem.split, problem.experiment
    promises = problem.promised(draft)
    with mock.patch.object(type(problem), "promised", return_value=promises):  # they take seconds: once is enough
        data = problem.seal(draft)
    scores = problem.evaluate(data)
    drawn = {"store": store.sha256} | {part: hashed(getattr(split, part)) for part in ("train", "validation", "test")}
    losses = []
    for part in ("training", "pilot", "held_out"):
        for level, found in getattr(scores, part).items():
            drawn[f"{part} {level}"] = hashed(found.places)
            columns = [found.log_probability, *found.expected_bits.T, *found.expected_hits.T]
            losses.append([part, level, len(found.rank), *(float(column.mean(dtype=np.float64)) for column in columns)])
    decoded = decode(data, experiment, store.vocab_size)
    others = b"".join(with_alpha(data, alpha, experiment, store.vocab_size) for alpha in ALPHA_GRID)
    return {
        "message": data.hex(),
        "sha256": sha256(data),
        "alpha": decoded.alpha,
        "with_alphas": sha256(others),
        "drawn": drawn,
        "losses": losses,
        "promised": rows(entry.model_dump() for entry in promises),
        **stated(facts(problem, data, scores)),
        "decoded": sums(decoded.model.named_parameters()),
    }


def language(folder: Path, scale: float = 1.0, documents: int = 300, **groups: Any) -> dict[str, Any]:
    """A model under one of the parametrizations, at coordinates of ours times `scale`, quantized, sealed and certified."""
    problem = opened(as_experiment(language_values(write_texts(folder / "texts", documents), **groups)), folder)
    model, experiment = problem.build(), problem.experiment
    choices, layers = experiment.compression, layer_names(experiment.model)
    coordinates = (scale * normal(7, model.coordinates.numel())).astype(np.float32)
    quantized = quantizers.quantize(coordinates, choices.quantizer, choices.levels, choices.entropy_penalty)
    draft = language_message.encode(language_message.Message(experiment.subspace, ALPHA_GRID[0], Coded(*quantized), layers))
    found = certified(configured(None if isinstance(experiment.model, Gpt) else experiment.model.architecture, draft), problem)
    most = language_message.largest_dimension(experiment.model, problem.store.vocab_size)
    configuration, behind = unwrapped(bytes.fromhex(found["message"]))
    again = language_message.encode(language_message.decode(behind, most, layers))
    return found | {"encoded_again": sha256(configured(configuration, again))}


def pretrained(folder: Path, model: str, bounds: dict[str, Any], **choices: Any) -> dict[str, Any]:
    """A whole causal model: the best of the ways `choices` to round it, sealed and certified."""
    base = {"source": str(save_model(folder / "model", model)), "block": 32}
    values = language_values(write_texts(folder / "texts"), model=base) | {"kind": "round", "rounding": choices}
    problem = opened(as_experiment(values | {"bounds": bounds}), folder)
    draft, ways = problem.compress(folder / "run")
    found = certified(draft, problem)
    configuration, data = unwrapped(bytes.fromhex(found["message"]))
    loaded = load_causal(base["source"], problem.store.vocab_size, problem.experiment.model.block)
    shapes = [(name, weights.shape) for name, weights in loaded.named_parameters()]
    tensors, alpha = whole.decode_whole(data, shapes)
    settings = data[data.index(whole.FORMAT, 1) + 1]
    again = whole.encode_whole(tensors, settings & 15, alpha, bool(settings & whole.ROWS))
    return found | {
        "ways": ways.drop(columns="seconds").to_numpy(object).tolist(),
        "encoded_again": sha256(configured(configuration, again)),
        "architecture": problem.experiment.model.architecture["model_type"],
        "given": sums(loaded.named_parameters()),
    }


def counted(folder: Path, bounds: dict[str, Any], orders: int, **choices: Any) -> dict[str, Any]:
    """An n-gram model: the best of the ways `choices` to count, sealed and certified."""
    values = language_values(write_texts(folder / "texts"), model={"orders": orders, "block": 16}) | {"kind": "ngram"}
    problem = opened(as_experiment(values | {"counting": choices, "bounds": bounds}), folder)
    draft, ways = problem.compress(folder / "run")
    found = certified(draft, problem)
    read = ngram.decode_ngrams(bytes.fromhex(found["message"]), problem.store.vocab_size)
    return found | {
        "ways": ways.drop(columns="seconds").to_numpy(object).tolist(),
        "encoded_again": sha256(ngram.encode_ngrams(read, problem.store.vocab_size)),
        "read": [*read[:3], *(hashed(array) for layer in read.layers for array in layer)],
    }


# classifiers


def classifier(folder: Path, kind: str, scale: float = 1.0, examples: int = 400, **groups: Any) -> dict[str, Any]:
    """A fine-tuned classifier at coordinates of ours, quantized and certified. kind: words, or a model's for `save_model`."""
    task = {"name": "sst2", **groups.pop("task", {})}
    task |= {"path": str(write_task(folder / "data", task["name"], examples))}
    model = groups.pop("model", {}) | ({} if kind == "words" else {"source": str(save_model(folder / "model", kind))})
    problem = opened(as_experiment({"kind": "classify", "name": "golden", "task": task, "model": model, **groups}), folder)
    experiment = problem.experiment
    problem.local_only = True
    subspace, base = problem.build()
    coordinates = (scale * normal(11, subspace.coordinates.numel())).astype(np.float32)
    choices = experiment.compression
    quantized = quantizers.quantize(coordinates, choices.quantizer, choices.levels, choices.entropy_penalty)
    message = classifier_message.ClassifierMessage(experiment.model, experiment.subspace, Coded(*quantized))
    data = configured(getattr(experiment.model, "architecture", None), classifier_message.encode(message))
    predicted = problem.evaluate(data)
    public = (experiment.model, problem.labels, experiment.task.max_length, True)
    configuration, behind = unwrapped(data)
    rebuilt, decoded, _ = classifier_message.rebuild(behind, *public)
    contents = facts(problem, data, predicted)
    drawn = {"pool": problem.pool.sha256, "training": problem.training.sha256, "unseen": problem.unseen.sha256}
    drawn |= {name: each.sha256 for name, each in problem.validation.items()}
    predictions = {"training": predicted.training, "unseen": predicted.unseen, **predicted.validation}
    pretrained = getattr(experiment.model, "load_pretrained", True)
    return {
        "message": data.hex(),
        "sha256": sha256(data),
        "encoded_again": sha256(configured(configuration, classifier_message.encode(decoded))),
        "drawn": {**drawn, "tokens": predicted.tokens},
        "predictions": {name: hashed(labels) for name, labels in predictions.items()},
        **stated(contents),
        "reference": [[name, *list(values.values())[1:]] for name, values in contents["reference"].items()],
        "base": base["base_weights_sha256"] if pretrained else None,  # else torch has drawn it, on each machine a little otherwise
        "decoded": sums(rebuilt.materialized().named_parameters()),
    }


# parts by themselves


def draws(folder: Path) -> dict[str, Any]:
    """Draws of more than a tiny run has: subsamples of all purposes, permutations, the splits, and the fixed sample of a pool."""
    store = "0123456789abcdef" * 4
    sizes, purposes = ((50, 50), (1000, 30), (2**21 + 5, 40)), ("certificate", "pilot", "order", "certificate token")
    found = {f"{m} {n} {p}": hashed(subsample(b"golden", store, m, n, purpose=p)) for m, n in sizes for p in purposes}
    found |= {f"permutation {n} {seed}": hashed(permutation(n, seed)) for n in (1, 1000) for seed in (0, 137)}
    values = language_values(write_texts(folder / "texts"))
    values["corpus"]["max_documents"] = 100
    found["sample"] = prepare(as_experiment(values).corpus, folder / "corpora").sha256
    for how in ("seeded", "paper"):
        corpus = as_experiment({"name": "golden", "corpus": {"source": "openwebtext", "split": how}}).corpus
        split = draw_split(20_000, corpus)
        found |= {f"{how} {part}": hashed(getattr(split, part)) for part in ("train", "validation", "test")}
    return {"drawn": found}


def coders(folder: Path) -> dict[str, Any]:
    """Levels and symbols of each quantizer, the payload of each coder, and how many symbols decode to what they were."""
    values, found, right = normal(13, 3000), {}, 0
    for name in quantizers.QUANTIZERS:
        for levels in (3, 8):
            codebook, symbols = quantizers.quantize(values, name, levels, 0.05)
            found[f"{name} {levels}"] = {"codebook": codebook.astype(np.float64).tolist(), "symbols": hashed(symbols)}
            for by in coder.CODERS:
                data = coder.encode_symbols(symbols, len(codebook), by, codebook)
                found[f"{name} {levels}"][by] = [len(data), sha256(data)]
                right += int((coder.decode_symbols(data, len(symbols), len(codebook), by, codebook) == symbols).sum())
    return {"quantized": found, "decoded_right": right, "short": coder.encode_symbols(symbols[:100], 8).hex()}


def projectors(folder: Path) -> dict[str, Any]:
    """Sums of what each projector makes of coordinates of ours."""
    import torch

    layout, w = (
        [("a.weight", 600), ("norm.weight", 16), ("a.bias", 40), ("b.weight", 900)],
        torch.from_numpy(normal(17, 30)).float(),
    )
    made = ((name, make_projector(name, layout, len(w), 137).matvec(w)) for name in PROJECTORS)
    return {"decoded": sums(made)}


KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "sublora": lambda folder: language(
        folder,
        documents=1500,
        corpus={"train": 0.4},
        subspace={"dimension": 8},
        compression={"levels": 3},
        bounds={"levels": ["document", "token"], "documents": 150, "tokens": 500, "held_out_documents": 40, "pilot": 0.3},
    ),
    "lora": lambda folder: language(
        folder,
        scale=0.2,
        subspace={"parametrization": "lora", "dimension": None, "rank": 1, "lora_alpha": 8.0, "targets": ["v", "head"]},
        compression={"levels": 4, "quantizer": "uniform"},
        bounds={"levels": ["sequence", "document", "token"], "documents": None, "sequences": None, "tokens": None, "delta": 0.1},
    ),
    "subspace": lambda folder: language(
        folder,
        model={"layers": 2, "heads": 2, "width": 8, "block": 16, "bias": True, "embedding_std": 0.2, "weight_std": 0.2},
        subspace={"parametrization": "subspace", "projector": "film+kron_qr", "dimension": 300},
        compression={"levels": 8, "quantizer": "normal_float"},
        bounds={"levels": ["token", "sequence"], "tokens": 900, "nominal_tokens": 2000, "sequences": 60, "stride": 5},
    ),
    "full": lambda folder: language(
        folder,
        scale=0.2,
        subspace={"parametrization": "full", "dimension": None},
        compression={"levels": 5, "quantizer": "ecsq", "entropy_penalty": 0.1},
        bounds={"levels": ["token"], "tokens": 400, "pilot": 0.4},
    ),
    "kronecker": lambda folder: language(
        folder,
        scale=0.2,
        subspace={"parametrization": "kronecker", "dimension": None, "blocks": 2, "targets": ["q", "k", "up", "down"]},
        compression={"levels": 7},
        bounds={"levels": ["token"], "tokens": 500},
    ),
    "kronecker-in-a-subspace": lambda folder: language(
        folder,
        subspace={"parametrization": "kronecker", "dimension": 16, "blocks": 3, "targets": ["q", "head"], "projector": "dense"},
        compression={"levels": 2},
        bounds={"levels": ["sequence"], "sequences": 100, "pilot": 0.4},
    ),
    "monarch": lambda folder: language(
        folder,
        scale=0.2,
        subspace={"parametrization": "monarch", "dimension": None, "blocks": 4, "targets": ["v", "proj", "down"]},
        compression={"levels": 5, "quantizer": "uniform"},
        bounds={"levels": ["token"], "tokens": 300, "delta": 0.02},
    ),
    "monarch-in-a-subspace": lambda folder: language(
        folder,
        subspace={"parametrization": "monarch", "dimension": 12, "blocks": 2, "targets": ["up"], "projector": "fastfood"},
        compression={"levels": 4, "quantizer": "normal_float"},
        bounds={"levels": ["document"], "documents": None},
    ),
    "pretrained": lambda folder: pretrained(
        folder,
        "gpt2",
        {"levels": ["token", "sequence"], "tokens": 600, "sequences": 80, "held_out_documents": 30},
        bits=[2, 4],
        scales=["tensor", "row"],
    ),
    "pretrained-llama": lambda folder: pretrained(
        folder, "llama", {"levels": ["token"], "tokens": 500, "held_out_documents": 30}, bits=[5], scales=["tensor"]
    ),
    "ngram": lambda folder: counted(
        folder, {"levels": ["token"], "tokens": 400, "held_out_documents": 30, "stride": 14}, 3, least=[4, 16], bases=[2, 3]
    ),
    "finetune-lora": lambda folder: language(
        folder,
        kind="finetune",
        model={"source": str(save_model(folder / "model", "llama")), "block": 32},
        subspace={"parametrization": "sublora", "dimension": 20, "rank": 2, "targets": ["v_proj", "lm_head"]},
        compression={"levels": 3},
        bounds={"levels": ["document"], "documents": 60},
    ),
    "words": lambda folder: classifier(
        folder,
        "words",
        examples=3000,
        task={"train": 0.6, "split_seed": 2},
        model={"buckets": 32},
        subspace={"parametrization": "lora", "modules": ["head"]},
        compression={"levels": 3},
    ),
    "words-of-pairs": lambda folder: classifier(
        folder,
        "words",
        task={"name": "mnli"},
        model={"buckets": 512, "hashes": 2, "prefix": 3, "seed": 9},
        subspace={"dimension": 24, "modules": ["head"]},
        compression={"levels": 2, "quantizer": "uniform"},
        bounds={"delta": 0.01},
    ),
    "classifier-sublora": lambda folder: classifier(
        folder,
        "gpt2 classifier",
        examples=1500,
        task={"train": 0.7, "max_length": 8},
        subspace={"dimension": 30, "rank": 2, "lora_alpha": 4.0},
        compression={"levels": 4, "quantizer": "ecsq"},
    ),
    "classifier-lora": lambda folder: classifier(
        folder,
        "bert classifier",
        scale=0.3,
        task={"max_length": 8},
        model={"seed": 4},
        subspace={"parametrization": "lora", "modules": ["attention"], "rank": 1, "lora_alpha": 2.0},
        compression={"levels": 3, "quantizer": "normal_float"},
    ),
    "classifier-random": lambda folder: classifier(
        folder,
        "gpt2 classifier",
        task={"max_length": 8, "train": 0.5},
        model={"load_pretrained": False, "seed": 1},
        subspace={"dimension": 10, "projector": "sparse", "modules": ["head"]},
        compression={"levels": 5},
    ),
    "classifier-full": lambda folder: classifier(
        folder,
        "bert classifier",
        scale=0.02,
        task={"max_length": 8},
        subspace={"parametrization": "full"},
        compression={"levels": 3},
    ),
    "classifier-subspace": lambda folder: classifier(
        folder,
        "bert classifier",
        task={"max_length": 8},
        subspace={"parametrization": "subspace", "dimension": 16},
        compression={"levels": 2},
    ),
    "draws": draws,
    "coders": coders,
    "projectors": projectors,
}
"""Each kind's builder: from an empty folder to plain data, computed on the CPU."""


def computed(kind: str, folder: Path) -> dict[str, Any]:
    """What the package computes for a kind today, as `json` reads it back. folder: an empty one."""
    with mock.patch("torch.cuda.is_available", return_value=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return json.loads(json.dumps(KINDS[kind](folder)))


def frozen(kind: str) -> dict[str, Any]:
    """What was computed when the files were written."""
    return json.loads((FROZEN / f"{kind}.json").read_text("utf-8"))


def as_text(values: dict[str, Any]) -> str:
    """JSON with a line for each key and each row, floats of `DIGITS` digits."""
    lines = []
    for key, value in _rounded(values).items():
        text = json.dumps(value)
        if isinstance(value, (dict, list)) and value:
            dictionary = isinstance(value, dict)
            inner = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()] if dictionary else map(json.dumps, value)
            text = text[0] + "\n  " + ",\n  ".join(inner) + "\n " + text[-1]
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main(kinds: list[str]) -> None:
    FROZEN.mkdir(exist_ok=True)
    for kind in kinds or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            (FROZEN / f"{kind}.json").write_text(as_text(computed(kind, Path(folder))), "utf-8")
        print(f"wrote {kind}.json")


if __name__ == "__main__":
    main(sys.argv[1:])
