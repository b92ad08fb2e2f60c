"""The message: what it holds comes back exactly; nothing else is accepted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sublora.compression import shortest
from sublora.compression.codebooks import FORMATS, pack_codebook
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, PARAMETRIZATIONS, Gpt, Subspace, as_experiment
from sublora.experiment.kinds import KINDS as EVERY_KIND
from sublora.message import CODECS, Coded, MessageError, early, published_bits, with_alpha
from sublora.message import decode as decode_any
from sublora.message.frame import Reader, prefixed, varint
from sublora.message.language import FORMAT, Message, decode, encode, rebuild
from sublora.message.parts import fields
from sublora.models import PROJECTORS, build

TINY = Gpt(layers=1, heads=2, width=16, block=16)
LIMIT = 10**6


@st.composite
def messages(draw):
    parametrization = draw(st.sampled_from(PARAMETRIZATIONS))
    levels = draw(st.integers(2, 40))
    symbols = draw(st.lists(st.integers(0, levels - 1), min_size=2, max_size=300).filter(lambda drawn: len(set(drawn)) > 1))
    values = {"parametrization": parametrization}
    structured, always = parametrization in ("kronecker", "monarch"), ("sublora", "subspace")
    subspace = parametrization in always or (parametrization not in ("lora", "full") and draw(st.booleans()))
    if subspace or parametrization not in ("full", "biases", "tinylora"):  # nothing is random there
        values["seed"] = draw(st.integers(0, 2**32 - 1))
    values["dimension"] = len(symbols) if subspace else None
    if subspace:
        values["projector"] = draw(st.sampled_from(PROJECTORS))
    if structured:
        values["blocks"] = draw(st.integers(1, 1000))
    if parametrization in ("sublora", "lora", "lora_b", "tinylora", "lora_b+biases"):
        values["rank"] = draw(st.integers(1, 1000))
    if parametrization in ("sublora", "lora", "lora_b", "lora_b+biases"):
        values["lora_alpha"], values["lora_dropout"] = float(draw(st.integers(1, 1000))), 0.0
    if "biases" in parametrization:
        ids = draw(st.sets(st.integers(0, 10**6), max_size=5))
        values["tokens"] = tuple(sorted(ids)) or "all"
    if parametrization not in ("subspace", "full", "biases"):
        names = ("q", "k", "v", "proj", "up", "down", "head")
        chosen = draw(st.sets(st.sampled_from(names)))
        values["targets"] = tuple(name for name in names if name in chosen)
    codebook = draw(st.lists(st.floats(-1e4, 1e4, width=16), min_size=levels, max_size=levels, unique=True))
    alpha = draw(st.sampled_from(ALPHA_GRID))
    return Message(Subspace(**values), alpha, Coded(np.sort(np.array(codebook, np.float16)), np.array(symbols)))


@settings(max_examples=80, deadline=None)
@given(messages(), st.sampled_from([encode, early.encode]))
def test_round_trip(message, encode):
    """In the format of new messages, and in that of kept certificates, which has no later parametrizations."""
    if encode is early.encode and message.subspace.parametrization not in early.KNOWN:
        with pytest.raises(SubloraError, match="came after format 0x52"):
            encode(message)
        return
    decoded = decode(encode(message), LIMIT)
    assert decoded.subspace == message.subspace
    assert decoded.alpha == message.alpha
    codebook, symbols = message.coded
    np.testing.assert_array_equal(decoded.coded.codebook, codebook[np.unique(symbols)])
    np.testing.assert_array_equal(decoded.coded.coordinates, codebook.astype(np.float32)[symbols])
    assert encode(decoded) == encode(message)


@settings(max_examples=60, deadline=None)
@given(messages(), st.data())
def test_a_changed_byte_makes_another_message_or_none(message, data):
    original = encode(message)
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(changed), LIMIT)
    except MessageError:
        return
    assert position >= len(varint(len(original))), "a wrong length is always noticed"
    assert encode(other) == bytes(changed)
    before, after = decode(original, LIMIT), other
    same = (before.subspace, before.alpha) == (after.subspace, after.alpha)
    assert not (same and np.array_equal(before.coded.coordinates, after.coded.coordinates)), "of two messages each is another model"


@settings(max_examples=60, deadline=None)
@given(messages(), st.data())
def test_no_message_is_the_beginning_of_another(message, data):
    original = encode(message)
    with pytest.raises(MessageError):
        decode(original[: data.draw(st.integers(0, len(original) - 1))], LIMIT)
    with pytest.raises(MessageError):
        decode(original + data.draw(st.binary(min_size=1, max_size=8)), LIMIT)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_hostile_bytes_with_a_right_length(body):
    """Behind the length, every field is checked on its own."""
    body = bytes([FORMAT]) + body
    try:
        message = decode(varint(len(body) + 1) + body, 2000)
    except MessageError:
        return
    assert 1 <= len(message.coded.symbols) <= 2000
    assert encode(message) == prefixed(body)


@given(st.integers(0, 2**35 - 1))
def test_varint_is_canonical(number):
    coded = varint(number)
    reader = Reader(prefixed(coded))
    assert reader.varint() == number and reader.rest() == b""
    padded = coded[:-1] + bytes([coded[-1] | 128, 0])
    with pytest.raises(MessageError):
        Reader(prefixed(padded)).varint()


BITS = Coded(np.array([0, 1], np.float16), np.arange(30) % 2)


def test_dimension_is_checked_before_decoding():
    data = encode(Message(Subspace(dimension=30), 0.1, BITS))
    with pytest.raises(MessageError, match="30 coordinates; the model has at most 29"):
        decode(data, 29)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"alpha": 0.3}, "alpha 0.3 is not in the grid"),
        ({"coded": Coded(np.array([1, 1], np.float16), BITS.symbols)}, "use fewer"),
        ({"coded": Coded(np.array([1, np.inf], np.float16), BITS.symbols)}, "use fewer"),
        ({"subspace": Subspace(dimension=30, targets=("q", "x"))}, "'x' is none of"),
        ({"subspace": Subspace.model_construct(dimension=30, seed=2**35)}, "too large"),
    ],
    ids=str,
)
def test_what_the_format_cannot_say(change, match):
    with pytest.raises(SubloraError, match=match):
        encode(Message(**{"subspace": Subspace(dimension=30), "alpha": 0.1, "coded": BITS, **change}))


@pytest.mark.parametrize(("level", "size"), [(0.0, 0), (-0.0, 0), (0.5, 2)])
def test_one_level_takes_no_symbols_and_unused_levels_none(level, size):
    """The message of zero coordinates, for one: what the base is worth without training."""
    one = Coded(np.array([level], np.float16), np.zeros(30, int))
    data = encode(Message(Subspace(dimension=30), 0.1, one))
    two = Coded(np.array([level, 9], np.float16), np.zeros(30, int))
    assert encode(Message(Subspace(dimension=30), 0.1, two)) == data
    assert len(data) == 10 + size and (decode(data, LIMIT).coded.coordinates == level).all()


WEIGHTS = {"lora": {"rank": 2}, "full": {}, "kronecker": {"blocks": 2}, "monarch": {"blocks": 2}}


@pytest.mark.parametrize(
    "settings",
    [
        *({"dimension": 40, "projector": name, "rank": 2} for name in PROJECTORS if "film" not in name),
        *({"parametrization": "subspace", "dimension": 40, "projector": name} for name in (*PROJECTORS[9:], "kron_qr3")),
        *({"parametrization": name, **more} for name, more in WEIGHTS.items()),
        *({"parametrization": name, "blocks": 2, "dimension": 40, "projector": "kron_qr3"} for name in ("kronecker", "monarch")),
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_rebuilt_model_is_the_coded_one(settings):
    if "rank" in settings:
        settings = {**settings, "lora_dropout": 0.0}
    if "blocks" in settings:
        settings = {**settings, "targets": ("q", "v", "proj", "down")}
    subspace = Subspace(**settings)
    model = build(TINY, subspace, 20).eval()
    symbols = np.random.default_rng(1).integers(0, 3, model.coordinates.numel())
    coded = Coded(np.array([-0.5, 0.25, 1.0], np.float16), symbols)
    rebuilt, message = rebuild(encode(Message(subspace, 0.05, coded)), TINY, 20)
    with torch.no_grad():
        model.coordinates.copy_(torch.from_numpy(coded.coordinates))
        tokens = torch.arange(32).view(2, 16) % 20
        torch.testing.assert_close(rebuilt(tokens), model(tokens), rtol=0, atol=0)
    assert message.alpha == 0.05


def test_a_narrow_model_has_a_message_too():
    """What a parametrization does not use, such as LoRA's default rank, is not held against the model."""
    narrow, full = Gpt(layers=1, heads=1, width=2, block=4), Subspace(parametrization="full")
    size = build(narrow, full, 5).coordinates.numel()
    rebuilt, _ = rebuild(encode(Message(full, 0.1, Coded(BITS.codebook, np.arange(size) % 2))), narrow, 5)
    assert rebuilt.coordinates.numel() == size


@pytest.mark.parametrize(
    ("subspace", "size", "says"),
    [
        ({"dimension": 30, "targets": ()}, 30, "subspace.targets: empty"),
        ({"parametrization": "lora", "targets": ()}, 30, "subspace.targets: empty"),
        ({"parametrization": "monarch", "targets": ()}, 30, "subspace.targets: empty"),
        ({"parametrization": "full"}, 30, "the message has 30 coordinates, the model "),
        ({"dimension": 2000, "rank": 1, "targets": ("q",)}, 2000, "does not fit the base model"),
        ({"dimension": 30, "rank": 17}, 30, "subspace.rank 17 is beyond any use: the layers have rank 16 at most"),
        ({"parametrization": "monarch", "blocks": 17}, 30, "beyond any use at width 16"),
    ],
    ids=str,
)
def test_a_message_that_fits_no_model_of_this_architecture_is_rejected(subspace, size, says):
    data = encode(Message(Subspace(**subspace), 0.1, Coded(BITS.codebook, np.arange(size) % 2)))
    with pytest.raises(MessageError, match=says):
        rebuild(data, TINY, 20)


def test_published_count_by_hand():
    """d = 1,000 equally frequent symbols of 4 levels: C = 2,001 + 64 + 40 bits."""
    coded = Coded(np.arange(4).astype(np.float16), np.arange(1000) % 4)
    assert published_bits(coded) == pytest.approx(2105 + 2 * np.log2(2105) + 7)


def test_the_parts_of_a_message_add_up():
    message = Message(Subspace(dimension=1000), 0.1, Coded(np.array([-1, 0, 2], np.float16), np.arange(1000) % 3))
    data = encode(message)
    table = fields(data, message)
    header, codebook, symbols = table["bytes"]
    assert table["part"].tolist() == ["header", "codebook", "symbols"] and header + codebook + symbols == len(data)
    assert table["from byte"].tolist() == [0, header, header + codebook] and table["percent"].sum() == pytest.approx(100)
    assert data[-symbols:] == shortest(message.coded.symbols, message.coded.codebook)[1]
    assert data[-symbols - codebook : -symbols] == pack_codebook(message.coded.codebook, len(FORMATS))[1]


# --- one decoder for all formats


GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 20, "n_positions": 16}
KINDS = {
    "pretrain": {"model": TINY.model_dump()},
    "finetune": {"model": {"source": "none", "block": 8, "architecture": GPT2}},
    "round": {"model": {"source": "none", "block": 8, "architecture": GPT2}},
    "ngram": {},
    "classify": {},
}


def experiment(kind):
    return as_experiment({"kind": kind, "name": "mine", **KINDS[kind]})


def test_every_kind_has_one_format_of_its_own():
    kinds = [kind for format, codec in CODECS.items() if format != early.FORMAT for kind in codec.kinds]
    assert len(set(kinds)) == len(kinds) and set(kinds) == set(EVERY_KIND.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", [*CODECS, 0x00, 0xFF], ids=hex)
def test_a_format_that_is_not_of_the_kind_is_refused_in_one_line(kind, format):
    known = experiment(kind)
    says = "does not belong to an experiment of kind" if format in CODECS else "unknown message format"
    if format in CODECS and isinstance(known, CODECS[format].kinds):
        says = "message"  # nothing follows the format, so it is cut
    for call in (decode_any, lambda data, *rest: with_alpha(data, 0.1, *rest)):
        with pytest.raises(MessageError, match=says) as caught:
            call(prefixed(bytes([format])), known, 20)
        assert "\n" not in str(caught.value)


def test_decoding_gives_all_that_losses_depend_on():
    known, subspace = experiment("pretrain"), Subspace(dimension=30, rank=2, seed=9)
    data = encode(Message(subspace, 0.05, BITS))
    decoded = decode_any(data, known, 20)
    assert (decoded.alpha, decoded.sha256s) == (0.05, None) and not decoded.model.training
    assert decoded.published_bits == published_bits(BITS)
    tokens = torch.arange(16)[None] % 20
    torch.testing.assert_close(decoded.model(tokens), rebuild(data, TINY, 20)[0](tokens), rtol=0, atol=1e-6)


def test_another_smoothing_weight_is_the_same_model_of_the_same_length():
    known, data = experiment("pretrain"), encode(Message(Subspace(dimension=30), 0.05, BITS))
    for alpha in ALPHA_GRID:
        other = with_alpha(data, alpha, known, 20)
        assert len(other) == len(data) and decode(other, LIMIT).alpha == alpha
        assert with_alpha(other, 0.05, known, 20) == data
    with pytest.raises(SubloraError, match="alpha 0.3 is not in the grid"):
        with_alpha(data, 0.3, known, 20)
