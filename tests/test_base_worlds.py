"""A public base, and documents that leave the pool: right in worlds where the truth is known; each rule's broken twin is caught."""

import math

import numpy as np
import pytest
from scipy.stats import binom, hypergeom
from test_coverage import CAUGHT, DELTA, EXACT_CAUGHT, LIMIT
from test_reference_bounds import HALF, difference_bound, offset_bound
from worlds import violated_below, violation, worst_of, zeros_and_ones

from sublora.inequalities.means import bound_mean
from sublora.inequalities.reference import bound_offset, of_whole_units


def hoeffding(values, *, bits=0.0, assumption="iid", pool=None):
    """A bound on 0-1 losses of all m units."""
    by = {"inequality": "hoeffding", "message_bits": bits, "delta": DELTA, "m": len(values), "places": np.arange(len(values))}
    return bound_mean(values, assumption=assumption, pool=pool, **by).bound


# -- a base is public if nothing in it depends on this split (THEORY 9) ---------------------------------------------------


def test_a_base_that_has_read_a_training_split_is_public_for_another_split_alone():
    """M = 2,000, m = 1,000. The base has no loss on the split that it memorized, and fair losses elsewhere.

    Right: the split of the certificate was drawn apart from it. The twin: that very split.
    """
    M, m, trials, random = 2000, 1000, 400, np.random.default_rng(0)
    violated = {"another": 0, "this": 0}
    for _ in range(trials):
        losses = (random.random(M) < 0.5).astype(float)
        memorized, another = random.permutation(M), random.permutation(M)
        losses[memorized[:m]] = 0.0
        for name, order in (("another", another), ("this", memorized)):
            values = losses[order]
            violated[name] += hoeffding(values[:m], assumption="unseen", pool=M) < values[m:].mean()
    assert violated["another"] <= LIMIT * trials and violated["this"] == trials


def test_a_base_that_was_chosen_on_the_training_split_is_paid():
    """The best of 1,024 fair bases, m = 1,000, exact: log2 1,024 bits, or none."""
    m = 1000

    def violated(bits):
        return violation(lambda k: hoeffding(zeros_and_ones(k, m), bits=bits), m, 0.5, hypotheses=1024)

    assert violated(10) <= DELTA
    assert violated(0) >= EXACT_CAUGHT and violated(0) > 0.9


# -- the base as the reference (THEORY 15.5) -------------------------------------------------------------------------------


def gain_bound(lengths, losses, code, *, least, beta):
    """The certified gain of a message without bits: minus the limit of D, minus that of the price of mixing."""
    price = -math.log2(beta) * offset_bound(np.minimum(1 / lengths, 1 / least), largest=1 / least)
    return -difference_bound(losses - code.above(), excess=0.0, largest=code.largest) - price


def test_a_gain_over_the_base_itself_pays_for_the_uniform_code_in_it():
    """The model is the base, of one bit a token, so that nothing is gained; m = 10^6 documents of two tokens, no bit to pay.

    beta is near 1, so that the mixture is about the code. The twin pays for beta alone, and beats the base with a sixteenth of a
    guess, by log2 of 16/15 for each document.
    """
    m, beta, gamma = 10**6, 0.999, 1 / 16
    lengths, own = np.full(m, 2), np.full(m, 1.0)
    code = of_whole_units(-2 * math.log(2) * own, lengths, vocab_size=256, beta=beta, gamma=gamma, shortest=2, offset="reference")
    for model in (own, own / 2):  # the model is the base; it is better by half a bit
        losses = code.mixture(model * 2)
        truth, found = {}, {}
        truth["base"], truth["mixed"] = (own - losses).mean(), (code.own - losses).mean()
        for name, weight in (("base", beta * (1 - gamma)), ("mixed", beta)):
            found[name] = gain_bound(lengths, losses, code, least=2, beta=weight)
        assert found["base"] <= truth["base"] and found["mixed"] <= truth["mixed"]
    losses = code.mixture(own * 2)
    assert gain_bound(lengths, losses, code, least=2, beta=beta * (1 - gamma)) <= (own - losses).mean() < 0
    assert gain_bound(lengths, losses, code, least=2, beta=beta) > (own - losses).mean(), "the twin"


def test_the_price_of_mixing_is_that_of_the_population_s_shortest_document():
    """beta = 2^-16, L = 2 with probability .0022, where the model loses all, so that mixing costs 8 bits a token; else L = 100.

    There the model is the base, so that the mixture is about the base, too. m = 1,000, iid, exact. The twin takes the sample's
    shortest document, which is long with probability .111.
    """
    m, p, beta = 1000, 0.0022, 2.0**-16
    keys = {"vocab_size": 256, "beta": beta, "gamma": 1 / 16, "offset": "reference"}
    violated = {2: 0.0, None: 0.0}
    for hits in range(30):
        lengths = np.where(np.arange(m) < hits, 2, 100)
        for shortest in violated:
            least = shortest or int(lengths.min())
            code = of_whole_units(-lengths * 1.0, lengths, shortest=least, **keys)
            losses = code.mixture(np.where(lengths == 2, 1e4, code.own * lengths))
            if hits:
                assert losses[0] == pytest.approx(code.own[0] + 8)
            truth = -8 * p
            found = gain_bound(lengths, losses, code, least=least, beta=beta)
            violated[shortest] += binom.pmf(hits, m, p) * (found > truth)
    assert violated[2] <= 1e-12
    assert violated[None] >= EXACT_CAUGHT and violated[None] == pytest.approx(0.111, abs=1e-3)


def test_the_base_s_limit_pays_for_every_draw_that_was_looked_at():
    """The base has fair losses; m = 10^6, n = 100. Of 64 messages the one is taken whose draw makes the base look best.

    The base is the same for all, but each message draws a subsample of its own. The twin counts one.
    """
    m, n, A = 10**6, 100, 64

    def limit(k, candidates):
        values = zeros_and_ones(k, n)
        by = {"assumption": "iid", "message_bits": 0.0, "delta": HALF, "m": m, "candidates": candidates, "places": np.arange(n)}
        return bound_offset(values, largest=1.0, pilot=(np.resize([0.0, 1.0], 50), np.arange(50)), **by)

    def violated(candidates):
        below = violated_below(lambda k: limit(k, candidates), 0.5, n)
        return worst_of(A, hypergeom.cdf(below - 1, m, m // 2, n))

    assert violated(A) <= HALF
    assert violated(1) >= EXACT_CAUGHT


def test_the_base_s_limit_from_a_subsample_is_of_unseen_documents():
    """A pool of 1,000, half ones, m = 900, n = 800. The twin takes the n for fresh documents, and bounds those."""
    M, m, n, trials, random = 1000, 900, 800, 60, np.random.default_rng(0)
    violated = {"unseen": 0, "iid": 0}
    by = {"largest": 1.0, "message_bits": 0.0, "delta": HALF, "pool": M}
    for trial in range(trials):
        pool = random.permutation(zeros_and_ones(M // 2, M))
        drawn, tried = (np.sort(random.permutation(m)[:size]) for size in (n, 100))
        if trial < 15:  # it takes long
            right = bound_offset(pool[drawn], assumption="unseen", m=m, places=drawn, pilot=(pool[tried], tried), **by)
            violated["unseen"] += right < pool[m:].mean()
        violated["iid"] += bound_offset(pool[drawn], assumption="iid", **by) < pool[m:].mean()
    assert violated["unseen"] <= LIMIT * 15 and violated["iid"] >= CAUGHT * trials


# -- documents removed before the split (THEORY 15.7) ----------------------------------------------------------------------


def test_documents_may_be_removed_before_the_split_by_any_rule_and_after_it_by_none():
    """A pool of 1,000 fair documents, 200 of the hardest removed, then m = 400 of the other 800: unseen speaks of these.

    The twin splits first, 500 to 500, and removes the 100 hardest training documents.
    """
    M, trials, random = 1000, 200, np.random.default_rng(0)
    right = twin = 0
    for _ in range(trials):
        pool = (random.random(M) < 0.5).astype(float)
        left = random.permutation(np.sort(pool)[: M - 200])
        right += hoeffding(left[:400], assumption="unseen", pool=M - 200) < left[400:].mean()
        order = random.permutation(pool)
        trained = random.permutation(np.sort(order[:500])[:400])
        twin += hoeffding(trained, assumption="unseen", pool=M - 100) < order[500:].mean()
    assert right <= LIMIT * trials and twin >= CAUGHT * trials


def test_under_iid_documents_are_removed_at_random():
    """1,000 fair documents, 200 of them removed: at random, or the hardest. Exact."""
    m, left = 1000, 800

    def bound(k):
        return hoeffding(zeros_and_ones(k, left))

    assert violation(bound, left, 0.5, hypotheses=1) <= DELTA
    worst = violated_below(bound, 0.5, left)
    assert binom.cdf(worst - 1 + 200, m, 0.5) >= 0.999
