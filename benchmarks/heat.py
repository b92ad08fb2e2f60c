"""One held-out document with the loss of each byte, and text drawn from the message, as `heat.csv` beside a certificate.

    python -P benchmarks/heat.py results/quick

The document is the first of the test split that has 300 to 700 bytes: none is chosen by its looks. The losses are those of the
decoded model without smoothing. The tokenizer must be bytes. -P: else `coverage.py` beside this file would stand for a package.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import sublora
from sublora.atomic import write_text
from sublora.data import prepare, split_of
from sublora.experiment import as_experiment
from sublora.reporting.heat import COLUMNS


def main() -> None:
    folder = Path(sys.argv[1])
    model = sublora.load(folder / "certificate.json")
    experiment = as_experiment(sublora.load_certificate(folder / "certificate.json").params)
    store = prepare(experiment.corpus, "runs/corpora")
    document = next(i for i in split_of(store, experiment.corpus).test if 300 <= store.lengths[i] - 1 <= 700)
    ids = store.document(document)[:-1]
    losses = model.token_bits(model.tokenizer.decode(ids.tolist()))[:-1]
    drawn = np.frombuffer(model.generate("", len(ids), seed=1).encode(), np.uint8)
    rows = [(0, int(byte), round(float(bits), 3)) for byte, bits in zip(ids, losses, strict=True)]
    rows += [(1, int(byte), 0.0) for byte in drawn]
    write_text(folder / "heat.csv", pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))


if __name__ == "__main__":
    main()
