"""What would the bound be if? Arithmetic on scores that are there: no model runs, every answer takes milliseconds."""

import functools

import pandas as pd

from sublora.certificate.statements import Facts, bound, metric
from sublora.experiment.groups import Bounds
from sublora.scoring.scores import Scores

ASKED = ("hoeffding", "kl", "betting")


def what_if(
    scores: Scores, pilot: Scores, *, alpha: float, vocab_size: int, delta: float, units: int, message_bits: float
) -> pd.DataFrame:
    """The bounds for fresh documents (iid) that these losses would give with another delta, training set or message.

    scores, pilot: of n evaluated documents and of others for the bets (`evaluate`); units: m, how many training documents there
    would be, at least n; message_bits: K of the model with these losses. A thought experiment and no certificate: of a message of
    another length, or trained on more documents, the losses would be others, too. J and A have their defaults.
    Columns: inequality, empirical, gap, bound, vacuous_at (bits per token), one row for each of `ASKED`.
    Raises SubloraError for alpha or delta outside (0, 1), a negative message, or fewer units than are evaluated.
    """
    usual = Bounds()
    facts = Facts(message_bits, alpha, vocab_size, delta, {"document": units}, units, usual.configurations, usual.candidates)
    of = metric("bpd", alpha, vocab_size)
    stated = functools.partial(bound, "document", of, "iid", scores=scores, pilot=pilot, facts=facts, tolerant=False)
    table = pd.DataFrame([stated(inequality).model_dump() for inequality in ASKED])
    table["gap"] = table["bound"] - table["empirical"]
    return table[["inequality", "empirical", "gap", "bound", "vacuous_at"]]
