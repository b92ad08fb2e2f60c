"""Bounds beside a public reference: right in worlds where the truth is known, and each rule's broken twin is caught there."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, hypergeom
from test_coverage import CAUGHT, DELTA, EXACT_CAUGHT, LIMIT
from worlds import violation, zeros_and_ones

from sublora.inequalities.independent import betting_grid, complexity_nats
from sublora.inequalities.martingale import freedman
from sublora.inequalities.means import bound_mean
from sublora.inequalities.reference import bound_difference, bound_offset, of_tokens, of_whole_units
from sublora.inequalities.smoothing import smoothed_bits
from sublora.models.references.document import FLOOR, DocumentCode, log_distributions, log_probabilities

HALF = DELTA / 2
MIXED = {"beta": 0.5, "gamma": 0.0625}


def offset_bound(values, *, bits=0.0, assumption="iid", largest=1.0, pool=None):
    return bound_offset(values, largest=largest, assumption=assumption, message_bits=bits, delta=HALF, pool=pool)


def difference_bound(values, *, bits=0.0, inequality="betting", excess=0.0, largest=1.0, tau=1.0, **others):
    drawn = {"assumption": "iid", "message_bits": bits, "delta": HALF, "m": len(values), **others}
    return bound_difference(values, excess=excess, largest=largest, tau=tau, inequality=inequality, **drawn)


# -- what is computed --------------------------------------------------------------------------------------------------


def test_a_document_s_loss_by_hand():
    """V = 4, three tokens, q = 2^-5 so that q' = 15/16 2^-5 + 1/16 2^-6 = 31 2^-10; p = 2^-4: (1/16 + 31/1024)/2 = 95/2048."""
    code = of_whole_units(np.array([-5 * math.log(2)]), np.array([3]), vocab_size=4, shortest=2, offset="half", **MIXED)
    own = (10 - math.log2(31)) / 3
    assert code.own == pytest.approx([own], abs=1e-14) and code.above() == pytest.approx([own + 1 / 3], abs=1e-14)
    assert code.mixture(np.array([4.0])) == pytest.approx([math.log2(2048 / 95) / 3], abs=1e-14)
    assert code.mixture(np.array([np.inf])) == pytest.approx(code.above(), abs=1e-14)
    assert (code.excess, code.largest) == (0.5, 2 + 5 / 2)
    assert code.offsets == pytest.approx([own + 1 / 3 - 0.5], abs=1e-14), "half of log2 V is below T - c"
    assert code.as_offset().offsets == pytest.approx(code.above()) and code.as_offset().excess == 0.0
    flat = of_whole_units(np.array([-0.1, -1.7]), np.array([3, 3]), vocab_size=4, shortest=2, offset="half", **MIXED)
    assert flat.offsets[0] == flat.above()[0] < 1.0, "T is below half of log2 V"
    assert flat.offsets[1] == 1.0 < flat.above()[1] < 1.5, "half of log2 V is between"


def test_an_offset_of_four_numbers_by_hand():
    """V = 4, own losses about 2 and 1 at lengths 512 and 64: g = 1 + .5 (own - 4) + .25 l + .125 l^2 with l = 1, -2."""
    lengths, nats = np.array([512, 64, 64]), -math.log(2) * np.array([1024.0, 64.0, 6400.0])
    keys = {"vocab_size": 4, "shortest": 2, **MIXED}
    code = of_whole_units(nats, lengths, offset=(1.0, 0.5, 0.25, 0.125), excess=0.8, **keys)
    top, g = code.above(), 1 + 0.5 * (code.own - 4) + 0.25 * np.array([1, -2, -2]) + 0.125 * np.array([1, 4, 4])
    assert g[0] < top[0] - 0.8 and g[1] < 0, "one below T - c, one below both T - c and 0"
    assert code.offsets == pytest.approx(np.clip(g, np.maximum(top - 0.8, 0), top), abs=1e-14)
    assert code.offsets[:2] == pytest.approx(top[:2] - 0.8, abs=1e-14)
    low = of_whole_units(-nats[::-1] * -1e-3, lengths, offset=(-9.0, 0.0, 0.0, 0.0), excess=3.0, **keys)
    assert (low.offsets == 0).all() and (low.above() < 3.0).all(), "f is not below 0, where all losses are"
    between = of_whole_units(nats, lengths, offset=(1.9, 0.0, 0.0, 0.0), excess=0.8, **keys)
    assert between.offsets[0] == 1.9 and (between.above() >= between.offsets).all()
    for made in (code, low, between):
        losses = made.mixture(np.random.default_rng(0).uniform(0, 3000, (1000, 3)))
        assert (losses - made.offsets <= made.excess + 1e-12).all() and (losses >= 0).all()


def test_a_token_s_loss_by_hand():
    code = of_tokens(np.log([0.25, 1e-9]), vocab_size=256, alpha=0.25, floor=FLOOR)
    assert code.mixture(np.array([1.0, np.inf])) == pytest.approx([-math.log2(0.75 / 2 + 0.25 / 4), math.log2(4 * 256_000)])
    assert code.offsets == pytest.approx([2.0, math.log2(256_000)]) and (code.excess, code.largest) == (2.0, math.log2(4 * 256_000))


@pytest.mark.parametrize("ends", [False, True], ids=["sequences of 8", "documents of up to 7"])
def test_the_mixture_is_a_probability_and_the_better_of_two_is_none(ends):
    """V = 2 (3 with the end of text): all units are enumerated. The twin takes the better of p and q without paying for it."""
    V, eot, alpha = 2 + ends, 1 + ends, 0.1
    words = [(*w, eot) for size in range(7) for w in itertools.product((0, 1), repeat=size)] if ends else None
    words = words or list(itertools.product((0, 1), repeat=8))
    lengths = np.array([len(word) for word in words])
    tokens, starts = np.concatenate([np.array(word) for word in words]), np.cumsum(lengths) - lengths
    table = np.random.default_rng(0).dirichlet(np.full(V, 0.3), V)
    before = np.where(np.isin(np.arange(len(tokens)), starts), eot, np.roll(tokens, 1))
    bits = np.add.reduceat(smoothed_bits(np.log(table[before, tokens]), alpha, V), starts)
    nats = log_probabilities(tokens, starts, lengths, vocab_size=V, eot=eot, code=DocumentCode())
    code = of_whole_units(np.add.reduceat(nats, starts), lengths, vocab_size=V, shortest=1, offset="half", **MIXED)
    losses = code.mixture(bits)
    mass = (2.0 ** -(losses * lengths)).sum()
    assert mass <= 1 + 1e-12 if ends else mass == pytest.approx(1.0, abs=1e-12)
    assert (2.0 ** -np.minimum(bits, code.own * lengths)).sum() > 1.05
    assert (losses <= code.offsets + code.excess + 1e-12).all() and (losses <= code.largest).all() and (losses >= 0).all()


def test_each_part_has_half_of_delta_and_only_the_difference_pays_for_the_message():
    """By equality, which coverage cannot see. The lower end of D plays no part, where all units are evaluated."""
    random = np.random.default_rng(0)
    f, D, m = random.uniform(0, 10, 300), random.normal(-0.5, 0.3, 300).clip(-4, 2), 300
    by = {"assumption": "iid", "delta": HALF, "m": m}
    expected = bound_mean((D + 12) / 14, inequality="betting", message_bits=90, **by).unscaled(-12, 14).bound
    assert difference_bound(D, bits=90, excess=2.0, largest=12.0) == pytest.approx(expected, abs=1e-12)
    assert difference_bound(D, bits=90, excess=2.0, largest=99.0) == pytest.approx(expected, abs=1e-6)
    clipped = np.maximum(D, -1).mean() + 3 * math.sqrt(complexity_nats(90, HALF) / (2 * m))
    found = difference_bound(D, bits=90, excess=2.0, largest=12.0, inequality="hoeffding")
    assert found == pytest.approx(min(clipped, 2.0), abs=1e-12)
    expected = 12 * bound_mean(f / 12, inequality="betting", message_bits=20, **by).bound
    assert offset_bound(f, bits=20, largest=12.0) == pytest.approx(expected, abs=1e-12)
    of_subsample = {"assumption": "iid", "delta": HALF, "m": 900, "candidates": 3}
    expected = bound_mean((np.maximum(D, -1) + 1) / 3, inequality="betting", message_bits=90, **of_subsample).unscaled(-1, 3).bound
    assert difference_bound(D, bits=90, excess=2.0, largest=12.0, m=900, candidates=3) == pytest.approx(expected, abs=1e-12)


# -- worlds, and twins with one mistake ---------------------------------------------------------------------------------


def test_documents_of_two_tokens_lie_above_the_uniform_guess():
    m, V, length = 1000, 256, np.full(1000, 2)
    code = of_whole_units(-length * math.log(V), length, vocab_size=V, shortest=2, offset="half", **MIXED)
    losses = code.mixture(np.full(m, 1e4))
    truth = float(losses.mean())
    right = bound_mean(losses / code.largest, inequality="hoeffding", assumption="iid", message_bits=0, delta=DELTA, m=m)
    cut = np.minimum(losses / math.log2(V), 1.0)
    twin = bound_mean(cut, inequality="betting", assumption="iid", message_bits=0, delta=DELTA, m=m)
    assert right.bound * code.largest >= truth > twin.bound * math.log2(V)


@pytest.mark.parametrize("world", ["loss", "1/L"])
def test_the_shortest_document_is_the_population_s_and_not_the_sample_s(world):
    """L = 2 with probability .0022, else 100, m = 1,000, iid, beta = 2^-16. The sample has no short one with probability .111."""
    m, p, beta = 1000, 0.0022, 2.0**-16
    violated = {2: 0.0, None: 0.0}
    for hits in range(30):
        lengths = np.where(np.arange(m) < hits, 2, 100)
        for shortest, total in violated.items():
            least = shortest or int(lengths.min())
            if world == "loss":  # at the top for short ones, else 0
                tops = [8 + (16 + 4) / size for size in (2, least)]
                values, truth, largest = np.where(lengths == 2, tops[0], 0.0), p * tops[0], tops[1]
            else:
                values, truth, largest = 1 / lengths, p / 2 + (1 - p) / 100, 1 / least
            found = of_whole_units(-lengths * 1.0, lengths, vocab_size=256, shortest=least, beta=beta, gamma=1 / 16, offset="half")
            assert world == "1/L" or found.largest == pytest.approx(largest)
            by = {"inequality": "kl", "assumption": "iid", "message_bits": 0, "delta": DELTA, "m": m}
            if world == "loss":
                bound = largest * bound_mean(np.minimum(values / largest, 1.0), **by).bound
            else:
                bound = offset_bound(np.minimum(values, largest), largest=largest)
            violated[shortest] = total + binom.pmf(hits, m, p) * (bound < truth)
    assert violated[2] <= 1e-12
    assert violated[None] >= EXACT_CAUGHT and violated[None] == pytest.approx(0.111, abs=1e-3)


def test_an_offset_that_was_chosen_is_paid():
    """The best of 2^10 fair offsets, D = 0."""
    m = 1000

    def violated(bits):
        return violation(lambda k: offset_bound(zeros_and_ones(k, m), bits=bits), m, 0.5, hypotheses=2**10)

    assert violated(10) <= 0.001
    assert violated(0) >= EXACT_CAUGHT and violated(0) == pytest.approx(0.304, abs=1e-3)


def test_an_offset_that_was_chosen_is_paid_by_hoeffding_too():
    """The same by the paper's inequality, which hides less."""
    m = 1000

    def violated(bits):
        by = {"inequality": "hoeffding", "assumption": "iid", "message_bits": bits, "delta": HALF, "m": m}
        return violation(lambda k: bound_mean(zeros_and_ones(k, m), **by).bound, m, 0.5, hypotheses=2**10)

    assert violated(10) == pytest.approx(0.0022, abs=1e-4)
    assert violated(0) >= EXACT_CAUGHT and violated(0) == pytest.approx(0.975, abs=1e-3)


@pytest.mark.parametrize("inequality", ["betting", "hoeffding"])
def test_the_difference_pays_for_the_message(inequality):
    """D in {-1, 0}, fair, 2^16 messages."""
    m = 2000

    def violated(bits):
        def bound(k):
            return difference_bound(zeros_and_ones(k, m) - 1, bits=bits, inequality=inequality)

        return violation(lambda k: bound(k) + 1, m, 0.5, hypotheses=2**16)

    assert violated(16) <= 0.004 and violated(0) >= 0.999


def test_the_offset_of_unseen_documents_is_bounded_as_such():
    M, m, trials, random = 1000, 900, 150, np.random.default_rng(0)
    violated = {"unseen": 0, "iid": 0}
    for _ in range(trials):
        pool = random.permutation(zeros_and_ones(M // 2, M))
        for assumption in violated:
            violated[assumption] += offset_bound(pool[:m], assumption=assumption, pool=M) < pool[m:].mean()
    assert violated["unseen"] <= LIMIT * trials and violated["iid"] >= CAUGHT * trials


def test_the_offset_of_unseen_documents_by_serfling():
    """M = 1,000, half ones, m = 900, exact. The twin takes the limit for fresh documents."""
    M, m = 1000, 900
    counts = np.arange(M // 2 - (M - m), M // 2 + 1)  # the others have at most 100 ones
    chance, truth = hypergeom.pmf(counts, M, M // 2, m), (M // 2 - counts) / (M - m)

    def violated(assumption):
        by = {"inequality": "hoeffding", "message_bits": 0.0, "delta": DELTA, "m": m, "pool": M}
        bounds = np.array([bound_mean(zeros_and_ones(k, m), assumption=assumption, **by).bound for k in counts])
        return chance[bounds < truth].sum()

    assert violated("unseen") == pytest.approx(0.0075, abs=1e-4)
    assert violated("iid") >= EXACT_CAUGHT and violated("iid") == pytest.approx(0.230, abs=1e-3)


def test_the_difference_of_unseen_documents_is_bounded_as_such():
    """D = 0 with probability .3, else minus a Pareto variable, whose tail is heavy."""
    M, m, trials, random = 1000, 900, 150, np.random.default_rng(0)
    violated = {"unseen": 0, "iid": 0}
    for _ in range(trials):
        pool = np.where(random.random(M) < 0.3, 0.0, -np.minimum(1 + random.pareto(2.2, M), 500))
        for assumption in violated:
            split = {"assumption": assumption, "pool": M, "places": np.arange(m)}
            violated[assumption] += difference_bound(pool[:m], largest=500.0, **split) < pool[m:].mean()
    assert violated["unseen"] <= LIMIT * trials and violated["iid"] >= CAUGHT * trials


def test_the_largest_offset_is_the_population_s():
    """16 of 10,000 documents have f = 1, the rest .25; m = 1,000 of them, pool."""
    M, m, rare = 10_000, 1000, 16
    truth, right, twin = 0.25 + 0.75 * rare / M, 0.0, 0.0
    for hits in range(rare + 1):
        f = np.where(np.arange(m) < hits, 1.0, 0.25)
        probability = hypergeom.pmf(hits, M, rare, m)
        right += probability * (offset_bound(f, assumption="pool", pool=M) < truth)
        twin += probability * (offset_bound(f, assumption="pool", pool=M, largest=f.max()) < truth)
    assert right == 0 and twin >= EXACT_CAUGHT and twin == pytest.approx(0.185, abs=1e-3)


def test_the_difference_is_not_clipped_from_above():
    """D = 1 with probability .05, else 0."""
    m, p = 1000, 0.05
    right = violation(lambda k: difference_bound(zeros_and_ones(k, m), excess=1.0), m, p, hypotheses=1)
    twin = violation(lambda k: difference_bound(0.1 * zeros_and_ones(k, m), excess=0.1), m, p, hypotheses=1)
    assert right <= HALF and twin >= 0.999


def test_hoeffding_s_mean_is_clipped_as_its_range_is():
    """D = -100 with probability .01, else 0; tau = 1, c = 0, m = 100."""
    m, p, right, twin = 100, 0.01, 0.0, 0.0
    for hits in range(m + 1):
        D = -100 * zeros_and_ones(hits, m)
        gap = math.sqrt(complexity_nats(0, HALF) / (2 * m))
        right += binom.pmf(hits, m, p) * (difference_bound(D, inequality="hoeffding", largest=100.0) < -1)
        twin += binom.pmf(hits, m, p) * (D.mean() + gap < -1)
    assert right == 0 and twin >= EXACT_CAUGHT and twin == pytest.approx(0.264, abs=1e-3)


def test_the_width_of_token_differences_is_that_of_all_contexts():
    """D = 5.64 with probability 3e-4, else 0, N = 2,000, guess 0. The twin's width is what the sample shows."""
    N, high, p = 2000, 5.64, 3e-4
    nats, right, twin = complexity_nats(0, HALF), 0.0, 0.0
    for hits in range(12):
        D = high * zeros_and_ones(hits, N)
        ranges = {"low": -18.0, "width": 18.0 + high, "guess_width": high, "grid": betting_grid(N, nats)}
        right += binom.pmf(hits, N, p) * (freedman(D, np.zeros(N), nats, **ranges) < high * p)
        twin += binom.pmf(hits, N, p) * (hits == 0)  # a width of 0: the bound is the mean
    assert right <= HALF and twin >= EXACT_CAUGHT and twin == pytest.approx(0.549, abs=1e-3)


def test_a_reference_that_has_counted_the_whole_document_is_no_bound_for_its_tokens():
    """200 documents of 10 fair bits, coded by counts + 1, of the bits before; the twin has counted all ten."""
    documents, size, random = 200, 10, np.random.default_rng(0)
    nats, top, trials = complexity_nats(0, HALF), math.log2(12), 60
    grid, violated = betting_grid(documents * size, nats), [0, 0]
    for _ in range(trials):
        bits = random.random((documents, size)) < 0.5
        known = np.cumsum(bits, axis=1) - bits, np.repeat(bits.sum(1, keepdims=True), size, axis=1)
        for which, (ones, seen) in enumerate(zip(known, (np.arange(size), np.full(size, size)), strict=True)):
            q = (ones + 1) / (seen + 2)
            losses = -np.log2(np.where(bits, q, 1 - q)).ravel()
            truth = -(np.log2(q) + np.log2(1 - q)).mean() / 2
            found = freedman(losses, np.zeros(losses.size), nats, low=0.0, width=top, guess_width=top, grid=grid)
            violated[which] += found < truth
    assert violated[0] <= LIMIT * trials and violated[1] == trials


def test_the_document_code_in_a_residual_model_has_read_nothing_of_the_document_s_rest():
    """200 documents of 10 fair bits under a residual model without logits of its own. The twin's code reads each one twice."""
    documents, size, trials, random = 200, 10, 40, np.random.default_rng(0)
    least, violated = FLOOR / 2, {1: 0, 2: 0}
    for _ in range(trials):
        bits = random.integers(0, 2, (documents, size))
        for passes in violated:
            starts = np.arange(documents) * passes * size
            windows = starts, starts + (passes - 1) * size, np.full(documents, size), np.zeros(documents, int)
            code = {"vocab_size": 2, "eot": 1, "code": DocumentCode((1.0, 0.5, 0.5))}
            logs = log_distributions(np.tile(bits, passes).ravel(), *windows, width=size, **code).astype(float)
            losses = -np.take_along_axis(logs, bits[:, :, None], axis=2).ravel() / math.log(2)
            truth = -logs.mean() / math.log(2)  # of a bit drawn afresh
            violated[passes] += token_limit(losses, -math.log2(least)) < truth
    assert violated[1] <= LIMIT * trials and violated[2] == trials


def token_limit(losses, top):
    """Freedman's limit for a code's own losses, in bits, with the guess 0, at half of delta."""
    nats = complexity_nats(0.0, HALF)
    zeros = np.zeros(len(losses))
    return freedman(losses, zeros, nats, low=0.0, width=top, guess_width=top, grid=betting_grid(len(losses), nats))


def test_the_average_over_a_stream_is_not_the_risk_of_the_last_predictor():
    """Bits are 1 with probability .9; q says so for 1,000 tokens, then .5. The twin takes the limit for the last q's risk: 1."""
    entropy, late = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1)), 50
    truth, random = (1000 * entropy + late) / (1000 + late), np.random.default_rng(0)
    limits = []
    for _ in range(200):
        bits = random.random(1000) < 0.9
        losses = np.concatenate([-np.log2(np.where(bits, 0.9, 0.1)), np.ones(late)])
        limits.append(token_limit(losses, -math.log2(0.1)))
    assert np.mean(np.array(limits) < truth) <= LIMIT < CAUGHT < np.mean(np.array(limits) < 1.0)


def test_a_stream_s_counts_are_of_what_came_before():
    """1,000 draws of 4,096 symbols, counts + .1. The twin scores the last counts on the very tokens that made them."""
    V, N, random = 4096, 1000, np.random.default_rng(0)
    top, right, twin = math.log2((N + 0.1 * V) / 0.1), [], []
    for _ in range(100):
        tokens = random.integers(V, size=N)
        first = np.array([(tokens[:i] == tokens[i]).sum() for i in range(N)])
        before = (first + 0.1) / (np.arange(N) + 0.1 * V)
        seen = np.zeros(V)
        risk = np.zeros(N)
        total = np.full(V, math.log2(0.1)).sum()
        for i, token in enumerate(tokens):  # the mean of log2 of the counts, over all symbols
            risk[i] = math.log2(i + 0.1 * V) - total / V
            total += math.log2(seen[token] + 1.1) - math.log2(seen[token] + 0.1)
            seen[token] += 1
        last = (np.bincount(tokens, minlength=V) + 0.1) / (N + 0.1 * V)
        right.append(token_limit(-np.log2(before), top) < risk.mean())
        twin.append(token_limit(-np.log2(last[tokens]), top) < -np.log2(last).mean())
    assert np.mean(right) <= LIMIT < CAUGHT < np.mean(twin)
