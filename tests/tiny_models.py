"""Classifiers small enough for tests, saved as Hugging Face saves models: a folder with config, weights and tokenizer."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WORDS = ["<pad>", "<unk>", "<s>", "</s>", *"a film good bad dull fine very not is was the . ? story stale".split()]


def save_model(folder, kind="gpt2", tokenizer=True, head=True):
    """A random model of a kind, without dropout of its own, with a word tokenizer; the same every time. Returns the folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
        GPTNeoXConfig,
        GPTNeoXForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    size = {"vocab_size": len(WORDS), "pad_token_id": 0}
    wide = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, **size}
    wide |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    narrow = {
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 64,
        **size,
    }
    unpadded = {**narrow, "pad_token_id": None, "bos_token_id": 2, "eos_token_id": 3}
    causal = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, **size}
    causal |= {"max_position_embeddings": 64, "bos_token_id": 2, "eos_token_id": 3}
    config, model = {
        "llama": (LlamaConfig(**causal), LlamaForSequenceClassification),
        "gpt_neox": (GPTNeoXConfig(**causal), GPTNeoXForSequenceClassification),
        "gpt2": (GPT2Config(**unpadded), GPT2ForSequenceClassification),
        "bert": (BertConfig(**wide, max_position_embeddings=64), BertForSequenceClassification),
        "roberta": (RobertaConfig(**wide, max_position_embeddings=64), RobertaForSequenceClassification),
        "distilbert": (
            DistilBertConfig(
                dropout=0.0, attention_dropout=0.0, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=64, **size
            ),
            DistilBertForSequenceClassification,
        ),
    }[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        classifier = model(config)
    (classifier if head else classifier.base_model).save_pretrained(folder)
    if tokenizer:
        words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        special |= {} if kind == "gpt2" else {"pad_token": "<pad>"}
        PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **special).save_pretrained(folder)
    return str(folder)


def change_weights(folder, change):
    """Write the weights of a folder again: `change` takes them by name, and returns what is written in their place."""
    path = Path(folder) / "model.safetensors"
    save_file({name: weight.clone() for name, weight in change(load_file(path)).items()}, path, metadata={"format": "pt"})


def change_config(folder, **values):
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def record_requests(monkeypatch, name):
    """Addresses with `name` in them that the hub is asked for from now on, a growing list. No request is answered."""
    from huggingface_hub.utils import get_session

    addresses = []

    def send(_, request, **options):
        addresses.extend([str(request.url)] if name in str(request.url) else [])
        raise OSError("no network")

    monkeypatch.setattr(type(get_session()), "send", send)
    return addresses
