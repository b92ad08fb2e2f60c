"""Hostile certificates for a while: `verify` says what is wrong in one line each, in bounded time and memory.

Mutations of a valid certificate (values of other types, extreme, absent, doubled, from elsewhere in it; flipped bytes of the
message) are sealed anew, so that the deep checks are reached. In this process every one goes to `verify`, and the first of them to
the real command, too. Fails on any exception but SubloraError, on an answer of several lines, on a mutation that verifies although
it says something else, on more than `SECONDS` of processor time, and where memory runs out.

    python fuzz/fuzz_verify.py [--seconds 150] [--cases N] [--commands 20] [--seed 0]
"""

# ruff: noqa: I001  (sublora comes before torch: it sets how threads wait)
import argparse
import base64
import copy
import hashlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import sublora
from sublora.certificate import statements
from sublora.certificate.schema import SEARCH, digest
from sublora.errors import SubloraError
from sublora.experiment import as_experiment
from sublora.limits import Limits
from sublora import verification
from sublora.problems import TextProblem
from sublora.progress import progress_bar
from sublora.run import Run
from sublora.verification import MEASURED, PLACES, UNVERIFIED, verify

SECONDS, GIB = 20, 2
SEEDS = Path(__file__).parent / "verify.json"
"""Changes that once passed, or ended in a traceback: [path, value], the value null for absence."""
EXTREMES: list[Any] = [None, True, {}, [], "", "x", -1, 0, 1, 2**31, 2**64, 10**30, 10**400, 1e-12, 1e308, -0.0]
EXTREMES += ["~nouser/x", "/", "\x1b[2K"]
PARAMS = {"name": "fuzz", "corpus": {"source": "text", "path": "texts", "train": 0.6}}
PARAMS |= {"model": {"layers": 1, "heads": 2, "width": 8, "block": 16}, "subspace": {"dimension": 200, "lora_dropout": 0.0}}
# Trained until losses depend on every part of the architecture: of a model whose attention is uniform any number of heads is true.
PARAMS |= {"training": {"steps": 30, "batch": 4, "learning_rate": 0.3, "validation_documents": 2}, "compression": {"levels": 5}}
PARAMS |= {"bounds": {"documents": 6, "held_out_documents": 3, "pilot": 0.5}}


def made(folder: Path) -> dict[str, Any]:
    """A valid certificate of a model that takes some milliseconds to be scored."""
    (folder / "texts").mkdir()
    for number in range(60):
        (folder / "texts" / f"{number:02}.txt").write_text(f"{number} is a number{number % 7 * '!'}", "utf-8")
    return Run(PARAMS, folder / "runs").certify().data()


def remember_facts() -> None:
    """What is computed again of one message and the same settings is computed once: most mutations are of what is compared."""
    computed, evaluate = verification.facts, TextProblem.evaluate
    known: dict[Any, Any] = {}
    scored: dict[Any, Any] = {}

    def facts(problem: Any, message: bytes, evaluation: Any, tolerant: bool) -> dict[str, Any]:
        found = json.dumps(problem.experiment.parameters()), message
        if found not in known:
            known[found] = computed(problem, message, evaluation, tolerant)
        return copy.deepcopy(known[found])

    def remembered(problem: TextProblem, message: bytes, folder: Path | None = None) -> Any:
        found = json.dumps(problem.experiment.parameters()), message
        if found not in scored:
            scored[found] = evaluate(problem, message, folder)
        return scored[found]

    bound_mean, bounds = statements.bound_mean, dict[bytes, Any]()

    def remembered_bound(*values: Any, **named: Any) -> Any:
        found = pickle.dumps((values, named))  # most mutations are of what no inequality is given
        if found not in bounds:
            bounds[found] = bound_mean(*values, **named)
        return bounds[found]

    statements.bound_mean = remembered_bound
    verification.facts, TextProblem.evaluate = facts, remembered  # type: ignore[method-assign]


def sealed(data: dict[str, Any]) -> bytes:
    """The file of the data, with a fresh digest and layout, as far as JSON has it."""
    return (json.dumps({**data, "certificate_sha256": digest(data)}, indent=1) + "\n").encode()


def places(data: Any, here: tuple = ()) -> list[tuple]:
    """The path of every value in nested data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path for key, value in items for path in [(*here, key), *places(value, (*here, key))]]


def changed(data: dict[str, Any], path: tuple | list, value: Any, absent: bool = False) -> dict[str, Any]:
    """A copy with one value replaced, or without it."""
    found = copy.deepcopy(data)
    place = found
    for key in path[:-1]:
        place = place[key]
    if absent:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return found


def mutated(valid: dict[str, Any], paths: list[tuple], random: np.random.Generator) -> dict[str, Any]:
    """A certificate that nobody has made."""
    data = valid
    for _ in range(random.integers(1, 3)):
        path = paths[random.integers(len(paths))]
        try:
            value = data
            for key in path:
                value = value[key]
            data = _mutated_once(data, path, value, paths, random)
        except (KeyError, IndexError, TypeError):  # an earlier mutation took it away
            continue
    return data


def _mutated_once(data: dict[str, Any], path: tuple, value: Any, paths: list[tuple], random: np.random.Generator) -> dict[str, Any]:
    action = random.integers(6)
    if path == ("message",) or action == 0:
        message = bytearray(base64.b64decode(data["message"]))
        message[random.integers(len(message))] ^= 1 << int(random.integers(8))
        if random.random() < 0.3:
            message += random.bytes(int(random.integers(1, 4)))
        sha256 = hashlib.sha256(message).hexdigest()
        return data | {"message": base64.b64encode(message).decode(), "message_bits": 8 * len(message), "message_sha256": sha256}
    if action == 1:
        return changed(data, path, None, absent=True)
    if action == 2 and isinstance(value, int | float) and not isinstance(value, bool):
        return changed(data, path, value * [2, 0.5, -1, 1 + 1e-6][random.integers(4)] if random.random() < 0.5 else value + 1)
    if action == 3 and isinstance(value, list):
        return changed(data, path, [*value, *value[:1]] if random.random() < 0.5 else value[::-1])
    if action == 4:
        other = data
        for key in paths[random.integers(len(paths))]:
            other = other[key]
        return changed(data, path, copy.deepcopy(other))
    return changed(data, path, EXTREMES[random.integers(len(EXTREMES))])


def meaning(data: dict[str, Any]) -> dict[str, Any]:
    """What a certificate promises: without what nobody can verify and hints, and with the defaults of what it leaves out."""
    params = as_experiment(data["params"]).parameters()
    for group, *names in (key.split(".") for key in SEARCH):
        for name in names:
            params.get(group, {}).pop(name, None)
        if not names:
            params.pop(group, None)
    for group, name in PLACES:
        params.get(group, {}).pop(name, None)
    return {key: value for key, value in data.items() if key not in UNVERIFIED} | {"params": params}


def alike(one: Any, other: Any, key: str = "") -> bool:
    """Whether both say the same, up to what rounding may change of measured values."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name], name) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(alike(*pair, key) for pair in zip(one, other, strict=True))
    if key in MEASURED and isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= max(statements.DETERMINISM.values())
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def checked(content: bytes, path: Path) -> bool:
    """Whether `verify` accepts a file. Raises what is not an answer."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        wrong = verify(path, "runs/corpora", limits=Limits(GIB / 2, 1))
        lines = list(wrong)
    except SubloraError as error:
        lines = [str(error)]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if any("\n" in line for line in lines):
        raise AssertionError(f"an answer of several lines: {lines}")
    return not lines


def commanded(paths: list[Path]) -> None:
    """The real command says of each file in one call whether it verifies. Raises AssertionError if it does not."""
    command = [sys.executable, "-m", "sublora", "verify", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    said = [line for line in done.stdout.splitlines() if line.endswith(("verified", "verified: the model and every bound agree"))]
    if done.returncode not in (0, 1) or "Traceback" in done.stderr or "cannot be checked" in done.stderr or len(said) != len(paths):
        raise AssertionError(f"the command, on {paths}: {done.returncode}, {len(said)} answers, {done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--commands", type=int, default=20, help="files for the real command")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    random = np.random.default_rng(wanted.seed)
    os.environ["PYTHONPATH"] = str(Path(sublora.__file__).parents[1])
    os.environ["TQDM_DISABLE"] = "1"
    signal.signal(signal.SIGPROF, _too_slow)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        valid, path = made(Path(".")), Path("certificate.json")
        remember_facts()
        if not checked(sealed(valid), path):
            raise SystemExit("the valid certificate is refused")
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + GIB * 2**30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        paths = places({key: value for key, value in valid.items() if key != "environment"})
        seeds = [changed(valid, place, value, value is None) for place, value in json.loads(SEEDS.read_text("utf-8"))]
        cases = accepted = 0
        kept: list[Path] = []
        end = time.monotonic() + wanted.seconds
        with progress_bar(desc="fuzz verify", unit="certificate") as progress:
            while cases < wanted.cases and (time.monotonic() < end or cases < len(seeds)):
                data = seeds[cases] if cases < len(seeds) else mutated(valid, paths, random)
                content = sealed(data)
                try:
                    if checked(content, path):
                        accepted += 1
                        if not alike(meaning(data), meaning(valid)):
                            raise AssertionError("it verifies, and says something else")
                except BaseException:
                    print(f"\nfailed on: {content.decode()}")
                    raise
                if cases < wanted.commands:
                    kept.append(Path(f"{cases}.json"))
                    kept[-1].write_bytes(content)
                cases += 1
                progress.update()
        commanded(kept)
    print(f"{cases:,} certificates ({len(seeds)} past findings), {len(kept):,} of them also to the command: {accepted:,} verify,")
    print("which say the same as the valid one; for all others each complaint is one line")


def _too_slow(*_: Any) -> None:
    raise TimeoutError(f"a certificate took more than {SECONDS} s of processor time")


if __name__ == "__main__":
    main()
