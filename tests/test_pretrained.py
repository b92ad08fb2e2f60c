"""Pretrained models, from a folder of `transformers` to a certificate that needs the folder no more."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import NOTEBOOKS, write_params, write_texts
from tiny_models import change_config, change_weights, record_requests
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from sublora import pipeline
from sublora.certificate.schema import digest, load_certificate
from sublora.data import get_tokenizer, prepare
from sublora.errors import SubloraError
from sublora.experiment import Corpus, Subspace, as_experiment
from sublora.message import Coded, MessageError, configured, decode, early, unwrapped, with_alpha
from sublora.message.language import Message
from sublora.message.whole import encode_whole
from sublora.models.lora import linear_layers
from sublora.models.pretrained import Causal, architecture, blank_causal, causal_weights, load_causal, stated_form
from sublora.run import Run
from sublora.sampling import load
from sublora.search import search_run
from sublora.verification import verify

GPT2 = {"vocab_size": 300, "n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch, tmp_path_factory):
    """A certificate's places lead into the current folder, or are not followed."""
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder with texts, a byte-pair tokenizer trained on them, and models of three families; each in its own folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    texts = write_texts(folder / "texts")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    bpe.train([str(path) for path in sorted(texts.iterdir())], trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>").save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(folder / "gpt2")
    llama = {"vocab_size": 280, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**llama, max_position_embeddings=32)).save_pretrained(folder / "llama")
    bert = {"vocab_size": 280, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertLMHeadModel(BertConfig(**bert, is_decoder=False, initializer_range=0.5)).save_pretrained(folder / "bert")
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32}
    sizes = {"vocab_size": 280, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    seeing = Gemma3TextConfig(**sizes, **heads, use_bidirectional_attention=True, initializer_range=0.5)
    Gemma3ForCausalLM(seeing).save_pretrained(folder / "seeing")
    return folder


def values_of(folder, model="gpt2", kind="round"):
    """The settings of an experiment with one of these models."""
    groups = {
        "round": {"rounding": {"bits": [3, 5], "scales": ["tensor", "row"]}},
        "finetune": {
            "subspace": {"parametrization": "subspace", "dimension": 12},
            "training": {"steps": 4, "batch": 4, "precision": "no"},
            "compression": {"levels": 3},
        },
    }
    return {
        "kind": kind,
        "name": model,
        "corpus": {"source": "text", "path": str(folder / "texts"), "tokenizer": str(folder / "tokenizer"), "train": 0.6}
        | {"tokenizer_from": "elsewhere"},
        "model": {"source": str(folder / model), "block": 16},
        "bounds": {"levels": ["token", "document"], "tokens": 300, "documents": 60, "pilot": 0.5, "held_out_documents": 30},
        **groups[kind],
    }


def write(certificate, path):
    """Its data as a file with a fresh digest."""
    path.write_text(json.dumps({**certificate, "certificate_sha256": digest(certificate)}, indent=1) + "\n", "utf-8")
    return path


def refusal(call, *arguments):
    """The one line of the error that a call raises."""
    with pytest.raises(SubloraError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def certified(elsewhere, tmp_path_factory):
    """(certificate file, folder of corpora) of a run whose model and tokenizer are gone since."""
    away = tmp_path_factory.mktemp("away")
    for part in ("texts", "tokenizer", "gpt2"):
        shutil.copytree(elsewhere / part, away / part)
    run = Run(values_of(away), away / "runs")
    run.certify()
    shutil.rmtree(away / "gpt2")
    return run.folder / "certificate.json", run.corpora


@pytest.fixture
def certificate(certified):
    return load_certificate(certified[0])


def test_a_certificate_holds_its_model_and_is_verified_without_the_source(certified, certificate):
    assert verify(*certified) == []
    assert certificate.params["model"]["architecture"]["model_type"] == "gpt2"
    decoded = decode(certificate.message_bytes, as_experiment(certificate.params), certificate.corpus.vocab_size)
    assert decoded.alpha == certificate.alpha and decoded.published_bits > 8 * len(unwrapped(certificate.message_bytes)[1])
    assert {bound.level for bound in certificate.statements} == {"token", "document"}
    assert certificate.environment.seconds.keys() == {"quantize", "score"}


def test_the_way_with_the_smallest_promise_is_in_the_message(certified, elsewhere, tmp_path):
    assert {way.name for way in (certified[0].parent / "ways").iterdir()} == {"3-tensor", "3-row", "5-tensor", "5-row"}
    run = Run(values_of(elsewhere), tmp_path)
    table = run.compress()
    best = table.loc[table["bound"].idxmin()]
    assert run.model is None and len(table) == 4 and 8 * len(run.draft) == best["message_bits"]
    format, settings = unwrapped(run.draft)[1][2:4]
    assert (format, settings & 15, bool(settings & 16)) == (0x57, best["bits"], best["scales"] == "row")
    assert best["bits"] == 3, "an untrained model is not worth more bits"


def test_it_speaks(certified):
    model = load(certified[0])
    text = model.generate("one", 40, seed=1)
    assert text.startswith("one") and len(model.tokenizer.encode(text)) > 16, "more than fits a window"
    assert 1 < model.bits(text) < 20 * (1 + len(model.tokenizer.encode(text)))


def test_optimize_says_what_it_does_not_do(elsewhere, tmp_path):
    assert "not kind 'round'" in refusal(search_run, as_experiment(values_of(elsewhere)), tmp_path, ["kmeans"], [5])


def test_a_finished_run_is_kept_until_the_source_changes(elsewhere, tmp_path, capsys):
    shutil.copytree(elsewhere, tmp_path / "copy")
    params = write_params(tmp_path / "params.yaml", values_of(tmp_path / "copy", "llama"))
    for _ in range(2):
        (folder,) = pipeline.run(params, tmp_path / "runs", NOTEBOOKS)
    assert "pretrained: finished before, kept" in capsys.readouterr().out
    first = load_certificate(folder / "certificate.json")
    torch.manual_seed(1)
    other = LlamaForCausalLM(LlamaForCausalLM.from_pretrained(elsewhere / "llama").config)
    other.save_pretrained(tmp_path / "copy" / "llama")
    assert list(pipeline.run(params, tmp_path / "runs", NOTEBOOKS)) == [folder]
    assert "finished before" not in capsys.readouterr().out
    assert load_certificate(folder / "certificate.json").message_sha256 != first.message_sha256


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation_function": "relu"}, "params.model.architecture.activation_function: "),
        ({"n_embd": 32}, "params.model.architecture.n_embd: "),
        ({"block": 8}, "bounds["),
    ],
)
def test_another_architecture_is_not_verified(certified, certificate, tmp_path, change, says):
    data = certificate.data()
    model = data["params"]["model"]
    (model if "block" in change else model["architecture"]).update(change)
    assert any(line.startswith(says) for line in verify(write(data, tmp_path / "certificate.json"), certified[1]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, "model.architecture: missing"),
        ({"n_layer": 10**9}, "1,000,000,000 layers"),
        ({"vocab_size": 10**11}, "would take some "),
        ({"model_type": "t5"}, "type 't5' is none of apertus, "),
        ({"model_type": None}, "type None is none of"),
        ({"model_type": ["gpt2"]}, "is none of"),
        ({"n_head": 7}, "no configuration of a causal model"),
    ],
)
def test_a_strangers_architecture_is_refused_in_one_line(certified, certificate, tmp_path, change, says):
    data = certificate.data()
    model = data["params"]["model"]
    model["architecture"] = None if change is None else {**model["architecture"], **change}
    assert says in refusal(verify, write(data, tmp_path / "certificate.json"), certified[1])


NUMBERS = (0, 1, -1, 3, 7, 33, 1000, 10**9, 2**63, 0.5, -1.5, 1e308)
VALUES = (*NUMBERS, None, True, "", "gelu", "relu", [], [[1, 2]], {}, {"rope_type": "yarn"})


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_change_to_an_architecture_is_refused_or_computed(elsewhere, data):
    model = load_causal(str(elsewhere / data.draw(st.sampled_from(["gpt2", "llama"]))), 280, 16)
    values = architecture(model)
    for key in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        values[key] = data.draw(st.sampled_from(VALUES))
    message = configured(values, encode_whole(dict(model.named_parameters()), 4, 0.1))
    try:
        decoded = decode(message, as_experiment(values_of(elsewhere)), 280)
    except SubloraError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.model(torch.zeros(2, 16, dtype=torch.long)).shape == (2, 16, 280)


def test_a_strangers_configuration_names_no_code_and_no_kernels(certificate):
    values = certificate.params["model"]["architecture"]
    hostile = {
        "attn_implementation": "stranger/kernel",
        "_attn_implementation": "stranger/kernel",
        "auto_map": {"AutoConfig": "x.Y"},
        "quantization_config": {"quant_method": "gptq"},
        "torch_dtype": "float16",
    }
    config = blank_causal(values | hostile, 280, 16).base.config
    assert "stranger" not in str(config.to_dict()) and "stranger" not in str(config._attn_implementation)
    assert not hasattr(config, "auto_map") and not hasattr(config, "quantization_config")
    assert causal_weights(values | hostile) == causal_weights(values)


def test_a_strangers_choice_of_tokenizer_is_not_read(certified, tmp_path):
    with pytest.raises(SubloraError, match="is not prepared in .*sublora data"):
        verify(certified[0], tmp_path)


# --- fine-tuned in a subspace of all weights


@pytest.fixture(scope="module")
def finetuned(elsewhere, tmp_path_factory):
    """A run whose model, a folder of its own, is fine-tuned."""
    away = tmp_path_factory.mktemp("finetuned")
    for part in ("texts", "tokenizer", "gpt2", "llama"):
        shutil.copytree(elsewhere / part, away / part)
    torch.manual_seed(1)
    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(away / "retrained")
    run = Run(values_of(away, kind="finetune"), away / "runs")
    run.certify()
    return run


def test_a_fine_tuned_model_is_a_short_message_on_top_of_its_base(finetuned, elsewhere):
    path = finetuned.folder / "certificate.json"
    stated = load_certificate(path)
    assert verify(path, finetuned.corpora) == []
    assert stated.params["model"]["architecture"]["n_embd"] == 16 and stated.message_bits < 2600
    configuration, message = unwrapped(finetuned.message)
    assert 8 * len(message) < 300 and configuration == stated.params["model"]["architecture"]
    assert message[1] == 0x53 and len(finetuned.model.coordinates) == 12
    tokens, base = torch.arange(16)[None], load_causal(str(elsewhere / "gpt2"), 280, 16)
    with torch.no_grad():
        decoded = decode(finetuned.message, finetuned.experiment, 280).model(tokens)
        torch.testing.assert_close(decoded, base(tokens), atol=2, rtol=0)
        assert not torch.allclose(decoded, base(tokens))
    assert load(path).generate("one", 5).startswith("one")


@pytest.mark.parametrize(
    ("model", "subspace", "targets"),
    [
        ("gpt2", {"parametrization": "lora", "rank": 2}, ["c_attn", "c_fc", "c_proj", "lm_head"]),
        ("llama", {"dimension": 9, "targets": ["v_proj", "up_proj"]}, ["up_proj", "v_proj"]),
    ],
)
def test_lora_goes_on_the_linear_layers_of_any_model(elsewhere, tmp_path, model, subspace, targets):
    """Without a word about its family: the message names layers by their place among the names, of which llama has eight."""
    subspace = {"parametrization": "sublora", "lora_dropout": 0.0, **subspace}
    run = Run({**values_of(elsewhere, model, "finetune"), "subspace": subspace}, tmp_path)
    certificate = run.certify()
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in run.model.names} == set(targets)
    assert certificate.params["subspace"]["targets"] == targets
    assert verify(run.folder / "certificate.json", run.corpora) == []
    tokens, base = torch.arange(16)[None], load_causal(str(elsewhere / model), 280, 16)
    with torch.no_grad():
        assert not torch.allclose(decode(run.message, run.experiment, 280).model(tokens), base(tokens))
    values = values_of(elsewhere, model, "finetune") | {"subspace": {"parametrization": "lora", "targets": ["q"]}}
    names = ", ".join(linear_layers(base))
    assert refusal(Run(values, tmp_path).train) == f"subspace.targets: no linear layer is named 'q'; there are {names}"


def test_a_message_that_names_more_layers_than_there_are_is_refused(elsewhere):
    subspace = Subspace(parametrization="lora", targets=("h",), lora_dropout=0.0)
    data = early.encode(Message(subspace, 0.1, Coded(np.array([0, 1], np.float16), np.arange(9) % 2), tuple("abcdefgh")))
    assert early.decode(data, 9, tuple("abcdefgh")).subspace.targets == ("h",)
    assert "names layers by 8 bits; the model has 7" in refusal(early.decode, data, 9, tuple("abcdefg"))


@pytest.mark.parametrize(
    ("source", "says"),
    [("retrained", "sha256"), ("llama", "the files lack"), ("none", "cannot load"), ("owner/name", "cannot load")],
)
def test_another_base_or_none_is_named_and_nothing_is_downloaded(finetuned, tmp_path, monkeypatch, source, says):
    asked = record_requests(monkeypatch, source)
    data = load_certificate(finetuned.folder / "certificate.json").data()
    data["params"]["model"]["source"] = source if "/" in source else str(finetuned.folder.parents[1] / source)
    assert says in refusal(verify, write(data, tmp_path / "certificate.json"), finetuned.corpora)
    assert asked == []


def test_a_run_asks_the_hub(monkeypatch):
    asked = record_requests(monkeypatch, "owner/name")
    assert "cannot load 'owner/name'" in refusal(load_causal, "owner/name", 280, 16)
    assert asked


LOADS = """
import sys
import sublora  # as a user begins
from huggingface_hub.utils import get_session

def send(_, request, **options):
    print("asked", request.url)
    raise OSError("no network")

type(get_session()).send = send
from sublora.data import get_tokenizer
from sublora.errors import SubloraError
from sublora.models.pretrained import load_causal
load_causal(sys.argv[1], get_tokenizer(sys.argv[2]).vocab_size, 16)
try:
    load_causal("owner/name", 280, 16, local_only=True)
except SubloraError:
    print("refused")
"""


def test_models_are_loaded_without_a_bar_and_local_ones_without_a_request(elsewhere, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path)}  # nothing was fetched before
    command = [sys.executable, "-c", LOADS, elsewhere / "gpt2", elsewhere / "tokenizer"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


def test_every_family_gives_the_logits_of_transformers(elsewhere):
    tokens = torch.arange(16)[None]
    for name, kind in (("gpt2", GPT2LMHeadModel), ("llama", LlamaForCausalLM)):
        model = load_causal(str(elsewhere / name), 280, 16)
        with torch.no_grad():
            expected = kind.from_pretrained(elsewhere / name).eval()(tokens).logits[..., :280]
            torch.testing.assert_close(model(tokens), expected)
        weights = sum(weights.numel() for weights in model.parameters())
        assert weights <= causal_weights(architecture(model)) <= weights + 32 * 32, "with its masks and tables"


def test_models_that_see_what_they_predict_are_refused(elsewhere):
    with pytest.raises(SubloraError, match="type 'bert' is none of"):
        load_causal(str(elsewhere / "bert"), 280, 16)
    with pytest.raises(SubloraError, match="not a causal language model"):
        load_causal(str(elsewhere / "seeing"), 280, 16)
    seeing = Causal(Gemma3ForCausalLM.from_pretrained(elsewhere / "seeing"), 280, 16)
    values, data = values_of(elsewhere), encode_whole(dict(seeing.named_parameters()), 8, 0.1)
    with pytest.raises(SubloraError, match="not a causal language model"):
        decode(configured(architecture(seeing), data), as_experiment(values), 280)
    causal = {key: value for key, value in architecture(seeing).items() if key != "use_bidirectional_attention"}
    assert decode(configured(causal, data), as_experiment(values), 280).alpha == 0.1


KINDS = {"seeing": Gemma3ForCausalLM, "bert": BertLMHeadModel, "llama": LlamaForCausalLM}


@pytest.mark.parametrize(("folder", "kind"), KINDS.items(), ids=str)
def test_looking_ahead_is_noticed_by_trying(elsewhere, folder, kind):
    model = Causal(kind.from_pretrained(elsewhere / folder), 280, 16)
    if folder == "llama":
        model.check_causal()
    else:
        with pytest.raises(SubloraError, match="not a causal language model"):
            model.check_causal()


def test_a_short_message_of_a_large_model_is_refused(certificate):
    configuration, message = unwrapped(certificate.message_bytes)
    large = configured(configuration | {"vocab_size": 10**6}, message)
    with pytest.raises(MessageError, match="too few for this architecture"):
        decode(large, as_experiment(certificate.params), 280)


def test_what_the_message_says_of_its_configuration_makes_the_model(elsewhere, tmp_path):
    """Twin: another `rope_theta` beside the message, in settings or folder, moved the logits at the same number of bits."""
    folder = shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    run = Run(values_of(elsewhere, "llama", "finetune") | {"model": {"source": str(folder), "block": 16}}, tmp_path / "runs")
    message, tokens = run.draft, torch.arange(16)[None]

    @torch.no_grad()
    def logits(message, **other):
        values = run.experiment.parameters()
        values["model"]["architecture"] |= other
        return decode(message, as_experiment(values), 280).model(tokens)

    before, rope = logits(message), {"rope_type": "default", "rope_theta": 3}
    configuration, behind = unwrapped(message)
    moved = logits(configured(configuration | {"rope_parameters": rope}, behind))
    assert (moved - before).abs().max() > 1e-5
    change_config(folder, rope_parameters=rope)
    assert torch.equal(logits(message), before) and torch.equal(logits(message, rope_parameters=rope), before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attention_dropout": 0}, "another form"),
        ({"rms_norm_eps": KeyError}, "another form"),
        ({"initializer_range": 0.5}, "another form"),
        ({"no_key": 1}, "another form"),
        ({"model_type": "bert"}, "type 'bert' is none of"),
        ({"model_type": KeyError}, "type None is none of"),
        ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}, "another form"),
        ({"vocab_size": float("nan")}, "no configuration of a causal model"),
        ({"vocab_size": 10**10}, "too few for this architecture"),
    ],
    ids=str,
)
def test_a_configuration_has_one_form(elsewhere, change, says):
    model = load_causal(str(elsewhere / "llama"), 280, 16)
    values, known = architecture(model), as_experiment(values_of(elsewhere, "llama"))
    data = encode_whole(dict(model.named_parameters()), 4, 0.1)
    assert decode(configured(values, data), known, 280).said["model"]["architecture"] == values
    for key, value in change.items():
        values.pop(key, None)
        values |= {} if value is KeyError else {key: value}
    assert says in refusal(decode, configured(values, data), known, 280)
    assert "lacks its pretrained model's configuration" in refusal(decode, data, known, 280)


SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 3}
LLAMA = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 9.0, "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 5.0}
LAYERS = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8, "head_dim": 8}
WITHOUT_EFFECT = {"bos_token_id": 9, "eos_token_id": [7, 8], "pad_token_id": 9, "is_encoder_decoder": True}
WITHOUT_EFFECT |= {"chunk_size_feed_forward": 3}
CONFIGURATIONS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 64, "n_inner": 96},
    "llama": LLAMA,
    "gemma3_text": LLAMA | LAYERS,
    "qwen2": LLAMA | LAYERS | {"use_sliding_window": True},
    "smollm3": LLAMA | LAYERS | {"use_sliding_window": True},
    "falcon": SMALL | {"ffn_hidden_size": 48},
    "gpt_neo": {"vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
    | {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "mamba": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def altered(value):
    """Every leaf of a configuration's value in other forms, and what was never there."""
    if isinstance(value, dict):
        yield from ({**value, key: other} for key in value for other in altered(value[key]))
        yield from ({**value, key: other} for key, other in (("note", "draw 1"), ("factor", 2.5)) if key not in value)
    elif isinstance(value, list):
        yield [*value, value[-1]]
        yield from (value[:i] + [other] + value[i + 1 :] for i in range(len(value)) for other in altered(value[i]))
    elif isinstance(value, bool) or value is None:
        yield from {True, False, None, 5} - {value}
    elif isinstance(value, int | float):
        yield from (value + 1, value * 2, value / 2, None)
    else:
        yield from {"relu", "gelu", None} - {value}


@torch.no_grad()
def logits_of(configuration, weights=None):
    """(logits, weights drawn from a seed) of a model; None for the logits where these weights are not its weights."""
    model = blank_causal(configuration, 64, 16)
    random = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(each.shape, generator=random) * 0.3 for name, each in model.named_parameters()}
    weights = drawn if weights is None else weights
    if {name: each.shape for name, each in drawn.items()} != {name: each.shape for name, each in weights.items()}:
        return None, weights
    model.load_state_dict(weights, strict=False)
    model.check_causal()
    return model(torch.arange(32).view(2, 16) * 7 % 64), weights


def without_effect(values):
    """The changes to a configuration that another message can state, although the logits stay as they are."""
    stated, found = stated_form(values), []
    logits, weights = logits_of(stated)
    assert stated_form(stated) == stated and logits is not None
    changes = [(key, other) for key, value in stated.items() if key != "model_type" for other in altered(value)]
    for key, other in [*changes, *WITHOUT_EFFECT.items()]:
        changed = {**stated, key: other}
        try:
            form = stated_form(changed)
            if json.dumps(form, sort_keys=True) != json.dumps(changed, sort_keys=True):
                continue  # refused: a configuration has one form
            moved, _ = logits_of(changed, weights)
        except SubloraError:
            continue
        if moved is not None and torch.equal(moved, logits):
            found.append((key, other))
    return found


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_any_leaf_of_a_configuration_moves_the_logits_or_is_refused(kind):
    """Twin: such a key gave another message of the same size, hence another draw, for the same model."""
    assert without_effect({"model_type": kind, **CONFIGURATIONS[kind]}) == []


def test_keys_without_an_effect_are_noticed(monkeypatch):
    """The twin of the test above, by which it can fail."""
    monkeypatch.setattr("sublora.models.pretrained.UNSAID_BY_CAUSAL", ())
    assert {key for key, _ in without_effect({"model_type": "llama", **LLAMA})} >= {"bos_token_id", "pad_token_id"}


def test_rotary_positions_have_one_form():
    def form(**rope):
        return stated_form({"model_type": "llama", **LLAMA, "rope_parameters": {"rope_theta": 9.0, **rope}})["rope_parameters"]

    plain = {"rope_type": "default", "rope_theta": 9}
    assert form(rope_type="default", note="draw 1", factor=3.5, partial_rotary_factor=0.5) == plain
    assert form(rope_type="dynamic", factor=3.5) == plain, "it begins beyond the longest window"
    assert form(**YARN) == form(**YARN, beta_slow=1, mscale=3.0, truncate=True, note="") == {**YARN, "rope_theta": 9}
    assert form(**YARN, attention_factor=0.5, mscale=1.0, mscale_all_dim=0.5) == {**YARN, "rope_theta": 9, "attention_factor": 0.5}


def test_a_model_whose_predictions_depend_on_the_windows_length_is_refused(elsewhere, tmp_path):
    """Twin: inputs of one length agree, which was all that was compared."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 8}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [64.0] * 4}
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**LLAMA, rope_parameters=rope, initializer_range=0.5))
    model, tokens = Causal(base, 64, 16), torch.arange(16)[None]
    with torch.no_grad():
        whole, short = model(tokens).softmax(-1)[0, :8], model(tokens[:, :8]).softmax(-1)[0]
        torch.testing.assert_close(model(torch.cat([tokens[:, :8], tokens[:, :8]], 1)).softmax(-1)[0, :8], whole)
    assert (whole - short).abs().max() > 0.01
    assert "or on their number" in refusal(model.check_causal)
    base.save_pretrained(tmp_path)
    assert "rope_type 'longrope' is none of default, linear" in refusal(load_causal, str(tmp_path), 64, 16)
    nested = LLAMA | LAYERS | {"rope_parameters": {"full_attention": rope, "sliding_attention": rope}}
    assert "rope_type 'longrope'" in refusal(stated_form, {"model_type": "gemma3_text", **nested})


def test_a_folders_longest_window_is_kept(elsewhere):
    says = "model.block: 64 tokens, but the pretrained model reads 32 at most"
    assert says in refusal(load_causal, str(elsewhere / "llama"), 280, 64)


def test_what_is_learnt_and_no_parameter_is_named(elsewhere, monkeypatch):
    base = LlamaForCausalLM.from_pretrained(elsewhere / "llama")
    base.register_buffer("learnt", torch.ones(3))
    monkeypatch.setattr("sublora.models.pretrained.load_llama2c", lambda source: base)
    with pytest.raises(SubloraError, match=r"'x\.bin' has learnt base\.learnt, which is no parameter"):
        load_causal("x.bin", 280, 16)


def without_layer(weights):
    return {name: weight for name, weight in weights.items() if ".layers.0.mlp." not in name}


def with_nan(weights):
    weights["model.norm.weight"][3] = float("nan")
    return weights


WRONG_WEIGHTS = {
    "a wrapper's prefix": (
        lambda weights: {f"_orig_mod.{name}": weight for name, weight in weights.items()},
        r"the files lack lm_head.weight, model.embed_tokens.weight, .*; they have the unexpected _orig_mod.lm_head.weight",
    ),
    "a layer is missing": (without_layer, r"the files lack model.layers.0.mlp.down_proj.weight, .*gate_proj.*up_proj"),
    "a layer more": (lambda weights: weights | {"model.layers.1.x": weights["lm_head.weight"]}, "the unexpected model.layers.1.x;"),
    "no output layer": (lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"][:9]}, r"lm_head.weight \[9, 16\]"),
    "not finite": (with_nan, "the weight model.norm.weight has an element that is not finite"),
    "integers": (
        lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"].to(torch.int8)},
        "no real numbers in lm_head.weight",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_WEIGHTS)
def test_weights_that_are_not_those_of_the_configuration_are_named(elsewhere, tmp_path, wrong):
    """Each of these was loaded with a warning, and random weights were certified in place of those that were not read."""
    change, says = WRONG_WEIGHTS[wrong]
    folder = shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    assert load_causal(str(folder), 280, 16)
    change_weights(folder, change)
    with pytest.raises(SubloraError, match=says) as caught:
        load_causal(str(folder), 280, 16)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_numbers_that_are_not_finite_are_not_taken_for_a_look_ahead(elsewhere, tmp_path):
    folder = shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    change_weights(folder, lambda weights: {name: weight * (1e38 if "norm" in name else 1) for name, weight in weights.items()})
    assert "numbers that are not finite in float32" in refusal(load_causal, str(folder), 280, 16)


def test_an_output_layer_beside_tied_weights_is_named(elsewhere, tmp_path):
    folder = shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    change_config(folder, tie_word_embeddings=True)
    assert "ties lm_head.weight to another weight, the file has its own; set tie_word_embeddings to false" in refusal(
        load_causal, str(folder), 280, 16
    )
    change_weights(folder, lambda weights: {name: weight for name, weight in weights.items() if name != "lm_head.weight"})
    assert load_causal(str(folder), 280, 16)


def test_a_body_saved_alone_and_tied_weights_are_whole(elsewhere, tmp_path):
    GPT2LMHeadModel.from_pretrained(elsewhere / "gpt2").transformer.save_pretrained(tmp_path)
    whole, body = (load_causal(str(folder), 280, 16) for folder in (elsewhere / "gpt2", tmp_path))
    for (name, weight), (other, same) in zip(whole.named_parameters(), body.named_parameters(), strict=True):
        assert name == other and torch.equal(weight, same)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers"),
        ({"vocab_size": 10**9}, "weights; at most 1,000,000,000 are loaded"),
        ({"hidden_size": "16"}, "cannot load"),
        ({"num_attention_heads": 7}, "cannot load"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "cannot load"),
    ],
)
def test_a_folders_configuration_is_checked_before_its_weights_are_read(elsewhere, tmp_path, change, says):
    folder = shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    (folder / "model.safetensors").write_bytes(b"not read")
    change_config(folder, **change)
    assert says in refusal(load_causal, str(folder), 280, 16)


@pytest.mark.parametrize("what", ["adapter", "cut", "pointer", "empty", "folder", "shard", "pickle", "nested"])
def test_files_of_a_model_that_cannot_be_read_are_one_line(elsewhere, tmp_path, what):
    folder = shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    says = "no weights that can be loaded as safetensors (.*); save the model itself"
    if what == "adapter":
        (folder / "config.json").unlink()
        (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "no/base"}')
        says = "holds an adapter .*merge it into its base"
    elif what in ("cut", "pointer", "empty"):
        weights.write_bytes({"cut": data[:-9], "pointer": b"version https://git-lfs.github.com/spec/v1\n", "empty": b""}[what])
    elif what == "nested":
        (folder / "config.json").write_text("[" * 100_000)
        says = "holds no model's config.json that can be read"
    else:
        weights.unlink()
    if what == "folder":
        weights.mkdir()
    if what == "shard":
        index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if what == "pickle":
        torch.save(LlamaForCausalLM.from_pretrained(elsewhere / "llama").state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(SubloraError, match=says) as caught:
        load_causal(str(folder), 280, 16, local_only=True)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["a[1]*?", "{a} 50%", "\u00fc"])
def test_a_models_folder_may_have_any_name(elsewhere, tmp_path, name):
    folder = shutil.copytree(elsewhere / "llama", tmp_path / name)
    assert load_causal(str(folder), 280, 16)
    change_weights(folder, WRONG_WEIGHTS["integers"][0])
    assert "no real numbers in lm_head.weight" in refusal(load_causal, str(folder), 280, 16)


@pytest.mark.parametrize("source", ["~nouser/x", "./" + "x" * 5000])
def test_a_source_that_cannot_be_looked_up_is_one_line(elsewhere, tmp_path, source):
    assert "cannot be looked up" in refusal(load_causal, source, 280, 16)
    values = values_of(elsewhere)
    values["model"]["source"] = source
    assert "cannot be looked up" in refusal(lambda: Run(values, tmp_path).problem.identity(as_experiment(values)))


def test_an_adapter_beside_the_model_is_refused(elsewhere, tmp_path):
    """Its scale changes the model, and neither the architecture nor a weight says it."""
    from peft import LoraConfig

    shutil.copytree(elsewhere / "llama", tmp_path / "llama")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "llama")
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "llama")
    with pytest.raises(SubloraError, match="holds an adapter .*not a whole model"):
        load_causal(str(tmp_path / "llama"), 280, 16)


@pytest.mark.parametrize(
    ("name", "vocabulary", "block", "says"),
    [
        ("gpt2", 301, 16, "it has 301 tokens, the model 300"),
        ("gpt2", 280, 64, "model.block: 64 tokens, but the pretrained model reads 32"),
        ("none", 280, 16, "cannot load"),
    ],
)
def test_models_that_do_not_fit_are_named(elsewhere, name, vocabulary, block, says):
    assert says in refusal(load_causal, str(elsewhere / name), vocabulary, block)


def test_a_model_too_large_for_a_certificate_is_said_to_be(certificate, tmp_path, monkeypatch):
    monkeypatch.setattr("sublora.certificate.schema.LARGEST_CERTIFICATE", 1000)
    assert "take fewer bits" in refusal(certificate.save, tmp_path / "certificate.json")
    assert list(tmp_path.iterdir()) == []


def test_the_smoothing_weight_is_three_bits(certificate):
    experiment, data = as_experiment(certificate.params), certificate.message_bytes
    for alpha in certificate.public.alpha_grid:
        other = with_alpha(data, alpha, experiment, 280)
        assert len(other) == len(data) and decode(other, experiment, 280).alpha == alpha
        assert with_alpha(other, certificate.alpha, experiment, 280) == data


def test_a_tokenizer_of_transformers_reads_everything_as_text(elsewhere, tmp_path):
    tokenizer = get_tokenizer(str(elsewhere / "tokenizer"))
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.eot) == ("tokenizer", 280, 0)
    for text in ("one two\n", "<end>", "naïve 日本 \x00"):
        ids = tokenizer.encode(text)
        assert 0 not in ids and tokenizer.decode([*ids, 0]) == text
    shutil.copytree(elsewhere / "tokenizer", tmp_path / "tokenizer")
    assert get_tokenizer(str(tmp_path / "tokenizer")).sha256 == tokenizer.sha256 is not None
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "normalizer": {"type": "Lowercase"}}), "utf-8")
    assert get_tokenizer(str(tmp_path / "tokenizer")).sha256 != tokenizer.sha256
    assert get_tokenizer("bytes").sha256 is None
    store = prepare(Corpus(**values_of(elsewhere)["corpus"]), tmp_path)
    assert (store.vocab_size, store.eot, len(store)) == (280, 0, 300)
