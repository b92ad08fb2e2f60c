"""Public codes: the fast implementation against one of a few lines, and that they are probabilities."""

import itertools

import numpy as np
import pytest

from sublora.models.references import DocumentCode, log_distributions, log_probabilities
from sublora.models.references.document import starting

CODE = DocumentCode((3.0, 2.0, 1.0), distinct=0.5)
V, EOT = 5, 4


def by_definition(document, code=CODE, vocab_size=V, eot=EOT):
    """q(. | past) at each place of a document: (tokens, V)."""
    text, rows = [eot, *document], []
    for i in range(len(document)):
        p = np.full(vocab_size, 1 / vocab_size)
        for order, cost in enumerate(code.pseudo_counts):
            if order > i + 1:
                break
            context = text[i + 1 - order : i + 1]
            alike = [j for j in range(i) if order <= j + 1 and text[j + 1 - order : j + 1] == context]
            n = np.bincount([document[j] for j in alike], minlength=vocab_size)
            cost += code.distinct * (n > 0).sum() * (order > 0)
            p = (n + cost * p) / (n.sum() + cost)
        rows.append(0.999 * p + 0.001 / vocab_size)
    return np.array(rows)


@pytest.fixture(scope="module")
def units():
    """(tokens, starts, lengths, the definition's rows of each)."""
    random = np.random.default_rng(0)
    documents = [random.integers(0, V, n).astype(np.uint16) for n in (1, 2, 7, 40, 90)]
    lengths = np.array([len(d) for d in documents])
    return np.concatenate(documents), np.cumsum(lengths) - lengths, lengths, [by_definition(d.tolist()) for d in documents]


def test_probabilities_are_the_definitions(units):
    tokens, starts, lengths, rows = units
    found = log_probabilities(tokens, starts, lengths, vocab_size=V, eot=EOT, code=CODE)
    right = [r[np.arange(len(r)), tokens[s : s + len(r)]] for s, r in zip(starts, rows, strict=True)]
    np.testing.assert_allclose(found, np.log(np.concatenate(right)), atol=1e-12)
    # in another order, and of parts of units
    part = log_probabilities(tokens, starts[[4, 2]], np.array([11, 7]), vocab_size=V, eot=EOT, code=CODE)
    np.testing.assert_array_equal(part, np.concatenate([found[starts[4] : starts[4] + 11], found[starts[2] : starts[2] + 7]]))


def test_distributions_are_the_definitions(units):
    tokens, starts, _, rows = units
    unit = np.array([3, 4, 4, 4, 2])
    firsts, sizes, skips = starts[unit] + [0, 0, 20, 50, 3], np.array([40, 30, 40, 40, 4]), np.array([5, 0, 10, 0, 1])
    found = log_distributions(tokens, starts[unit], firsts, sizes, skips, width=40, vocab_size=V, eot=EOT, code=CODE)
    for row, u in enumerate(unit):
        places = np.arange(skips[row], sizes[row])
        np.testing.assert_allclose(found[row, places], np.log(rows[u][firsts[row] - starts[u] + places]), atol=1e-6)
        assert not found[row, : skips[row]].any() and not found[row, sizes[row] :].any()


@pytest.mark.parametrize("code", [DocumentCode((1.0,)), DocumentCode((1.0, 0.5)), CODE])
def test_all_documents_together_have_at_most_probability_one(code):
    """Documents over {0, eot = 1} that end with their first eot. One twin counts the whole document first: it exceeds one."""
    total = cheat = 0.0
    for length in range(1, 13):
        document = np.array([0] * (length - 1) + [1], np.uint8)
        logs = log_probabilities(document, np.array([0]), np.array([length]), vocab_size=2, eot=1, code=code)
        total += np.exp(logs.sum())
        counts = np.bincount(document, minlength=2)
        cheat += np.prod((counts[document] + 0.5) / (length + 1))
    assert total <= 1.0 < cheat


def test_the_start_for_characters_is_a_distribution_over_bytes():
    shares = starting("characters", 257)
    assert shares.sum() == pytest.approx(1) and shares.min() > 0
    assert shares[ord("e")] > shares[ord("E")] > shares[200] == shares[256]
    random = np.random.default_rng(1)
    tokens = random.integers(0, 257, 60).astype(np.uint16)
    rule = {"vocab_size": 257, "eot": 256, "code": DocumentCode((9.0, 2.0), 1.0, "characters")}
    one, zero = np.array([60]), np.array([0])
    rows = log_distributions(tokens, zero, zero, one, zero, width=60, **rule)[0]
    np.testing.assert_allclose(np.exp(rows.astype(np.float64)).sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[np.arange(60), tokens], log_probabilities(tokens, zero, one, **rule), atol=1e-5)
    np.testing.assert_allclose(np.exp(rows[0]), 0.999 * shares + 0.001 / 257, rtol=1e-5)


def test_the_same_length_gives_exactly_one():
    """For every length the probabilities of all sequences sum to one."""
    sequences = np.array(list(itertools.product(range(2), repeat=7)), np.uint8)
    starts = np.arange(len(sequences)) * 7
    logs = log_probabilities(sequences.ravel(), starts, np.full(len(sequences), 7), vocab_size=2, eot=1, code=CODE)
    assert np.exp(logs.reshape(-1, 7).sum(1)).sum() == pytest.approx(1, abs=1e-12)
