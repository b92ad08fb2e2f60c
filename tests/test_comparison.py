"""Rate against distortion, on coordinates as training leaves them."""

import numpy as np
import pandas as pd
import pytest

from sublora.compression import entropy_bits
from sublora.compression.comparison import COLUMNS, huffman_bits, rate_distortion
from sublora.reporting.compression import excess_figure, kmeans_against_uniform, promise_figure, rate_figure


@pytest.fixture(scope="module")
def table():
    return rate_distortion(np.random.default_rng(0).laplace(size=1500), levels=(2, 4, 8))


def test_every_combination_is_there_once_in_real_bits(table):
    assert tuple(table.columns) == COLUMNS
    assert table.groupby(["quantizer", "levels"])["coder"].nunique().eq(5).all()
    coded = table[~table["coder"].isin(["huffman", "static"])]
    assert (coded["payload_bits"] <= 1.005 * coded["entropy_bits"] + 90).all()
    assert (table["payload_bits"] % 8 == 0).all() and (table["bits_per_coordinate"] > 0).all()
    huffman = table[(table["coder"] == "huffman") & (table["levels"] > 2)]
    adaptive = table[(table["coder"] == "adaptive") & (table["levels"] > 2)]
    assert huffman["payload_bits"].sum() > adaptive["payload_bits"].sum()


def test_huffman_by_hand_and_within_a_bit_a_symbol():
    """Counts 4, 2, 1, 1 have words of 1, 2, 3 and 3 bits: 14 bits behind a table of 20."""
    assert huffman_bits(np.array([0, 0, 0, 0, 1, 1, 2, 3]), 4) == 40
    assert huffman_bits(np.zeros(100, int), 2) == 16  # one word of no bits
    symbols = np.repeat(np.arange(20), [2**k for k in range(20)][::-1])[::7]
    assert entropy_bits(symbols) <= huffman_bits(symbols, 20) <= entropy_bits(symbols) + len(symbols) + 5 * 20 + 8


def test_kmeans_has_the_least_distortion_and_ecsq_the_least_cost(table):
    adaptive = table[table["coder"] == "adaptive"]
    best = adaptive.loc[adaptive.groupby("levels")["distortion"].idxmin()]
    assert set(best[best["levels"].isin([2, 4, 8])]["quantizer"]) == {"kmeans"}
    cost = adaptive["distortion"] + 0.05 * adaptive["entropy_bits"] / 1500
    kmeans, ecsq = (cost[adaptive["quantizer"] == name].min() for name in ("kmeans", "ecsq"))
    assert ecsq < kmeans


def test_figures_name_their_axes(table):
    ax = rate_figure(table).axes[0]
    assert "bits per coordinate" in ax.get_xlabel() and "variances" in ax.get_ylabel()
    ax = excess_figure(table).axes[0]
    assert "entropy" in ax.get_xlabel() and "bits per coordinate" in ax.get_ylabel() and len(ax.lines) == 5
    ways = table.assign(message_bits=table["payload_bits"] + 100, bound=8.0 - table["entropy_bits"] / 3000)
    figure = promise_figure(ways, uniform=8.005)
    assert "message" in figure.axes[0].get_xlabel() and "bits per" in figure.axes[0].get_ylabel()


def test_where_kmeans_is_below_uniform_is_read_from_the_table():
    rows = [
        {"quantizer": name, "levels": levels, "coder": "adaptive", "payload_bits": 100 * rate, "bits_per_coordinate": rate,
         "distortion": error}
        for name, levels, rate, error in (("uniform", 2, 1.0, 0.4), ("uniform", 4, 3.0, 0.1),
                                          ("kmeans", 3, 1.5, 0.2), ("kmeans", 4, 2.0, 0.21), ("kmeans", 9, 4.0, 0.01))
    ]  # fmt: skip
    (line,) = kmeans_against_uniform(pd.DataFrame(rows))  # uniform has 0.2 at two bits, in logarithms; 9 levels lie beyond it
    assert line == "At equal rate, the error of kmeans is smaller at 3 levels and larger at 4 levels than that of uniform."
    assert kmeans_against_uniform(pd.DataFrame(rows[2:])) == []
