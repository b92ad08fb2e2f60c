"""The message of a classifier: everything comes back, every byte counts, and hostile bytes are refused in time."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_model

from sublora.compression.codebooks import pack_codebook, packed_size
from sublora.compression.coder import shortest
from sublora.errors import SubloraError
from sublora.experiment import Encoder, TaskSubspace, Words
from sublora.message import Coded, MessageError
from sublora.message.classifier import FORMAT, ClassifierMessage, decode, encode, rebuild
from sublora.message.frame import prefixed, varint
from sublora.models.classifiers import classifier_base, classifier_in_subspace
from sublora.models.projectors import PROJECTORS

CODEBOOK = np.array([-0.5, 0.0, 0.75], np.float16)
WORDS = Words(buckets=40, prefix=5)  # 41 weights for two labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("bert"), "bert")


def hub(folder="somewhere", seed=9):
    return Encoder(source=folder, seed=seed)


def lora(*modules, **settings):
    random = {"lora_dropout": 0.0, "seed": 3} if "attention" in modules else {}
    return TaskSubspace(**{"parametrization": "lora", "modules": modules or ("head",), **random, **settings})


def sublora(dimension, *modules, **settings):
    lora = {"rank": 2, "lora_dropout": 0.0} if "attention" in modules else {}
    return TaskSubspace(**{"dimension": dimension, "modules": modules, "seed": 3, **lora, **settings})


def symbols(size, levels=3, seed=0):
    drawn = np.random.default_rng(seed).integers(0, levels, size)
    drawn[:levels] = np.arange(levels)[: len(drawn[:levels])]
    return drawn


def message(model=WORDS, subspace=None, size=41, codebook=CODEBOOK):
    return ClassifierMessage(model, subspace or lora(), Coded(codebook, symbols(size, len(codebook))))


def said(message):
    """All that a message says, to compare."""
    return message.model, message.subspace, message.coded.codebook.tobytes(), message.coded.symbols.tobytes()


@st.composite
def messages(draw):
    """Of every model, parametrization, choice of modules, and projector."""
    words, parametrization = draw(st.booleans()), draw(st.sampled_from(["sublora", "lora", "subspace", "full"]))
    several = [("head",)] if words else [("attention",), ("head",), ("attention", "head")]
    size, levels, seed = draw(st.integers(2, 200)), draw(st.integers(2, 20)), draw(st.integers(0, 2**28 - 1))
    values = {"parametrization": parametrization}
    if parametrization in ("sublora", "lora"):
        values["modules"] = draw(st.sampled_from(several))
    if parametrization in ("sublora", "subspace"):
        values |= {"dimension": size, "projector": draw(st.sampled_from(PROJECTORS))}
    if "dimension" in values or "attention" in values.get("modules", ()):
        values["seed"] = draw(st.integers(0, 2**32 - 1))
    if "attention" in values.get("modules", ()):
        values |= {"rank": draw(st.integers(1, 300)), "lora_alpha": float(draw(st.integers(1, 99))), "lora_dropout": 0.0}
    counts = {"buckets": st.integers(2, 2**20), "hashes": st.integers(1, 16), "prefix": st.integers(1, 127)}
    model = Words(seed=seed, **{key: draw(each) for key, each in counts.items()}) if words else hub(seed=seed)
    codebook = np.linspace(-1, 2, levels).astype(np.float16)
    return ClassifierMessage(model, TaskSubspace(**values), Coded(codebook, symbols(size, levels)))


@given(messages())
def test_everything_comes_back_and_replaces_what_the_settings_say(sent):
    data, dimension = encode(sent), len(sent.coded.symbols)
    public = WORDS if isinstance(sent.model, Words) else hub()
    back = decode(data, public, dimension)
    assert data[1 + (len(data) > 127)] == FORMAT
    assert (back.model, back.subspace) == (sent.model, sent.subspace)
    np.testing.assert_array_equal(back.coded.coordinates, sent.coded.coordinates)
    np.testing.assert_array_equal(back.coded.codebook, sent.coded.codebook[np.unique(sent.coded.symbols)])
    assert encode(back) == data
    with pytest.raises(MessageError, match=f"{dimension} coordinates; the model has at most {dimension - 1}"):
        decode(data, public, dimension - 1)


def test_rebuilding_gives_the_classifier_that_was_coded(folder):
    both = ("attention", "head")
    own = [TaskSubspace(parametrization="full"), TaskSubspace(parametrization="subspace", dimension=11, seed=3)]
    adapted = [(WORDS, lora()), (hub(folder), sublora(11, *both)), (hub(folder), lora("attention", rank=1))]
    for model, subspace in [*adapted, (WORDS, own[0]), *((hub(folder), each) for each in own)]:
        original = classifier_in_subspace(classifier_base(model, 2, 128), subspace).eval()
        sent = message(model, subspace, original.coordinates.numel())
        with torch.no_grad():
            original.coordinates.copy_(torch.from_numpy(sent.coded.coordinates))
        public = model.model_copy(update={"seed": 0})  # the message has the seed
        back, decoded, _ = rebuild(encode(sent), public, 2, 128, local_only=True)
        inputs = torch.from_numpy(original.module.encode([("a good film",), ("dull",)]).ids.astype(np.int64))
        with torch.inference_mode():
            torch.testing.assert_close(back(inputs), original(inputs), rtol=0, atol=0)
        assert decoded.model == model and not back.training


def test_length_comes_first_so_that_no_message_begins_another():
    data = encode(message())
    assert data[0] == len(data)
    for changed in (data[:-1], data + b"\0", data[:1], b""):
        with pytest.raises(MessageError):
            decode(changed, WORDS, 1_000)


def test_every_bit_of_the_header_makes_another_model_or_none():
    sent = message()
    data = encode(sent)
    header = len(data) - len(shortest(sent.coded.symbols, CODEBOOK)[1])
    assert header == 10 + packed_size(pack_codebook(CODEBOOK)[0], 3)
    first = decode(data, WORDS, 1_000)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            try:
                other = decode(bytes(changed), WORDS, 1_000)
            except MessageError as error:
                assert "\n" not in str(error)
                continue
            assert encode(other) == bytes(changed) and said(other) != said(first), (place, bit)


@given(st.binary(max_size=80))
def test_noise_is_refused_or_decoded_but_never_anything_else(noise):
    for public in (WORDS, hub()):
        for data in (noise, prefixed(bytes([FORMAT]) + noise)):
            try:
                assert len(decode(data, public, 500).coded.symbols) <= 500
            except MessageError as error:
                assert "\n" not in str(error)


def test_too_many_coordinates_are_refused_before_they_take_memory(folder):
    # d is claimed as 2^28 - 1; the payload of equal symbols stays a few bytes long
    data = encode(message(hub(folder), sublora(41, "head")))
    claimed = prefixed(data[1:3] + varint(2**28 - 1) + data[4:])
    classifier_base(hub(folder), 2, 128)  # imports are not what is measured
    tracemalloc.start()
    with pytest.raises(MessageError, match="268,435,455 coordinates; the model has at most"):
        rebuild(claimed, hub(folder), 2, 128, local_only=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_a_message_for_another_base_model_is_refused(folder):
    with pytest.raises(MessageError, match="the message has 30 coordinates, the model 41"):
        rebuild(encode(message(size=30)), WORDS, 2, 128)
    for size, changes, says in ((41, {"rank": 10_000}, "rank 10,000 is beyond"), (5_000, {}, "does not fit the base model")):
        data = encode(message(hub(folder), sublora(size, "attention", **changes), size))
        with pytest.raises(MessageError, match=says):
            rebuild(data, hub(folder), 2, 128, local_only=True)
    with pytest.raises(MessageError, match="no attention maps"):
        rebuild(encode(message(WORDS, lora("attention", rank=1))), WORDS, 2, 128)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"codebook": np.array([0.5, 0.5, 1], np.float16)}, "not distinct"),
        ({"codebook": np.array([0.5, 1, np.inf], np.float16)}, "finite"),
        ({"subspace": lora("attention", rank=1).model_copy(update={"seed": 2**60})}, "too large"),
    ],
)
def test_what_the_format_cannot_say(changes, says):
    with pytest.raises(SubloraError, match=says):
        encode(message(**changes))
