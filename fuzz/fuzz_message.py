"""Hostile messages for a while: each is refused in one line or is canonical, and no two say the same, in bounded time and memory.

Mutations of valid messages (flipped bytes, pieces of one in another, cuts and repeats, a length prefix made right again), random
bytes, and mutations of past findings (`messages/`, one a line) go to every decoder. Of those that decode, one in `BUILT` is also
built as a model. Fails on any other exception, on a second message with the same meaning, on an input that takes more than 5 s of
this process's time, and on more than 2 GiB of memory.

    python fuzz/fuzz_message.py [--seconds 150 | --inputs 1000000] [--seed 0]
"""

# ruff: noqa: I001  (sublora comes before torch: it sets how threads wait)
import argparse
import functools
import hashlib
import itertools
import json
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import sublora  # noqa: F401
from sublora.compression.codebooks import FORMATS, unpack_codebook
from sublora.compression.coder import CODERS, decode_symbols
from sublora.compression.grid import decode_grid
from sublora.experiment import ALPHA_GRID, PARAMETRIZATIONS, Subspace, TaskSubspace, Words, as_experiment
from sublora.message import Coded, Gridded, MessageError, classifier, configured, decode, early, hypothesis, language, with_alpha
from sublora.message.frame import Reader, prefixed
from sublora.message.ngram import NGramMessage, bucketed, decode_ngrams, encode_ngrams
from sublora.message.unchanged import decode_unchanged, encode_unchanged
from sublora.message.whole import decode_whole, encode_whole, settings
from sublora.models import PROJECTORS
from sublora.models.ngrams import count_ngrams
from sublora.models.pretrained import blank_causal, stated_form
from sublora.progress import progress_bar



def _remembered(stated_form: Callable) -> Callable:
    """The same function, which computes each answer once: `transformers` takes milliseconds for a configuration."""
    answer = functools.cache(lambda text, classifier: stated_form(json.loads(text), classifier=classifier))
    return lambda values, classifier=False: answer(json.dumps(values), classifier)


V = 20
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
GPT2 = stated_form({"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": V, "n_positions": 16, **ENDS})
EXPERIMENTS = {
    0x53: {"model": {"layers": 1, "heads": 2, "width": 16, "block": 16}},
    0x57: {"kind": "round", "model": {"source": "none", "block": 8}},
    0x4E: {"kind": "ngram"},
    0x47: {"kind": "classify"},
}
KINDS = {format: as_experiment({"name": "fuzz", **values}) for format, values in EXPERIMENTS.items()}
UNCHANGED = as_experiment({"name": "fuzz", "kind": "zeroshot", "model": {"source": "none", "block": 8}})
"""Its model is no part of the message, so only the message is read."""
BLANK = blank_causal(GPT2, V, 8)
SHAPES = [(name, parameter.shape) for name, parameter in BLANK.named_parameters()]
hypothesis.stated_form = _remembered(hypothesis.stated_form)  # type: ignore[assignment]
SECONDS, MEMORY = 5, 2 * 2**30
BUILT = 100
FINDINGS = Path(__file__).with_name("messages")


def valid_messages(random: np.random.Generator) -> list[bytes]:
    """Messages of every format: every parametrization and projector, whole models of every number of bits, n-grams, classifiers."""
    messages = []
    for index in range(60):
        parametrization = PARAMETRIZATIONS[index % len(PARAMETRIZATIONS)]
        structured = parametrization in ("kronecker", "monarch")
        later = parametrization not in early.KNOWN
        inside = parametrization in ("sublora", "subspace") or ((structured or later) and index % 2)
        values = {"parametrization": parametrization, "dimension": 40 if inside else None}
        values |= {"projector": PROJECTORS[index % len(PROJECTORS)]} if inside else {}
        values |= {"blocks": 2} if structured else {}
        values |= {"rank": 2} if parametrization in ("sublora", "lora", "lora_b", "tinylora") else {}
        values |= {"lora_dropout": 0.0} if parametrization in ("sublora", "lora", "lora_b") else {}
        values |= {"tokens": ((7,), "all", (0, 3, 9))[index % 3]} if "biases" in parametrization else {}
        size = 40 if inside else 100
        steps = Gridded(random.integers(0, 256, 1), np.rint(random.normal(size=size) * 3).astype(np.int64), [(1, size)])
        message = language.Message(Subspace(**values), ALPHA_GRID[index % 8], steps if index % 3 == 0 else _coded(random, size))
        messages.append((early if index % 3 == 1 and not later else language).encode(message))
    tensors = dict(BLANK.named_parameters())
    messages += [configured(GPT2, encode_whole(tensors, bits, 0.1, rows)) for bits in (2, 3, 5, 8) for rows in (False, True)]
    messages += [configured(GPT2, encode_unchanged(alpha)) for alpha in ALPHA_GRID]
    for orders in range(1, 6):
        layers = count_ngrams(random.geometric(0.4, 500) % V, V - 1, V, orders + 1, 2)
        messages.append(encode_ngrams(NGramMessage(0.1, orders % 4, (*range(orders + 1),), bucketed(layers, 2, 2)), V))
    for index in range(10):
        words = Words(buckets=20 + index)
        parametrization, dimension = (("lora", None), ("sublora", 9), ("full", None), ("subspace", 9))[index % 4]
        modules = {"modules": ("head",)} if "lora" in parametrization else {}
        subspace = TaskSubspace(parametrization=parametrization, dimension=dimension, **modules)
        coded = _coded(random, dimension or (V - 1) * (words.buckets + 1))
        messages.append(classifier.encode(classifier.ClassifierMessage(words, subspace, coded)))
    return messages


def findings() -> list[bytes]:
    """What once was accepted and should not have been, or did worse."""
    return [bytes.fromhex(line) for path in sorted(FINDINGS.glob("*.hex")) for line in path.read_text("ascii").split()]


def _coded(random: np.random.Generator, size: int) -> Coded:
    levels = int(random.integers(2, 20))
    symbols = np.minimum(random.geometric(0.3, size) - 1, levels - 1)
    symbols[:2] = 0, 1
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


class Attack:
    """Decoders under attack. seen: for the meaning of each accepted message, the message; accepted, inputs: how many."""

    def __init__(self, random: np.random.Generator):
        self.random, self.seen, self.accepted, self.inputs = random, {}, 0, 0

    def on(self, data: bytes) -> bool:
        """Whether `data` is a message. Raises AssertionError if it has another form than its meaning's, or an error has lines."""
        self.inputs += 1
        meaning = None
        for read in (_language, _classifier, _whole, _ngram, _unchanged):
            try:
                found = read(data)
            except MessageError as error:
                assert "\n" not in str(error), f"an error of several lines: {error}"
                continue
            assert meaning is None, "two decoders accept it"
            meaning = found
        if self.random.integers(BUILT) == 0:
            self._build(data, meaning is not None)
            self._parts(data)
        if meaning is not None:
            self.accepted += 1
            key = hashlib.sha256(meaning).digest()[:16]
            assert self.seen.setdefault(key, data) == data, f"says the same as {self.seen[key].hex()}"
        return meaning is not None

    def _build(self, data: bytes, readable: bool) -> None:
        """`decode` accepts what the decoder of its format reads, if the model can be built, and nothing else."""
        for experiment, use in itertools.product(KINDS.values(), (decode, lambda data, *rest: with_alpha(data, 0.1, *rest))):
            try:
                use(data, experiment, V)
                # Of steps `_language` reads one group, whatever the model has.
                assert readable or use is not decode or _of_steps(data), "accepted, though its format's decoder refuses it"
            except MessageError as error:
                assert "\n" not in str(error), f"an error of several lines: {error}"

    def _parts(self, data: bytes) -> None:
        random, codebook = self.random, np.arange(30).astype(np.float16)
        levels = int(random.integers(2, 30))
        attempts: tuple[Callable, ...] = (
            lambda: decode_symbols(data, int(random.integers(1, 2000)), levels, CODERS[random.integers(4)], codebook[:levels]),
            lambda: decode_grid(data, [(int(random.integers(1, 9)), int(random.integers(1, 99)))] * 2),
            lambda: unpack_codebook(int(random.integers(len(FORMATS))), data[:8], levels),
        )
        for attempt in attempts:
            try:
                attempt()
            except ValueError:
                pass


def _of_steps(data: bytes) -> bool:
    return language.read(data, 10_000).levels is None


def _language(data: bytes) -> bytes:
    message = language.decode(data, 10_000)
    form = type(message.coded).__name__, Reader(data).byte()  # each format and way of coding has its own message of a model
    return repr((message.subspace, message.alpha, form)).encode() + message.coded.coordinates.tobytes()


def _classifier(data: bytes) -> bytes:
    message = classifier.decode(data, KINDS[0x47].model, 10_000)
    return repr((message.model, message.subspace)).encode() + message.coded.coordinates.tobytes()


def _whole(data: bytes) -> bytes:
    _, message, configuration = hypothesis.read_configuration(data, KINDS[0x57])
    tensors, alpha = decode_whole(message, SHAPES)
    said = json.dumps([configuration, alpha, settings(message)], sort_keys=True)
    return said.encode() + b"".join(tensor.numpy().tobytes() for tensor in tensors.values())


def _ngram(data: bytes) -> bytes:
    message = decode_ngrams(data, V)
    return repr(message[:3]).encode() + b"".join(array.tobytes() for layer in message.layers for array in layer)


def _unchanged(data: bytes) -> bytes:
    _, message, configuration = hypothesis.read_configuration(data, UNCHANGED)
    return json.dumps(["unchanged", configuration, decode_unchanged(message)], sort_keys=True).encode()


def attack(random: np.random.Generator, seconds: float | None, inputs: int | None) -> Attack:
    """Attack until time or inputs are over. Prints the input at which it fails, and raises what that raised."""
    found, valid, past = Attack(random), valid_messages(random), findings()
    for data in valid:
        assert found.on(data), f"a valid message is refused: {data.hex()}"
    for data in past:
        assert not found.on(data), f"a past finding is accepted again: {data.hex()}"
    # First allocations are not the inputs' doing.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.signal(signal.SIGPROF, _too_slow)
    end = time.monotonic() + (seconds or float("inf"))
    try:
        with progress_bar(total=inputs, desc="fuzz", unit="input") as progress:
            for _ in range(inputs) if inputs else itertools.count():
                if time.monotonic() > end:
                    break
                data = mutated([*valid, *past], random)
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    found.on(data)
                except BaseException:
                    print(f"\nfailed on (hexadecimal; append it to {FINDINGS}): {data.hex()}")
                    raise
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                progress.update()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return found


def _too_slow(*_) -> None:
    raise TimeoutError(f"an input took more than {SECONDS} s of this process's time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    seconds = 150 if wanted.seconds is None and wanted.inputs is None else wanted.seconds
    found = attack(np.random.default_rng(wanted.seed), seconds, wanted.inputs)
    print(f"{found.inputs:,} inputs, {found.accepted:,} accepted, of which no two say the same; nothing worse")


if __name__ == "__main__":
    main()
