"""What a training step and scoring take, beside the same work done without any care, and beside an early version of this package.

    python benchmarks/speed.py [WHAT ...] [--abstracts data/arxiv-abstracts/sample_25k.jsonl.xz] [--out results/speed.csv]

WHAT: abstracts, functions, gpt2-small (heavy: minutes), scoring, tokenizing; without it all but gpt2-small. New rows replace those
of the same WHAT in the file. Times are CPU seconds of one thread, and all ways take turns on the same batches. Ways of a step:

    paper     padded to the block, the logits of all places whole, float32: as the paper's code does on a CPU
    earlier   the same in the precision that commit 5288453 took, bf16 on any CPU that has it
    now       `training.loop`, in the precision that it settles on; `now, float32` and `now, bf16` in that one

Ways of scoring, the losses of which must agree: paper (a document at a time, padded to the block, one softmax and one sort of the
whole vocabulary), loop (the same without padding, a Python loop over the tokens, as benchmarks/scoring.py has it), and now. Columns
of the csv: what, way, seconds (the fastest round), tokens (real ones), tokens_per_second, ratio (to the first way), mebibytes (peak
of the process so far; so the ways begin with the one that needs least).
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

import sublora  # noqa: F401  before torch: it sets the threading

import torch  # isort: skip
import torch.nn.functional as F  # isort: skip

from accelerate import Accelerator
from scoring import straightforward  # the module beside this one

from sublora.atomic import write_text
from sublora.data import TokenStore, prepare
from sublora.data import store as stores
from sublora.data.corpora import grouped_documents
from sublora.data.tokenizers import get_tokenizer
from sublora.experiment import Corpus, Gpt, Subspace
from sublora.models import GPT, build
from sublora.scoring.scores import score, unit_windows
from sublora.training import Sampler, loop
from sublora.training.batches import IGNORED, Batch

CPU = Accelerator(mixed_precision="no")
SMALL = Gpt(layers=12, heads=12, width=768, block=1024)
rows: list[dict] = []


def paper_step(model: torch.nn.Module, batch: Batch, precision: torch.autocast) -> torch.Tensor:
    """The loss in bits; all places and all logits."""
    with precision:
        logits = model(batch.inputs)
    nats = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction="none")
    loss = (nats.view(batch.targets.shape).sum(1) * batch.weights).sum() / np.log(2)
    loss.backward()
    return loss.detach()


def training_step(model: torch.nn.Module, batch: Batch, precision: torch.autocast) -> torch.Tensor:
    """The same by the training loop."""
    numbers = loop.numbers_of_token(model)
    pieces = batch.pieces(len(batch.inputs), loop.AT_ONCE["cpu"] / numbers, loop.CALL / numbers)
    return loop._step(CPU, precision, model, pieces, penalty=None)


def compare(what: str, ways: dict[str, Callable], rounds: int, real: Callable[[int], int]) -> None:
    """Rows of the ways, each a function of the round. real: tokens of a round."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    tokens, mebibytes = [real(i) for i in range(rounds)], {}
    for i in range(rounds):
        for way, action in ways.items():
            began = time.process_time()
            action(i)
            seconds[way].append(time.process_time() - began)
            mebibytes.setdefault(way, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    speeds = {way: max(n / each for n, each in zip(tokens, times, strict=True)) for way, times in seconds.items()}
    first = "earlier" if "paper" not in ways and "earlier" in ways else "paper"
    for way, speed in speeds.items():
        facts = {"seconds": round(min(seconds[way]), 3), "tokens": min(tokens), "tokens_per_second": round(speed)}
        rows.append({"what": what, "way": way, **facts, "ratio": round(speed / speeds[first], 2), "mebibytes": mebibytes[way]})
        print(rows[-1], flush=True)


def steps(what: str, store: TokenStore, shape: Gpt, subspace: Subspace, *, batch: int, rounds: int, ways: dict[str, str]) -> None:
    """Rows of training steps. ways: by name the step and the precision."""
    model = build(shape, subspace, store.vocab_size).train()
    sampler = Sampler(store, np.arange(len(store)), shape.block, "document", 0)

    def way(step: Callable, bf16: bool) -> Callable[[int], None]:
        def action(i: int) -> None:
            model.coordinates.grad = None
            step(model, sampler.batch(i, batch), torch.autocast("cpu", torch.bfloat16, enabled=bf16))

        return action

    made = {"paper": paper_step, "now": training_step}
    chosen = {name: way(made[how.split()[0]], how.endswith("bf16")) for name, how in ways.items()}
    compare(what, chosen, rounds, lambda i: int((sampler.batch(i, batch).targets != IGNORED).sum()))


WAYS = {"now, bf16": "now bf16", "now, float32": "now", "earlier": "paper bf16", "paper": "paper"}


@torch.inference_mode()
def paper_scores(model: torch.nn.Module, store: TokenStore, block: int, stride: int) -> np.ndarray:
    """Natural logarithms of the probabilities of all tokens."""
    logs, ranks = [], []
    for index in range(len(store)):
        document = store.document(index).astype(np.int64)
        inputs = torch.from_numpy(np.concatenate([[store.eot], document[:-1]]))
        done = 0
        while done < len(document):
            begin = 0 if done == 0 else done + stride - block
            end = min(len(document), begin + block)
            window = F.pad(inputs[begin:end], (0, block - (end - begin)), value=store.eot)
            probabilities = torch.softmax(model(window[None])[0], dim=-1)
            wanted = torch.from_numpy(document[done:end])
            place = torch.arange(done - begin, end - begin)
            order = torch.argsort(probabilities, dim=-1, descending=True)[place]
            logs.append(torch.log(probabilities[place, wanted]).numpy())
            ranks.append((order == wanted[:, None]).nonzero()[:, 1].numpy())
            done = end
    return np.concatenate(logs)


def scoring(what: str, whole: TokenStore, shape: Gpt, documents: int, rounds: int) -> None:
    """Rows of scoring the first documents; the losses must agree to 1e-4 nats."""
    model, found = GPT(shape, whole.vocab_size).eval(), {}
    window = {"block": shape.block, "stride": shape.block // 2}
    with tempfile.TemporaryDirectory() as folder:
        texts = [whole.document(i)[:-1] for i in range(documents)]
        facts = {"name": "first", "tokenizer": whole.tokenizer, "vocab_size": whole.vocab_size, "eot": whole.eot}
        store = stores.write_store(f"{folder}/store", texts, **facts)
        windows = unit_windows(store.offsets[:-1], store.lengths, **window)
        given = (store, windows, store.offsets, np.arange(documents))

        def keep(name: str, made: Callable) -> Callable[[int], None]:
            return lambda i: found.__setitem__(name, made())

        ways = {
            "now": keep("now", lambda: score(model, *given, batch_tokens=4096, label="now").log_probability),
            "paper": keep("paper", lambda: paper_scores(model, store, **window)),
            "loop": keep("loop", lambda: straightforward(model, store, np.arange(documents), **window, device="cpu")[0]),
        }
        compare(what, ways, rounds, lambda i: int(store.lengths.sum()))
        for name in ("paper", "loop"):
            if (worst := float(np.abs(found["now"] - found[name]).max())) > 1e-4:
                raise AssertionError(f"{what}: now and {name} differ by {worst}")


def tokenizing(abstracts: Path, documents: int = 10_000, rounds: int = 5) -> None:
    """Rows of tokenizing by wall time, since it is about cores: one and two of them in turn, the fastest round."""
    corpus = Corpus(source="file", path=str(abstracts), field="abstract", tokenizer="gpt2")
    texts = [pair for pair, _ in zip(grouped_documents(corpus, None), range(documents), strict=False)]
    tokenizer, seconds, tokens = get_tokenizer("gpt2"), {1: [], 2: []}, 0
    for _ in range(rounds):
        for cores, times in seconds.items():
            with mock.patch("os.cpu_count", return_value=cores):
                began = time.perf_counter()
                tokens = sum(len(each.ids) for each in stores._tokenized(tokenizer, texts))
                times.append(time.perf_counter() - began)
    for cores, times in seconds.items():
        ratio, speed = min(seconds[1]) / min(times), tokens / min(times)
        facts = {"seconds": round(min(times), 3), "tokens": tokens, "tokens_per_second": round(speed), "ratio": round(ratio, 2)}
        rows.append({"what": "tokenizing, gpt2", "way": f"{cores} cores", **facts})
        print(rows[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["abstracts", "functions", "scoring", "tokenizing"])
    parser.add_argument("--abstracts", type=Path, default=Path("data/arxiv-abstracts/sample_25k.jsonl.xz"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=2, help="the fastest counts")
    parser.add_argument("--out", type=Path, default=Path("results/speed.csv"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    corpora, rounds = wanted.runs / "corpora", wanted.rounds
    abstracts = prepare(Corpus(source="file", path=str(wanted.abstracts), field="abstract", tokenizer="gpt2"), corpora)
    functions = prepare(Corpus(), corpora)
    lora = Subspace(parametrization="sublora", dimension=10_000, rank=4)
    if "abstracts" in wanted.what:
        shape = Gpt(layers=4, heads=4, width=128, block=1024)
        steps("step: abstracts, V = 50,257, width 128", abstracts, shape, lora, batch=8, rounds=rounds, ways=WAYS)
    if "functions" in wanted.what:
        film = Subspace(parametrization="subspace", projector="film+kron_qr", dimension=961)
        shape = Gpt(layers=2, heads=4, width=64)
        steps("step: functions, V = 257, width 64", functions, shape, film, batch=32, rounds=10 * rounds, ways=WAYS)
    if "gpt2-small" in wanted.what:
        ways = {"now, bf16": "now bf16", "earlier": "paper bf16"}
        steps("step: abstracts, GPT-2 small, batch 8", abstracts, SMALL, lora, batch=8, rounds=1, ways=ways)
    if "scoring" in wanted.what:
        shape = Gpt(layers=2, heads=4, width=64, block=128, weight_std=0.1, embedding_std=0.1)
        scoring("scoring: functions, V = 257", functions, shape, 60, rounds)
        wide = shape.model_copy(update={"block": 1024})
        scoring("scoring: abstracts, V = 50,257", abstracts, wide, 6, 1)
    if "tokenizing" in wanted.what:
        tokenizing(wanted.abstracts)
    table = pd.DataFrame(rows)
    if wanted.out.exists():
        before = pd.read_csv(wanted.out)
        table = pd.concat([before[~before["what"].isin(table["what"])], table])
    write_text(wanted.out, table.to_csv(index=False))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
