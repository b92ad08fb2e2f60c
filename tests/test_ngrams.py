"""n-gram models: the distributions of a short reference, messages that come back, nothing else accepted, runs that are verified."""

import collections
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import write_texts

from sublora import Run, load, verify
from sublora.data import draw_split
from sublora.errors import SubloraError
from sublora.experiment import BASES, as_experiment
from sublora.message import MessageError, decode, with_alpha
from sublora.message.frame import prefixed
from sublora.message.ngram import SYMBOLS_OF_A_BYTE, NGramMessage, bucketed, decode_ngrams, encode_ngrams
from sublora.models.ngrams import PSEUDO_COUNTS, count_ngrams, fitted, pruned
from sublora.scoring.scores import score, unit_windows
from sublora.verification import verify_arithmetic

EOT = 6


def documents(seed=0, count=60):
    """Tokens 0 to 5 in an order that is worth learning, each document with its end."""
    random = np.random.default_rng(seed)
    steps = [np.minimum(random.geometric(0.5, random.integers(1, 30)), 3) for _ in range(count)]
    return [np.append(np.cumsum(step) % 6, EOT) for step in steps]


def message(orders=3, least=3, base=0, vocab_size=7, texts=None):
    layers = count_ngrams(np.concatenate(documents() if texts is None else texts), EOT, vocab_size, orders + 1, 2)
    return NGramMessage(0.1, base, tuple(range(3, 4 + orders)), bucketed(pruned(layers, least), least, BASES[base]))


def reference(context, orders, least, base, vocab_size):
    """The probabilities of the next token behind `context`, by the definition."""
    counts = collections.Counter()
    for text in documents():
        stream = [EOT, *text.tolist()]
        for end in range(2, len(stream) + 1):
            counts.update(tuple(stream[begin:end]) for begin in range(max(0, end - orders - 1), end) if (begin, end) != (0, 1))
    probability = np.full(vocab_size, 1 / vocab_size)
    for order in range(min(orders, len(context)) + 1):
        behind = [counts[*context[len(context) - order :], token] // least for token in range(vocab_size)]
        n = np.array([base ** int(np.log(count) / np.log(base) + 1e-9) if count else 0 for count in behind], float)
        if weight := PSEUDO_COUNTS[3 + order] * (n > 0).sum():
            probability = (n + weight * probability) / (n.sum() + weight)
    return probability


@pytest.mark.parametrize(("orders", "base", "vocab_size"), [(1, 0, 7), (3, 1, 7), (5, 3, 9), (2, 2, 65_536)])
def test_the_decoded_model_predicts_as_the_definition_says(orders, base, vocab_size):
    data = encode_ngrams(message(orders, 3, base, vocab_size), vocab_size)
    model = decode_ngrams(data, vocab_size).model(vocab_size, 16)
    text = documents(1)[0][:9]
    window = torch.tensor([[EOT, *text], [*text, EOT]])
    predicted = model(window).exp().double().numpy()
    np.testing.assert_allclose(predicted.sum(2), 1, atol=1e-5)
    for row, position in ((0, 0), (0, 1), (0, 4), (0, 9), (1, 5)):
        context = tuple(window[row, : position + 1].tolist())
        wanted = reference(context, orders, 3, BASES[base], vocab_size)
        np.testing.assert_allclose(predicted[row, position], wanted, rtol=1e-5)


def test_no_ngram_goes_over_the_end_of_a_document_and_sorting_counts_as_a_table_does(monkeypatch):
    texts = [np.array([0, 1, EOT]), np.array([2, EOT])] * 4
    layers = count_ngrams(np.concatenate(texts), EOT, 7, 3, 1)
    assert layers[0].counts.tolist() == [4, 4, 4, 8] and layers[1].counts.tolist() == [4] * 5
    pairs = {(int(layers[0].token[p]), int(t)) for p, t in zip(layers[1].parent, layers[1].token, strict=True)}
    assert pairs == {(EOT, 0), (0, 1), (1, EOT), (EOT, 2), (2, EOT)}
    assert len(layers[2].token) == 3, "end 0 1, 0 1 end, end 2 end"
    monkeypatch.setattr("sublora.models.ngrams.TABLE", 0)
    for one, other in zip(layers, count_ngrams(np.concatenate(texts), EOT, 7, 3, 1), strict=True):
        assert all(map(np.array_equal, one, other))


@pytest.mark.parametrize("orders", range(1, 6))
def test_messages_come_back(orders):
    made = message(orders, base=orders % 4)
    data = encode_ngrams(made, 7)
    read = decode_ngrams(data, 7)
    assert read[:3] == made[:3] and len(read.layers) == orders + 1
    for one, other in zip(read.layers, made.layers, strict=True):
        assert all(map(np.array_equal, one, other))
    empty = message(orders, least=10**6)
    assert not len(decode_ngrams(encode_ngrams(empty, 7), 7).layers[0].token), "no token is so frequent: the uniform guess"


def test_pseudo_counts_are_the_best_by_themselves():
    made = message(2)
    tokens = np.concatenate(documents())

    def loss(indices):
        model = made._replace(pseudo_counts=indices).model(7, 10**6)
        stream = torch.from_numpy(np.append(EOT, tokens))
        return float(torch.nn.functional.nll_loss(model(stream[None, :-1])[0], stream[1:]))

    best = fitted(made.counted(), tokens, EOT, 7)
    for order in range(3):
        for step in (-1, 1):
            other = [*best]
            other[order] = min(len(PSEUDO_COUNTS) - 1, max(0, best[order] + step))
            assert loss(best) <= loss(tuple(other)) + 1e-6
    assert loss(best) < loss((15, 15, 15)) - 0.01


@pytest.mark.parametrize("vocab_size", [7, 50_000])
def test_pairs_of_a_large_vocabulary_are_coded_by_their_gaps(vocab_size, monkeypatch):
    random = np.random.default_rng(1)
    texts = [np.append(random.zipf(1.3, 80) % (vocab_size - 7) + 7, EOT) for _ in range(300)] if vocab_size > 7 else documents()
    made = message(2, 2, 1, vocab_size, texts)
    plain = encode_ngrams(made, vocab_size)
    monkeypatch.setattr("sublora.message.ngram.DENSE", 0)
    data = encode_ngrams(made, vocab_size)
    for one, other in zip(decode_ngrams(data, vocab_size).layers, made.layers, strict=True):
        assert all(map(np.array_equal, one, other))
    assert data != plain and len(data) < (1.05 * len(plain) if vocab_size > 7 else len(plain) + 60)


MADE = [message(orders, base=orders % 4) for orders in range(1, 6)]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_changed_cut_and_random_bytes_are_a_message_error_or_a_model_of_one_form(data):
    sparse = data.draw(st.booleans())
    with mock.patch("sublora.message.ngram.DENSE", 0 if sparse else 2**20):
        _attack(encode_ngrams(MADE[data.draw(st.sampled_from(range(5)))], 7), data)


def _attack(original, data):
    for changed in (original[: data.draw(st.integers(0, len(original) - 1))], original + b"x"):
        with pytest.raises(MessageError):
            decode_ngrams(changed, 7)
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    for hostile in (bytes(changed), prefixed(b"\x4e" + data.draw(st.binary(max_size=60)))):
        try:
            read = decode_ngrams(hostile, 7)
        except MessageError as error:
            assert "\n" not in str(error)
        else:
            assert encode_ngrams(read, 7) == hostile
            predicted = read.model(7, 8)(torch.tensor([[EOT, 0, 1, 2, 3, 4]]))
            assert not predicted.isnan().any() and (predicted <= 1e-6).all()


def test_a_short_message_codes_few_symbols():
    # Each of 300 tokens is followed by one: a pair has a symbol, and most of them say nothing.
    texts = [np.append(np.tile(np.arange(EOT + 1, EOT + 301), 2), EOT)]
    layers = count_ngrams(np.concatenate(texts), EOT, 400, 3, 1)
    everything = NGramMessage(0.1, 0, (3, 3, 3), bucketed(layers, 1, 2))
    with pytest.raises(SubloraError, match="^counting: .* too many"):
        encode_ngrams(everything, 400)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sublora.message.ngram.SYMBOLS_OF_A_BYTE", 10**6)
        data = encode_ngrams(everything, 400)
        decode_ngrams(data, 400)
    with pytest.raises(MessageError, match="more n-grams than one of its length can"):
        decode_ngrams(data, 400)
    assert SYMBOLS_OF_A_BYTE == 128


# --- runs


def values_of(texts, **groups):
    bounds = {"levels": ["token"], "tokens": 300, "pilot": 0.5, "held_out_documents": 30, "stride": 15}
    return {
        "kind": "ngram",
        "name": "counted",
        "corpus": {"source": "text", "path": str(texts), "train": 0.6},
        "model": {"orders": 2, "block": 16},
        "counting": {"least": [20], "bases": [2, 4]},
        "bounds": bounds,
        **groups,
    }


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A finished run."""
    home = tmp_path_factory.mktemp("counted")
    run = Run(values_of(write_texts(home / "texts")), home / "runs")
    run.ways = run.compress()
    run.certify()
    return run


def test_a_run_is_verified_and_says_what_its_message_says(counted):
    certificate = counted.certify()
    path = counted.folder / "certificate.json"
    assert verify(path, counted.corpora) == [] and verify_arithmetic(path) == []
    best = counted.ways.loc[counted.ways["bound"].idxmin()]
    assert len(counted.ways) == 2 and best["message_bits"] == 8 * len(counted.message)
    assert certificate.params["counting"] == {"least": [20], "bases": [best["base"]]}
    assert certificate.public.base_weights_sha256 is None and certificate.public.base == "none"
    assert certificate.environment.seconds.keys() == {"quantize", "score"}
    text = load(path).generate("1", 60, seed=1)
    assert text.startswith("1") and load(path).bits(text) < 8 * len(text)
    changed = with_alpha(counted.message, 0.5, counted.settings, 257)
    assert len(changed) == len(counted.message) and decode(changed, counted.settings, 257).alpha == 0.5


def test_a_window_loses_no_context_if_it_moves_by_what_the_longest_leaves(counted):
    store = counted.problem.store
    model = decode(counted.message, counted.settings, store.vocab_size).model
    few = draw_split(len(store), counted.settings.corpus).test[:40]
    starts, lengths = store.offsets[few], store.lengths[few]

    def scored(block, stride):
        windows = unit_windows(starts, lengths, block, stride)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return score(model, store, windows, offsets, few, batch_tokens=512, label="few").log_probability

    whole = scored(10_000, 10_000)
    np.testing.assert_allclose(scored(8, 7), whole, atol=1e-6)  # 8 - K + 1
    assert np.abs(scored(8, 8) - whole).max() > 0.01, "the first of a window has one token of context alone"


def test_what_no_ngram_model_can_be_is_refused():
    for groups, says in (
        ({"model": {"orders": 6}}, "model.orders"),
        ({"counting": {"bases": [5]}}, "counting.bases.*one of 2, 3, 4, 8"),
        ({"counting": {"least": []}}, "counting.least"),
    ):
        with pytest.raises(SubloraError, match=says):
            as_experiment(values_of("texts", **groups))
