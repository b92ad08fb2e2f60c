"""Bits per byte: what is counted when a corpus is prepared, what is stated, and the worlds of section 10 with their twins."""

import json
import math

import numpy as np
import pytest
from scipy.stats import hypergeom
from test_coverage import CAUGHT, LIMIT
from tiny import put, settings
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sublora import comparing
from sublora.certificate import statements
from sublora.certificate.comparison import sealed
from sublora.certificate.schema import digest, load_certificate
from sublora.certificate.statements import BYTE_GUESS, per_byte, unit_losses
from sublora.comparing import compare, verify_comparison
from sublora.data import prepare
from sublora.data import store as stores
from sublora.data.tokenizers import get_tokenizer
from sublora.experiment import Corpus
from sublora.inequalities.independent import complexity_nats, kl
from sublora.inequalities.means import bound_mean
from sublora.inequalities.paired import from_held_out
from sublora.inequalities.smoothing import loss_range, smoothed_bits
from sublora.limits import DEFAULT
from sublora.models.references import stream_log_probabilities
from sublora.models.references.document import DocumentCode, log_probabilities
from sublora.reporting.comparisons import headlines
from sublora.run import Run
from sublora.scoring.scores import Scores
from sublora.scoring.text import Drawn
from sublora.verification import verify, verify_arithmetic

STEP = statements.DETERMINISM["bits"]


def texts(count=300):
    random = np.random.default_rng(0)
    words = ["one", "two", "three", "fourteen", "naïve", "zwölf"]
    return [f"{i}: {' '.join(random.choice(words, random.integers(1, 12)))}" for i in range(count)]


def save_tokenizer(folder, normalizer=None, vocabulary=400, prefix=False):
    """A byte-level byte-pair encoding, trained on other texts than these, in a folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(["one two three fourteen naïve zwölf fourteen"] * 20, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()), "utf-8")
    save_tokenizer(folder / "pairs")
    return folder


def corpus_of(folder, tokenizer="pairs", **more):
    origin = {} if tokenizer == "bytes" else {"tokenizer": str(folder / tokenizer), "tokenizer_from": "elsewhere"}
    return {"source": "file", "path": str(folder / "texts.jsonl"), "train": 0.6, **origin, **more}


def values(folder, **changes):
    sizes = {"documents": 80, "pilot": 0.5, "held_out_documents": 40}
    return settings(folder, **{"corpus": corpus_of(folder), "model__block": 16, "bounds": sizes, **changes})


@pytest.fixture(scope="module")
def made(folder):
    """A run with a tokenizer of pairs of bytes and a public reference."""
    run = Run(values(folder, reference={"name": "document"}), folder / "runs")
    run.certificate, run.path = run.certify(), run.folder / "certificate.json"
    return run


# What is counted


def test_a_store_counts_bytes_and_they_are_no_part_of_its_hash(folder, tmp_path):
    store = prepare(Corpus(**corpus_of(folder)), tmp_path)
    assert store.sizes.tolist() == [len(text.encode()) + 1 for text in texts()] and store.altered == 0
    tokenizer = get_tokenizer(str(folder / "pairs"))
    plain = stores.write_store(
        tmp_path / "plain", map(tokenizer.encode, texts()), name="x", tokenizer="pairs", vocab_size=store.vocab_size, eot=store.eot
    )
    assert plain.sizes is None and plain.sha256 == store.sha256
    by_bytes = prepare(Corpus(**corpus_of(folder, "bytes")), tmp_path)
    assert by_bytes.sizes.tolist() == by_bytes.lengths.tolist() == store.sizes.tolist()
    assert not (by_bytes.path / "sizes.npy").exists()


def test_a_store_that_was_prepared_without_counts_is_prepared_again(folder, tmp_path):
    first = prepare(Corpus(**corpus_of(folder)), tmp_path)
    (first.path / "sizes.npy").unlink()
    again = prepare(Corpus(**corpus_of(folder)), tmp_path)
    assert again.sizes is not None and again.sha256 == first.sha256


@pytest.mark.parametrize("change", ["short", "zero"])
def test_damaged_counts_are_refused(folder, tmp_path, change):
    path = prepare(Corpus(**corpus_of(folder)), tmp_path).path
    sizes = np.load(path / "sizes.npy")
    np.save(path / "sizes.npy", sizes[:-1] if change == "short" else np.where(np.arange(len(sizes)) == 3, 0, sizes))
    with pytest.raises(stores.SubloraError, match="sizes.npy"):
        stores.TokenStore.open(path)


@pytest.mark.parametrize(
    ("normalizer", "prefix", "ratio"),
    [(None, False, 1.0), (normalizers.NFC(), False, 3.0), (normalizers.Lowercase(), False, None), (None, True, None)],
)
def test_the_ratio_of_tokens_and_bytes_is_proven_of_the_rules_or_not_at_all(tmp_path, normalizer, prefix, ratio):
    assert get_tokenizer(save_tokenizer(tmp_path / "any", normalizer, prefix=prefix)).ratio == ratio


@pytest.mark.parametrize("unknown", [None, "<unk>"])
@pytest.mark.parametrize("fallback", [False, True])
def test_a_byte_that_the_vocabulary_lacks_is_one_token_at_most_but_for_a_fallback(tmp_path, fallback, unknown):
    """With a byte of "é" missing, a model may fall back to the two bytes of the character that stands for that byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelt = [*letters, "<end>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    found = {}
    for missing in ("", "Ã"):
        vocabulary = {token: i for i, token in enumerate(token for token in spelt if token != missing)}
        encoding = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=fallback, unk_token=unknown))
        encoding.pre_tokenizer, encoding.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        folder = tmp_path / f"without{missing}"
        PreTrainedTokenizerFast(tokenizer_object=encoding, eos_token="<end>").save_pretrained(folder)
        found[missing] = get_tokenizer(str(folder)), encoding
    assert found[""][0].ratio == found["Ã"][0].ratio == (None if fallback else 1.0)
    tokens, size = len(found["Ã"][1].encode("ééé").ids) + 1, len("ééé".encode()) + 1
    assert tokens > size if fallback else tokens <= size, "the broken form says 1 with a fallback, too"


def test_the_ratio_holds_for_any_text(folder, tmp_path):
    vocabulary = {" ": 0, "a": 1, **{f"<0x{i:02X}>": 2 + i for i in range(256)}}
    spaced = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    spaced.normalizer = normalizers.Prepend(" ")
    PreTrainedTokenizerFast(tokenizer_object=spaced, eos_token="<end>").save_pretrained(tmp_path / "spaced")
    strange = ["a", "é", "\u0301", "𝅘𝅥𝅮", "日本", " ", "a b", "\n\n", "ｱ", "\ufb01"]
    for name, ratio in ((folder / "pairs", 1.0), (tmp_path / "spaced", 1.5), ("bytes", 1.0)):
        tokenizer = get_tokenizer(str(name))
        assert tokenizer.ratio == ratio
        found = [(len(tokenizer.encode(text)) + 1) / (len(text.encode()) + 1) for text in strange]
        assert max(found) <= ratio, name
        assert ratio < 1.5 or max(found) == 1.5, "of a single character, with the space before it"


def test_a_tokenizer_that_changes_texts_is_counted_and_gets_no_bits_per_byte(folder, tmp_path, capsys):
    """One that reads every word as the same token would cost next to nothing a byte."""
    save_tokenizer(folder / "small", normalizers.Lowercase())
    mixed = [*texts(), "Large", "LARGER"]
    (folder / "mixed.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in mixed), "utf-8")
    corpus = corpus_of(folder, "small", path=str(folder / "mixed.jsonl"))
    run = Run(values(folder, corpus=corpus), tmp_path)
    assert run.problem.store.altered == 2 and not run.problem.per_byte
    assert "bits per byte are not stated, since 2 of 302 documents" in capsys.readouterr().err
    assert {bound.metric for bound in run.certify().statements} & set(statements.BITS) == {"bpd"}


# What is stated


def test_bytes_as_tokens_are_not_shown_twice(folder, tmp_path):
    run = Run(values(folder, corpus=corpus_of(folder, "bytes")), tmp_path)
    assert not run.problem.per_byte and run.problem._ratios == {}


def test_a_document_s_bits_per_byte_by_the_formula(made):
    store, split, certificate = made.problem.store, made.problem.split, made.certificate
    scores, V = made.evaluation.training["document"], store.vocab_size
    drawn = split.train[scores.places]
    assert scores.sizes.tolist() == [len(texts()[i].encode()) + 1 for i in drawn]
    alpha = certificate.alpha
    bits = np.add.reduceat(smoothed_bits(scores.log_probability, alpha, V), scores.offsets[:-1]) / scores.sizes
    pool = float((store.lengths / store.sizes).max())
    assert certificate.public.bytes.ratio == {"iid": 1.0, "pool": pool, "unseen": pool} and pool < 1
    assert certificate.public.bytes.shortest == store.sizes.min()
    found = [b for b in certificate.statements if b.metric == "bpb" and b.reference is None and b.alpha == alpha]
    assert {(b.assumption, b.inequality) for b in found} >= {(a, "betting") for a in ("iid", "pool", "unseen")}
    assert {b.vacuous_at for b in found} == {BYTE_GUESS} and {round(b.empirical, 6) for b in found} == {round(bits.mean(), 6)}
    for bound in found:
        top = certificate.public.bytes.ratio[bound.assumption] * sum(loss_range(alpha, V))
        J = 20 if bound.assumption == "iid" else 0
        if bound.inequality == "kl" and bound.assumption == "iid":
            by = {"message_bits": certificate.message_bits + J, "delta": 0.05, "m": len(split.train), "places": scores.places}
            again = bound_mean(bits / top, inequality="kl", assumption="iid", **by).unscaled(0.0, top).bound
            assert bound.bound == pytest.approx(min(again + STEP, top), abs=1e-9)
        assert bound.bound <= top
    apart = next(h for h in certificate.held_out if (h.metric, h.alpha, h.reference) == ("bpb", alpha, None))
    held = made.evaluation.held_out["document"]
    by_hand = np.add.reduceat(smoothed_bits(held.log_probability, alpha, V), held.offsets[:-1]) / held.sizes
    assert apart.value == pytest.approx(by_hand.mean())


def test_the_mixture_with_a_reference_is_divided_by_bytes(made):
    """Section 15 with b in the place of L."""
    store, certificate, V = made.problem.store, made.certificate, made.problem.store.vocab_size
    held, test = made.evaluation.held_out["document"], made.problem.split.test[:40]
    by = {"vocab_size": V, "eot": store.eot, "code": DocumentCode()}
    nats = log_probabilities(store.tokens, store.offsets[test], store.lengths[test], **by)
    L, b = store.lengths[test], store.sizes[test]
    total = np.add.reduceat(nats, np.cumsum(L) - L)
    Q = -np.log2(15 / 16 * np.exp(total) + 1 / 16 * np.exp(-L * math.log(V)))
    p = np.add.reduceat(smoothed_bits(held.log_probability, certificate.alpha, V), held.offsets[:-1])
    mixed = -np.log2(0.5 * 2.0**-p + 0.5 * 2.0**-Q) / b
    apart = next(h for h in certificate.held_out if h.metric == "bpb" and h.reference)
    assert apart.value == pytest.approx(mixed.mean(), abs=1e-6)
    assert apart.reference_value == pytest.approx((Q / b).mean(), abs=1e-6)
    found = [bound for bound in certificate.statements if bound.metric == "bpb" and bound.reference]
    assert [(bound.assumption, bound.inequality) for bound in found] == [
        (a, i) for a in ("iid", "pool", "unseen") for i in ("hoeffding", "betting")
    ]
    for bound in found:
        least, ratio = (2, 1.0) if bound.assumption == "iid" else (store.sizes.min(), certificate.public.bytes.ratio["pool"])
        assert bound.empirical < bound.bound <= ratio * math.log2(V) + (4 + 1) / least
        assert (bound.gain is not None) == (bound.inequality == "betting")


def test_a_stranger_computes_them_again_and_catches_alterations(made, folder, tmp_path):
    assert verify(made.path, made.corpora, folder) == []
    assert verify_arithmetic(made.path, folder) == []
    data = json.loads(made.path.read_text())
    assert "bytes" in data["public"]
    place = next(i for i, b in enumerate(data["bounds"]) if b["metric"] == "bpb" and b["inequality"] == "hoeffding")
    altered = tmp_path / "certificate.json"
    for path, value in (
        (("bounds", place, "bound"), data["bounds"][place]["bound"] - 0.1),
        (("public", "bytes", "ratio", "iid"), 0.5),
        (("public", "bytes", "ratio", "pool"), 0.3),
        (("public", "bytes", "shortest"), 2 * data["public"]["bytes"]["shortest"]),
    ):
        changed = put(data, path, value)
        altered.write_text(json.dumps({**changed, "certificate_sha256": digest(changed)}, indent=1) + "\n")
        assert verify(altered, made.corpora, folder), path


def test_a_certificate_of_before_bits_per_byte_still_verifies(made, folder, tmp_path):
    data = json.loads(made.path.read_text())
    del data["public"]["bytes"]
    for key in ("bounds", "held_out"):
        data[key] = [entry for entry in data[key] if entry["metric"] != "bpb"]
    old = tmp_path / "certificate.json"
    old.write_text(json.dumps({**data, "certificate_sha256": digest(data)}, indent=1) + "\n")
    assert verify(old, made.corpora, folder) == [] and verify_arithmetic(old, folder) == []


# Two tokenizations of the same text


def scored(store, logs):
    """Scores of all documents, from ln p of each token."""
    nothing = np.zeros((len(logs), 0), np.float32)
    rank, places = np.zeros(len(logs), np.int32), np.arange(len(store))
    return Scores(logs.astype(np.float32), rank, store.offsets, nothing, nothing, places, sizes=store.sizes)


def bytes_of_tokens(folder):
    """The bytes of each token of a byte-level vocabulary: it writes those that cannot be printed as letters from 256 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printed]
    letters = {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    return {number: [letters[letter] for letter in token] for token, number in vocabulary.items() if token != "<end>"}


def test_two_tokenizations_of_the_same_text_agree_under_models_that_are_equal_on_bytes(folder, tmp_path):
    """A model of bytes, and one that gives each token the probability of its bytes: what differs is the smoothing alone."""
    by_bytes, by_pairs = (prepare(Corpus(**corpus_of(folder, name)), tmp_path) for name in ("bytes", "pairs"))
    starts, costs = by_bytes.offsets[:-1], (100.0, 20.0, 12.0, 10.0, 6.0)
    of_byte = stream_log_probabilities(
        by_bytes.tokens, starts, by_bytes.lengths, vocab_size=257, eot=256, pseudo_counts=costs
    ).astype(float)
    spelled = bytes_of_tokens(folder / "pairs") | {by_pairs.eot: [256]}
    lengths = np.array([len(spelled[i]) for i in by_pairs.tokens])
    of_token = np.add.reduceat(of_byte, np.cumsum(lengths) - lengths)
    alpha, found = 0.0001, []
    for store, logs in ((by_bytes, of_byte), (by_pairs, of_token)):
        of, V = per_byte(alpha, store.vocab_size, 1.0), store.vocab_size
        found.append(of.width * unit_losses(scored(store, logs), of, V).mean())
    bytes_alone = statements.metric("bpd", alpha, 257)
    per_token = bytes_alone.low + bytes_alone.width * unit_losses(scored(by_bytes, of_byte), bytes_alone, 257).mean()
    assert found[0] == pytest.approx(per_token, abs=1e-12), "equal to bits per token for bytes"
    assert found[1] == pytest.approx(found[0], abs=0.02) and len(by_pairs.tokens) < 0.8 * len(by_bytes.tokens)
    pairs = statements.metric("bpd", alpha, by_pairs.vocab_size)
    by_token = pairs.low + pairs.width * unit_losses(scored(by_pairs, of_token), pairs, by_pairs.vocab_size).mean()
    assert abs(by_token - found[0]) > 0.3, "the twin: bits per token do not agree"


# A world with its twin (section 10)


def test_the_ratio_is_of_the_whole_pool_and_not_of_the_sample():
    """M = 10,000, m = 1,000: 16 documents with T/b = 1 at the top, the rest with T/b = 1/4 and loss 0 (exact)."""
    M, m, long = 10_000, 1_000, 16
    nats, truth = complexity_nats(0.0, 0.05), long / M
    drawn = np.arange(long + 1)
    chance = hypergeom.pmf(drawn, M, long, m)
    right = chance[[kl(k / m, nats, m) < truth for k in drawn]].sum()
    ratios = np.where(drawn > 0, 1.0, 0.25)
    twin = chance[[ratio * kl(k / m / ratio, nats, m) < truth for k, ratio in zip(drawn, ratios, strict=True)]].sum()
    assert right == 0 and twin == pytest.approx(0.185, abs=0.001) and twin > 1.3 * 0.0646


# Two models compared


@pytest.mark.parametrize("set_of", ["held-out", "training"])
def test_two_models_are_compared_by_the_byte(made, folder, tmp_path, set_of):
    other = Run({**values(folder, training__seed=5), "name": "other"}, folder / "runs")
    other.certify()
    paths, held = [made.path, other.folder / "certificate.json"], set_of == "held-out"
    found = compare(paths, set_of, made.corpora, folder)
    store, split = made.problem.store, made.problem.split
    n, said = 40 if held else 80, {(s.metric, s.form, s.assumption): s for s in found.pairs[0].statements}
    assert {metric for metric, _, _ in said} == {None, "bpb"} and len(said) == 2 * 2 * (2 if held else 3)
    seed = made.message + other.message
    drawn = Drawn("document", held, n) if held else Drawn("document", False, n, seed, 40)
    (one, bytes_one), (two, bytes_two) = made.problem.measured(made.message, drawn), other.problem.measured(other.message, drawn)
    documents = split.test[:n] if held else split.train[one.losses.places]
    b, T = store.sizes[documents], store.lengths[documents]
    for whole, by_byte in ((one, bytes_one), (two, bytes_two)):
        assert by_byte.losses.values * b == pytest.approx(whole.losses.values * T, rel=1e-9)
        assert by_byte.losses.lengths.tolist() == b.tolist()
    D = bytes_one.losses.values - bytes_two.losses.values
    assert said["bpb", "interval", "unseen"].mean == pytest.approx(D.mean(), abs=1e-9)
    rho = float((store.lengths / store.sizes).max())
    low, width = loss_range(load_certificate(paths[1]).alpha, store.vocab_size)
    assert bytes_two.ranges["unseen"] == (0.0, rho * (low + width)) and bytes_two.ranges["iid"] == (0.0, low + width)
    assert bytes_one.shortest["unseen"] == store.sizes.min() and bytes_one.shortest["iid"] == 2
    assert "bits per byte" in headlines(found, found.pairs[0])[0] and found.tau == 1.0
    found.save(tmp_path / "compared.json")
    assert verify_comparison(tmp_path / "compared.json", paths, made.corpora, folder) == []
    with_rounding = put(found.data(), ("pairs", 0, "statements", 5, "upper"), said["bpb", "interval", "unseen"].upper - 0.3)
    sealed(with_rounding).save(tmp_path / "altered.json")
    assert verify_comparison(tmp_path / "altered.json", paths, made.corpora, folder) != []
    as_before = comparing._found(paths, set_of, made.corpora, folder, slacks=(1.0,), limits=DEFAULT, as_before=True)[0]
    sealed(as_before).save(tmp_path / "before.json")
    assert "tau" not in as_before and verify_comparison(tmp_path / "before.json", paths, made.corpora, folder) == []


def test_the_range_of_a_difference_has_the_ratio_of_the_population():
    """A document in 40 has a token for each byte, the others a quarter; the first model loses 1 a token, the second nothing. The
    twin takes the sample's ratio, which is smaller where the sample has no such document."""
    random, violated, n = np.random.default_rng(0), {"population": 0, "sample": 0}, 30
    truth = 0.25 + 0.75 / 40
    for _ in range(300):
        D = np.where(random.random(n) < 1 / 40, 1.0, 0.25)
        for name, rho in (("population", 1.0), ("sample", float(D.max()))):
            found = from_held_out(D, low=-rho, high=rho, delta=0.05)
            violated[name] += not found.lower - 1e-12 <= truth <= found.upper + 1e-12
    assert violated["population"] <= 300 * LIMIT and violated["sample"] >= 300 * CAUGHT
