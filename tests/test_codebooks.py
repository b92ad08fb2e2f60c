"""Codebooks in few bytes: what is packed comes back exactly, and nothing else is accepted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublora.compression.codebooks import pack_codebook, packed_size, shortened_codebook, unpack_codebook
from sublora.compression.quantizers import line, normal_float_codebook, normal_levels

FLOAT16 = st.floats(-65504, 65504, width=16)


@st.composite
def codebooks(draw):
    """Of any 16-bit floats, or of such as training gives: around zero, of like distances."""
    if draw(st.booleans()):
        return np.sort(np.array(draw(st.lists(FLOAT16, min_size=1, max_size=40, unique=True)), np.float16))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = np.linspace(-1, 1, draw(st.integers(2, 20))) + draw(st.floats(-1, 1)) + random.normal(size=1) * 0.01
    return np.unique((levels * 10 ** draw(st.floats(-3, 3))).astype(np.float16))


@settings(max_examples=300, deadline=None)
@given(codebooks())
def test_round_trip(codebook):
    format, data = pack_codebook(codebook)
    assert len(data) == packed_size(format, len(codebook)) <= packed_size(0, len(codebook))
    unpacked = unpack_codebook(format, data, len(codebook))
    assert unpacked.dtype == np.float16
    np.testing.assert_array_equal(unpacked, codebook)


@settings(max_examples=300, deadline=None)
@given(codebooks())
def test_a_shortened_codebook_is_near_and_takes_no_more_bytes(codebook):
    shortened = shortened_codebook(codebook)
    assert len(shortened) == len(codebook)
    assert len(pack_codebook(shortened)[1]) <= len(pack_codebook(codebook)[1])
    values = codebook.astype(np.float64)
    assert abs(shortened - values).max() <= max(abs(values).max() / 126, 2.0**-24)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 4), st.integers(1, 255), st.data())
def test_any_bytes_are_a_codebook_or_a_value_error(format, levels, data):
    size = packed_size(format, levels)
    content = data.draw(st.binary(min_size=size, max_size=size))
    try:
        codebook = unpack_codebook(format, content, levels)
    except ValueError:
        return
    assert codebook.shape == (levels,) and np.isfinite(codebook).all() and (codebook[1:] > codebook[:-1]).all()
    np.testing.assert_array_equal(unpack_codebook(*pack_codebook(codebook), levels), codebook)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2), st.integers(3, 255), FLOAT16, st.floats(2**-10, 100, width=16))
def test_two_numbers_are_found_again(format, levels, offset, slope):
    """Whatever line made the codebook, four bytes are enough to say it."""
    data = np.array([offset, slope], ">f2").tobytes()
    try:
        codebook = unpack_codebook(format, data, levels)
    except ValueError:
        return
    assert len(pack_codebook(codebook)[1]) <= 4


@pytest.mark.parametrize(
    ("codebook", "format", "size"),
    [
        ([-2, -0.5, 0.5, 2], 4, 4),
        ([-2, -0.5, 0, 0.5, 2], 4, 4),
        ([0], 4, 0),
        ([0, 0.25, 0.5, 0.75, 1, 1.25], 1, 4),
        ([-3, 0, 1, 5, 7, 100], 3, 8),
        ([-0.1, 0.35, 0.77, 1.234, 1.7, 3.21], 0, 12),
        (normal_float_codebook(np.random.default_rng(0).normal(0.1, 2, size=99), 12), 2, 4),
        (line(np.float16(-0.1158), np.float16(6.562), normal_levels(20)), 2, 4),  # halfway between two offsets, of which one fits
    ],
)
def test_the_shortest_format_is_chosen(codebook, format, size):
    found, data = pack_codebook(np.array(codebook, np.float16))
    assert (found, len(data)) == (format, size)


def test_formats_by_hand():
    half, three = b"\x38\x00", b"\x42\x00"  # 0.5 and 3 as float16
    assert unpack_codebook(0, half + three, 2).tolist() == [0.5, 3]
    assert unpack_codebook(1, half + three, 3).tolist() == [0.5, 3.5, 6.5]
    assert unpack_codebook(2, half + three, 3).tolist() == [-2.40234375, 0.5, 3.40234375]  # t = ±991/1024
    assert unpack_codebook(3, half + bytes([0xFE, 0, 5]), 3).tolist() == [-1, 0, 2.5]
    assert unpack_codebook(4, half + three, 5).tolist() == [-3, -0.5, 0, 0.5, 3]
    assert unpack_codebook(4, half + three, 4).tolist() == [-3, -0.5, 0.5, 3]


def test_a_codebook_is_shortened_to_a_scale_and_bytes():
    values = np.sort(np.random.default_rng(0).normal(size=11)).astype(np.float16)
    assert pack_codebook(values)[0] == 0 and pack_codebook(shortened_codebook(values))[0] == 3


@pytest.mark.parametrize("codebook", [[-1000, 0, 1, 2], [1, 1], [0, np.inf], []])
def test_what_cannot_be_shortened_stays_as_it_is(codebook):
    """Levels that are less than a 127th of the largest apart; what is no codebook."""
    codebook = np.array(codebook, np.float16)
    np.testing.assert_array_equal(shortened_codebook(codebook), codebook)


@pytest.mark.parametrize("codebook", [[], [1, 1], [2, 1], [0, np.inf], [np.nan]])
def test_what_is_no_codebook(codebook):
    with pytest.raises(ValueError, match="strictly ascending"):
        pack_codebook(np.array(codebook, np.float16))


def test_sizes_and_formats_are_checked():
    with pytest.raises(ValueError, match="format 6 is unknown"):
        packed_size(6, 3)
    with pytest.raises(ValueError, match="has 6 bytes"):
        unpack_codebook(0, bytes(5), 3)
