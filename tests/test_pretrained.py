"""Models trained elsewhere, from a folder of `transformers` to a certificate that needs the folder no more."""

import base64
import json
import shutil

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import NOTEBOOKS, write_params, write_texts
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
from sublora.bounds.certificate import write_certificate
from sublora.bounds.format import load_certificate, message_of
from sublora.bounds.optimize import optimize_run
from sublora.bounds.verify import verify
from sublora.compression import MessageError, decode_model, with_alpha
from sublora.compression.whole import quantize_whole
from sublora.config import ALPHA_GRID, Experiment
from sublora.data import get_tokenizer, prepare
from sublora.errors import SubloraError
from sublora.models.pretrained import Causal, architecture, blank_causal, causal_weights, load_causal
from sublora.sampling import load_model, sample_text

GPT2 = {"vocab_size": 300, "n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}


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


def experiment_values(folder, model="gpt2", **changes):
    return tiny.settings(
        folder / "texts",
        name=model,
        notebooks=["pretrained"],
        corpus__tokenizer=str(folder / "tokenizer"),
        model={"block": 16},
        pretrained={"source": str(folder / model), "bits": [3, 5], "scales": ["tensor", "row"]},
        bounds={"levels": ["token", "document"], "tokens": 300, "documents": 60, "held_out_documents": 30},
        **changes,
    )


@pytest.fixture(scope="module")
def certified(elsewhere, tmp_path_factory):
    """(certificate file, folder of corpora) of a run whose model and tokenizer are gone since."""
    away = tmp_path_factory.mktemp("away")
    for part in ("texts", "tokenizer", "gpt2"):
        shutil.copytree(elsewhere / part, away / part)
    runs = away / "runs"
    folder = pipeline.run(write_params(away / "params.yaml", experiment_values(away)), runs, NOTEBOOKS)
    shutil.rmtree(away / "gpt2")
    return folder / "certificate.json", runs / "corpora"


def test_a_certificate_holds_its_model_and_is_verified_without_the_source(certified):
    path, corpora = certified
    certificate = load_certificate(path)
    assert verify(path, corpora) == []
    assert certificate["public"]["architecture"]["model_type"] == "gpt2"
    experiment = Experiment.from_parameters(certificate["params"])
    decoded = decode_model(message_of(certificate), experiment, certificate["corpus"]["vocab_size"])
    assert decoded.alpha == certificate["alpha"] and decoded.published_bits > certificate["message_bits"]
    assert {bound["level"] for bound in certificate["bounds"]} == {"token", "document"}
    assert certificate["environment"]["seconds"].keys() == {"quantize", "score"}


def test_the_way_with_the_smallest_promise_is_in_the_message(certified):
    path, corpora = certified
    data = message_of(load_certificate(path))
    sizes = {parts.name for parts in (path.parent / "ways").iterdir()}
    assert sizes == {"3-tensor", "3-row", "5-tensor", "5-row"}
    bits, rows = data[3] & 15, bool(data[3] & 16)
    assert data[2] == 0x57 and bits in (3, 5) and isinstance(rows, bool)
    assert bits == 3, "an untrained model is not worth more bits"


def test_it_speaks(certified):
    model, tokenizer = load_model(certified[0])
    text = sample_text(model, tokenizer, "one", 40, smoothing=0.0, seed=1)
    assert text.startswith("one") and len(tokenizer.encode(text)) > 16, "more than fits a window"


def test_optimize_says_what_it_does_not_do(elsewhere, tmp_path):
    with pytest.raises(SubloraError, match="list more pretrained.bits"):
        optimize_run(Experiment.from_parameters(experiment_values(elsewhere)), tmp_path, ["kmeans"], [5])


def test_a_finished_run_is_kept_until_the_source_changes(elsewhere, tmp_path, capsys):
    shutil.copytree(elsewhere, tmp_path / "copy")
    params = write_params(tmp_path / "params.yaml", experiment_values(tmp_path / "copy", model="llama"))
    for _ in range(2):
        folder = pipeline.run(params, tmp_path / "runs", NOTEBOOKS)
    assert "pretrained: finished before, kept" in capsys.readouterr().out
    first = load_certificate(folder / "certificate.json")
    torch.manual_seed(1)
    other = LlamaForCausalLM(LlamaForCausalLM.from_pretrained(elsewhere / "llama").config)
    other.save_pretrained(tmp_path / "copy" / "llama")
    pipeline.run(params, tmp_path / "runs", NOTEBOOKS)
    assert "finished before" not in capsys.readouterr().out
    assert load_certificate(folder / "certificate.json")["message_sha256"] != first["message_sha256"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["params"]["pretrained"]["architecture"].update(activation_function="relu"), "bounds["),
        (lambda c: c["params"]["pretrained"]["architecture"].update(n_embd=32), "message: "),
        (lambda c: c["params"]["model"].update(block=8), "bounds["),
    ],
)
def test_another_architecture_is_not_verified(certified, tmp_path, change, says):
    path, corpora = certified
    certificate = load_certificate(path)
    change(certificate)
    other = tmp_path / "certificate.json"
    other.write_text(json.dumps(certificate, indent=1) + "\n")
    assert any(line.startswith(says) for line in verify(other, corpora))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.update(architecture=None), "params.pretrained.architecture: missing"),
        (lambda p: p["architecture"].update(n_layer=10**9), "1,000,000,000 layers"),
        (lambda p: p["architecture"].update(vocab_size=10**11), "more than 1,000,000,000 weights"),
        (lambda p: p["architecture"].update(model_type="t5"), "type 't5' is none of apertus, .*, gpt2"),
        (lambda p: p["architecture"].pop("model_type"), "type None is none of"),
        (lambda p: p["architecture"].update(model_type=["gpt2"]), "is none of"),
        (lambda p: p["architecture"].update(n_head=7), "no configuration of a causal model"),
    ],
)
def test_a_strangers_architecture_is_refused_in_one_line(certified, tmp_path, change, says):
    path, corpora = certified
    certificate = load_certificate(path)
    change(certificate["params"]["pretrained"])
    other = tmp_path / "certificate.json"
    other.write_text(json.dumps(certificate, indent=1) + "\n")
    with pytest.raises(SubloraError, match=says) as caught:
        verify(other, corpora)
    assert "\n" not in str(caught.value)


NUMBERS = (0, 1, -1, 3, 7, 33, 1000, 10**9, 2**63, 0.5, -1.5, 1e308)
VALUES = (*NUMBERS, None, True, "", "gelu", "relu", [], [[1, 2]], {}, {"rope_type": "yarn"})


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_change_to_an_architecture_is_refused_or_computed(elsewhere, data):
    model = load_causal(str(elsewhere / data.draw(st.sampled_from(["gpt2", "llama"]))), 280, 16)
    values = architecture(model)
    for key in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        values[key] = data.draw(st.sampled_from(VALUES))
    experiment = experiment_values(elsewhere)
    experiment["pretrained"]["architecture"] = values
    try:
        decoded = decode_model(quantize_whole(model, 4, 0.1), Experiment.from_parameters(experiment), 280)
    except SubloraError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.model(torch.zeros(2, 16, dtype=torch.long)).shape == (2, 16, 280)


def test_a_strangers_configuration_names_no_code_and_no_kernels(certified):
    certificate = load_certificate(certified[0])
    values = dict(certificate["params"]["pretrained"]["architecture"])
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


def test_every_family_gives_the_logits_of_transformers(elsewhere):
    tokens = torch.arange(16)[None]
    for name, kind in (("gpt2", GPT2LMHeadModel), ("llama", LlamaForCausalLM)):
        model = load_causal(str(elsewhere / name), 280, 16)
        with torch.no_grad():
            expected = kind.from_pretrained(elsewhere / name).eval()(tokens).logits[..., :280]
            torch.testing.assert_close(model(tokens), expected)
        weights = sum(weights.numel() for weights in model.parameters())
        assert weights <= causal_weights(architecture(model)) <= weights + 32 * 32, "with its masks and tables"


def test_models_that_see_what_they_predict_are_refused(elsewhere, certified):
    with pytest.raises(SubloraError, match="type 'bert' is none of"):
        load_causal(str(elsewhere / "bert"), 280, 16)
    with pytest.raises(SubloraError, match="no causal language model"):
        load_causal(str(elsewhere / "seeing"), 280, 16)
    seeing = Causal(Gemma3ForCausalLM.from_pretrained(elsewhere / "seeing"), 280, 16)
    values = load_certificate(certified[0])["params"]
    values["pretrained"]["architecture"] = architecture(seeing)
    data = quantize_whole(seeing, 8, 0.1)
    with pytest.raises(SubloraError, match="no causal language model"):
        decode_model(data, Experiment.from_parameters(values), 280)
    values["pretrained"]["architecture"] |= {"use_bidirectional_attention": False}
    assert decode_model(data, Experiment.from_parameters(values), 280).alpha == 0.1


KINDS = {"seeing": Gemma3ForCausalLM, "bert": BertLMHeadModel, "llama": LlamaForCausalLM}


@pytest.mark.parametrize(("folder", "kind"), KINDS.items(), ids=str)
def test_looking_ahead_is_noticed_by_trying(elsewhere, folder, kind):
    model = Causal(kind.from_pretrained(elsewhere / folder), 280, 16)
    if folder == "llama":
        model.check_causal()
    else:
        with pytest.raises(SubloraError, match="no causal language model"):
            model.check_causal()


def test_a_short_message_of_a_large_model_is_refused(certified):
    values = load_certificate(certified[0])["params"]
    values["pretrained"]["architecture"] |= {"vocab_size": 10**6}
    with pytest.raises(MessageError, match="too few for this architecture"):
        decode_model(message_of(load_certificate(certified[0])), Experiment.from_parameters(values), 280)


def test_what_is_learnt_and_no_parameter_is_named(elsewhere, monkeypatch):
    base = LlamaForCausalLM.from_pretrained(elsewhere / "llama")
    base.register_buffer("learnt", torch.ones(3))
    monkeypatch.setattr("sublora.models.pretrained.load_llama2c", lambda source: base)
    with pytest.raises(SubloraError, match=r"'x\.bin' has learnt base\.learnt, which is no parameter"):
        load_causal("x.bin", 280, 16)


def test_models_that_do_not_fit_are_named(elsewhere, tmp_path):
    for name, vocabulary, block, says in (
        ("gpt2", 301, 16, "it has 301 tokens, the model 300"),
        ("gpt2", 280, 64, "model.block: 64 tokens, but the pretrained model reads 32"),
        ("none", 280, 16, "cannot load"),
    ):
        with pytest.raises(SubloraError, match=says) as caught:
            load_causal(str(elsewhere / name), vocabulary, block)
        assert "\n" not in str(caught.value)


def test_a_model_too_large_for_a_certificate_is_said_to_be(certified, tmp_path, monkeypatch):
    certificate = load_certificate(certified[0])
    monkeypatch.setattr("sublora.bounds.certificate.LARGEST_CERTIFICATE", 1000)
    with pytest.raises(SubloraError, match="take fewer bits"):
        write_certificate(tmp_path / "certificate.json", certificate, {})
    assert list(tmp_path.iterdir()) == []


def test_the_smoothing_weight_is_three_bits(certified):
    certificate = load_certificate(certified[0])
    experiment = Experiment.from_parameters(certificate["params"])
    data = message_of(certificate)
    for alpha in ALPHA_GRID:
        other = with_alpha(data, alpha, experiment, 280)
        assert len(other) == len(data) and decode_model(other, experiment, 280).alpha == alpha
        assert with_alpha(other, certificate["alpha"], experiment, 280) == data
    for hostile in (b"", b"\x02\x52", data[:-1], base64.b64encode(data)):
        with pytest.raises(MessageError):
            with_alpha(hostile, 0.1, experiment, 280)


def test_a_tokenizer_of_transformers_reads_everything_as_text(elsewhere, tmp_path):
    tokenizer = get_tokenizer(str(elsewhere / "tokenizer"))
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.eot) == ("tokenizer", 280, 0)
    for text in ("one two\n", "<end>", "naïve 日本 \x00"):
        ids = tokenizer.encode(text)
        assert 0 not in ids and tokenizer.decode([*ids, 0]) == text
    corpus = Experiment.from_parameters(experiment_values(elsewhere)).corpus
    store = prepare(corpus, tmp_path)
    assert (store.vocab_size, store.eot, len(store)) == (280, 0, 300)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pretrained": None}, "notebook pretrained needs the group pretrained"),
        ({"notebooks": ["pretrain", "bounds"]}, "group pretrained needs notebooks"),
        ({"pretrained": {"source": "x", "bits": [9]}}, "key 'pretrained.bits.0'"),
        ({"pretrained": {"source": "x", "bits": []}}, "bits must be a list of one or more choices"),
        ({"pretrained": {"source": "x", "scale": ["row"]}}, "did you mean 'pretrained.scales'"),
        ({"pretrained": {}}, "key 'pretrained.source' is missing"),
        ({"corpus": {"tokenizer": "byte"}}, "key 'corpus.tokenizer': must be bytes, gpt2"),
        ({"task": {"name": "sst2"}}, "task and pretrained exclude each other"),
    ],
)
def test_settings_that_make_no_sense(elsewhere, changes, says):
    with pytest.raises(SubloraError, match=says):
        Experiment.from_parameters(experiment_values(elsewhere) | changes)
