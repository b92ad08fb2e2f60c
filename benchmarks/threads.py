"""How long a training step takes, alone and beside two busy processes, by how long OpenMP's threads spin.

    python benchmarks/threads.py [--rounds 3] [--steps 20] [--csv benchmarks/threads.csv]

Each round runs every setting once, in turn, so that all settings see the same machine. The table shows medians over rounds.
`sublora/__init__.py` sets GOMP_SPINCOUNT by this table.
"""

import argparse
import os
import subprocess
import sys

import pandas as pd

SETTINGS = {
    "default spin": {},
    "spin 20000": {"GOMP_SPINCOUNT": "20000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 300": {"GOMP_SPINCOUNT": "300"},
    "spin 100": {"GOMP_SPINCOUNT": "100"},
    "no spin": {"GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
STEP = """
import sys, time
import torch
import torch.nn.functional as F
from sublora.experiment import Gpt, Subspace
from sublora.models import build
model = build(Gpt(layers=2, heads=4, width=64, block=128), Subspace(parametrization="subspace", dimension=961), 257)
model.train()
tokens = torch.randint(257, (32, 129))
times = []
for step in range(3 + int(sys.argv[1])):
    began = time.perf_counter()
    F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    model.coordinates.grad = None
    times.append(time.perf_counter() - began)
print(1000 * sum(times[3:]) / len(times[3:]))
"""
BUSY = "while True: sum(range(10_000))"


def milliseconds(setting: dict[str, str], steps: int) -> float:
    """The mean time of a step in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    # The package sets the spin count only where the environment has none; "default spin" is what libgomp does by itself.
    environment = {**kept, "GOMP_SPINCOUNT": "", **setting}
    done = subprocess.run([sys.executable, "-c", STEP, str(steps)], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2, help="busy processes beside the step")
    parser.add_argument("--csv", help="also write the table to this file")
    wanted = parser.parse_args()
    rows = []
    for busy in (0, wanted.busy):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        try:
            for _ in range(wanted.rounds):
                rows += [(name, busy, milliseconds(setting, wanted.steps)) for name, setting in SETTINGS.items()]
        finally:
            for other in others:
                other.kill()
                other.wait()
    frame = pd.DataFrame(rows, columns=["setting", "busy_processes", "milliseconds"])
    table = frame.groupby(["setting", "busy_processes"], sort=False)["milliseconds"].median().unstack()
    table.columns = [f"beside {count} busy processes (ms a step)" for count in table.columns]
    table["ratio"] = table.iloc[:, 1] / table.iloc[:, 0]
    print(f"{os.cpu_count()} cores\n{table.round(2).to_string()}")
    if wanted.csv:
        table.round(2).to_csv(wanted.csv)


if __name__ == "__main__":
    main()
