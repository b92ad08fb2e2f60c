"""Classifiers: a base model with what is trained in it, as a function of its coordinates."""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sublora.data.tokenizers import load_tokenizer, rules_sha256
from sublora.errors import SubloraError, errors_named
from sublora.experiment import Encoder, TaskSubspace, Words
from sublora.models.build import in_subspace, tensors_sha256
from sublora.models.loading import blank_weights, load_config, load_weights, random_model
from sublora.models.lora import add_lora
from sublora.models.pretrained import classifier_config, classifier_configuration
from sublora.models.subspace import Subspace

_QUERIES_AND_VALUES = ("c_attn", "query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj", "Wqkv")
ATTENTION = (*_QUERIES_AND_VALUES, "query_key_value", "qkv_proj")
"""Names of the attention maps that LoRA goes on: queries and values, or what holds them in one."""
LARGEST_BUCKETS = 2**20
LARGEST_HEAD = 2 * (LARGEST_BUCKETS + 1)
"""The most weights of a bag of words, however many classes there are: a short message must not allocate much memory."""


class Encoded(NamedTuple):
    """Texts as a model reads them. ids: int32 (n, channels, time), padded at the right; lengths: int (n,), without padding."""

    ids: np.ndarray
    lengths: np.ndarray


class BagOfWords(nn.Module):
    """A bag of hashed words: each occurrence adds the weights of its buckets, over the square root of their number in the text.

    A word is the first `prefix` letters of a lower-case piece between spaces; its `hashes` buckets are of its BLAKE2b with the
    model's seed, and the words of a second sentence are others. Nothing is learnt but the head: one row of `labels - 1` weights a
    bucket, and a bias; the first label's logit is zero. The hash is the random part: which words share which of their weights.
    (Feature hashing: Weinberger et al. 2009, arXiv:0902.2206; several hashes, as a Bloom filter's: Svenstrup et al. 2017,
    arXiv:1709.03933.)
    """

    attention: tuple[str, ...] = ()

    def __init__(self, settings: Words, labels: int, max_length: int):
        super().__init__()
        if (weights := (labels - 1) * (settings.buckets + 1)) > LARGEST_HEAD:
            why = f"{settings.buckets:,} buckets and {labels:,} classes are {weights:,} weights, of at most {LARGEST_HEAD:,}"
            raise SubloraError(f"model.buckets: {why}; take fewer buckets")
        self.settings, self.max_length = settings, max_length
        self._hashed = functools.cache(self._hash)
        self.head = nn.Linear(settings.buckets, labels - 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def head_names(self) -> list[str]:
        return ["head.weight", "head.bias"]

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Encoded:
        """(n, 1, time): buckets, -1 behind the words."""
        rows = [self._buckets(parts) for parts in texts]
        lengths = np.array([len(row) for row in rows], np.int32)
        ids = np.full((len(rows), 1, max(1, lengths.max(initial=1))), -1, np.int32)
        for row, buckets in zip(ids[:, 0], rows, strict=True):
            row[: len(buckets)] = buckets
        return Encoded(ids, lengths)

    def _buckets(self, parts: tuple[str, ...]) -> list[int]:
        words = [(place, word[: self.settings.prefix]) for place, text in enumerate(parts) for word in text.lower().split()]
        return [bucket for place, word in words[: self.max_length] for bucket in self._hashed(place, word)]

    def _hash(self, place: int, word: str) -> list[int]:
        seed = b"%d %d" % (place, self.settings.seed)
        digest = hashlib.blake2b(word.encode(), digest_size=4 * self.settings.hashes, salt=seed).digest()
        return [number * self.settings.buckets >> 32 for number in np.frombuffer(digest, "<u4").tolist()]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 1, time) buckets to (n, 1, labels) logits."""
        ids = inputs[:, 0]
        inside = (ids >= 0).unsqueeze(2)
        rows = F.embedding(ids.clamp_min(0), self.head.weight.T)
        words = (rows * inside).sum(1) / inside.sum(1).clamp_min(1).sqrt()
        logits = words + self.head.bias
        return F.pad(logits, (1, 0)).unsqueeze(1)


class HubClassifier(nn.Module):
    """An `AutoModelForSequenceClassification` with its tokenizer, from a local folder or the hub.

    Code that comes with a model is never run. What is not pretrained, the head at least, is drawn from the settings' seed.
    """

    def __init__(self, settings: Encoder, labels: int, max_length: int, local_only: bool = False):
        super().__init__()
        from huggingface_hub.utils import logging as hub_logging
        from transformers import AutoModelForSequenceClassification

        hub_logging.set_verbosity_error()  # without a network it would report every attempt
        source = settings.source
        found = load_config(source, local_only)
        configuration = classifier_config(settings.architecture or classifier_configuration(found), num_labels=labels)
        for key, value in found.to_dict().items():
            if "drop" in key:  # of training alone, so no message has it
                setattr(configuration, key, value)
        self.tokenizer = _tokenizer(source, local_only)
        configuration.pad_token_id = self.tokenizer.pad_token_id
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            if settings.load_pretrained:
                self.base = load_weights(AutoModelForSequenceClassification, source, configuration, local_only, head=True)
            else:
                self.base = random_model(AutoModelForSequenceClassification, source, configuration)
        if len(self.tokenizer) > self.base.get_input_embeddings().num_embeddings:
            raise SubloraError(f"model.source: {source}: its tokenizer has more tokens than the model; use its own")
        longest = getattr(configuration, "max_position_embeddings", None) or max_length
        self.max_length = min(max_length, longest, self.tokenizer.model_max_length)
        ends = {name.rsplit(".", 1)[-1] for name, _ in self.base.named_modules()}
        self.attention = tuple(name for name in ATTENTION if name in ends)

    @property
    def head_names(self) -> list[str]:
        body = f"base.{self.base.base_model_prefix}."
        return [name for name, _ in self.named_parameters() if not name.startswith(body)]

    def encode(self, texts: Sequence[tuple[str, ...]]) -> Encoded:
        """(n, 3, time): token ids, attention mask, token types; padded at the right."""
        parts = [list(part) for part in zip(*texts, strict=True)]
        options = {"truncation": True, "max_length": self.max_length, "padding": "longest", "return_token_type_ids": True}
        with errors_named("model.source: its tokenizer cannot read the examples", "give a model with another tokenizer"):
            tokens = self.tokenizer(*parts, return_tensors="np", **options)
        ids = np.stack([tokens[key] for key in ("input_ids", "attention_mask", "token_type_ids")], axis=1).astype(np.int32)
        return Encoded(ids, ids[:, 1].sum(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 3, time) to (n, 1, labels) logits."""
        ids, mask, types = inputs.unbind(1)
        keywords = {"token_type_ids": types} if getattr(self.base.config, "type_vocab_size", 0) > 1 else {}
        return self.base(input_ids=ids, attention_mask=mask, **keywords).logits.unsqueeze(1)


def encoder_weights(model: Encoder, labels: int) -> int:
    """How many weights a classifier of the stated architecture has; none is loaded. Raises SubloraError for one that is none."""
    from transformers import AutoModelForSequenceClassification

    config = classifier_config(model.architecture or {}, num_labels=labels)
    return blank_weights(AutoModelForSequenceClassification, model.source, config)


def _tokenizer(source: str, local_only: bool) -> Any:
    """A model's tokenizer, which pads at the right."""
    tokenizer = load_tokenizer(source, "model.source", "save one beside the model with tokenizer.save_pretrained", local_only)
    if not tokenizer.is_fast:
        raise SubloraError(f"model.source: {source}: its tokenizer has no fast form, so it has no fingerprint; give another")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise SubloraError(f"model.source: {source}: its tokenizer has no padding and no end token; add one to it")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def classifier_base(
    model: Words | Encoder, labels: int, max_length: int, local_only: bool = False
) -> BagOfWords | HubClassifier:
    """The model before anything is trained: public, as a function of the settings (and of the pretrained weights).

    max_length: tokens of an example, what is longer is cut. local_only: nothing is downloaded.
    """
    if isinstance(model, Words):
        return BagOfWords(model, labels, max_length)
    return HubClassifier(model, labels, max_length, local_only)


def base_sha256s(base: BagOfWords | HubClassifier) -> dict[str, str | None]:
    """Fingerprints of all that a base model is: its weights and buffers, its tokenizer, its configuration.

    The settings state the last two of a bag of words: None. Of a configuration, what differs from the type's defaults counts.
    """
    sha256s = {"base_weights_sha256": tensors_sha256(sorted(base.state_dict().items()))}
    if isinstance(base, BagOfWords):
        return {**sha256s, "tokenizer_sha256": None, "configuration_sha256": None}
    tokenizer, configuration = base.tokenizer, classifier_configuration(base.base.config)
    sides = tokenizer.model_max_length, tokenizer.truncation_side, tokenizer.split_special_tokens, tokenizer.pad_token_id
    return {
        **sha256s,
        "tokenizer_sha256": rules_sha256(tokenizer.backend_tokenizer, type(tokenizer).__name__, *sides),
        "configuration_sha256": hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest(),
    }


def classifier_in_subspace(base: BagOfWords | HubClassifier, subspace: TaskSubspace) -> Subspace:
    """`base` as a function of its coordinates: all of its weights, or those that `subspace.modules` names.

    sublora: LoRA on the attention and the head's own weights in a random subspace; lora: each of these is a coordinate. subspace,
    full: the same for all of the base's own weights. What is not named stays at its public value.
    Raises SubloraError for a model without known attention maps, and a dimension that does not fit.
    """
    if subspace.parametrization in ("subspace", "full"):
        return in_subspace(base, [name for name, _ in base.named_parameters()], subspace)
    trainable = []
    if "attention" in subspace.modules:
        if not base.attention:
            raise SubloraError(f"subspace.modules: the model has no attention maps named {', '.join(ATTENTION)}; use [head]")
        trainable += add_lora(base, subspace, base.attention)
    if "head" in subspace.modules:
        trainable += base.head_names
    return in_subspace(base, trainable, subspace)
