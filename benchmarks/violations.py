"""Coverage: how often each bound is violated where the truth is known, beside a broken twin that must be caught.

The larger version of the tests in tests/test_coverage.py; the report shows its table. Exact wherever losses are 0 or 1
(`tests/worlds.py`), simulated elsewhere. Writes a csv with one row for each inequality and world:

    level, assumption, inequality, world    what is bounded, and where
    units, evaluated, hypotheses, message_bits, delta
    trials                                  0: exact
    violations, standard_error              share of trials in which the bound was below the truth
    twin, twin_violations                   the mistake, and how often the bound was violated with it
    gap_ratio                               gap over the paper's (hoeffding, azuma) at typical losses of this world

    python benchmarks/violations.py [--trials 20000] [--out results/coverage.csv]
"""

import argparse
import functools
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from sublora.atomic import write_text
from sublora.inequalities.independent import (
    betting,
    betting_grid,
    binomial_tail,
    complexity_nats,
    empirical_bernstein,
    hoeffding,
    kl,
    log_wealth,
    mixed,
)
from sublora.inequalities.martingale import (
    NOMINAL_BITS,
    azuma,
    azuma_subsampled,
    freedman,
    freedman_subsampled,
    nearest_nominal,
    token_share,
)
from sublora.inequalities.means import bound_mean
from sublora.inequalities.reference import bound_difference, bound_offset
from sublora.inequalities.subsampling import betting_subsampled, hoeffding_subsampled, kl_subsampled
from sublora.inequalities.unseen import betting_unseen, betting_unseen_blocks
from sublora.progress import progress_bar
from sublora.scoring.scores import unit_windows

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from worlds import (  # noqa: E402
    best_then_subsampled,
    cue_in_the_stream,
    memorizers,
    moved_back,
    unseen_violation,
    violation,
    worst_stop,
    zeros_and_ones,
)

DELTA = 0.05
PUBLISHED = {"document": "hoeffding", "token": "azuma"}


def row(
    inequality, assumption, world, units, found, *, twin, level="document", evaluated=None, hypotheses=1, bits=0, trials=0, gap=None
):
    """found: share of violations; twin: (words, share); gap: bound minus the truth at typical losses."""
    error = math.sqrt(found * (1 - found) / trials) if trials else 0.0
    names = ("level", "assumption", "inequality", "world", "units", "evaluated", "hypotheses", "message_bits", "delta", "trials")
    values = (level, assumption, inequality, world, units, evaluated or units, hypotheses, bits, DELTA, trials)
    return dict(zip(names, values, strict=True)) | {
        "violations": found,
        "standard_error": error,
        "twin": twin[0],
        "twin_violations": twin[1],
        "gap": gap,
    }


def of_units(bits, m, mu):
    """Bounds of m losses of 0 or 1 as functions of the count of ones; freedman's guess is their mean."""
    nats = complexity_nats(bits, DELTA)
    bets, guess, side = betting_grid(m, nats), np.full(m, mu), max(mu, 1 - mu)
    return {
        "hoeffding": lambda k: hoeffding(k / m, nats, m),
        "kl": lambda k: kl(k / m, nats, m),
        "binomial_tail": lambda k: binomial_tail(k, nats, m),
        "empirical_bernstein": lambda k: empirical_bernstein(zeros_and_ones(k, m), bits, DELTA),
        "betting": lambda k: betting(zeros_and_ones(k, m), nats, bets),
        "azuma": lambda k: azuma(k / m, nats, m, width=1.0, nominal=m),
        "freedman": lambda k: freedman(zeros_and_ones(k, m), guess, nats, low=0.0, width=1.0, guess_width=side, grid=bets),
    }


def of_subsample(bits, m, n, candidates=1, delta=DELTA):
    """Bounds from n of m losses of 0 or 1 as functions of the count of ones among the n."""
    guess = np.full(n, 0.5)
    common = (bits, delta, m)
    tokens = {"candidates": candidates, "width": 1.0, "nominal": m, "share": token_share(n, nominal=m)}
    ranges = {"low": 0.0, "guess_width": 0.5, **tokens}
    return {
        "hoeffding": lambda k: hoeffding_subsampled(k / n, bits, delta, m, n, candidates=candidates).bound,
        "kl": lambda k: kl_subsampled(zeros_and_ones(k, n), *common, candidates=candidates),
        "betting": lambda k: betting_subsampled(zeros_and_ones(k, n), *common, candidates=candidates),
        "azuma": lambda k: azuma_subsampled(k / n, bits, delta, m, n, **tokens).bound,
        "freedman": lambda k: freedman_subsampled(zeros_and_ones(k, n), guess, *common, **ranges),
    }


def level_of(name):
    return ("token", "martingale") if name in ("azuma", "freedman") else ("document", "iid")


def worst_of_many():
    """Independent losses; the message's 16 bits pay for the worst of 65,536 hypotheses."""
    bits = 16
    for m, mu in ((2000, 0.5), (2000, 0.05), (20_000, 0.5)):
        right, twin = of_units(bits, m, mu), of_units(0, m, mu)
        for name, bound in right.items():
            found, broken = (violation(b[name], m, mu, hypotheses=2.0**bits) for b in (right, twin))
            level, assumption = level_of(name)
            world = f"errors with probability {mu:g}"
            mistake = ("message not counted", broken)
            gap = bound(round(m * mu)) - mu
            yield row(name, assumption, world, m, found, twin=mistake, level=level, hypotheses=2**bits, bits=bits, gap=gap)


def chosen_on_the_subsample():
    """The best of 64 subsample results is certified."""
    m, n, looked_at = 10**6, 100, 64
    right, twin = of_subsample(0, m, n, looked_at), of_subsample(0, m, n, 1)
    for name, bound in right.items():
        found, broken = (violation(functools.cache(b[name]), n, 0.5, hypotheses=looked_at) for b in (right, twin))
        level, assumption = level_of(name)
        mistake = ("candidates not charged", broken)
        world = "best of 64 on the subsample"
        gap = bound(n // 2) - 0.5
        yield row(name, assumption, world, m, found, twin=mistake, level=level, evaluated=n, hypotheses=looked_at, gap=gap)


def best_on_the_training_set():
    """The hypothesis of 2^256 with the fewest training errors, judged from half of the training units."""
    m, n, bits = 2000, 1000, 256
    right, twin = of_subsample(bits, m, n), of_subsample(0, m, n)
    for name, bound in right.items():
        found, broken = (best_then_subsampled(functools.cache(b[name]), m, n, 0.5, hypotheses=2.0**bits) for b in (right, twin))
        level, assumption = level_of(name)
        mistake, world = ("message not counted", broken), "fewest training errors, then half of them"
        gap = bound(n // 2) - 0.5
        options = {"level": level, "evaluated": n, "hypotheses": 2.0**bits, "bits": bits, "gap": gap}
        yield row(name, assumption, world, m, found, twin=mistake, **options)


def memorized():
    """A pool of 0-1 losses; the best memorizer of the training part. The unseen part pays for it."""
    for M, m, n, bits in ((300, 270, 270, 6), (1200, 900, 450, 64)):
        for name in ("hoeffding", "kl"):  # betting has its own worlds below: it depends on the order
            facts = {"inequality": name, "message_bits": bits, "delta": DELTA, "m": m, "pool": M}

            @functools.cache
            def bound(assumption, k, n=n, facts=facts):
                return bound_mean(zeros_and_ones(k, n), assumption=assumption, **facts).bound

            sides = (functools.partial(bound, assumption) for assumption in ("unseen", "pool"))
            found, broken = (unseen_violation(side, M, M // 2, m, n, hypotheses=2.0**bits) for side in sides)
            mistake, world = ("pool bound read as unseen", broken), f"best memorizer, pool of {M:,}"
            gap = bound("unseen", n // 2) - 0.5
            yield row(name, "unseen", world, m, found, twin=mistake, evaluated=n, hypotheses=2.0**bits, bits=bits, gap=gap)


def in_split_order(trials):
    """Betting with the running candidate."""
    M, m, bits, ones = 300, 270, 20, 150
    counts, law = memorizers(M, ones, m, hypotheses=2.0**bits)
    nats, random = complexity_nats(bits, DELTA), np.random.default_rng(1)
    bets, violated, pooled = betting_grid(m, nats), 0, 0
    for count in progress_bar(random.choice(counts, size=trials, p=law), desc="running candidate", unit="trial"):
        values, truth = random.permutation(zeros_and_ones(count, m)), (ones - count) / (M - m)
        violated += betting_unseen(values, nats, bets, M=M) < truth
        pooled += betting(values, nats, bets) < truth
    gap = betting_unseen(random.permutation(zeros_and_ones(m // 2, m)), nats, bets, M=M) - 0.5
    mistake = ("pool bound read as unseen", pooled / trials)
    options = {"hypotheses": 2**bits, "bits": bits, "trials": trials, "gap": gap}
    yield row("betting (in split order)", "unseen", f"best memorizer, pool of {M}", m, violated / trials, twin=mistake, **options)


def in_blocks(trials):
    """Betting with the running candidate in blocks, judged from a subsample, the bet chosen on a pilot."""
    for M, m, n, bits, mistake in ((1200, 900, 450, 64, "pool bound read as unseen"), (1000, 250, 200, 120, "message not counted")):
        counts, law = memorizers(M, M // 2, m, hypotheses=2.0**bits)
        random, violated, broken = np.random.default_rng(3), 0, 0
        for count in progress_bar(random.choice(counts, size=trials, p=law), desc="blocks", unit="trial"):
            values, truth = random.permutation(zeros_and_ones(count, m)), (M // 2 - count) / (M - m)
            drawn, pilot = np.sort(random.permutation(m)[:n]), np.sort(random.permutation(m)[:100])
            violated += in_blocks_of(values, drawn, pilot, bits=bits, m=m, M=M) < truth
            if mistake == "message not counted":
                broken += in_blocks_of(values, drawn, pilot, bits=0, m=m, M=M) < truth
            else:
                broken += betting_subsampled(values[drawn], bits, DELTA, m, candidates=1, pilot=values[pilot]) < truth
        values = random.permutation(zeros_and_ones(m // 2, m))
        gap = in_blocks_of(values, drawn, pilot, bits=bits, m=m, M=M) - 0.5
        world = f"best memorizer, pool of {M:,}"
        options = {"evaluated": n, "hypotheses": 2.0**bits, "bits": bits, "trials": trials, "gap": gap}
        yield row("betting (in blocks)", "unseen", world, m, violated / trials, twin=(mistake, broken / trials), **options)


def in_blocks_of(values, drawn, pilot, *, bits, m, M):
    return betting_unseen_blocks(values[drawn], drawn, bits, DELTA, m, candidates=1, M=M, pilot=(values[pilot], pilot))


def narrow_losses(trials):
    """Losses like those of documents: standard deviation .05 around .37; the worst of 256 hypotheses."""
    m, bits, hypotheses, mu = 500, 8, 256, 0.37
    random = np.random.default_rng(2)
    names = ("hoeffding", "kl", "empirical_bernstein", "betting")
    violated, broken, gaps = dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for _ in progress_bar(range(trials), desc="narrow losses", unit="trial"):
        # two values, so that the hypothesis with the smallest mean is the worst by every inequality: it has the most low ones
        lowest = random.binomial(m, 0.5, hypotheses).max()
        worst = mu + 0.05 - 0.1 * zeros_and_ones(lowest, m)
        for name in names:
            for paid, counter in ((bits, violated), (0, broken)):
                counter[name] += refuted(name, worst, mu, paid)
    typical = np.resize([mu - 0.05, mu + 0.05], m)
    nats = complexity_nats(bits, DELTA)
    gaps = {
        "hoeffding": hoeffding(mu, nats, m) - mu,
        "kl": kl(mu, nats, m) - mu,
        "empirical_bernstein": empirical_bernstein(typical, bits, DELTA) - mu,
        "betting": betting(typical, nats, betting_grid(m, nats)) - mu,
    }
    for name in names:
        mistake = ("message not counted", broken[name] / trials)
        options = {"hypotheses": hypotheses, "bits": bits, "trials": trials}
        yield row(name, "iid", "losses .37 ± .05", m, violated[name] / trials, twin=mistake, gap=gaps[name], **options)


def refuted(name, values, mu, bits):
    """Whether the bound of these values is below mu."""
    m, nats = values.size, complexity_nats(bits, DELTA)
    if name == "hoeffding":
        return hoeffding(float(values.mean()), nats, m) < mu
    if name == "kl":
        return kl(float(values.mean()), nats, m) < mu
    if name == "empirical_bernstein":
        return empirical_bernstein(values, bits, DELTA) < mu
    return mixed(log_wealth(values, mu, betting_grid(m, nats))) >= nats and values.mean() < mu


def dependent_tokens(trials):
    """The chance of an error depends on the last one; one hypothesis."""
    n, random = 400, np.random.default_rng(0)
    nats = complexity_nats(0, DELTA)
    grid, state = betting_grid(n, nats), np.zeros(trials)
    mu, losses = np.empty((trials, n)), np.empty((trials, n))
    for i in range(n):
        mu[:, i] = 0.15 + 0.5 * state
        losses[:, i] = state = (random.random(trials) < mu[:, i]).astype(float)
    truth = mu.mean(1)
    violated = peeked = 0
    for one, guess, value in zip(progress_bar(losses, desc="dependent tokens", unit="trial"), mu, truth, strict=True):
        violated += freedman(one, guess, nats, low=0.0, width=1.0, guess_width=0.85, grid=grid) < value
        peeked += freedman(one, one, nats, low=0.0, width=1.0, guess_width=1.0, grid=grid) < value
    gap = np.mean(
        [
            freedman(a, b, nats, low=0.0, width=1.0, guess_width=0.85, grid=grid) - a.mean()
            for a, b in zip(losses[:50], mu[:50], strict=True)
        ]
    )
    slack = azuma(0.0, nats, n, width=1.0, nominal=n)
    world, options = "the chance of an error depends on the last", {"level": "token", "trials": trials}
    simple = float((losses.mean(1) + slack < truth).mean())
    unpaid = float((losses.mean(1) + slack / 4 < truth).mean())
    yield row("azuma", "martingale", world, n, simple, twin=("a quarter of the range", unpaid), gap=slack, **options)
    twin = ("a guess that peeks", peeked / trials)
    yield row("freedman", "martingale", world, n, violated / trials, twin=twin, gap=gap, **options)


def stopped():
    """The stream ends when it looks best. The number that azuma is tuned for: fixed, or a power of two chosen afterwards."""
    last, options = 10_000, {"level": "token"}

    def worst(bits, nominal):
        nats = complexity_nats(bits, DELTA)
        return worst_stop(lambda k, N: azuma(k / N, nats, N, width=1.0, nominal=nominal(N)), 100, last)

    fixed, chosen = "fair bits, stopped when they look best", "the same, tuned for a power of two that is chosen afterwards"
    twin = "N taken as fixed", worst(0, lambda N: N)
    yield row("azuma", "martingale", fixed, last, worst(0, lambda N: 1000), twin=twin, **options)
    twin = "choice not charged", worst(0, nearest_nominal)
    yield row("azuma", "martingale", chosen, last, worst(NOMINAL_BITS, nearest_nominal), twin=twin, **options)


def looking_ahead(trials):
    """Losses that move together by what the future holds, if the last window of a document is moved back."""
    block, N = 64, 6400
    nats, random = complexity_nats(0, DELTA), np.random.default_rng(0)

    def violations(rule):
        for _ in progress_bar(range(trials), desc="last windows", unit="trial"):
            losses, means = (values[:N] for values in cue_in_the_stream(rule, N // block, block, random))
            yield azuma(losses.mean(), nats, N, width=1.0, nominal=N) < means.mean()

    found, broken = (np.mean(list(violations(rule))) for rule in (unit_windows, moved_back))
    twin, options = ("the last window moved back", broken), {"level": "token", "trials": trials}
    yield row("azuma", "martingale", "text tells where a window begins", N, found, twin=twin, **options)


def beside_a_reference(trials):
    """The two parts of a bound beside a public reference: its offset f, and the difference D, in [-1, 0] or with a heavy tail."""
    by = {"assumption": "iid", "delta": DELTA}

    def offset(values, bits=0.0, largest=1.0, **drawn):
        return bound_offset(values, largest=largest, message_bits=bits, **{"pool": None, **by, **drawn})

    def difference(values, bits=0.0, largest=1.0, inequality="betting", **drawn):
        facts = {"m": len(values), "message_bits": bits, **by, **drawn}
        return bound_difference(values, excess=0.0, largest=largest, tau=1.0, inequality=inequality, **facts)

    m, bits = 1000, 10
    found, broken = (violation(lambda k, b=b: offset(zeros_and_ones(k, m), b), m, 0.5, hypotheses=2**bits) for b in (bits, 0))
    options = {"hypotheses": 2**bits, "bits": bits}
    yield row("betting (offset)", "iid", "best of 1,024 fair offsets", m, found, twin=("choice not charged", broken), **options)

    m, bits = 2000, 16
    for name in ("betting", "hoeffding"):
        sides = (lambda k, b=b, name=name: 1 + difference(zeros_and_ones(k, m) - 1, b, inequality=name) for b in (bits, 0))
        found, broken = (violation(side, m, 0.5, hypotheses=2.0**bits) for side in sides)
        twin, options = ("message not counted", broken), {"hypotheses": 2**bits, "bits": bits}
        yield row(f"{name} (difference)", "iid", "differences of -1 and 0, fair", m, found, twin=twin, **options)

    M, m, random = 1000, 900, np.random.default_rng(4)
    counts = {"offset": [0, 0], "difference": [0, 0]}
    for _ in progress_bar(range(trials), desc="beside a reference", unit="trial"):
        fair = random.permutation(zeros_and_ones(M // 2, M))
        heavy = np.where(random.random(M) < 0.3, 0.0, -np.minimum(1 + random.pareto(2.2, M), 500))
        for which, assumption in enumerate(("unseen", "iid")):
            split = {"assumption": assumption, "pool": M}
            counts["offset"][which] += offset(fair[:m], **split) < fair[m:].mean()
            counts["difference"][which] += difference(heavy[:m], largest=500.0, places=np.arange(m), **split) < heavy[m:].mean()
    for (part, (right, wrong)), world in zip(counts.items(), ("fair offsets", "differences with a heavy tail"), strict=True):
        twin = "independent documents' bound", wrong / trials
        yield row(f"betting ({part})", "unseen", f"{world}, pool of {M:,}", m, right / trials, twin=twin, trials=trials)


def with_ratios(rows):
    """The table with gap_ratio in place of gap: over the published inequality's gap in the same world."""
    frame = pd.DataFrame(rows)
    same = ["level", "assumption", "world", "units", "evaluated"]
    published = frame[frame["inequality"] == frame["level"].map(PUBLISHED)].set_index(same)["gap"]
    reference = [published.get(tuple(key), np.nan) for key in frame[same].itertuples(index=False)]
    frame["gap_ratio"] = frame.pop("gap").astype(float) / np.array(reference, float)
    return frame


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--out", default="results/coverage.csv")
    wanted = parser.parse_args()
    worlds = [worst_of_many(), chosen_on_the_subsample(), best_on_the_training_set(), memorized()]
    worlds += [simulated(wanted.trials) for simulated in (narrow_losses, dependent_tokens, in_split_order)]
    worlds += [in_blocks(wanted.trials // 20), stopped(), looking_ahead(wanted.trials), beside_a_reference(wanted.trials // 20)]
    rows = [entry for world in progress_bar(worlds, desc="worlds", unit="world") for entry in world]
    frame = with_ratios(rows)
    write_text(wanted.out, frame.to_csv(index=False))
    print(frame.drop(columns=["standard_error", "delta"]).to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print(f"written: {wanted.out}")


if __name__ == "__main__":
    main()
