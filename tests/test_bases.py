"""Base models: GGUF files, the output layer in pieces, and the smallest ways to fine-tune."""

import functools

import numpy as np
import pytest
import torch
from tiny import NOTEBOOKS, write_params, write_texts
from torch.func import functional_call
from torch.utils.checkpoint import CheckpointError, checkpoint
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from sublora import pipeline
from sublora.data import get_tokenizer
from sublora.errors import SubloraError
from sublora.experiment import Gpt, Subspace
from sublora.message import decode
from sublora.models import output, parametrize
from sublora.models.gpt import GPT
from sublora.models.pretrained import FAMILIES, Causal, architecture, load_causal
from sublora.models.tinylora import singular
from sublora.run import Run
from sublora.scoring import scores
from sublora.training.batches import IGNORED, Batch
from sublora.training.loop import _losses
from sublora.verification import verify

LLAMA = {"vocab_size": 280, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA |= {"max_position_embeddings": 64, "initializer_range": 0.3}


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with a random Llama."""
    folder = tmp_path_factory.mktemp("bases") / "llama"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**LLAMA, rms_norm_eps=1e-5)).save_pretrained(folder)
    return folder


def refusal(call, *arguments):
    with pytest.raises(SubloraError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the output layer in pieces


TINY_CONFIG = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY_CONFIG |= {"intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 3, "head_dim": 8}
NAMES = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 64}}
NAMES |= {"gpt_neo": {"vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}}
NAMES["gpt_bigcode"] = NAMES["gpt2"]
NAMES["gptj"] = NAMES["gpt2"] | {"rotary_dim": 4}
NAMES["mamba"] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
NAMES["opt"] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
NAMES["opt"] |= {"word_embed_proj_dim": 16, "max_position_embeddings": 64}
NAMES["xglm"] = {"vocab_size": 64, "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48}
NAMES["bloom"] = {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}
NAMES["falcon"] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SCALED = {"cohere": {"logit_scale": 0.25}, "cohere2": {"logit_scale": 0.25}, "granite": {"logits_scaling": 4.0}}
SCALED |= {"gemma2": {"final_logit_softcapping": 3.0}, "phi": {}, "biogpt": {}}


def of_family(kind):
    """A small random model of a family, whose logits are not small."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **NAMES.get(kind, TINY_CONFIG), **SCALED.get(kind, {}))
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return Causal(base, 60, 16)


@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_in_pieces_are_those_of_the_whole(kind, monkeypatch):
    """Whatever a family does to its logits behind the output layer; some places only, in pieces of three."""
    model, tokens = of_family(kind), torch.randint(60, (2, 16))
    monkeypatch.setitem(output.LOGITS, "cpu", 3 * 64)
    rows = torch.tensor([0, 1, 5, 17, 18, 30, 31])
    with torch.no_grad():
        whole = model(tokens).flatten(0, 1)[rows]
        places, pieces = zip(*model(tokens, read=lambda logits, place: (place, logits), rows=rows), strict=True)
    assert [len(piece) for piece in pieces] == [3, 3, 1] and [place.start for place in places] == [0, 3, 6]
    torch.testing.assert_close(torch.cat(pieces), whole, atol=2e-5, rtol=1e-4)
    assert whole.std() > 1e-3


def gradient(subspace, batch):
    subspace.zero_grad()
    loss = _losses(torch.autocast("cpu", torch.bfloat16, enabled=False), subspace, batch).sum()
    loss.backward()
    return float(loss.detach()), subspace.coordinates.grad.clone()


PARAMETRIZATIONS = {
    "full": {},
    "lora": {"targets": ("all",), "lora_dropout": 0.0, "rank": 2},
    "lora_b": {"targets": ("all",), "lora_dropout": 0.0, "rank": 2},
    "biases": {"tokens": "all"},
    "tinylora": {"targets": ("all",), "rank": 2},
}


def moved(kind, llama, model="llama"):
    """A model under a parametrization, at coordinates that are not zero."""
    settings = Subspace(parametrization=kind, **PARAMETRIZATIONS[kind])
    if model == "gpt":
        base = GPT(Gpt(layers=1, heads=2, width=16, block=16), 280)
    else:
        base = load_causal(str(llama), 280, 16)
    subspace = parametrize(base, Gpt(), settings)
    torch.manual_seed(1)
    with torch.no_grad():
        subspace.coordinates.copy_(0.1 * torch.randn(subspace.coordinates.shape))
    return subspace.train()


def batch_of(sequences=2, time=16, width=16):
    random = torch.Generator().manual_seed(2)
    tokens = torch.randint(280, (sequences, width), generator=random)
    targets = tokens.roll(-1, 1)
    targets[:, time:] = IGNORED
    return Batch(tokens, targets, torch.full((sequences,), 1 / (sequences * time)))


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
@pytest.mark.parametrize("model", ["llama", "gpt"])
def test_losses_and_gradients_in_pieces_are_those_of_the_whole(kind, model, llama, monkeypatch):
    """The weights are lent to the model for the way there alone. Twin: a piece made again with what is in the module later."""
    subspace, batch = moved(kind, llama, model), batch_of()
    loss, expected = gradient(subspace, batch)
    monkeypatch.setitem(output.LOGITS, "cpu", 5 * 280)
    found, pieces = gradient(subspace, batch)
    assert found == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(pieces, expected, atol=1e-4, rtol=1e-3)
    if kind == "full":
        monkeypatch.setattr(output, "functional_call", lambda module, weights, inputs: module(*inputs))
        with pytest.raises(CheckpointError):  # torch sees that other tensors are used
            gradient(subspace, batch)


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_gradients_of_layers_computed_again_are_those_of_layers_kept(kind, llama):
    """Twin: `transformers` computes them again with the base's weights, which are in the modules when the call is over."""
    subspace, batch = moved(kind, llama), batch_of()
    loss, expected = gradient(subspace, batch)
    causal = next(each for each in subspace.modules() if isinstance(each, Causal))
    calls = []
    causal.base.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    causal.compute_layers_again()
    found, again = gradient(subspace, batch)
    assert len(calls) == (1 if kind == "biases" else 2) and found == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-4)
    if kind == "full":
        for layer in causal.base.model.layers:
            layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)
        with pytest.raises(CheckpointError):
            gradient(subspace, batch)


def test_layers_that_cannot_be_computed_again_are_named(llama):
    model = load_causal(str(llama), 280, 16)
    model.base.model.layers = torch.nn.ModuleList()
    assert "training.gradient_checkpointing: models of type llama" in refusal(model.compute_layers_again)


def test_no_more_logits_exist_than_are_allowed(llama, monkeypatch):
    """Twin: the whole logits of a batch are made, and seen."""
    most = []
    linear = torch.nn.functional.linear

    def watched(x, weight, bias=None):
        found = linear(x, weight, bias)
        most.append(found.numel() if weight.shape[0] == 280 else 0)
        return found

    subspace, batch = moved("lora_b", llama), batch_of()
    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    gradient(subspace, batch)
    assert max(most) == 2 * 16 * 280
    most.clear()
    monkeypatch.setitem(output.LOGITS, "cpu", 5 * 280)
    gradient(subspace, batch)
    assert max(most) == 5 * 280


def test_a_part_of_a_batch_is_as_wide_as_its_longest_sequence():
    short, long = batch_of(time=100, width=2048), batch_of(time=1025, width=2048)
    assert short.part(0, 1).inputs.shape == (2, 128) and long.part(0, 1).targets.shape == (2, 1056)
    assert torch.equal(short.part(0, 1).inputs, short.inputs[:, :128])
    assert batch_of(time=100, width=120).part(0, 1).inputs.shape == (2, 120)


# --- small parametrizations


def test_one_number_moves_one_token(llama):
    base, tokens = load_causal(str(llama), 280, 16), torch.arange(16)[None]
    with torch.no_grad():
        before = base(tokens)
        subspace = parametrize(base, Gpt(), Subspace(parametrization="biases", tokens=(7,)))
        assert torch.equal(subspace(tokens), before) and len(subspace.coordinates) == 1
        subspace.coordinates.fill_(8.0)
        after = subspace(tokens)
    assert torch.equal((after - before)[..., 7], (before[..., 7] + 8) - before[..., 7])
    assert (after - before).abs().sum(-1).eq((after - before)[..., 7]).all()
    says = "subspace.tokens: there is no token 280"
    assert says in refusal(parametrize, base, Gpt(), Subspace(parametrization="biases", tokens=(0, 280)))


def test_a_bias_beside_lora_is_a_coordinate_of_its_own(llama):
    """The broken form has it in the random subspace, as one of all weights."""
    base, tokens = load_causal(str(llama), 280, 16), torch.arange(16)[None]
    both = {"parametrization": "lora_b+biases", "tokens": (7,), "dimension": 5, "lora_dropout": 0.0, "targets": ("all",)}
    with torch.no_grad():
        before = base(tokens)
        subspace = parametrize(base, Gpt(), Subspace(**both, projector="film+kron_qr"))
        assert torch.equal(subspace(tokens), before) and subspace.groups == [(1, 1), (1, 4)]
        subspace.coordinates[0] = 0.25
        moved = subspace(tokens) - before
        broken = parametrize(load_causal(str(llama), 280, 16), Gpt(), Subspace(**both, projector="kron_qr"))
        broken.coordinates[0] = 0.25
        mixed = broken(tokens) - before
    others = torch.arange(280) != 7
    assert torch.allclose(moved[..., 7], torch.tensor(8.0), atol=1e-5) and not moved[..., others].any()
    assert mixed[..., others].any()


def test_lora_b_moves_no_a(llama):
    subspace = moved("lora_b", llama)
    assert all("lora_B" in name for name in subspace.names)
    both = moved("lora", llama)
    assert len(both.names) == 2 * len(subspace.names)


def test_tinylora_moves_layers_between_their_own_singular_vectors(llama):
    """The matrices that layers add are U S R V^T of the layers' own decompositions."""
    torch.manual_seed(0)
    weight = torch.randn(20, 12) @ torch.diag(0.5 ** torch.arange(12.0))
    left, right = singular(weight, 3)
    u, s, vt = torch.linalg.svd(weight.double())
    torch.testing.assert_close(left @ right, ((u[:, :3] * s[:3]) @ vt[:3]).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left.norm(dim=0), s[:3].float(), atol=1e-4, rtol=1e-4)
    subspace = moved("tinylora", llama)
    layer = subspace.module.base.model.layers[0].self_attn.q_proj
    x, name = torch.randn(5, 16), "base.model.layers.0.self_attn.q_proj.tiny"
    r = subspace.weights(subspace.coordinates)[name]
    expected = x @ (layer.weight + layer.left @ r @ layer.right).T
    torch.testing.assert_close(functional_call(layer, {"tiny": r}, (x,)), expected, atol=1e-4, rtol=1e-4)
    assert set(subspace.sizes) == {4}


def test_the_signs_of_singular_vectors_are_fixed():
    """Another machine may turn a pair of vectors round, and R between them would then mean another model. Twin: no such rule."""
    weight = torch.randn(9, 7, generator=torch.Generator().manual_seed(3))
    left, right = singular(weight, 2)
    mirrored, same = singular(-weight, 2)
    torch.testing.assert_close(right, same, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left, -mirrored, atol=1e-5, rtol=1e-5)


def values_of(folder, source, subspace, **changes):
    values = {
        "kind": "finetune",
        "name": "small",
        "corpus": {"source": "text", "path": str(folder), "train": 0.6},
        "model": {"source": str(source), "block": 64},
        "subspace": subspace,
        "training": {"steps": 3, "batch": 4, "learning_rate": 0.5, "precision": "no"},
        "compression": {"levels": 3},
        "bounds": {"documents": 40, "pilot": 0.5, "held_out_documents": 20},
    }
    return values | changes


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("documents") / "texts", 150)


SMALL = {
    "end": {"parametrization": "biases"},
    "all": {"parametrization": "biases", "tokens": "all", "dimension": 5},
    "tinylora": {"parametrization": "tinylora", "dimension": 3, "rank": 2},
    "lora_b": {"parametrization": "lora_b", "dimension": 9, "lora_dropout": 0.0},
    "both": {"parametrization": "lora_b+biases", "projector": "film+kron_qr", "dimension": 9, "lora_dropout": 0.0},
    "r": {"parametrization": "tinylora", "rank": 1, "targets": ["q_proj"]},
}


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_ways_to_fine_tune_are_certified_and_verified(llama, texts, tmp_path, name):
    levels = {"levels": 1} if name == "end" else {"levels": 3}
    run = Run(values_of(texts, llama, SMALL[name], compression=levels), tmp_path)
    certificate = run.certify()
    assert verify(run.folder / "certificate.json", run.corpora) == []
    assert certificate.params["subspace"]["parametrization"] == SMALL[name]["parametrization"]
    base, tokens = load_causal(str(llama), 257, 64), torch.arange(16)[None]
    with torch.no_grad():
        assert not torch.allclose(decode(run.message, run.experiment, 257).model(tokens), base(tokens))
    if name == "end":
        assert certificate.params["subspace"]["tokens"] == [256] and len(run.model.coordinates) == 1
        other = certificate.data()["params"] | {}
        other["subspace"] = other["subspace"] | {"tokens": [255]}
        assert decode(run.message, run.experiment, 257).said["subspace"]["tokens"] == [256]


def test_the_same_scores_by_one_thread_and_by_several(llama, texts, tmp_path, monkeypatch):
    run = Run(values_of(texts, llama, SMALL["end"], compression={"levels": 1}), tmp_path)
    message = run.message
    one = run.problem.evaluate(message).training["document"]
    monkeypatch.setattr(scores, "PARALLEL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    several = run.problem.evaluate(message).training["document"]
    assert asked[:2] == [1, 3]
    np.testing.assert_array_equal(one.log_probability, several.log_probability)
    np.testing.assert_array_equal(one.rank, several.rank)
    monkeypatch.setattr(scores, "LOGITS", {"cpu": 1000})
    monkeypatch.setitem(output.LOGITS, "cpu", 1000)
    pieces = run.problem.evaluate(message).training["document"]
    np.testing.assert_allclose(one.log_probability, pieces.log_probability, atol=1e-5)


# --- GGUF


VOCABULARY = ["<unk>", "<s>", "</s>", *(chr(each) for each in range(256, 256 + 12))]


def permuted(weight, heads):
    """Rows of queries and keys as llama.cpp has them: rotary pairs side by side."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, folder, change=lambda weights: weights, tokenizer=True, architecture="llama"):
    """The Llama in a folder, and a byte-level tokenizer, as llama.cpp's converter writes them."""
    gguf = pytest.importorskip("gguf")
    from tokenizers.pre_tokenizers import ByteLevel

    model = LlamaForCausalLM.from_pretrained(folder)
    config, names = model.config, gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        letters = ["<|end|>", "<|turn|>", *sorted(ByteLevel.alphabet()), "ed", "<|endoftext|>"]
        tokens = letters + [f"<{i}>" for i in range(config.vocab_size - len(letters))]
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
        writer.add_token_merges(["e d"])
        writer.add_eos_token_id(1)
        writer.add_bos_token_id(1)
    weights = {}
    for name, weight in model.named_parameters():
        array = weight.detach().numpy()
        array = permuted(array, config.num_attention_heads) if "q_proj" in name or "k_proj" in name else array
        weights[names.get_name(name, (".weight",))] = np.ascontiguousarray(array)
    for name, array in change(weights).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_the_model_it_was_made_of(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_gguf(tmp_path / "small.gguf", llama)
    tokens = torch.arange(16)[None]
    found, expected = load_causal(str(path), 280, 16), load_causal(str(llama), 280, 16)
    with torch.no_grad():
        assert torch.equal(found(tokens), expected(tokens))
    for (name, weight), (other, same) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        assert name == other and torch.equal(weight, same)
    assert architecture(found)["rms_norm_eps"] == 1e-05, "the shortest number that is the file's"
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*") if file.is_file()}
    monkeypatch.setattr("sublora.models.gguf._read", None)  # made once
    load_causal(str(path), 280, 16)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_the_token_that_ends_documents_may_be_named(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(write_gguf(tmp_path / "small.gguf", llama))
    own, named = get_tokenizer(path), get_tokenizer(path, end="<|end|>")
    assert (own.eot, named.eot, own.sha256) == (1, 0, named.sha256)
    for text in ("one two", "<|end|>", "<|turn|>", "é\n"):
        ids = named.encode(text)
        assert ids.min() > 1 and named.decode(ids) == text
    says = "corpus.end_of_text: '<s>' is no special token of .*; there are <\\|end\\|>, <\\|turn\\|>"
    with pytest.raises(SubloraError, match=says):
        get_tokenizer(path, end="<s>")


def with_nan(weights):
    weights["output_norm.weight"] = weights["output_norm.weight"] * np.float32("nan")
    return weights


def without_a_layer(weights):
    return {name: weight for name, weight in weights.items() if "blk.0.ffn" not in name}


def with_frequencies(weights):
    return weights | {"rope_freqs.weight": np.ones(4, np.float32)}


def as_integers(weights):
    return weights | {"output.weight": weights["output.weight"].astype(np.int8)}


WRONG = {
    "not finite": (with_nan, {}, "the weight model.norm.weight has an element that is not finite"),
    "missing": (without_a_layer, {}, "lacks .*layers.0.mlp"),
    "unexpected": (with_frequencies, {}, "has the unexpected rope_freqs.weight"),
    "integers": (as_integers, {}, "no real numbers in output"),
    "unknown": (dict, {"architecture": "notamodel"}, "cannot be loaded"),
    "encoder": (dict, {"architecture": "t5"}, "type 't5' is none of apertus|cannot be loaded"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_gguf_file_is_one_line_and_nothing_is_written(llama, tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    change, more, says = WRONG[wrong]
    path = write_gguf(tmp_path / "wrong.gguf", llama, change, **more)
    with pytest.raises(SubloraError, match=says) as caught:
        load_causal(str(path), 280, 16)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model.source")
    assert [each.name for each in tmp_path.iterdir()] == ["wrong.gguf"]


def test_files_that_are_no_gguf_files_are_named(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_gguf(tmp_path / "whole.gguf", llama).read_bytes()
    hostile = data[:8] + (2**60).to_bytes(8, "little") + data[16:]
    wrong = {b"GGML" + data[4:]: "not a GGUF file", data[:-2000]: "no whole GGUF file", hostile: "1,152,921,5", b"GGUF": "no whole"}
    for content, says in wrong.items():
        (tmp_path / "whole.gguf").write_bytes(content)
        with pytest.raises(SubloraError, match=says):
            load_causal("whole.gguf", 280, 16)
    assert "there is no such file" in refusal(load_causal, "none.gguf", 280, 16)
    path = write_gguf(tmp_path / "whole.gguf", llama, tokenizer=False)
    assert "has no tokenizer" in refusal(get_tokenizer, str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["whole.gguf"]


def test_sizes_are_checked_before_a_gguf_file_is_loaded(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_gguf(tmp_path / "large.gguf", llama)
    monkeypatch.setattr("sublora.models.gguf.LARGEST", 1000)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    assert "weights; at most 1,000 are loaded" in refusal(load_causal, str(path), 280, 16)


def test_a_gguf_files_run_is_verified(llama, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_gguf(tmp_path / "small.gguf", llama)
    corpus = {"source": "text", "path": str(texts), "train": 0.6, "tokenizer": "./small.gguf", "tokenizer_from": "elsewhere"}
    model = {"source": "small.gguf", "block": 16, "public_since": "2024-11-30"}
    values = values_of(texts, "", SMALL["end"], corpus=corpus | {"end_of_text": "<|end|>"}, model=model, compression={"levels": 1})
    run = Run(values, "runs")
    certificate = run.certify()
    assert certificate.params["subspace"]["tokens"] == [0] and certificate.params["model"]["public_since"] == "2024-11-30"
    assert certificate.params["corpus"]["end_of_text"] == "<|end|>" and certificate.public.end_of_text == 0
    assert verify(run.folder / "certificate.json", run.corpora) == []
    torch.manual_seed(5)
    LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained(tmp_path / "other")
    write_gguf(tmp_path / "small.gguf", tmp_path / "other")
    assert "its base model has the sha256" in refusal(verify, run.folder / "certificate.json", run.corpora)


def test_a_base_that_cannot_be_used_leaves_nothing(llama, texts, tmp_path, monkeypatch):
    """Neither a run's folder nor a prepared corpus. Twin: a base that can be used leaves both."""
    monkeypatch.chdir(tmp_path)
    MixtralForCausalLM(MixtralConfig(**{**LLAMA, "num_key_value_heads": 2, "num_local_experts": 2})).save_pretrained("experts")
    wrong = {"none": "cannot load", "experts": "type 'mixtral' is a mixture of experts", "none.gguf": "there is no such file"}
    for source, says in wrong.items():
        values = values_of(texts, source, SMALL["end"])
        assert says in refusal(Run(values, "runs").train)
        assert says in refusal(lambda: list(pipeline.run(write_params(tmp_path / "p.yaml", values), tmp_path / "runs", NOTEBOOKS)))  # noqa: B023
        assert not (tmp_path / "runs").exists()
    for subspace, says in (
        ({"parametrization": "lora", "rank": 99}, "subspace.rank 99 is beyond any use: the layers have rank"),
        ({"parametrization": "subspace", "dimension": 10**6}, "subspace.dimension 1,000,000 exceeds the"),
        ({"parametrization": "lora_b", "targets": ["qq"]}, "subspace.targets: no linear layer is named 'qq'"),
    ):
        values = values_of(texts, llama, subspace)
        assert says in refusal(Run(values, "runs").train)
        assert says in refusal(lambda: list(pipeline.run(write_params(tmp_path / "p.yaml", values), tmp_path / "runs", NOTEBOOKS)))  # noqa: B023
        assert not (tmp_path / "runs").exists()
    Run(values_of(texts, llama, SMALL["end"]), "runs").train()
    assert {each.name for each in (tmp_path / "runs").iterdir()} >= {"small", "corpora"}
