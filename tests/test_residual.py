"""Residual models: what the message adds to a document code. And the stream's code, which adapts to all text before."""

import itertools

import numpy as np
import pytest
import torch
from test_windows import store_of, total_probability
from tiny import settings, write_texts
from torch import nn

from sublora.data import Split, write_store
from sublora.errors import SubloraError
from sublora.experiment import Gpt, Subspace, as_experiment
from sublora.models import GPT, base_sha256, build, model_weights
from sublora.models.references import DocumentCode, code_of_residual, log_probabilities, stream_log_probabilities
from sublora.run import Run
from sublora.sampling import load
from sublora.scoring import scores as scoring
from sublora.scoring.scores import sequences, token_windows, unit_windows
from sublora.training import Sampler, train_phase
from sublora.training.pretrain import facts
from sublora.verification import verify

CODE, BLOCK, V = DocumentCode((3.0, 2.0, 1.0)), 12, 9
SMALL = {"layers": 1, "heads": 2, "width": 16, "block": BLOCK, "weight_std": 0.3, "embedding_std": 0.5}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    random = np.random.default_rng(0)
    documents = [random.integers(0, V - 1, n).astype(np.uint8) for n in (1, 10, 11, 12, 16, 39, 4, 130)]
    path = tmp_path_factory.mktemp("residual") / "store"
    return write_store(path, documents, name="toy", tokenizer="toy", vocab_size=V, eot=V - 1)


def residual(vocab_size=V, **changes):
    """A residual GPT whose gain has learnt something."""
    gpt = GPT(Gpt(**{**SMALL, "residual": True, **changes}), vocab_size).eval()
    with torch.no_grad():
        gpt.gain.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        gpt.gain.bias.fill_(0.3)
    return gpt


def scored(model, store, windows, offsets, batch_tokens=4096, code=CODE):
    places = np.arange(len(offsets) - 1)
    return scoring.score(model, store, windows, offsets, places, batch_tokens=batch_tokens, label="test", code=code)


def test_at_first_a_residual_model_is_the_code_times_the_softmax_of_its_logits():
    plain, gpt = GPT(Gpt(**SMALL), V).eval(), GPT(Gpt(**SMALL, residual=True), V).eval()
    tokens, q = torch.randint(V, (3, 7)), torch.randn(3, 7, V).softmax(-1)
    small = plain(tokens).softmax(-1)
    expected = q * small / (q * small).sum(-1, keepdim=True)
    torch.testing.assert_close(gpt(tokens, q.log()).softmax(-1), expected)
    learnt = residual()
    gain = 1 + learnt.gain.bias + learnt.norm(hidden(learnt, tokens)) @ learnt.gain.weight
    torch.testing.assert_close(learnt(tokens, q.log()), plain(tokens) + gain[..., None] * q.log())
    for model, given in ((plain, (tokens, q.log())), (gpt, (tokens,))):
        with pytest.raises(ValueError, match="a residual model takes"):
            model(*given)


def hidden(gpt, tokens):
    x = gpt.tokens(tokens) + gpt.positions.weight[: tokens.shape[1]]
    for block in gpt.blocks:
        x = block(x)
    return x


def test_the_gain_comes_behind_the_old_weights_and_has_coordinates_of_its_own():
    plain, gpt = GPT(Gpt(**SMALL), V), GPT(Gpt(**SMALL, residual=True), V)
    old, new = dict(plain.named_parameters()), dict(gpt.named_parameters())
    assert list(new) == [*old, "gain.weight", "gain.bias"] and all(torch.equal(old[name], new[name]) for name in old)
    assert sum(p.numel() for p in new.values()) == sum(p.numel() for p in old.values()) + 17
    settings = Gpt(**SMALL, residual=True, bias=True)
    assert model_weights(settings, V) == sum(p.numel() for p in GPT(settings, V).parameters())
    assert base_sha256(plain) == base_sha256(GPT(Gpt(**SMALL, residual=False), V)) != base_sha256(gpt)
    assert "residual" not in Gpt().model_dump()
    subspace = build(Gpt(**SMALL, residual=True), Subspace(parametrization="subspace", projector="film+kron_qr", dimension=200), V)
    with torch.no_grad():  # the first coordinates are the norms' and the gain's, in the order of the weights
        subspace.coordinates[3 * 16 : 3 * 16 + 17] = torch.arange(1.0, 18.0)
    weights = subspace.weights(subspace.coordinates)
    assert weights["gain.weight"].tolist() == list(range(1, 17)) and weights["gain.bias"].tolist() == [17]


class Echo(nn.Module):
    """Predicts what the document code predicts."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, tokens, log_q):
        return self.one * log_q


@pytest.mark.parametrize(("batch_tokens", "held"), [(1, 1), (30, 10**6), (4096, 400), (4096, 10**6)])
def test_scoring_gives_the_model_what_the_code_says_in_batches_of_any_size(store, batch_tokens, held, monkeypatch):
    """held: how many numbers of ln q are kept at once."""
    monkeypatch.setattr(scoring, "LOGITS", {"cpu": held})
    documents = np.array([3, 7, 0, 5, 6, 1, 2, 4])
    starts, lengths = store.offsets[documents], store.lengths[documents]
    vocabulary = {"vocab_size": V, "eot": V - 1, "code": CODE}
    right = log_probabilities(store.tokens, starts, lengths, **vocabulary)
    drawn = np.arange(0, lengths.sum(), 3)
    pieces = sequences(starts, lengths, BLOCK)
    kinds = {
        "document": (unit_windows(starts, lengths, BLOCK, 5), np.concatenate([[0], np.cumsum(lengths)]), right),
        "token": (token_windows(starts, lengths, drawn, BLOCK, 5), np.arange(len(drawn) + 1), right[drawn]),
        "sequence": (
            unit_windows(*pieces, BLOCK, 5),
            np.concatenate([[0], np.cumsum(pieces[1])]),
            log_probabilities(store.tokens, *pieces, **vocabulary),
        ),
    }
    for windows, offsets, expected in kinds.values():
        found = scored(Echo(), store, windows, offsets, batch_tokens).log_probability
        np.testing.assert_allclose(found, expected, atol=2e-6)
        whole = scored(residual(), store, windows, offsets).log_probability
        np.testing.assert_allclose(scored(residual(), store, windows, offsets, batch_tokens).log_probability, whole, atol=2e-5)


def test_training_gives_the_model_what_the_code_says(store):
    sampler = Sampler(store, np.arange(len(store)), BLOCK, "token", 0, code=CODE)
    right = log_probabilities(store.tokens, sampler.starts, sampler.lengths, vocab_size=V, eot=V - 1, code=CODE)
    batch = sampler.batch(0, 40).part(1, 2).read()
    inside = batch.targets >= 0
    found = batch.log_q[inside].gather(1, batch.targets[inside][:, None])[:, 0].numpy()
    windows = np.random.Generator(np.random.Philox(key=[0, 0])).integers(0, sampler.last_window[-1], 40)[1::2]
    document = np.searchsorted(sampler.last_window, windows, side="right")
    first = (windows - (sampler.last_window - sampler.windows)[document]) * BLOCK
    places = np.concatenate([
        store.offsets[d] + np.arange(f, min(f + BLOCK, store.lengths[d])) for d, f in zip(document, first, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(found, right[places], atol=1e-6)
    assert (first > 0).any() and sampler.first_windows().read().log_q.shape == (len(store), BLOCK, V)


def test_a_residual_model_is_validated_on_windows_drawn_as_in_training(store, tmp_path, monkeypatch):
    """Others are, as before, on the first windows, where the document code knows least."""
    monkeypatch.setattr("sublora.training.pretrain.train", lambda module, batches, validation, *_, **__: validation)
    split = Split(np.arange(4), np.array([5, 7, 4]), np.array([6]), "permutation", "by hand")

    def validation(**changes):
        values = settings(tmp_path, model__block=BLOCK, reference={"name": "document"}, **changes)
        return train_phase(None, store, split, as_experiment(values), tmp_path, phase="pretrain")

    assert validation().inputs[:, 0].tolist() == 3 * [V - 1]
    drawn = validation(model__residual=True)
    start, first, _ = drawn.log_q.windows.T
    assert start.tolist() == store.offsets[split.validation].tolist()
    assert (first > start).any() and not ((first - start) % BLOCK).any()
    assert drawn.targets[0, 0] == store.tokens[first[0]] and torch.equal(validation(model__residual=True).inputs, drawn.inputs)


def whole_document(tokens, starts, firsts, sizes, skips, *, width, vocab_size, eot, code):
    """The broken twin of `log_distributions`: counts of the whole document, which has one end of text at its end."""
    out = np.zeros((len(starts), width, vocab_size), np.float32)
    for row, start in enumerate(starts):
        end = start + np.flatnonzero(tokens[start:] == eot)[0] + 1
        counts = np.bincount(tokens[start:end], minlength=vocab_size) + 0.1
        out[row, : sizes[row]] = np.log(counts / counts.sum())
    return out


def test_the_probabilities_of_all_documents_under_a_residual_model_sum_to_one(tmp_path, monkeypatch):
    store, block = store_of(tmp_path / "store", [[0] * n for n in range(1, 60)], 2), 8
    model = residual(2, block=block, weight_std=0.1, embedding_std=0.1)
    offsets, windows = store.offsets, unit_windows(store.offsets[:-1], store.lengths, block, 3)

    def total(of):
        logs = scored(of, store, windows, offsets).log_probability
        return total_probability(np.split(logs.astype(float), offsets[1:-1]))

    assert total(model) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(scoring, "log_distributions", whole_document)
    assert total(model) > 1.2


def test_a_residual_run_from_params_to_a_verified_certificate(tmp_path, monkeypatch):
    texts = write_texts(tmp_path / "texts")
    subspace = {"parametrization": "subspace", "projector": "film+kron_qr", "dimension": 200}
    values = settings(texts, subspace=subspace, model__residual=True, reference={"name": "document"})
    run = Run(values, tmp_path / "runs")
    certificate = run.certify()
    assert verify(run.folder / "certificate.json", tmp_path / "runs" / "corpora") == []
    assert certificate.params["model"]["residual"] and certificate.params["reference"]["name"] == "document"
    text = "12: one two three four one two three four\n"
    model, checkpoint = load(run.folder / "certificate.json"), load(run.folder / "quantize.safetensors")
    assert model.bits(text) == checkpoint.bits(text) != model.bits(text[:-1])
    alone = write_store(tmp_path / "one", [model.tokenizer.encode(text)], name="one", tokenizer="bytes", vocab_size=257, eot=256)
    windows, code = unit_windows(alone.offsets[:1], alone.lengths, 32, 32), DocumentCode()
    logs = scored(model.module, alone, windows, alone.offsets, code=code).log_probability
    assert model.bits(text) == pytest.approx(-logs.sum() / np.log(2), rel=1e-6)
    assert model.generate("1", 40, seed=1) == model.generate("1", 40, seed=1)
    of_bounds = {"beta": 0.4, "gamma": 0.1, "offset": [1.0, 0.5, 0.0, 0.0], "excess": 1.0, "tau": 2.0}
    monkeypatch.setattr(Sampler, "batch", lambda *_: pytest.fail("trained again"))
    other = Run(values | {"reference": {"name": "document", **of_bounds}}, tmp_path / "runs")
    assert len(other.train()) and other.draft == run.draft
    for of_the_code in ({"pseudo_counts": [9.0]}, {"distinct": 1.0}, {"start": "characters"}):
        changed = values | {"reference": {"name": "document", **of_the_code}}
        assert facts(other.problem.store, as_experiment(changed)) != facts(other.problem.store, other.experiment)
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            Run(changed, tmp_path / "runs").train()


def test_a_residual_model_adds_to_its_reference_or_beside_a_stream_to_the_default_code(tmp_path):
    def of(**changes):
        return as_experiment(settings(tmp_path, model__residual=True, **changes))

    assert code_of_residual(of(reference={"name": "document", "pseudo_counts": [9.0, 8.0]})) == DocumentCode((9.0, 8.0))
    stream = of(reference={"name": "stream", "pseudo_counts": [9.0, 8.0]}, bounds={"levels": ["token"]})
    assert code_of_residual(stream) == DocumentCode()
    with pytest.raises(SubloraError, match="model.residual needs reference.name document or stream"):
        of()


# --- the stream's code


def by_definition(documents, counted, eot, costs, vocab_size):
    """ln q of each token of the documents, given which tokens `counted` (document, place) has seen before (document, place)."""
    logs = []
    for d, document in enumerate(documents):
        for i, token in enumerate(document):
            p = np.full(vocab_size, 1 / vocab_size)
            for order, cost in enumerate(costs[: i + 2]):
                context = [eot, *document][i + 1 - order : i + 1]
                n = np.zeros(vocab_size)
                for e, j in counted(d, i):
                    if order <= j + 1 and [eot, *documents[e]][j + 1 - order : j + 1] == context:
                        n[documents[e][j]] += 1
                p = (n + cost * p) / (n.sum() + cost)
            logs.append(np.log(0.999 * p[token] + 0.001 / vocab_size))
    return np.array(logs)


def of_stream(documents, costs, vocab_size, eot, apart=0):
    lengths = np.array([len(document) for document in documents])
    tokens = np.concatenate(documents).astype(np.uint16)
    options = {"vocab_size": vocab_size, "eot": eot, "pseudo_counts": costs, "apart": apart}
    return stream_log_probabilities(tokens, np.cumsum(lengths) - lengths, lengths, **options)


def before(documents, streamed):
    """What the stream's code has read; of documents behind the first `streamed`, nothing of one another."""

    def counted(d, i):
        others = ((e, j) for e in range(min(d, streamed)) for j in range(len(documents[e])))
        return itertools.chain(others, ((d, j) for j in range(i)))

    return counted


def test_the_stream_is_read_by_the_definition_and_held_out_text_behind_it():
    random, costs = np.random.default_rng(1), (3.0, 2.0, 1.0, 0.5)
    documents = [[*random.integers(0, 4, n).tolist(), 4] for n in (1, 8, 20, 5, 30, 9, 12)]
    for apart in (0, 3):
        right = by_definition(documents, before(documents, len(documents) - apart), 4, costs, 5)
        np.testing.assert_allclose(of_stream(documents, costs, 5, 4, apart), right, atol=1e-6)


def test_many_different_contexts_fit():
    random = np.random.default_rng(2)
    document = random.integers(0, 3000, 60_000)
    found = of_stream([document, document[:1000]], (5.0, 1.0, 0.5), 3001, 3000)
    assert -found[:60_000].mean() > np.log(3000) - 0.5 and -found[60_100:].mean() < 3


def test_the_streams_code_is_predictable():
    """All streams of two documents together have probability one. With the counts of the whole stream it is more."""
    costs, total, cheat = (1.0, 0.5, 0.5), 0.0, 0.0
    for tokens in itertools.product(range(2), repeat=6):
        documents = [list(tokens[:3]), list(tokens[3:])]
        everything = [(d, i) for d in range(2) for i in range(3)]
        total += np.exp(of_stream(documents, costs, 2, 1).sum(dtype=float))
        cheat += np.exp(by_definition(documents, lambda d, i, all=everything: all, 1, costs, 2).sum())
    assert total == pytest.approx(1, abs=1e-5) and cheat > 1.5
