"""Languages drawn from a seed: what their documents are, and that their entropy is what is said."""

import math

import numpy as np
import pytest

from sublora.data import documents, get_tokenizer, prepare
from sublora.data.exact import document_tokens, entropy, floor, inverse, matrix
from sublora.errors import SubloraError
from sublora.experiment import Corpus, Exact, as_experiment


def bits_of(corpus):
    return np.array([[int(c) for c in text] for text in documents(corpus)], np.uint8)


def number(bits):
    return int("".join(map(str, bits[::-1])), 2)


@pytest.mark.parametrize("language", ["linear", "updates"])
@pytest.mark.parametrize("nonzeros", [0, 10, 19, 60])
def test_y_is_a_times_x(language, nonzeros):
    exact = Exact(language=language, nonzeros=nonzeros, documents=5000)
    A, rows = matrix(exact), bits_of(Corpus(source="exact", exact=exact))
    assert rows.shape == (5000, 40) == (5000, document_tokens(exact))
    assert (rows[:, 20:] == rows[:, :20] @ A.T % 2).all()
    assert abs(rows[:, :20].mean(0) - 0.5).max() < 0.05 and (A @ inverse(A) % 2 == np.eye(20)).all()


def test_a_has_few_ones_and_its_inverse_many():
    assert matrix(Exact(nonzeros=0)).sum() == inverse(matrix(Exact(nonzeros=0))).sum() == 20
    sparse = matrix(Exact(nonzeros=19))
    assert sparse.sum() == 39 and sparse.sum(1).max() == 2 and inverse(sparse).sum() == 210
    assert (matrix(Exact(seed=1, nonzeros=19)) != sparse).any()


def test_an_update_changes_so_many_entries_and_far_more_of_the_inverse():
    before, after = (matrix(Exact(language="updates", nonzeros=k)) for k in (0, 6))
    assert (before != after).sum() == 6 and (inverse(before) != inverse(after)).sum() > 60


def test_products_of_primes():
    rows = bits_of(Corpus(source="exact", exact=Exact(language="primes", bits=6, documents=2000)))
    found = {(number(row[:6]), number(row[6:12])) for row in rows}
    assert all(number(row[:6]) * number(row[6:12]) == number(row[12:]) for row in rows)
    primes = [n for n in range(2, 64) if all(n % d for d in range(2, n))]
    assert found == {(p, q) for p in primes for q in primes if p < q}
    assert entropy(Exact(language="primes", bits=6)) == math.log2(len(found))


def test_the_floor_is_half_a_bit_a_token_and_the_end_costs_nothing():
    exact = Exact()
    assert floor(exact) * 41 / 40 * math.log(2) == pytest.approx(math.log(2) / 2)
    rows = bits_of(Corpus(source="exact", exact=Exact(bits=3, nonzeros=2, documents=40_000)))
    counts = np.unique(rows @ (1 << np.arange(6)), return_counts=True)[1] / len(rows)
    assert -(counts * np.log2(counts)).sum() == pytest.approx(entropy(Exact(bits=3, nonzeros=2)), abs=1e-3)


def test_the_same_seed_gives_the_same_corpus_and_another_one_another(tmp_path):
    def store(name, **changes):
        exact = Exact(documents=50, **changes)
        return prepare(Corpus(source="exact", tokenizer="bits", exact=exact), tmp_path / name)

    assert store("a").sha256 == store("b").sha256 != store("c", seed=1).sha256
    assert store("a").vocab_size == 3 and (store("a").lengths == 41).all() and store("a").altered == 0
    # whatever numpy does: a certificate names these documents by their hash
    assert store("a").sha256.startswith("eeac879bfce2")


def test_the_tokenizer_of_bits():
    bits = get_tokenizer("bits")
    assert bits.encode("0110").tolist() == [0, 1, 1, 0] and bits.decode([0, 1, 2]) == "01"
    with pytest.raises(SubloraError, match="it reads 0 and 1 alone"):
        bits.encode("0120")


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"source": "exact", "exact": {"language": "primes", "bits": 20}}, "bits must be 3 to 16 for language primes"),
        ({"source": "exact", "exact": {"language": "primes", "bits": 8, "nonzeros": 3}}, "nonzeros has no effect for"),
        ({"source": "exact", "exact": {"bits": 4, "nonzeros": 7}}, "nonzeros must be at most"),
        ({"source": "exact", "exact": {"nonzero": 7}}, "did you mean 'corpus.exact.nonzeros'"),
        ({"source": "exact", "path": "x"}, "path has no effect for source exact"),
        ({"exact": {"bits": 8}}, "exact has no effect for source python-packages"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(corpus, message):
    with pytest.raises(SubloraError) as caught:
        as_experiment({"name": "x", "corpus": {"tokenizer": "bits", **corpus}})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_settings_of_other_sources_are_as_they_were():
    assert "exact" not in Corpus().model_dump(mode="json")
