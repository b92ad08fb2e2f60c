"""Thought experiments on scores: the same arithmetic as a certificate's."""

import numpy as np
import pytest

from sublora.certificate.what_if import ASKED, what_if
from sublora.errors import SubloraError
from sublora.inequalities.independent import complexity_nats, hoeffding
from sublora.inequalities.smoothing import document_means, loss_range, smoothed_bits
from sublora.reporting.figures import bounds_if
from sublora.scoring.scores import Scores

V = 257
FACTS = {"alpha": 0.1, "vocab_size": V, "delta": 0.05, "units": 400, "message_bits": 100}


def scores(units, seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 30, units)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    logs = -random.gamma(4.0, 0.7, offsets[-1]).astype(np.float32)
    nothing = np.zeros((offsets[-1], 0), np.float32)
    return Scores(logs, np.zeros(offsets[-1], np.int32), offsets, nothing, nothing, np.arange(units))


@pytest.fixture(scope="module")
def made():
    return scores(400, 0), scores(40, 1)


def test_hoeffding_is_its_closed_form(made):
    table = what_if(*made, **FACTS).set_index("inequality")
    low, width = loss_range(0.1, V)
    mean = document_means(smoothed_bits(made[0].log_probability, 0.1, V), made[0].offsets).mean()
    expected = low + width * hoeffding((mean - low) / width, complexity_nats(100 + 20, 0.05), 400)
    assert table.loc["hoeffding", "bound"] == pytest.approx(expected, abs=1e-12)
    assert tuple(table.index) == ASKED


@pytest.mark.parametrize(
    ("change", "sign"), [({"units": 4000}, -1), ({"delta": 1e-6}, 1), ({"message_bits": 300}, 1), ({"message_bits": 0}, -1)]
)
def test_every_bound_moves_as_the_theory_says(made, change, sign):
    usual, changed = what_if(*made, **FACTS), what_if(*made, **FACTS | change)
    if "units" in change:  # fewer than all documents are evaluated then, and betting pays for that
        usual, changed = usual[:2], changed[:2]
    assert (sign * (changed["gap"] - usual["gap"]) > 0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"units": 399}, "n"), ({"delta": 1.0}, "delta"), ({"message_bits": -1}, "message_bits"), ({"alpha": 0}, "alpha")],
)
def test_impossible_questions_are_named(made, change, named):
    with pytest.raises(SubloraError, match=f"^{named}: "):
        what_if(*made, **FACTS | change)


def test_the_figure_has_one_bar_an_inequality_and_its_number(made):
    ax = bounds_if(what_if(*made, **FACTS)).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(ASKED)
    assert len(ax.patches) == 3 and "bits per token" in ax.get_xlabel()
