"""The training loop: any module from token ids to logits, its trainable parameters, a sampler; resumable to the bit."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, cast

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from sublora.errors import SubloraError
from sublora.models.output import logits_at_once, numbers_of_token, vocabulary_in_pieces
from sublora.progress import notice, progress_bar
from sublora.training.batches import IGNORED, Batch
from sublora.training.checkpoint import load_checkpoint, save_checkpoint
from sublora.training.metrics import MetricsLog
from sublora.training.precision import settled

AT_ONCE = {"cpu": 2**29}
"""About how many numbers a forward pass in training may keep for the way back, by device: 2 GiB. On a GPU settings say it."""
CALL = 2**21
"""How many numbers of padding a forward pass more is worth: what its calls cost, whatever the number of tokens."""

COOL_DOWN = "cool-down"
"""The file in a run's folder that starts the cool-down of a constant rate at the next validation."""


class Penalty(Protocol):
    """What is added to the loss, in bits (`compression.price`). price: all that it remembers."""

    price: float

    def __call__(self) -> torch.Tensor: ...

    def revalue(self, mean: float, sequences: float, tokens: float) -> float:
        """At a validation of this mean loss and these deviations: what counts beside the loss from now on."""


@dataclass(frozen=True)
class Schedule:
    """How one phase of training is run; the fields mean what the same names in `sublora.experiment.Training` mean."""

    steps: int
    batch: int
    accumulation: int
    learning_rate: float
    min_learning_rate: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    validate_every: int
    precision: str
    compile: str
    seed: int
    schedule: str = field(default="cosine", repr=False)
    period: int = field(default=1, repr=False)
    shrink: float = field(default=1.0, repr=False)
    cooldown: int = field(default=1, repr=False)

    @classmethod
    def of(cls, settings: object, **changes: Any) -> Self:
        """The schedule of a training's settings, with these fields changed."""
        fields: dict[str, Any] = {name: getattr(settings, name) for name in cls.__dataclass_fields__ if hasattr(settings, name)}
        return cls(**fields | changes)

    def rate(self, step: int) -> float:
        """Learning rate of `step`: linear warm-up, then what `schedule` says, down to `min_learning_rate` at the last step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        least, peak, behind = self.min_learning_rate, self.learning_rate, step - self.warmup
        if self.schedule == "constant":
            return least + (peak - least) * min(1.0, (self.steps - 1 - step) / self.cooldown)
        period = self.period if self.schedule == "restarts" else self.steps - self.warmup
        if self.schedule == "restarts":
            peak = max(least, peak * self.shrink ** (behind // period))
        return least + (peak - least) * (1 + math.cos(math.pi * (behind % period) / max(1, period - 1))) / 2


def train(
    module: nn.Module,
    batches: Callable[[int, int], Batch],
    validation: Batch,
    schedule: Schedule,
    folder: Path,
    *,
    phase: str,
    facts: Mapping[str, Any],
    penalty: Penalty | None = None,
    unit: str = "token",
) -> pd.DataFrame:
    """Minimize the mean loss; leave `module` with the parameters of the best validation loss (with penalty), in evaluation mode.

    module: (batch, time) token ids, and the batch's log_q if it has one, to (batch, time, V) logits.
    batches: (step, size) to the batch of that step, the same for every process and every run.
    facts: what a checkpoint must agree on to be continued (settings and data).
    penalty: added to the loss, in bits per token; each validation tells it the losses' mean and deviations (`Penalty`).
    unit: what one target is, for the progress bar; everything said here of tokens is then said of these.
    Every validation writes `<phase>.safetensors` and a row of `metrics.csv` in `folder`, and TensorBoard events. Interrupted at
    any moment and called again, training goes on from the last checkpoint and ends with the same weights (same device and
    versions). Returns the rows of this phase (`metrics.COLUMNS`; losses in bits per token).
    Raises SubloraError when the loss is not finite; the last good checkpoint stays.
    """
    # Its own mixed precision can be set once a process; torch's, below, can be another in each call.
    accelerator = Accelerator(mixed_precision="no")
    module.to(accelerator.device)
    # The compiled and the distributed form share these parameters, so that what is read and written here is theirs too.
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    paces = getattr(module, "paces", {})  # of parameters with a learning rate of their own, and no decay
    groups = [{"params": [p for name, p in parameters.items() if name not in paces], "pace": 1.0}]
    groups += [{"params": [parameters[name]], "pace": pace, "weight_decay": 0.0} for name, pace in paces.items()]
    decay, fused = schedule.weight_decay, accelerator.device.type == "cuda" or None
    optimizer = torch.optim.AdamW(groups, schedule.learning_rate, schedule.betas, weight_decay=decay, fused=fused)
    checkpoint, facts = folder / f"{phase}.safetensors", {**facts, "phase": phase, "schedule": repr(schedule)}
    if schedule.schedule != "cosine":  # checkpoints of before there were others are as they were
        facts["rates"] = [schedule.schedule, schedule.period, schedule.shrink, schedule.cooldown]
    state = _State(parameters, optimizer)
    if checkpoint.exists():
        kept = load_checkpoint(checkpoint, facts)
        state.load(*kept)
        if penalty is not None:
            penalty.price = kept[1]["price"]
    schedule = replace(schedule, steps=min(schedule.steps, state.last))
    if state.step < schedule.steps:
        module.train()
        autocast = _autocast(module, batches, schedule, folder, accelerator)
        forward, prepared = accelerator.prepare(_compiled(module, batches, schedule, accelerator, autocast), optimizer)
        if penalty is not None and state.step == 0:
            penalty.revalue(*validation_loss(autocast, forward, validation, schedule.batch))
    log = MetricsLog(folder, phase, state.step) if accelerator.is_main_process else None
    progress = progress_bar(total=schedule.steps, initial=state.step, desc=phase, unit="step", disable=log is None)
    earlier = log.seconds if log else 0.0
    began, losses, tokens = time.monotonic(), [], 0
    coming = _made_ahead(batches, state.step, module, schedule, accelerator)
    while state.step < schedule.steps:
        # Dropout masks are a function of (seed, step, process). torch takes no larger seeds.
        torch.manual_seed(((schedule.seed * 1_000_003 + state.step) * 1009 + accelerator.process_index) % 2**63)
        for group in prepared.param_groups:
            group["lr"] = schedule.rate(state.step) * group["pace"]
        batch, mine = next(coming)
        losses.append(_step(accelerator, autocast, forward, mine, penalty=penalty))
        accelerator.clip_grad_norm_(parameters.values(), schedule.clip)
        prepared.step()
        prepared.zero_grad()
        state.step += 1
        tokens += int((batch.targets != IGNORED).sum())
        progress.update()
        validate = state.step % schedule.validate_every == 0 or state.step == schedule.steps
        if validate or state.step % 10 == 0:
            bits = float(losses[-1])
            _check_finite(float(torch.stack(losses).sum()), state.step, checkpoint)
            speed = tokens / (time.monotonic() - began)
            progress.set_postfix_str(f"{bits:.3f} bits/{unit}, {speed:,.0f} {unit}s/s", refresh=False)
        if validate:
            value, *deviations = validation_loss(autocast, forward, validation, schedule.batch)
            _check_finite(value, state.step, checkpoint)
            if asked := schedule.schedule == "constant" and broadcast_object_list([(folder / COOL_DOWN).exists()])[0]:
                progress.total = state.last = min(schedule.steps, state.step + schedule.cooldown)
                schedule = replace(schedule, steps=state.last)
            state.keep_best(value + (0.0 if penalty is None else penalty.revalue(value, *deviations)))
            if log is not None:  # the row first: killed in between, training drops it and makes it again
                mean, rate = float(torch.stack(losses).mean()), schedule.rate(state.step - 1)
                log.append(state.step, mean, value, rate, speed, earlier + time.monotonic() - began)
                priced = {} if penalty is None else {"price": penalty.price}
                reached = {"step": state.step, "best": state.best, "last": state.last}
                save_checkpoint(checkpoint, state.tensors(), {**facts, **reached, **priced})
                if asked:
                    (folder / COOL_DOWN).unlink(missing_ok=True)
                    notice(f"{phase}: the cool-down has begun; the last step is {state.last:,}")
            losses = []
    coming.close()
    progress.close()
    state.restore_best()
    module.eval()
    accelerator.free_memory()
    if log is None:
        return pd.DataFrame()
    return log.frame()


def _check_finite(loss: float, step: int, checkpoint: Path) -> None:
    if not math.isfinite(loss):
        cure = "lower training.learning_rate (the last good checkpoint, if any, is kept)"
        raise SubloraError(f"{checkpoint}: the loss is not finite at step {step}; {cure}")


def validation_loss(autocast: torch.autocast, forward: nn.Module, batch: Batch, sequences: int) -> tuple[float, float, float]:
    """(mean loss of a batch in bits per token, deviation of the sequences' mean losses, of the tokens' losses).

    Evaluated `sequences` at a time without dropout.
    """
    forward.eval()
    parts = -(-len(batch.inputs) // sequences)
    total, means, tokens = 0.0, [], []
    with torch.no_grad():
        for part in (batch.part(i, parts) for i in range(parts)):
            losses, real = _losses(autocast, forward, part), part.targets.to(_device(forward)) != IGNORED
            total += float((losses.sum(1) * part.weights.to(losses.device)).sum())
            means.append(losses.sum(1) / real.sum(1).clamp_min(1))
            tokens.append(losses[real])
    forward.train()
    return total, float(torch.cat(means).std(correction=0)), float(torch.cat(tokens).std(correction=0))


class _State:
    """What a checkpoint holds: parameters, AdamW's moments, the best parameters so far."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer):
        self.parameters, self.optimizer = parameters, optimizer
        self.step, self.best, self.last = 0, math.inf, 2**53
        self.best_parameters = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def keep_best(self, loss: float) -> None:
        """Note the parameters if what is minimized, the penalty included, is the least so far."""
        if loss < self.best:
            self.best = loss
            for name, parameter in self.parameters.items():
                self.best_parameters[name].copy_(parameter)

    @torch.no_grad()
    def restore_best(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(self.best_parameters[name])

    def tensors(self) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{name}/now": parameter, f"{name}/best": self.best_parameters[name]}
            tensors |= {f"{name}/mean": moments["exp_avg"], f"{name}/square": moments["exp_avg_sq"]}
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        self.step, self.best, self.last = facts["step"], facts["best"], facts.get("last", self.last)
        for parameter in self.parameters.values():
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            there = parameter.device if self.optimizer.param_groups[0]["fused"] else None
            self.optimizer.state[parameter] = {"step": torch.tensor(float(self.step), device=there), **moments}
        for name, tensor in self.tensors().items():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise SubloraError(f"checkpoint: no {name} of shape {tuple(tensor.shape)}; it is of another architecture")
            tensor.copy_(tensors[name])


def _made_ahead(
    batches, step: int, module: nn.Module, schedule: Schedule, accelerator: Accelerator
) -> Generator[tuple[Batch, list[Batch]], None, None]:
    """(the batch, this process's share in pieces) of each step from `step` on. A thread makes one while another is trained on."""

    def made(step: int) -> tuple[Batch, list[Batch]]:
        batch = batches(step, schedule.batch)
        mine = _pieces(batch, module, schedule, accelerator)
        # else each piece is read when its turn comes
        return batch, [piece.read() for piece in mine] if schedule.accumulation == 1 else mine

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(made, step)
        for further in range(step + 1, schedule.steps):
            current, following = following, thread.submit(made, further)
            yield current.result()
        yield following.result()


def _step(accelerator, autocast, forward, mine: list[Batch], *, penalty) -> torch.Tensor:
    """Gradients of one step's loss; returns this process's share of the loss in bits per token."""
    processes = accelerator.num_processes
    total = torch.zeros((), device=accelerator.device)
    for piece in mine:
        last = piece is mine[-1]
        with contextlib.nullcontext() if last else accelerator.no_sync(forward):
            # Gradients are averaged over processes; times their number, they are the gradient of the whole batch's mean.
            loss = _bits(autocast, forward, piece) * processes
            total += loss.detach()
            if last and penalty is not None:
                loss = loss + penalty()
            accelerator.backward(loss)
    return total


def _bits(autocast: torch.autocast, forward: nn.Module, batch: Batch) -> torch.Tensor:
    return (_losses(autocast, forward, batch).sum(1) * batch.weights.to(_device(forward))).sum()


def _losses(autocast: torch.autocast, forward: nn.Module, batch: Batch) -> torch.Tensor:
    """Each target's loss in bits, (sequences, time); 0 where it is ignored."""
    device = _device(forward)
    log_q, targets = batch.past(), batch.targets.to(device)
    inputs = batch.inputs.to(device), *(() if log_q is None else (log_q.to(device),))
    vocabulary, flat = vocabulary_in_pieces(forward), targets.flatten()

    def nats(logits: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.float(), of, ignore_index=IGNORED, reduction="none")

    with autocast:
        if vocabulary is None or batch.inputs.numel() * vocabulary <= logits_at_once(device):
            losses = nats(forward(*inputs).flatten(0, 1), flat)
        else:
            real = (batch.targets.flatten() != IGNORED).nonzero()[:, 0]
            rows = (real if len(real) else torch.zeros(1, dtype=torch.long)).to(device)  # one at least, ignored or not
            wanted = flat[rows]
            found = torch.cat(forward(*inputs, read=lambda logits, place: nats(logits, wanted[place]), rows=rows))
            losses = found.new_zeros(len(flat)).index_put((rows,), found)
    return losses.view(targets.shape) / math.log(2)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _autocast(module: nn.Module, batches, schedule: Schedule, folder: Path, accelerator: Accelerator) -> torch.autocast:
    """Mixed precision or none, as the settings say or `precision.settled` finds."""
    kind = accelerator.device.type

    def compute(bf16: bool) -> None:
        *_, narrowest = _pieces(batches(0, schedule.batch), module, schedule, accelerator)
        _bits(torch.autocast(kind, torch.bfloat16, enabled=bf16), module, narrowest).backward()
        module.zero_grad()

    return torch.autocast(kind, torch.bfloat16, enabled=settled(schedule.precision, folder, accelerator, compute) == "bf16")


def _pieces(batch: Batch, module: nn.Module, schedule: Schedule, accelerator: Accelerator) -> list[Batch]:
    """This process's share of a batch, in pieces."""
    numbers, device = numbers_of_token(module), accelerator.device.type
    sequences = max(1, schedule.batch // schedule.accumulation // accelerator.num_processes)
    mine = batch.part(accelerator.process_index, accelerator.num_processes)
    return mine.pieces(sequences, AT_ONCE.get(device, math.inf) / numbers, CALL / numbers)


def _compiled(module: nn.Module, batches, schedule: Schedule, accelerator: Accelerator, autocast) -> nn.Module:
    """`torch.compile` of the module: by default on a GPU alone (on a CPU it costs more than a short run gets back)."""
    if schedule.compile == "no" or (schedule.compile == "auto" and accelerator.device.type != "cuda"):
        return module
    compiled = cast(nn.Module, torch.compile(module))  # a module of a module
    try:
        sequences = schedule.batch // schedule.accumulation // accelerator.num_processes
        _bits(autocast, compiled, batches(0, sequences)).backward()
    except Exception as error:  # a compiler can fail in any way; the module itself is untouched
        print(f"torch.compile failed and is off: {' '.join(str(error).split())[:200]}")
        return module
    finally:
        module.zero_grad()
    return compiled
