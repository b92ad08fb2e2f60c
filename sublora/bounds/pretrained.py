"""A model trained elsewhere, made a message: rounded in several ways, of which pilot units choose one."""

import time
from pathlib import Path

import pandas as pd

from sublora.bounds.certificate import promised
from sublora.compression.whole import quantize_whole
from sublora.config import ALPHA_GRID, Experiment
from sublora.data import Split, TokenStore
from sublora.models.pretrained import architecture, load_causal
from sublora.progress import progress_bar

COLUMNS = ("bits", "scales", "message_bits", "alpha", "empirical", "gap", "bound", "seconds")


def quantize_pretrained(
    store: TokenStore, split: Split, experiment: Experiment, folder: Path
) -> tuple[bytes, Experiment, pd.DataFrame]:
    """Round the model of `experiment.pretrained` to each of its `bits` and `scales`; keep the one of the smallest promised bound.

    Everything tried is in the message, and pilot units are drawn independently of those that certify (`certificate.promised`), so
    that the choice costs nothing. folder: each way keeps its scores in a folder of its own.
    Returns the message (`certificate.seal` gives it its alpha), the experiment with the model's architecture filled in, which a
    certificate states, and the table of all ways (`COLUMNS`; empirical, gap and bound, in bits per token, are promises at the
    best alpha).
    Raises SubloraError for a model that cannot be loaded or coded.
    """
    asked = experiment.pretrained
    model = load_causal(asked.source, store.vocab_size, experiment.model.block)
    experiment = experiment.model_copy(update={"pretrained": asked.model_copy(update={"architecture": architecture(model)})})
    ways = [(bits, scales) for bits in asked.bits for scales in asked.scales]
    rows, best = [], None
    with progress_bar(total=len(ways), desc="quantize", unit="way") as progress:
        for bits, scales in ways:
            began = time.monotonic()
            data = quantize_whole(model, bits, ALPHA_GRID[0], rows=scales == "row")
            entries = promised(data, store, split, experiment, folder / "ways" / f"{bits}-{scales}")
            entry = min(entries, key=lambda entry: entry["bound"])
            gap = entry["bound"] - entry["empirical"]
            seconds = time.monotonic() - began
            rows.append((bits, scales, 8 * len(data), entry["alpha"], entry["empirical"], gap, entry["bound"], seconds))
            if best is None or entry["bound"] < best[0]:
                best = entry["bound"], data
            progress.update()
    return best[1], experiment, pd.DataFrame(rows, columns=list(COLUMNS))
