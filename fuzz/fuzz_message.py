"""Hostile messages for a while: decoding either gives a model or says MessageError, in bounded time and memory.

Mutations of valid messages (flipped bytes, pieces of one in another, cuts and repeats, a length prefix made right again) and random
bytes go to every decoder. Fails on any other exception, on an input that takes more than 5 s, and on more than 2 GiB of memory.

    python fuzz/fuzz_message.py [--seconds 300] [--seed 0]
"""

# ruff: noqa: I001  (sublora comes before torch: it sets how threads wait)
import argparse
import resource
import signal
import time

import numpy as np

import sublora  # noqa: F401
from sublora.compression.codebooks import FORMATS, unpack_codebook
from sublora.compression.coder import CODERS, decode_symbols
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, PARAMETRIZATIONS, Subspace, TaskSubspace, Words, as_experiment
from sublora.message import Coded, MessageError, classifier, decode, with_alpha
from sublora.message.frame import prefixed
from sublora.message.language import Message, encode
from sublora.message.whole import encode_whole
from sublora.models import PROJECTORS
from sublora.models.pretrained import blank_causal
from sublora.progress import progress_bar

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 20, "n_positions": 16}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
EXPERIMENTS = [
    as_experiment({"name": "fuzz", **values})
    for values in (
        {"model": {"layers": 1, "heads": 2, "width": 16, "block": 16}},
        {"kind": "round", "model": {"source": "none", "block": 8, "architecture": GPT2}},
        {"kind": "classify"},
    )
]
V = 20
SECONDS, MEMORY = 5, 2 * 2**30


def valid_messages(random: np.random.Generator) -> list[bytes]:
    """Messages of every format: every parametrization and projector, whole models of every number of bits, classifiers."""
    messages = []
    for index in range(60):
        parametrization = PARAMETRIZATIONS[index % len(PARAMETRIZATIONS)]
        structured = parametrization in ("kronecker", "monarch")
        inside = parametrization in ("sublora", "subspace") or (structured and index % 2)
        values = {"parametrization": parametrization, "dimension": 40 if inside else None}
        values |= {"projector": PROJECTORS[index % len(PROJECTORS)]} if inside else {}
        values |= {"blocks": 2} if structured else {}
        values |= {"rank": 2, "lora_dropout": 0.0} if parametrization in ("sublora", "lora") else {}
        coded = _coded(random, 40 if inside else 300)
        messages.append(encode(Message(Subspace(**values), ALPHA_GRID[index % 8], coded)))
    tensors = dict(blank_causal(GPT2, V, 8).named_parameters())
    messages += [encode_whole(tensors, bits, 0.1, rows) for bits in range(2, 9) for rows in (False, True)]
    for index in range(10):
        words = Words(buckets=20 + index)
        parametrization, dimension = (("lora", None), ("sublora", 9), ("full", None), ("subspace", 9))[index % 4]
        modules = {"modules": ("head",)} if "lora" in parametrization else {}
        subspace = TaskSubspace(parametrization=parametrization, dimension=dimension, **modules)
        coded = _coded(random, dimension or (V - 1) * (words.buckets + 1))
        messages.append(classifier.encode(classifier.ClassifierMessage(words, subspace, coded)))
    return messages


def _coded(random: np.random.Generator, size: int) -> Coded:
    levels = int(random.integers(2, 20))
    symbols = np.minimum(random.geometric(0.3, size) - 1, levels - 1)
    return Coded(np.sort(random.choice(np.arange(-500, 500), levels, replace=False)).astype(np.float16), symbols)


def mutated(messages: list[bytes], random: np.random.Generator) -> bytes:
    """A message that nobody has encoded."""
    data = bytearray(messages[random.integers(len(messages))])
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(len(data) + 1))
        action = random.integers(5)
        if action == 0 and len(data) > place:
            data[place] ^= 1 << int(random.integers(8))
        elif action == 1:
            data[place : place + int(random.integers(1, 9))] = random.bytes(int(random.integers(0, 9)))
        elif action == 2:
            other = messages[random.integers(len(messages))]
            data[place:] = other[int(random.integers(len(other))) :]
        elif action == 3:
            del data[place : place + int(random.integers(1, 40))]
        else:
            data[place:place] = data[:place]
    if random.random() < 0.2:
        data = bytearray(random.bytes(int(random.integers(0, 200))))
    return prefixed(bytes(data[1:])) if random.random() < 0.8 else bytes(data)


def decode_everything(data: bytes, random: np.random.Generator) -> int:
    """Give `data` to every decoder, for each kind of experiment; how many accept it."""
    accepted = 0
    for experiment in EXPERIMENTS:
        for attempt in (lambda e=experiment: decode(data, e, V), lambda e=experiment: with_alpha(data, 0.1, e, V)):
            try:
                attempt()
                accepted += 1
            except MessageError as error:
                if "\n" in str(error):
                    raise SubloraError("an error of several lines") from error
    levels, codebook = int(random.integers(2, 30)), np.arange(30).astype(np.float16)
    for attempt in (
        lambda: decode_symbols(data, int(random.integers(1, 2000)), levels, CODERS[random.integers(4)], codebook[:levels]),
        lambda: unpack_codebook(int(random.integers(len(FORMATS))), data[:8], levels),
    ):
        try:
            attempt()
            accepted += 1
        except ValueError:
            pass
    return accepted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    random = np.random.default_rng(wanted.seed)
    messages = valid_messages(random)
    accepted = sum(decode_everything(data, random) for data in messages)  # first allocations are not the inputs' doing
    if accepted < 2 * len(messages) - 10:  # a classifier's message has no alpha
        raise SystemExit(f"of {len(messages)} valid messages too few are accepted: {accepted}")
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    inputs = accepted = 0
    end = time.monotonic() + wanted.seconds
    with progress_bar(desc="fuzz", unit="input") as progress:
        while time.monotonic() < end:
            data = mutated(messages, random)
            signal.alarm(SECONDS)
            try:
                accepted += decode_everything(data, random)
            except BaseException:
                print(f"\nfailed on (hexadecimal): {data.hex()}")
                raise
            finally:
                signal.alarm(0)
            inputs += 1
            progress.update()
    print(f"{inputs:,} inputs to eight decoders, {accepted:,} accepted as what they say, nothing worse")


def _too_slow(*_) -> None:
    raise TimeoutError(f"an input took more than {SECONDS} s")


if __name__ == "__main__":
    main()
