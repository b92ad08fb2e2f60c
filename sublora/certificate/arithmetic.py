"""What a certificate's settings and stated values determine, computed without its data and without its model."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sublora.certificate import references, statements
from sublora.certificate.schema import AssumptionName, Certificate, Statement
from sublora.certificate.statements import Facts, Metric
from sublora.errors import SubloraError
from sublora.experiment import Classify, Experiment, Level, OnText
from sublora.inequalities.independent import betting_grid, binomial_tail, complexity_nats, mixed, smallest_refuted
from sublora.inequalities.means import Bound, from_mean
from sublora.inequalities.reference import Reference
from sublora.scoring.text import evaluated_units

EXACT = 1e-9
"""How far float64 arithmetic may move what stated values determine."""
MOST_EXAMPLES = 10**9
SEARCHED = 1e-8
"""More than a search for a bound may end above it."""


def determined(certificate: Certificate, experiment: Experiment) -> dict[str, Any]:
    """All of a certificate that settings and stated losses determine, as plain data, with the rest as it is stated.

    The mean loss determines hoeffding, azuma, binomial_tail, and kl where all units were evaluated. The other bounds need the
    losses themselves: they are as stated, or, if less, the least that losses of that mean allow.
    """
    data = certificate.data()
    known = _of_labels(certificate, experiment) if isinstance(experiment, Classify) else _of_text(certificate, experiment)
    rules, corpus, bounds, published, held_out = known
    return {
        "experiment": experiment.name,
        "delta": experiment.bounds.delta,
        "public": {**data["public"], **rules},
        "corpus": {**data["corpus"], **corpus},
        "bounds": list(bounds),
        "held_out": held_out,
        "paper_accounting": {**data["paper_accounting"], "bounds": list(published)},
    }


def _of_text(certificate: Certificate, experiment: OnText) -> tuple[dict, dict, Iterable[dict], Iterable[dict], list[dict]]:
    corpus, choices = certificate.corpus, experiment.bounds
    V, levels = corpus.vocab_size, choices.levels
    sequences = next((bound.units for bound in certificate.statements if bound.level == "sequence"), 1)  # the data's to say
    units: dict[Level, int] = {"document": corpus.documents, "sequence": sequences}
    units |= {"token": corpus.tokens, "position": corpus.tokens, "group": corpus.groups.training if corpus.groups else 1}
    origin = experiment.corpus.tokenizer_from
    price = certificate.message_bits, certificate.alpha or 0.5, V, choices.delta, units, corpus.pool or 0
    compared = choices.configurations, choices.candidates, choices.tokens, choices.nominal_tokens
    facts = Facts(*price, *compared, origin, choices.split_seeds)
    if (by_byte := getattr(certificate.public, "bytes", None)) is not None:  # the data's to say
        facts = facts._replace(ratios={"pool": max(by_byte.ratio.values()), **by_byte.ratio}, fewest=by_byte.shortest)
    published = facts.as_published(certificate.paper_accounting.bits)
    evaluated = {level: evaluated_units(level, experiment, units[level]) for level in levels}
    whole = all(evaluated[level] == units[level] for level in levels)
    rows = ((level, *of) for level in levels for of in statements.listed(level, facts, evaluated[level] == units[level]))
    apply = [level for level in levels if statements.PUBLISHED[level][0] in statements.assumptions(level, origin)]
    shortest = getattr(getattr(certificate.public, "reference", None), "shortest", None) or 1  # the data's to say
    beside = _beside(certificate, facts._replace(reference=experiment.reference), evaluated, shortest)
    papers = ((level, of, *statements.PUBLISHED[level]) for level in apply for of in statements.metrics(V))
    measured = ((level, of) for level in levels for of in statements.measured(level, facts))
    apart = [{"level": level, "metric": of.name, "alpha": of.alpha} for level, of in measured]
    if (name := experiment.reference.name) != "uniform":
        of_message = {"alpha": certificate.alpha, "reference": name}
        apart += [{"level": level, "metric": of, **of_message} for level, of in references.measured(levels, facts)]
    held_out = [{**value, **said} for value, said in zip(_held_out(certificate), apart, strict=False)]
    return (
        {**statements.text_rules(experiment, whole), **references.rules(experiment, V, shortest)},
        statements.text_corpus(experiment),
        itertools.chain(_restated(rows, certificate.statements, facts, evaluated), beside),
        _restated(papers, certificate.paper_accounting.bounds, published, evaluated, tolerant=False),
        held_out + apart[len(held_out) :],
    )


def _of_labels(certificate: Certificate, experiment: Classify) -> tuple[dict, dict, Iterable[dict], Iterable[dict], list[dict]]:
    corpus, choices = certificate.corpus, experiment.bounds
    m, pool = corpus.documents, corpus.pool or 0
    if m > MOST_EXAMPLES:
        raise SubloraError(f"{m:,} are more examples than the {MOST_EXAMPLES:,} that are computed with")
    assumptions = statements.label_assumptions(m, pool)
    facts = Facts(certificate.message_bits, 0.5, 2, choices.delta, {"example": m}, pool, choices.configurations, 1)  # type: ignore[dict-item]
    facts = facts._replace(split_seeds=choices.split_seeds)
    of = Metric("error", None, 0.0, 1.0, certificate.statements[0].vacuous_at)  # the commonest label is the data's to say
    rows = [("example", of, name, inequality) for name in assumptions for inequality in statements.FOR_EXAMPLES[name]]
    published = facts.as_published(certificate.paper_accounting.bits)
    papers, stated = [("example", of, "iid", "hoeffding")], certificate.paper_accounting.bounds
    return (
        statements.label_rules(experiment, assumptions),
        statements.label_corpus(experiment, m, pool),
        _restated(rows, certificate.statements, facts, {"example": m}),
        _restated(papers, stated, published, {"example": m}, tolerant=False),
        list(_held_out(certificate)),
    )


def _held_out(certificate: Certificate) -> Iterator[dict[str, Any]]:
    """The held-out values as stated, their test-set bounds not below the least that losses of such a mean allow."""
    for value in certificate.held_out:
        said = value.model_dump(mode="json")
        if (proven := value.test_bound) is not None:
            # of what was not measured nobody knows more than that no loss is negative
            known = value.value * value.n / (proven.population or value.n)
            limits = {"iid": (proven.iid, value.value), "unseen": (proven.unseen, known)}
            said["test_bound"] |= {name: None if limit is None else max(limit, least) for name, (limit, least) in limits.items()}
        yield said


def _restated(
    rows: Iterable[tuple], stated: list[Statement], facts: Facts, evaluated: Mapping[Any, int], *, tolerant: bool = True
) -> Iterator[dict[str, Any]]:
    """The statements (level, metric, assumption, inequality) as data, made of those that are stated."""
    known = {(s.level, s.metric, s.alpha, s.assumption, s.inequality): s for s in stated if s.reference is None}
    means: dict[tuple, float] = {}  # of one level, metric and alpha there is one
    for level, of, assumption, inequality in rows:
        key = (level, of.name, of.alpha)
        names = dict(zip(("level", "metric", "alpha", "assumption", "inequality"), (*key, assumption, inequality), strict=True))
        said = known.get((*key, assumption, inequality))
        if said is None:
            yield names
            continue
        low, high, m, n = of.low, of.low + of.width, facts.units[level], evaluated[level]
        empirical = min(max(means.setdefault(key, said.empirical), low), high)
        if level == "example":  # a number of errors
            empirical = round(empirical * m) / m
        candidates = facts.compared(of.alpha, n == m)
        J = statements.reachable(assumption, facts.configurations, facts.split_seeds)
        price = facts._replace(message_bits=statements.charged_bits(facts.message_bits, J))
        named: dict[str, Any] = {"assumption": assumption, "inequality": inequality}
        found, exact = _from_mean(empirical, n, level, of, facts=price, candidates=candidates, **named)
        least = min(found.bound + tolerant * statements.tolerance(of.name), high)
        in_pool = facts.pool if level in statements.POOLED or (level == "example" and assumption != "iid") else None
        yield {
            **said.model_dump(mode="json"),
            **names,
            "units": m,
            "pool": in_pool,
            "evaluated": n,
            "candidates": candidates,
            "nominal_tokens": facts.nominal if level == "token" else None,
            "configurations": J,
            "empirical": empirical,
            "bound": least if exact else min(max(said.bound, least), high),
            "vacuous_at": of.vacuous_at,
            "parts": found.parts and {name: float(part) for name, part in found.parts._asdict().items()},
        }


def _beside(certificate: Certificate, facts: Facts, evaluated: Mapping[Level, int], shortest: int) -> Iterator[dict[str, Any]]:
    """The statements beside a reference as data: bound and gain as stated, or what losses of the stated means allow at best.

    shortest: tokens of the pool's shortest document.
    """
    if (name := facts.reference.name) == "uniform":
        return
    stated = [s for s in certificate.statements if s.reference is not None and s.alpha == facts.alpha]
    known = {(s.level, s.metric, s.assumption, s.inequality): s for s in stated}
    means: dict[tuple[Level, str], tuple[float, float]] = {}
    for level, of, assumption, inequality in references.listed(evaluated, facts):
        names = {"level": level, "metric": of.name, "assumption": assumption, "inequality": inequality, "alpha": of.alpha}
        names["reference"] = name
        said = known.get((level, of.name, assumption, inequality))
        if said is None or said.reference_empirical is None:
            yield names
            continue
        m, n, J = facts.units[level], evaluated[level], statements.reachable(assumption, facts.configurations, facts.split_seeds)
        by_byte, ratio = of.name == "bpb", facts.ratios.get(assumption, 1.0)
        fewest = references.least_tokens(level, assumption, facts.fewest if by_byte else shortest)
        code = references.code_of(level, of, facts, np.zeros(1), np.ones(1), least=fewest, sizes=np.ones(1), ratio=ratio)
        price = -math.log2(code.weight * references.share_of_base(level, facts.reference)) / fewest
        loss, own = means.setdefault((level, of.name), (said.empirical, said.reference_empirical))
        own = max(own, 0.0) if name == "base" else min(max(own, 0.0), code.largest - price)  # a base by itself may lose more
        loss = min(max(loss, 0.0), own + price, code.largest)
        candidates = facts.compared(of.alpha, n == m)
        half = facts._replace(message_bits=statements.charged_bits(facts.message_bits, J), delta=facts.delta / 2)
        least, most = 0.0, own - loss  # the offset's part is of all m units: from n of them its mean is not known, nor that of 1/L
        if n == m:
            gap = 0.0 if name == "base" else _gap(inequality, level, of, code, half)  # a base's T is not known from its own loss
            least = max(loss, min(loss + gap, own)) - SEARCHED
        elif level not in references.SINGLE:
            most += price
            if name == "base":  # both parts are of the same units, and no limit is below its mean
                least = loss - SEARCHED
        gain = said.gain and max(min(said.gain, most + EXACT), -price - statements.tolerance(of.name))
        yield {
            **said.model_dump(mode="json"),
            **names,
            "units": m,
            "pool": facts.pool if level in statements.POOLED else None,
            "evaluated": n,
            "candidates": candidates,
            "nominal_tokens": facts.nominal if level == "token" else None,
            "configurations": J,
            "empirical": loss,
            "reference_empirical": own,
            "gain": gain,
            "bound": min(max(said.bound, least), code.largest),
            "vacuous_at": of.vacuous_at,
            "parts": None,
        }


def _gap(inequality: str, level: Level, of: Metric, code: Reference, half: Facts) -> float:
    """The least that the difference's limit is above its mean, all units being evaluated, unless the limit is c."""
    m, tau = half.units[level], half.reference.tau
    nats = complexity_nats(half.message_bits, half.delta)
    if inequality == "azuma":
        return statements.azuma_from_mean(0.0, m, of._replace(width=code.excess + tau), half, candidates=1).bound
    if inequality == "freedman":
        return code.excess * nats / m
    return (code.excess + tau) * math.sqrt(nats / (2 * m)) if inequality == "hoeffding" else 0.0


def _from_mean(
    mean: float, n: int, level: str, of: Metric, *, assumption: AssumptionName, inequality: str, facts: Facts, candidates: int
) -> tuple[Bound, bool]:
    """(the bound, True) if the mean determines it; else (the least that it can be, False). facts: with the bits to be charged."""
    bits, delta, m = facts.message_bits, facts.delta, facts.units[level]  # type: ignore[index]
    nats = complexity_nats(bits, delta)
    if inequality == "azuma":
        return statements.azuma_from_mean(mean, n, of, facts, candidates=candidates), True
    if inequality == "freedman":  # the variance term is not negative, s is below 1, and the subsample makes it larger
        by_azuma = statements.azuma_from_mean(mean, n, of, facts._replace(delta=delta / 2), candidates=candidates).bound
        return Bound(min(by_azuma, mean + statements.guess_width(of, facts.vocab_size) * nats / m), mean, None), False
    scaled = min(max((mean - of.low) / of.width, 0.0), 1.0)
    unseen_of = facts.pool if assumption == "unseen" else None
    price: dict[str, Any] = {"message_bits": bits, "delta": delta, "m": m, "unseen_of": unseen_of, "candidates": candidates}
    if (found := from_mean(scaled, n, inequality=inequality, **price)) is not None:
        return found.unscaled(of.low, of.width), True
    if inequality == "binomial_tail":
        return Bound(binomial_tail(round(scaled * m), nats, m), mean, None), True
    least = scaled
    if inequality == "empirical_bernstein" and m > 1:  # without variance
        least += 7 * complexity_nats(bits, delta / 2) / (3 * (m - 1))
    if inequality == "betting" and n == m and unseen_of is None:  # wealth is concave in the losses: largest if they are all alike
        bets = betting_grid(m, nats)
        step = math.sqrt(nats / (2 * m))
        least = smallest_refuted(lambda u: mixed(m * np.log1p(bets * (u - scaled) / (1 - u))) - nats, start=scaled, step=step)
    return Bound(max(least - SEARCHED, scaled), scaled, None).unscaled(of.low, of.width), False
