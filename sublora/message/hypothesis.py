"""What a message decodes to, whatever its format: one registry of formats, one `decode`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import nn

from sublora.errors import SubloraError
from sublora.experiment import (
    BASES,
    Classify,
    Encoder,
    Experiment,
    Finetune,
    Ngram,
    Pretrain,
    Pretrained,
    Round,
    Subspace,
    Words,
    Zeroshot,
)
from sublora.message import classifier, early, language, ngram, unchanged, whole
from sublora.message.body import Coded, published_bits
from sublora.message.configuration import configured, unwrapped
from sublora.message.frame import MessageError, Reader
from sublora.models import base_model, layer_names, model_weights
from sublora.models.classifiers import LARGEST_HEAD, encoder_weights
from sublora.models.pretrained import blank_causal, stated_form

Kind = TypeVar("Kind", bound=Experiment)
WEIGHTS_OF_A_BYTE = 64  # more than any real message has: a short message must not allocate much memory


@dataclass(frozen=True)
class Hypothesis:
    """A decoded message on top of what is public: a model in evaluation mode, with all that its losses depend on.

    model: token ids (batch, time) to logits (batch, time, V); for a classifier encoded texts (n, channels, time) to (n, 1, labels).
    alpha: the smoothing weight; None for a classifier. published_bits: its size as the papers count it, an estimate for comparison.
    said: the settings that the message states, by group: a certificate has them, and one that says otherwise is not verified.
    sha256s: `base_sha256s` of a classifier's base model; else None.
    """

    model: nn.Module
    alpha: float | None
    published_bits: float
    said: dict[str, dict[str, Any]]
    sha256s: dict[str, str | None] | None = None


class Settings(NamedTuple):
    """What a message says of itself: its parametrization (None where it holds all weights), the base model with its choices, d."""

    subspace: Subspace | None
    model: Any
    coordinates: int


class Codec(NamedTuple):
    """One format. kinds: the experiments that make it; the rest: `decode`, `with_alpha`, `message_settings` of such a message."""

    kinds: tuple[type, ...]
    rebuild: Callable[[bytes, Any, int, bool], Hypothesis]
    with_alpha: Callable[[bytes, float, Any, int], bytes]
    settings: Callable[[bytes, Any, int], Settings]


def decode(data: bytes, experiment: Experiment, vocab_size: int, local_only: bool = False) -> Hypothesis:
    """The hypothesis that `data` is, from these bytes and the public facts of the experiment alone.

    vocab_size: V, or the number of labels. local_only: nothing is downloaded.
    Raises MessageError when the bytes are no message for this experiment; SubloraError when the base model cannot be had here.
    """
    experiment, message, _ = read_configuration(data, experiment)
    found = _codec(message, experiment).rebuild(message, experiment, vocab_size, local_only)
    if isinstance(experiment.model, Pretrained | Encoder):
        stated = {**found.said.get("model", {}), "architecture": experiment.model.architecture}
        found = replace(found, said={**found.said, "model": stated})
    return found


def with_alpha(data: bytes, alpha: float, experiment: Experiment, vocab_size: int) -> bytes:
    """The same model with another smoothing weight of the grid: another hypothesis, of the same length. Raises MessageError."""
    experiment, message, configuration = read_configuration(data, experiment)
    return configured(configuration, _codec(message, experiment).with_alpha(message, alpha, experiment, vocab_size))


def read_configuration(data: bytes, experiment: Kind) -> tuple[Kind, bytes, dict[str, Any] | None]:
    """(the experiment with the configuration that the message states, the message behind it, the configuration or None).

    Raises MessageError for a configuration that is none, has another form than its one, or is too much or missing.
    """
    configuration, message = unwrapped(data)
    _codec(message, experiment)
    model = experiment.model
    if (configuration is not None) != isinstance(model, Pretrained | Encoder):
        what = "has a configuration, but no pretrained model" if configuration else "lacks its pretrained model's configuration"
        raise MessageError(f"the message {what}")
    if configuration is not None:
        try:
            form = stated_form(configuration, classifier=isinstance(model, Encoder))
        except SubloraError as error:
            raise MessageError(str(error)) from None
        if configured(form, message) != data:  # as text: 1 is not 1.0
            raise MessageError("the message's configuration has another form than what it says is written in, or another version's")
        stated = model.model_copy(update={"architecture": configuration})
        found: Any = experiment.model_copy(update={"model": stated})
        return found, message, configuration
    return experiment, message, configuration


def message_settings(data: bytes, experiment: Experiment, vocab_size: int) -> Settings:
    """What a message says of itself, before any model is built. Raises MessageError as `decode`."""
    experiment, message, _ = read_configuration(data, experiment)
    return _codec(message, experiment).settings(message, experiment, vocab_size)


def _codec(data: bytes, experiment: Experiment) -> Codec:
    format = Reader(data).byte()
    if format not in CODECS:
        raise MessageError(f"unknown message format {format:#04x}; there are {', '.join(f'{known:#04x}' for known in CODECS)}")
    if not isinstance(experiment, CODECS[format].kinds):
        raise MessageError(f"message format {format:#04x} does not belong to an experiment of kind {experiment.kind!r}")
    return CODECS[format]


def _subspace(data: bytes, experiment: Pretrain | Finetune, vocab_size: int, local_only: bool) -> Hypothesis:
    subspace, message = language.rebuild(data, experiment.model, vocab_size, local_only)
    said = {"subspace": _said(message.subspace)}
    said |= {"compression": {"levels": len(message.coded.codebook)}} if isinstance(message.coded, Coded) else {}
    return Hypothesis(subspace.materialized(), message.alpha, published_bits(message.coded), said)


def _subspace_with_alpha(data: bytes, alpha: float, experiment: Pretrain | Finetune, vocab_size: int) -> bytes:
    return language.with_alpha(data, alpha, *_limits(experiment, vocab_size))


def _subspace_settings(data: bytes, experiment: Pretrain | Finetune, vocab_size: int) -> Settings:
    header = language.read(data, *_limits(experiment, vocab_size))
    return Settings(header.subspace, experiment.model, header.dimension)


def _limits(experiment: Pretrain | Finetune, vocab_size: int) -> tuple[int, tuple[str, ...]]:
    return language.largest_dimension(experiment.model, vocab_size), layer_names(experiment.model)


def _whole(data: bytes, experiment: Round, vocab_size: int, local_only: bool) -> Hypothesis:
    """For a rounded model the published size is the file's C + 2·log2 C (Lotfi et al. 2024b)."""
    if model_weights(experiment.model, vocab_size) > WEIGHTS_OF_A_BYTE * len(data):
        raise MessageError(f"the message has {len(data):,} bytes, too few for this architecture")
    model = blank_causal(experiment.model.architecture, vocab_size, experiment.model.block)
    alpha = whole.rebuild_whole(data, model)
    try:
        model.check_causal()
    except SubloraError as error:
        raise MessageError(str(error)) from None
    bits, rows = whole.settings(data)
    said = {"rounding": {"bits": [bits], "scales": ["row" if rows else "tensor"]}}
    return Hypothesis(model, alpha, 8 * len(data) + 2 * float(np.log2(8 * len(data))), said)


def _whole_with_alpha(data: bytes, alpha: float, experiment: Round, vocab_size: int) -> bytes:
    return whole.whole_with_alpha(data, alpha)


def _unchanged(data: bytes, experiment: Zeroshot, vocab_size: int, local_only: bool) -> Hypothesis:
    """Nothing was learnt, so the published size is that of no coordinates: 0 bits."""
    alpha = unchanged.decode_unchanged(data)
    return Hypothesis(base_model(experiment.model, vocab_size, local_only).eval(), alpha, 0.0, {})


def _unchanged_with_alpha(data: bytes, alpha: float, experiment: Zeroshot, vocab_size: int) -> bytes:
    unchanged.decode_unchanged(data)
    return unchanged.encode_unchanged(alpha)


def _ngram(data: bytes, experiment: Ngram, vocab_size: int, local_only: bool) -> Hypothesis:
    """The published size is that of a file, as for a rounded model."""
    message = ngram.decode_ngrams(data, vocab_size)
    said: dict[str, dict[str, Any]] = {"model": {"orders": len(message.layers) - 1}, "counting": {"bases": [BASES[message.base]]}}
    model = message.model(vocab_size, experiment.model.block)
    return Hypothesis(model, message.alpha, 8 * len(data) + 2 * float(np.log2(8 * len(data))), said)


def _ngram_with_alpha(data: bytes, alpha: float, experiment: Ngram, vocab_size: int) -> bytes:
    return ngram.with_alpha_ngrams(data, alpha)


def _classifier(data: bytes, experiment: Classify, labels: int, local_only: bool) -> Hypothesis:
    subspace, message, sha256s = classifier.rebuild(data, experiment.model, labels, experiment.task.max_length, local_only)
    said = {"subspace": _said(message.subspace), "model": message.model.model_dump(mode="json")}
    said["compression"] = {"levels": len(message.coded.codebook)}
    return Hypothesis(subspace.materialized(), None, published_bits(message.coded), said, sha256s)


def _classifier_settings(data: bytes, experiment: Classify, labels: int) -> Settings:
    public = experiment.model
    most = LARGEST_HEAD if isinstance(public, Words) else 2 * encoder_weights(public, labels)
    message = classifier.decode(data, public, most)
    return Settings(message.subspace, message.model, len(message.coded.symbols))


def _said(subspace: Subspace) -> dict[str, Any]:
    """A message's parametrization as plain data. Dropout is part of the search, and not in the message."""
    return {key: value for key, value in subspace.model_dump(mode="json").items() if key != "lora_dropout"}


def _classifier_with_alpha(data: bytes, alpha: float, experiment: Classify, labels: int) -> bytes:
    raise MessageError("a classifier's predictions are not smoothed: its message has no alpha")


CODECS = {
    language.FORMAT: Codec((Pretrain, Finetune), _subspace, _subspace_with_alpha, _subspace_settings),
    early.FORMAT: Codec((Pretrain, Finetune), _subspace, _subspace_with_alpha, _subspace_settings),
    whole.FORMAT: Codec((Round,), _whole, _whole_with_alpha, lambda data, experiment, _: Settings(None, experiment.model, 0)),
    unchanged.FORMAT: Codec(
        (Zeroshot,), _unchanged, _unchanged_with_alpha, lambda data, experiment, _: Settings(None, experiment.model, 0)
    ),
    ngram.FORMAT: Codec((Ngram,), _ngram, _ngram_with_alpha, lambda data, experiment, _: Settings(None, experiment.model, 0)),
    classifier.FORMAT: Codec((Classify,), _classifier, _classifier_with_alpha, _classifier_settings),
}
"""Every message format that this version reads, by its byte."""
