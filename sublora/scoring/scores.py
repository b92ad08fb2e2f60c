"""One forward pass over units of text: what every bound needs to know of each token.

The loss of a document is a function of the model and the document alone. A document's context starts with the end-of-text token and
never leaves the document; every one of its tokens, its own end of text included, is predicted. Up to `block` tokens are one window.
A longer document is read by a window that moves `stride` tokens at a time: window k begins at token `k stride`, the first predicts
all of its tokens, each further one those behind its first `block - stride`. The last one may be shorter: moved back, to end with
the document, it would tell where that ends, and no bound for tokens would hold. It is part of the hypothesis and stated in the
certificate. A sequence is read as if it were a document; a single token is predicted in the window that the rule gives it. Tokens of
the same window are read in one go: a causal model does not see what comes behind a token.
"""

import collections
import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from sublora.atomic import replaced_atomically
from sublora.data import TokenStore
from sublora.errors import SubloraError
from sublora.experiment import ALPHA_GRID, TOP_K
from sublora.models.output import LOGITS, vocabulary_in_pieces
from sublora.models.references import DocumentCode, log_distributions
from sublora.progress import progress_bar

Result = TypeVar("Result")
PARALLEL = 2**22
"""Weights of a model from which on a CPU's cores do better with a batch each than with a share of each."""
PIECE = {"cpu": 2**20, "cuda": 2**26}
"""Logits looked at together: on a CPU so many as stay in its cache."""
SECONDS_BETWEEN_SAVES = 30


@dataclass(frozen=True, eq=False)  # one is another's equal only if it is the same
class Scores:
    """Of every token of some units (documents, sequences, or single tokens), in their order.

    log_probability: float32 (tokens,), natural log of the model's probability of the token, before smoothing.
    rank: int32 (tokens,), how many other tokens are not less probable (ties and NaN count against the model).
    offsets: int64 (units + 1,): unit i has the tokens offsets[i] to offsets[i+1].
    expected_bits: float32 (tokens, len(ALPHA_GRID)), the entropy of the smoothed prediction in bits: the model's own expected loss.
    expected_hits: float32 (tokens, len(TOP_K)), the model's probability that the token is among its k most probable ones.
    The last two have no columns where they were not asked for.
    places: int64 (units,), where each unit stands among all of its kind, in the order in which the split drew them.
    reference: float32 (tokens,), ln q of the token by the public reference; empty where that is the uniform guess.
    sizes: int64 (documents,), b of each document, its bytes and one more; empty where they were not counted.
    members: int64 (groups + 1,), where the units are groups of documents: group i has the documents members[i] to members[i+1], and
    `offsets` are those of documents. Empty where they are not.
    """

    log_probability: np.ndarray
    rank: np.ndarray
    offsets: np.ndarray
    expected_bits: np.ndarray
    expected_hits: np.ndarray
    places: np.ndarray
    reference: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    members: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def units(self) -> int:
        """n."""
        return len(self.members if self.members.size else self.offsets) - 1

    def save(self, path: str | os.PathLike, identity: str = "") -> None:
        """Write as one safetensors file, atomically. identity: what `load` shall find again."""
        _write(path, vars(self), {"identity": identity})

    @classmethod
    def load(cls, path: str | os.PathLike, identity: str = "") -> "Scores":
        """Read what `save` wrote. Raises SubloraError naming the file when it is missing, damaged or of something else."""
        return cls(**_read(path, identity)[0])

    def repeated(self, units: int, among: int) -> "Scores":
        """As many units as that: these ones over and over, as a stand-in for that many of `among` of their kind."""
        chosen, members = np.resize(np.arange(self.units), units), self.members
        if members.size:
            chosen, members = pieces(members, chosen)
        tokens, offsets = pieces(self.offsets, chosen)
        by_token = ["log_probability", "rank", "expected_bits", "expected_hits", *["reference"] * bool(self.reference.size)]
        places, sizes = np.arange(units) * among // units, self.sizes[chosen] if self.sizes.size else self.sizes
        of_tokens = {name: getattr(self, name)[tokens] for name in by_token}
        return Scores(offsets=offsets, places=places, sizes=sizes, members=members, **of_tokens)


def pieces(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(indices of what the chosen of the pieces `offsets[i] : offsets[i+1]` hold, piece after piece; the offsets of these)."""
    lengths = np.diff(offsets)[chosen]
    found = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(found[-1]) + np.repeat(offsets[chosen] - found[:-1], lengths), found


@dataclass(frozen=True)
class Windows:
    """Forward windows, and what each predicts. All int64 but `place`.

    first, size: (windows,) its tokens in the store; start: (windows,) where its unit begins there. ends: (windows + 1,), window i
    makes the predictions ends[i] to ends[i+1]; place: int32 (predictions,) of each its place in the window, ascending; goal:
    (predictions,) where it goes in the scores.
    """

    first: np.ndarray
    size: np.ndarray
    start: np.ndarray
    ends: np.ndarray
    place: np.ndarray
    goal: np.ndarray


def unit_windows(starts: np.ndarray, lengths: np.ndarray, block: int, stride: int) -> Windows:
    """The windows that predict every token of the units `tokens[starts : starts + lengths]` of a store, in order."""
    further = np.maximum(0, -(-(lengths - block) // stride))
    unit = np.repeat(np.arange(len(lengths)), further + 1)
    index = np.arange(len(unit)) - np.repeat(np.cumsum(further + 1) - further - 1, further + 1)
    begin = index * stride  # a function of what came before: the document's end plays no part in it
    size = np.minimum(block, lengths[unit] - begin)
    skip = np.where(index > 0, block - stride, 0)
    ends = np.concatenate([[0], np.cumsum(size - skip)])
    goal = np.arange(ends[-1])
    place = (goal - np.repeat(ends[:-1] - skip, size - skip)).astype(np.int32)
    return Windows(starts[unit] + begin, size, starts[unit], ends, place, goal)


def token_windows(starts: np.ndarray, lengths: np.ndarray, tokens: np.ndarray, block: int, stride: int) -> Windows:
    """The windows of `unit_windows` that predict some tokens, each cut off behind the last of these.

    starts, lengths: the documents of a stream, in its order; tokens: different places in that stream, int64 (n,).
    """
    order = np.argsort(tokens, kind="stable")
    tokens, stream = tokens[order], np.cumsum(lengths)
    document = np.searchsorted(stream, tokens, side="right")
    place = tokens - (stream[document] - lengths[document])
    begin = np.maximum(0, -(-(place + 1 - block) // stride)) * stride
    new = np.flatnonzero(np.diff(document, prepend=-1) | np.diff(begin, prepend=-1))
    ends = np.append(new, len(tokens))
    place = (place - begin).astype(np.int32)
    start = starts[document[new]]
    return Windows(start + begin[new], place[ends[1:] - 1].astype(np.int64) + 1, start, ends, place, order)


def sequences(starts: np.ndarray, lengths: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(starts, lengths) of the non-overlapping sequences of `block` tokens that units are cut into; a last one is shorter."""
    pieces = -(-lengths // block)
    index = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = index * block
    return np.repeat(starts, pieces) + begin, np.minimum(block, np.repeat(lengths, pieces) - begin)


@contextlib.contextmanager
def float32_throughout() -> Iterator[None]:
    """TF32 and reduced-precision matrix products are off, as certificates demand."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@float32_throughout()
def score(
    model: nn.Module,
    store: TokenStore,
    windows: Windows,
    offsets: np.ndarray,
    places: np.ndarray,
    *,
    batch_tokens: int,
    label: str,
    expectations: bool = False,
    code: DocumentCode | None = None,
    keep: Path | None = None,
    identity: str = "",
) -> Scores:
    """Run `model` (token ids (batch, time) to logits (batch, time, V)) over `windows` in float32.

    offsets, places: of the units, as in `Scores`. batch_tokens: the most tokens in a forward pass, padding included (fewer where
    a layer is wide: `LOGITS`); it changes speed and memory, not the scores. Of a large vocabulary the logits are made a piece at a
    time. Of a large model, each core of a CPU scores other batches. label: what the progress bar says.
    expectations: also what the model expects of each token. code: what a residual `model` adds to; it then takes ln q, too.
    keep: a file that holds the finished scores, or, while they are made, those so far: interrupted scoring goes on from there, and
    finished scores are read. identity: which model this is, for `keep`.
    Started as several processes (`accelerate launch`), each scores its share of the windows and all get the whole.
    Raises SubloraError for logits that are not over the store's V tokens.
    """
    state = PartialState()
    identity = f"{identity} {_fingerprint(store, windows, places, expectations)}{f' {code}' if code else ''}"
    if keep is not None:
        with contextlib.suppress(SubloraError):  # there are none, or they are of another model
            return Scores.load(keep, identity)
    columns = (len(ALPHA_GRID), len(TOP_K)) if expectations else (0, 0)
    count = int(offsets[-1])
    arrays = {
        "log_probability": np.zeros(count, np.float32),
        "rank": np.zeros(count, np.int32),
        "expected_bits": np.zeros((count, columns[0]), np.float32),
        "expected_hits": np.zeros((count, columns[1]), np.float32),
    }
    device = next(model.parameters()).device
    past = None if code is None else _Past(store, windows, code, _by_device(LOGITS, device))
    # Alike sizes together: little padding; the largest first, so that memory runs out at once or never.
    group = np.zeros(len(windows.size), np.int64) if past is None else past.group
    order = np.lexsort((-windows.size, group))[state.process_index :: state.num_processes]
    group = group[order]
    part = keep.with_name(f"{keep.name}.part{state.process_index}") if keep else None
    mine, at = f"{identity} {state.num_processes}", 0
    if part is not None:
        with contextlib.suppress(SubloraError):
            arrays, facts = _read(part, mine)
            at = int(facts["windows"])
    model.eval()
    predictions = np.diff(windows.ends)[order]
    total, done, quiet = int(predictions.sum()), int(predictions[:at].sum()), not state.is_main_process
    most = min(batch_tokens, _by_device(LOGITS, device) // _widest(model, store.vocab_size))
    saved = time.monotonic()

    def batches(at: int) -> Iterator[np.ndarray]:
        while at < len(order):
            size = int(windows.size[order[at]])
            rows = order[at : min(at + max(1, most // size), np.searchsorted(group, group[at], side="right"))]
            yield rows
            at += len(rows)

    def scored(rows: np.ndarray) -> tuple[int, np.ndarray, dict[str, torch.Tensor]]:
        size = int(windows.size[rows[0]])
        inputs, targets, predicted, goal = _gather(store, windows, rows, size)
        given = (inputs,) if past is None else (inputs, past.of(rows, size))
        which, wanted = torch.from_numpy(predicted).to(device), torch.from_numpy(targets).to(device)
        with torch.inference_mode():  # of this thread
            found = _predicted(model, [torch.from_numpy(each).to(device) for each in given], which, wanted, (store, expectations))
        return len(rows), goal, found

    with progress_bar(
        total=total, initial=done, desc=f"score {label}", unit="token", unit_scale=True, disable=quiet
    ) as progress, _each(scored, batches(at), _workers(model, device, past is not None)) as results:  # fmt: skip
        for rows, goal, found in results:
            for name, values in found.items():
                arrays[name][goal] = values.cpu().numpy()
            at += rows
            progress.update(len(goal))
            if part is not None and at < len(order) and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                _write(part, arrays, {"identity": mine, "windows": str(at)})
                saved = time.monotonic()
    if state.num_processes > 1:
        for name, array in arrays.items():
            whole = torch.from_numpy(array).to(state.device)
            torch.distributed.all_reduce(whole)  # each token was scored by one process and is zero in all others
            arrays[name] = whole.cpu().numpy()
    scores = Scores(offsets=offsets, places=places, **arrays)
    if keep is not None and state.is_main_process:
        scores.save(keep, identity)
    if part is not None:
        part.unlink(missing_ok=True)
    return scores


class _Past:
    """What a document code predicts at the places that windows predict, some consecutive windows at a time.

    A document is read once or, where it is longer than that, a few times: `group` says which windows belong together.
    """

    def __init__(self, store: TokenStore, windows: Windows, code: DocumentCode, numbers: int):
        """numbers: how many to hold at once, unless one window has more."""
        self.store, self.windows, self.code, self.read = store, windows, code, -1
        self.skip = windows.place[windows.ends[:-1]].astype(np.int64)  # what comes before a window's first prediction
        self.width = int((windows.size - self.skip).max(initial=1))
        self.group = np.arange(len(windows.size)) // max(1, numbers // (self.width * store.vocab_size))

    def of(self, rows: np.ndarray, size: int) -> np.ndarray:
        """ln q(. | past) of the windows `rows` of one group: float32 (rows, size, V), 0 where nothing is predicted."""
        store, windows = self.store, self.windows
        if self.read != self.group[rows[0]]:
            self.read = self.group[rows[0]]
            mine = slice(*np.searchsorted(self.group, [self.read, self.read + 1]))
            skip = self.skip[mine]
            start, first = windows.start[mine], windows.first[mine] + skip
            text = {"vocab_size": store.vocab_size, "eot": store.eot}
            sizes = windows.size[mine] - skip
            self.begin = mine.start
            self.found = log_distributions(
                store.tokens, start, first, sizes, np.zeros_like(sizes), width=self.width, code=self.code, **text
            )
        given = np.zeros((len(rows), size, store.vocab_size), np.float32)
        for place, row in enumerate(rows):
            skip, end = self.skip[row], windows.size[row]
            given[place, skip:end] = self.found[row - self.begin, : end - skip]
        return given


def _widest(model: nn.Module, vocab_size: int) -> int:
    """Numbers that a layer makes of one token; the logits among them, unless they are made a piece at a time."""
    sides = {side for weights in model.parameters() if weights.ndim > 1 for side in weights.shape}
    if (rows := vocabulary_in_pieces(model)) is None:
        return max([vocab_size, *sides])
    return max([1, *(sides - {rows, vocab_size, getattr(model, "rows", rows)})])


def _workers(model: nn.Module, device: torch.device, in_order: bool) -> int:
    """How many batches to score at once: on a CPU as many as torch may use threads, if the model is large."""
    weights = sum(weights.numel() for weights in model.parameters())
    return torch.get_num_threads() if device.type == "cpu" and weights >= PARALLEL and not in_order else 1


@contextlib.contextmanager
def _each(call: Callable[[Any], Result], things: Iterator[Any], workers: int) -> Iterator[Iterator[Result]]:
    """What `call` makes of each of some things, in order; with several workers some of them at once, each on one thread."""
    if workers == 1:
        yield map(call, things)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads begin with that
    try:
        with ThreadPoolExecutor(workers) as pool:

            def results() -> Iterator[Result]:
                ahead = collections.deque(pool.submit(call, each) for each in itertools.islice(things, 2 * workers))
                while ahead:
                    found = ahead.popleft().result()
                    ahead.extend(pool.submit(call, each) for each in itertools.islice(things, 1))
                    yield found

            try:
                yield results()
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(threads)


def _predicted(
    model: nn.Module,
    inputs: list[torch.Tensor],
    which: torch.Tensor,
    wanted: torch.Tensor,
    of: tuple[TokenStore, bool],
) -> dict[str, torch.Tensor]:
    """`_looked_at` of a model's predictions for `inputs`. of: the store, and whether expectations are asked for, too."""
    store, expectations = of
    numbers = inputs[0].numel() * store.vocab_size
    if vocabulary_in_pieces(model) is None or numbers <= _by_device(LOGITS, inputs[0].device):
        logits = model(*inputs)
        _refuse_other_tokens(logits, store)
        return _looked_at(logits.flatten(0, 1), which, wanted, expectations)

    def read(logits: torch.Tensor, place: slice) -> dict[str, torch.Tensor]:
        _refuse_other_tokens(logits, store)
        return _looked_at(logits, torch.arange(len(logits), device=logits.device), wanted[place], expectations)

    found = model(*inputs, read=read, rows=which)
    return {name: torch.cat([piece[name] for piece in found]) for name in found[0]}


def _refuse_other_tokens(logits: torch.Tensor, store: TokenStore) -> None:
    if logits.shape[-1] != store.vocab_size:
        raise SubloraError(f"{store.path}: the model has {logits.shape[-1]} tokens, the token store {store.vocab_size}")


def _looked_at(logits: torch.Tensor, which: torch.Tensor, wanted: torch.Tensor, expectations: bool) -> dict[str, torch.Tensor]:
    """What the rows `which` of `logits` (rows, V) say of the tokens `wanted`: the fields of `Scores`, a piece at a time."""
    step = max(1, _by_device(PIECE, logits.device) // logits.shape[1])
    found = []
    for begin in range(0, len(which), step):
        z = logits[which[begin : begin + step]].float()
        right = z.gather(1, wanted[begin : begin + step, None])
        total = z.logsumexp(1, keepdim=True)
        # What is not below the right one counts, and so does NaN; the token itself is not below itself.
        rank = z.shape[1] - 1 - (z < right).sum(1)
        piece = {"log_probability": (right - total)[:, 0], "rank": rank.int()}
        if expectations:
            probability = (z - total).exp_()
            piece["expected_bits"] = torch.stack([_entropy(probability, alpha) for alpha in ALPHA_GRID], dim=1)
            top = probability.topk(min(max(TOP_K), z.shape[1]), dim=1).values.cumsum(1)
            last = torch.tensor([min(k, top.shape[1]) - 1 for k in TOP_K], device=top.device)
            piece["expected_hits"] = top[:, last]
        found.append(piece)
    return {name: torch.cat([piece[name] for piece in found]) for name in found[0]}


def _by_device(sizes: dict[str, int], device: torch.device) -> int:
    return sizes.get(device.type, sizes["cpu"])


def _entropy(probability: torch.Tensor, alpha: float) -> torch.Tensor:
    """Entropy in bits of (1 - alpha) p + alpha/V, for each row p."""
    smoothed = probability.mul(1 - alpha).add_(alpha / probability.shape[1])
    return -smoothed.mul_(smoothed.log2()).sum(1)


def _gather(store: TokenStore, windows: Windows, rows: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Inputs (rows, size), and of each prediction its target, its place in the flat inputs, and where in the scores it goes."""
    first, position = windows.first[rows, None], np.arange(size)
    before = first - 1 + np.where(position < windows.size[rows, None], position, 0)  # a token is read in order to predict the next
    inputs = store.tokens[np.maximum(before, 0)].astype(np.int64)
    inputs[windows.first[rows] == windows.start[rows], 0] = store.eot
    which, ends = pieces(windows.ends, rows)
    row, place = np.repeat(np.arange(len(rows)), np.diff(ends)), windows.place[which]
    return inputs, store.tokens[windows.first[rows][row] + place].astype(np.int64), row * size + place, windows.goal[which]


def _fingerprint(store: TokenStore, windows: Windows, places: np.ndarray, expectations: bool) -> str:
    digest = hashlib.sha256(f"{store.sha256} {expectations}".encode())
    for array in (*vars(windows).values(), places):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _write(path: str | os.PathLike, arrays: dict[str, np.ndarray], facts: dict[str, str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(path) as temporary:
        save_file(arrays, temporary, metadata=facts)


def _read(path: str | os.PathLike, identity: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What `_write` wrote. Raises SubloraError when it is missing, damaged or of another identity."""
    try:
        with safe_open(path, "numpy") as file:
            arrays, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SubloraError(f"{Path(path)}: not a file of scores ({error}); score again") from None
    if facts.get("identity") != identity:
        raise SubloraError(f"{Path(path)}: these scores are of another model or other text; score again")
    return arrays, facts
