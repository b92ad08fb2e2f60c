"""Random kills: a run that is killed at any moment, any number of times, ends with the certificate of a run that is not.

Every kind of run is started, killed (SIGKILL) after a random time and started again, until it has been killed often enough; then it
ends. Its certificate and its training log must be those of the run that nobody killed, but for times and the machine's facts.

    python fuzz/kill_runs.py [--kills 50] [--seed 0] [--kinds pretrain,command]

Exits 1 at the first difference, with the folder of that run left where it is.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME / "tests"))
os.environ["OMP_NUM_THREADS"] = "1"

# ruff: noqa: E402  (the threads are counted at import; and the tests' folder has the models)
from golden import save_model, write_task
from tiny import NOTEBOOKS, settings, write_params, write_texts
from tqdm.std import tqdm

import sublora.problems
import sublora.search
from sublora.experiment import as_experiment
from sublora.run import Run

tqdm.set_lock(threading.RLock())  # its own lock is shared with forked processes, and one that is killed may hold it

MOST = 4
"""Kills of one run."""
UNEQUAL = ("environment", "certificate_sha256")
TIMES = ("tokens_per_second", "seconds")


def kinds(home: Path) -> dict[str, dict[str, Any]]:
    """The experiments by kind; their data and models are made in `home`. The last part of a name says how they are run."""
    texts, task = write_texts(home / "texts", 120), str(write_task(home / "task", "sst2", 300))
    causal, encoder = str(save_model(home / "causal", "gpt2")), str(save_model(home / "encoder", "gpt2 classifier"))
    text = settings(texts, bounds__documents=40)
    base = {**text, "model": {"source": causal, "block": 16}}
    plain = {key: base[key] for key in ("name", "corpus", "model", "bounds")}
    search = {"epochs": 3, "batch": 32, "learning_rate": 0.05, "validate_every": 5, "watched_examples": 20}
    label = {"kind": "classify", "name": "tiny", "task": {"path": task, "max_length": 8}, "training": search}
    label["compression"] = {"levels": 3, "finetune_steps": 8}
    small = {"dimension": 10, "rank": 2, "lora_dropout": 0.0}
    finetune = {**base, "kind": "finetune", "subspace": {"parametrization": "subspace", "dimension": 20}}
    words = {**label, "model": {"buckets": 32}}
    encoder_values = {**label, "model": {"source": encoder}, "subspace": small}
    return {
        "pretrain": text,
        "finetune": finetune,
        "round": {**plain, "kind": "round", "rounding": {"bits": [2, 3], "scales": ["row"]}},
        "ngram": {**plain, "kind": "ngram", "model": {"orders": 2, "block": 16}, "counting": {"least": [10], "bases": [2, 4]}},
        "words": words,
        "encoder": encoder_values,
        "pretrain two processes": text,
        "encoder two processes": encoder_values,
        "pretrain optimize": text,
        "pretrain command": {**text, "notebooks": ["pretrain", "bounds"]},
    }


def started(kind: str, values: dict[str, Any], runs: Path) -> list[int]:
    """The processes of one run, just started."""
    if kind.endswith("command"):
        params = write_params(runs.with_suffix(".yaml"), values)
        command = [sys.executable, "-m", "sublora", "run", params, "--runs", runs, "--notebooks", NOTEBOOKS]
        path = os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])
        with open(runs.parent / "log.txt", "a") as log:
            return [subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}).pid]
    if kind.endswith("optimize"):
        experiment = as_experiment(values)
        return [_forked(lambda: sublora.search.search_run(experiment, runs, ["kmeans"], [3, 5]), runs, {})]
    if not kind.endswith("two processes"):
        return [_forked(lambda: Run(values, runs).certify(), runs, {})]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [_forked(lambda: Run(values, runs).certify(), runs, rank) for rank in ranks]


def _forked(work: Callable[[], Any], runs: Path, environment: dict[str, str]) -> int:
    """A copy of this process that does the work: it has imported everything, which takes seconds."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        log = os.open(runs.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        work()
        status = 0
    except BaseException as error:
        os.write(2, f"\n{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def ended(pids: list[int], until: float) -> bool:
    """Whether the processes ended by themselves before `until` (monotonic seconds). Raises RuntimeError if one failed."""
    waiting = list(pids)
    while waiting and time.monotonic() < until:
        for pid in list(waiting):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                waiting.remove(pid)
                if status:
                    for other in waiting:
                        _kill(other)
                    raise RuntimeError(f"a run that nobody killed ended with status {status}")
        time.sleep(0.005)
    if waiting:  # first one of them, any, then the others, as a machine that fails does
        random.shuffle(waiting)
        for pid in waiting:
            _kill(pid)
            time.sleep(random.choice([0, 0.2]) * (len(waiting) > 1))
    return not waiting


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def found(folder: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """What must be the same: the certificate, and the log of training, without times."""
    certificate = json.loads((folder / "certificate.json").read_text("utf-8"))
    log = folder / "metrics.csv"  # where nothing is trained there is none
    rows = [line.split(",") for line in log.read_text("utf-8").splitlines()] if log.exists() else [[]]
    kept = [index for index, name in enumerate(rows[0]) if name not in TIMES]
    return {k: v for k, v in certificate.items() if k not in UNEQUAL}, [[row[index] for index in kept] for row in rows]


def main(kills: int, seed: int, only: list[str]) -> int:
    """Kill `kills` times, one kind after the other, and return how many kills there were. Raises RuntimeError at a difference."""
    random.seed(seed)
    home, done, counts = Path(tempfile.mkdtemp(prefix="sublora-kills-")), 0, {}
    chosen = {kind: values for kind, values in kinds(home).items() if not only or kind in only}
    expected, seconds = {}, {}
    for kind, values in chosen.items():
        place, began = home / "whole" / kind.replace(" ", "-"), time.monotonic()
        place.mkdir(parents=True)
        expected[kind] = finished(kind, values, place)
        seconds[kind] = time.monotonic() - began
    while done < kills:
        for kind, values in chosen.items():
            place, wanted, often = home / "killed" / kind.replace(" ", "-"), random.randint(1, MOST), 0
            place.mkdir(parents=True)
            while often < wanted:
                pids, until = started(kind, values, place / "runs"), time.monotonic() + random.uniform(0, seconds[kind])
                if ended(pids, until):
                    break
                often += 1
            if finished(kind, values, place) != expected[kind]:
                raise RuntimeError(f"{kind}: killed {often} times, and ended with another result: {place}")
            if left := [path for path in place.rglob(".*.part") if kind.endswith("command")]:
                raise RuntimeError(f"{kind}: {left[0]} was left behind")
            shutil.rmtree(place)
            counts[kind] = counts.get(kind, 0) + often
            done += often
            print(f"{done} kills, all certificates the same: {counts}", flush=True)
            if done >= kills:
                break
    shutil.rmtree(home)
    return done


def finished(kind: str, values: dict[str, Any], place: Path) -> tuple:
    """What is `found` when the run in `place` goes on undisturbed. Raises RuntimeError if it does not end."""
    if not ended(started(kind, values, place / "runs"), time.monotonic() + 600):
        raise RuntimeError(f"{kind}: not ended after 10 minutes (see {place / 'log.txt'})")
    return found(place / "runs" / ("tiny-optimized" if kind.endswith("optimize") else "tiny"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="separated by commas; all of them by default")
    arguments = parser.parse_args()
    try:
        main(arguments.kills, arguments.seed, [kind for kind in arguments.kinds.split(",") if kind])
    except RuntimeError as error:
        sys.exit(f"kill_runs: {error}")
