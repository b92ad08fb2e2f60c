"""The precision that a training computes in: settled once for a run, and kept in its folder."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from sublora.atomic import write_text

FILE = "precision.txt"
"""In a run's folder: what `auto` was settled to, bf16 or no."""
WORTH = 0.9
"""bf16 is taken on a CPU if it needs less than this share of float32's time."""
ROUNDS = 3


def settled(precision: str, folder: Path, accelerator: Accelerator, compute: Callable[[bool], None]) -> str:
    """`bf16` or `no`: what the settings say, and for `auto` what the run settled before, or what is faster here.

    A choice is kept in the folder before it is used, so that a run which continues computes as it began, whatever a measurement
    would say then. On a GPU it is bf16 wherever the GPU has it. On a CPU with bf16 both are tried: `compute` does some steps'
    work, in bf16 or not. The first process chooses for all.
    """
    if precision != "auto":
        return precision
    found = [kept_precision(folder)]
    if accelerator.is_main_process and found[0] is None:
        found = [_faster(accelerator.device, compute)]
        write_text(folder / FILE, f"{found[0]}\n")
    return str(broadcast_object_list(found)[0])


def kept_precision(folder: Path) -> str | None:
    """What `auto` was settled to in a run's folder; None where nothing was."""
    try:
        found = (folder / FILE).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return found if found in ("bf16", "no") else None


def _faster(device: torch.device, compute: Callable[[bool], None]) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    capabilities = torch.cpu.get_capabilities()
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return "no"
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(1 + ROUNDS):  # in turn, so that both see the same machine
        for bf16, times in seconds.items():
            began = time.perf_counter()
            compute(bf16)
            times.append(time.perf_counter() - began)
    exact, rounded = (min(times[1:]) for times in seconds.values())  # the first one prepares much
    return "bf16" if rounded < WORTH * exact else "no"
