"""Coordinates on a grid: coded integers, the steps' one form, training towards few bits, and what a bit costs."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from tiny import settings, write_texts

from sublora.compression import OnGrid, entropy_bits, price
from sublora.compression.grid import LARGEST, STEPS, canonical, decode_grid, encode_grid
from sublora.compression.quantizers import grid_steps
from sublora.errors import SubloraError
from sublora.experiment import Gpt, Subspace, as_experiment
from sublora.message import Gridded, MessageError, published_bits
from sublora.message.frame import prefixed
from sublora.message.language import FORMAT, Message, decode, encode, read, rebuild, with_alpha
from sublora.models import build
from sublora.problems import TextProblem

TINY = Gpt(layers=1, heads=2, width=16, block=16)
FULL = Subspace(parametrization="full")
LIMIT = 10**6


def normal(*shape, scale=1.0, seed=0):
    return np.rint(scale * np.random.default_rng(seed).normal(size=shape)).astype(np.int64)


def size(integers, shapes=None):
    shapes = shapes or [integers.shape]
    return 8 * len(encode_grid(np.full(len(shapes), 100), integers.ravel(), shapes))


@tried(max_examples=60, deadline=None)
@given(st.data())
def test_integers_come_back(data):
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=4))
    count, largest = sum(rows * columns for rows, columns in shapes), data.draw(st.sampled_from([1, 3, 40, LARGEST]))
    integers = np.array(data.draw(st.lists(st.integers(-largest, largest), min_size=count, max_size=count)))
    drawn = data.draw(st.lists(st.integers(0, 255), min_size=len(shapes), max_size=len(shapes)))
    steps = [step if part.any() else 0 for step, part in zip(drawn, parts(integers, shapes), strict=True)]
    payload = encode_grid(np.array(steps), integers, shapes)
    again, decoded = decode_grid(payload, shapes)
    np.testing.assert_array_equal(decoded, integers)
    assert again.tolist() == steps and encode_grid(again, decoded, shapes) == payload


def parts(integers, shapes):
    return np.split(integers, np.cumsum([rows * columns for rows, columns in shapes])[:-1])


@tried(max_examples=100, deadline=None)
@given(st.integers(0, 255), st.lists(st.integers(-300, 300), min_size=1, max_size=5), st.integers(1, 40))
def test_multiples_of_a_step_have_one_form(step, integers, factor):
    """Twin: another step with the same products, which without `canonical` would be another message of the same model."""
    integers = factor * np.array(integers)
    found, numbers = canonical(step, integers)
    np.testing.assert_array_equal(STEPS[found] * numbers, STEPS[step] * integers)
    assert canonical(found, numbers)[0] == found
    for other in range(0, 256, 7):
        quotients = STEPS[step] * integers / STEPS[other]
        if integers.any() and (quotients == np.rint(quotients)).all() and abs(quotients).max() < 2**40:
            assert canonical(other, np.rint(quotients).astype(np.int64))[0] == found


def test_rows_of_zeros_cost_almost_nothing():
    """Half of the rows are pruned: the rest costs what it costs alone, and the pattern a bit a row. Twin: as one row."""
    dense = normal(256, 64)
    pruned = np.zeros((512, 64), np.int64)
    pruned[np.sort(np.random.default_rng(1).permutation(512)[:256])] = dense
    assert size(dense) < size(pruned) < size(dense) + 512 * 1.02 + 64
    assert size(pruned, [(1, pruned.size)]) > size(dense) + 5000
    heads = np.zeros((512, 64), np.int64)
    heads[128:384] = dense
    assert size(heads) < size(dense) + 64, "whole heads: no pattern to pay for"
    assert size(np.zeros((512, 64), np.int64)) <= 8


def test_columns_of_zeros_are_found_by_their_context():
    columns = normal(512, 64)
    columns[:, ::2] = 0
    assert size(columns) < 1.02 * size(columns[:, 1::2]) + 300 < 0.75 * entropy_bits((columns - columns.min()).ravel())


def test_matrices_of_unequal_rows_take_fewer_bits_than_their_entropy():
    random = np.random.default_rng(0)
    scales = np.exp(random.normal(size=(512, 1)) + 0.5 * random.normal(size=(1, 64)))
    integers = np.rint(random.normal(size=(512, 64)) * scales).astype(np.int64)
    assert size(integers) < 0.87 * entropy_bits((integers - integers.min()).ravel())


@pytest.mark.parametrize("count", [961, 2500])
def test_symbols_without_structure_take_their_entropy_and_few_bits(count):
    integers = normal(1, count)
    assert size(integers) < entropy_bits((integers - integers.min()).ravel()) + 48


def message_of(subspace, seed=3):
    model = build(TINY, subspace, 20)
    random = np.random.default_rng(seed)
    integers = normal(model.coordinates.numel(), scale=1.5, seed=seed)
    return Message(subspace, 0.1, Gridded(random.integers(8, 200, len(model.groups)), integers, model.groups))


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ({"parametrization": "full"}, 11),
        ({"parametrization": "lora", "rank": 2, "lora_dropout": 0.0}, 6),
        ({"parametrization": "monarch", "blocks": 2, "targets": ("q",)}, 2),
        ({"parametrization": "subspace", "dimension": 200, "projector": "film+kron_qr"}, 2),
        ({"dimension": 40, "rank": 2, "seed": 9, "lora_dropout": 0.0}, 1),
    ],
    ids=str,
)
def test_each_matrix_has_its_step_and_the_rebuilt_model_is_the_coded_one(values, groups):
    sent = message_of(Subspace(**values))
    data = encode(sent)
    model, message = rebuild(data, TINY, 20)
    assert len(sent.coded.steps) == len(model.groups) == groups
    np.testing.assert_array_equal(model.coordinates.detach().numpy(), sent.coded.coordinates)
    assert (message.subspace, message.alpha, encode(message)) == (sent.subspace, 0.1, data)
    assert published_bits(message.coded) > 0
    other = with_alpha(data, 0.5, LIMIT, sent.layers)
    assert len(other) == len(data) and rebuild(other, TINY, 20)[1].alpha == 0.5
    assert with_alpha(other, 0.1, LIMIT, sent.layers) == data


def test_a_message_of_steps_is_the_same_on_every_machine():
    """Frozen; all but the integers takes 4 bytes, 3 of fields, and 10 bits of the stream."""
    subspace = Subspace(parametrization="subspace", dimension=2500)
    data = encode(Message(subspace, 0.1, Gridded(np.array([40]), np.arange(2500) % 7 % 4 - 1, [(1, 2500)])))
    assert (len(data), data[:6].hex(), hashlib.sha256(data).hexdigest()[:16]) == (364, "ec0253150187", "6a16209e613e1842")


@tried(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_hostile_bytes_say_one_thing_or_nothing(body):
    try:
        message = decode(prefixed(bytes([FORMAT]) + body), 2000)
    except MessageError:
        return
    assert encode(message) == prefixed(bytes([FORMAT]) + body) and len(message.coded.coordinates) <= 2000


def test_what_is_padded_or_of_another_model_is_refused():
    sent = message_of(FULL)
    data = encode(sent)
    for behind in (b"\0", b"\1"):
        with pytest.raises(MessageError, match="another form"):
            rebuild(prefixed(data[2:] + behind), TINY, 20)
    wide = Gpt(layers=1, heads=2, width=32, block=16)
    with pytest.raises(MessageError, match=r"the message has 3,\d+ coordinates, the model \d"):
        rebuild(data, wide, 20)
    with pytest.raises(MessageError, match="coordinates; the model has at most 99"):
        read(data, 99)
    with pytest.raises(SubloraError, match="an integer is beyond"):
        encode(Message(FULL, 0.1, sent.coded._replace(integers=sent.coded.integers * 2 + (1 << 16))))


# training


@pytest.fixture
def on_grid():
    model = build(TINY, FULL, 9).eval()
    with torch.no_grad():
        model.coordinates.copy_(0.1 * torch.randn(model.coordinates.numel(), generator=torch.Generator().manual_seed(0)))
    sizes = [rows * columns for rows, columns in model.groups]
    return OnGrid(model, grid_steps(model.coordinates.detach().numpy(), sizes, 0.02, 0.01), 1e-3)


def test_the_model_in_training_is_the_one_that_is_coded(on_grid):
    coded = Gridded(*on_grid.coded())
    tokens = torch.arange(16).view(2, 8) % 9
    with torch.no_grad():
        torch.testing.assert_close(on_grid(tokens), on_grid.subspace(tokens, coordinates=torch.from_numpy(coded.coordinates)))
        assert not torch.allclose(on_grid.subspace(tokens), on_grid(tokens))


def test_one_step_for_all_matrices_is_learnt_and_coded_for_each(on_grid):
    """Twin: a step for each matrix, which they do not share."""
    values = on_grid.subspace.coordinates.detach().numpy()
    model = OnGrid(on_grid.subspace, grid_steps(values, [len(values)], 0.02, 0.01), 1e-3)
    steps, integers, shapes = model.coded()
    assert len(steps) == len(shapes) > 1 and len(set(steps.tolist())) == 1 < len(set(on_grid.coded()[0].tolist()))
    tokens = torch.arange(16).view(2, 8) % 9
    coded = torch.from_numpy(Gridded(steps, integers, shapes).coordinates)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), model.subspace(tokens, coordinates=coded))
    assert float(model.bits().detach()) == pytest.approx(8 * len(encode_grid(steps, integers, shapes)), rel=0.1)
    model.bits().backward()
    assert model.steps.shape == (1,) and model.steps.grad < 0


def test_a_params_file_asks_for_one_step(tmp_path):
    texts = write_texts(tmp_path / "texts", 300)

    def compressed(**compression):
        values = settings(texts, subspace={"parametrization": "full"}, compression={"quantizer": "grid", **compression})
        problem = TextProblem.open(as_experiment(values), tmp_path / "corpora")
        model = problem.build().eval()
        with torch.no_grad():
            noise = torch.randn(model.coordinates.numel(), generator=torch.Generator().manual_seed(0))
            model.coordinates.copy_(noise * torch.linspace(0, 1, len(noise)) ** 4)
        message, _ = problem.compress(tmp_path, model)
        return rebuild(message, problem.experiment.model, problem.store.vocab_size)[1].coded

    usual, one = compressed(), compressed(scale="model")
    least = STEPS[one.steps[one.steps > 0].min()]
    assert np.unique(usual.steps[usual.steps > 0]).size > 2, "twin: each matrix has its own"
    assert (np.rint(one.coordinates / least) * least == one.coordinates).all(), "all are multiples of one step"


def test_estimated_bits_are_near_the_messages_and_fall_along_their_gradient(on_grid):
    def coded():
        found = Gridded(*on_grid.coded())
        return 8 * len(encode_grid(found.steps, found.integers, found.shapes))

    bits, before = on_grid.bits(), coded()
    assert float(bits.detach()) == pytest.approx(before, rel=0.1)
    bits.backward()
    assert (on_grid.steps.grad < 0).all(), "larger steps, fewer bits"
    with torch.no_grad():
        on_grid.subspace.coordinates -= 0.01 * on_grid.subspace.coordinates.grad.sign()
    assert coded() < before


def test_steps_are_coarser_where_a_bit_is_worth_more():
    values = np.random.default_rng(0).normal(size=4000)
    fine, coarse = (grid_steps(values, [2000, 2000], penalty, 1.0) for penalty in (0.01, 0.1))
    assert (fine < coarse).all()
    assert grid_steps(np.zeros(5), [5], 0.1, 0.5).tolist() == [0.5]


# the price


def test_the_price_is_that_of_the_bound_as_computed():
    """Against freedman's bound itself, for a model whose guesses are its mean; e is 1/2 where the root rules, 1 where K/m does."""
    from sublora.inequalities.martingale import freedman

    losses, width = np.tile([2.0, 6.0], 5000), 6.0
    for bits in (2000.0, 20_000.0):
        nats = bits * np.log(2)
        facts = {"low": 0.0, "width": 10.0, "guess_width": width, "grid": price.BETS}
        bound = freedman(losses, np.full(10_000, 4.0), nats - np.log(len(price.BETS)), **facts)
        assert bound - 4.0 == pytest.approx(price.gap(bits, 2.0, 10_000, width), rel=1e-6)
        e = price.price(bits, 2.0, 10_000, width) * bits / price.gap(bits, 2.0, 10_000, width)
        assert 0.5 < e < 1.0
    assert price.price(10.0, 2.0, 10**7, width) * 10 / price.gap(10.0, 2.0, 10**7, width) == pytest.approx(0.5, abs=0.01)


def test_a_validation_prices_the_bits_anew_and_counts_the_gap():
    pricing = price.Pricing(1e5, 10.0, lambda mean: 11.0 - mean)
    penalty = price.BitsPenalty(lambda: torch.tensor(5000.0), 0.0, pricing)
    assert float(penalty()) == 0
    assert penalty.revalue(4.0, 1.5, 3.0) == price.gap(5000.0, 1.5, 1e5, 7.0, 10.0)
    assert penalty.price == price.price(5000.0, 1.5, 1e5, 7.0, 10.0) and float(penalty()) == pytest.approx(5000 * penalty.price)
    fixed = price.BitsPenalty(lambda: torch.tensor(5000.0), 1e-5)
    assert fixed.revalue(4.0, 1.5, 3.0) == pytest.approx(0.05) and fixed.price == 1e-5
