"""What one GPU does with the paper's model: GPT-2 small in SubLoRA's subspace, on abstracts of arXiv in gpt2 tokens.

    python benchmarks/gpu.py [--minutes 9] [--out results/gpu.csv]

Parts: tokens a second of {full, lora, sublora} x {eager, compiled}; the scoring of 10,000 documents; a certificate that GPU and CPU
verify; a token-level certificate after ten minutes of training. A part that the table has is left out, and a call ends after
`--minutes`: call it until it says that nothing is left. `--device cpu --tiny` tries the script itself, in seconds.
"""

import argparse
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 operations a second, by what the card's name holds, as its maker states them."""
METHODS: dict[str, dict[str, Any]] = {
    "full": {"parametrization": "full", "dimension": None},
    "lora": {"parametrization": "lora", "dimension": None, "rank": 4, "lora_alpha": 32.0, "lora_dropout": 0.1},
    "sublora": {"parametrization": "sublora", "projector": "kron_qr", "dimension": 50_000, "rank": 4, "lora_alpha": 32.0},
}
Row = tuple[str, str, bool, str, float]
"""part, method, whether compiled, quantity, value."""


def experiment(wanted: argparse.Namespace, name: str, method: str = "sublora", **changes: Any) -> dict[str, Any]:
    """The paper's settings. changes: `group__key=value`."""
    corpus = {"source": "file", "path": str(wanted.corpus), "field": wanted.field, "tokenizer": "gpt2", "train": 0.9}
    values: dict[str, Any] = {
        "name": f"gpu-{name}",
        "corpus": corpus,
        "model": {"layers": 12, "heads": 12, "width": 768, "block": 1024},
        "subspace": dict(METHODS[method]),
        "training": {"steps": 20, "batch": 320, "accumulation": 10, "learning_rate": 0.005, "validate_every": 20},
        "compression": {"quantizer": "uniform", "levels": 11},
        "bounds": {"documents": 200, "held_out_documents": 200, "stride": 1024, "batch_tokens": 65_536},
    }
    if wanted.tiny:
        texts = wanted.runs / "texts"
        texts.mkdir(parents=True, exist_ok=True)
        for number in range(0 if any(texts.iterdir()) else 120):
            (texts / f"{number}.txt").write_text(f"{number} is {'one more ' * (number % 7)}number", "utf-8")
        values["corpus"] = {"source": "text", "path": str(texts), "train": 0.6}
        values["model"] = {"layers": 1, "heads": 2, "width": 16, "block": 32}
        values["subspace"] |= {} if values["subspace"]["dimension"] is None else {"dimension": 30}
        values["training"] |= {"steps": 2, "batch": 4, "accumulation": 1, "validate_every": 2, "validation_documents": 4}
        values["bounds"] |= {"documents": 30, "held_out_documents": 20, "stride": 32}
    for key, value in changes.items():
        group, _, of = key.partition("__")
        values[group][of] = value
    return values


def speed(wanted: argparse.Namespace, method: str, compiled: bool) -> Iterator[Row]:
    """Training: tokens a second, and the share of the card's peak that matrix products at that speed are."""
    from sublora import Run

    name = f"{method}-{'compiled' if compiled else 'eager'}"
    run = Run(experiment(wanted, name, method, training__compile="yes" if compiled else "no"), wanted.runs)
    per_second = float(run.train()["tokens_per_second"].iloc[-1])
    yield "training", method, compiled, "tokens_per_second", per_second
    if peak := next((value for card, value in PEAK.items() if card in wanted.name), None):
        shape, vocabulary = run.experiment.model, run.problem.store.vocab_size
        weights = 12 * shape.layers * shape.width**2 + vocabulary * shape.width
        # Two operations a weight and token forward, as many back to the activations, and where all weights are trained to them.
        yield "training", method, compiled, "share_of_peak", (6 if method == "full" else 4) * weights * per_second / peak


def scoring(wanted: argparse.Namespace) -> Iterator[Row]:
    """The scoring of 10,000 documents, windows and bounds left out."""
    from sublora import Run

    many = {} if wanted.tiny else {"bounds__documents": 10_000}
    run = Run(experiment(wanted, "scoring", **many), wanted.runs)
    run.message  # noqa: B018  trained, compressed and sealed before the clock starts
    began = time.monotonic()
    scores = run.evaluation.training["document"]
    seconds = time.monotonic() - began
    yield "scoring", "sublora", False, "documents", len(scores.offsets) - 1
    yield "scoring", "sublora", False, "seconds", seconds


def verified(wanted: argparse.Namespace) -> Iterator[Row]:
    """One certificate, verified where it was made and on the CPU: 1 if all of it agrees within the tolerance, else 0."""
    from sublora import Run

    run = Run(experiment(wanted, "verified"), wanted.runs)
    run.certify()
    for device in dict.fromkeys([wanted.device, "cpu"]):
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        command = [sys.executable, "-m", "sublora", "verify", str(run.folder / "certificate.json"), "--runs", str(wanted.runs)]
        command += ["--limit-memory", "64", "--limit-minutes", "60"]
        began = time.monotonic()
        done = subprocess.run(command, env={**os.environ, **hidden})
        yield "verified", "sublora", False, f"agrees_on_{device}", float(done.returncode == 0)
        yield "verified", "sublora", False, f"seconds_on_{device}", time.monotonic() - began


def tokens(wanted: argparse.Namespace) -> Iterator[Row]:
    """A token-level certificate after as many steps as take ten minutes at the measured speed."""
    from sublora import Run

    few = {"training__steps": 2} if wanted.tiny else steps_of(wanted, 600)
    bounds = {"bounds__levels": ["token"], "bounds__tokens": 50 if wanted.tiny else 20_000}
    values = experiment(wanted, "tokens", **few, **bounds)
    del values["bounds"]["documents"]
    certificate = Run(values, wanted.runs).certify()
    bits = [bound for bound in certificate.statements if bound.metric == "bpd"]
    best = min(bits, key=lambda bound: bound.bound / bound.vacuous_at)
    yield "tokens", "sublora", True, "message_bits", certificate.message_bits
    yield "tokens", "sublora", True, "bound", best.bound
    yield "tokens", "sublora", True, "vacuous_at", best.vacuous_at


def steps_of(wanted: argparse.Namespace, seconds: float) -> dict[str, int]:
    """The number of steps that take so long, by the fastest measured way to train in SubLoRA's subspace."""
    from sublora import Run

    rows = kept(wanted.out)
    mine = rows[(rows["part"] == "training") & (rows["method"] == "sublora") & (rows["quantity"] == "tokens_per_second")]
    store = Run(experiment(wanted, "tokens"), wanted.runs).problem.store
    in_step = 320 * min(1024, float(store.lengths.mean()))
    steps = max(20, int(seconds * mine["value"].max() / in_step))
    return {"training__steps": steps, "training__validate_every": max(1, steps // 20)}


def kept(out: Path) -> pd.DataFrame:
    """The rows that are measured."""
    columns = ["part", "method", "compiled", "quantity", "value", "device"]
    return pd.read_csv(out) if out.exists() else pd.DataFrame(columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float, default=9, help="after which the call ends; the next one goes on")
    parser.add_argument("--corpus", type=Path, default=Path("data/arxiv-abstracts/sample_25k.jsonl.xz"))
    parser.add_argument("--field", default="abstract")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("results/gpu.csv"))
    wanted = parser.parse_args()
    if wanted.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import sublora  # noqa: F401  before torch: it sets the threading

    import torch  # isort: skip

    if wanted.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu: torch sees no GPU here; nothing is measured (--device cpu --tiny tries the script)")
    if not (wanted.tiny or wanted.corpus.exists()):
        sys.exit(f"gpu: there is no {wanted.corpus}; name a .jsonl file of documents with --corpus and --field")
    wanted.name = torch.cuda.get_device_name() if wanted.device == "cuda" else "CPU"
    parts: dict[tuple[str, str, bool], Callable[[], Iterator[Row]]] = {
        ("training", method, compiled): functools.partial(speed, wanted, method, compiled)
        for method in METHODS
        for compiled in ([False, True] if wanted.device == "cuda" else [False])
    }
    parts[("scoring", "sublora", False)] = functools.partial(scoring, wanted)
    parts[("verified", "sublora", False)] = functools.partial(verified, wanted)
    parts[("tokens", "sublora", True)] = functools.partial(tokens, wanted)

    def up(*_: object) -> None:
        sys.exit("gpu: the time is up; the same command goes on")

    signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, 60 * wanted.minutes)
    for key, measure in parts.items():
        rows = kept(wanted.out)
        if key in set(rows[["part", "method", "compiled"]].itertuples(index=False, name=None)):
            continue
        print(*key, flush=True)
        new = pd.DataFrame([(*row, wanted.name) for row in measure()], columns=rows.columns)
        print(new.to_string(index=False, header=False), flush=True)
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([rows, new] if len(rows) else [new]).to_csv(wanted.out, index=False)
    print(f"gpu: nothing is left; see {wanted.out}")


if __name__ == "__main__":
    main()
