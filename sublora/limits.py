"""A call in a process of its own, whose memory and time are limited: what a stranger's file does there ends there."""

import importlib
import multiprocessing
import os
import resource
import signal
import threading
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import tqdm.std

from sublora.errors import SubloraError, one_line

OUT_OF_MEMORY = ("alloc", "out of memory", "ENOMEM")
"""Words of a library that got no memory, where it raises no MemoryError."""


class Limits(NamedTuple):
    """What the check of one certificate may take. memory: GiB beside what the libraries take; minutes: of wall time."""

    memory: float = 4.0
    minutes: float = 30.0


DEFAULT, MOST = Limits(), Limits(10**6, 10**4)
"""What a check may take unless said otherwise, and the most that may be said: the system's timers and limits hold no more."""


def limited(name: str, *arguments: Any, what: str, limits: Limits) -> Any:
    """What the function `name` ("module:function") returns for `arguments` and these limits. Its warnings and bars are shown.

    Memory is limited on Linux, which alone counts it. The first call starts a process that imports the module, and each call is a
    fork of it: libraries are loaded once, and never here.
    Raises SubloraError: the function's own; else one line that begins with `what` and names the limit, or what ended the process.
    """
    for option, given, most in zip(Limits._fields, limits, MOST, strict=True):
        if not 0 < given <= most:  # also what is no number
            raise SubloraError(f"{what}: --limit-{option} is {given:g}; give a number above 0 and at most {most:,}")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name.partition(":")[0]])
    receiver, sender = context.Pipe(duplex=False)
    end = time.monotonic() + 60 * limits.minutes
    process = context.Process(target=_call, args=(sender, name, arguments, limits), daemon=True)
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, end - time.monotonic())):
            kind, value = receiver.recv()
            if kind == "returned":
                return value
            if kind == "warned":
                warnings.warn(value, stacklevel=2)
            elif kind == "refused":
                raise SubloraError(value)
            elif kind == "memory":
                raise SubloraError(f"{what}: needs more than {limits.memory:g} GiB; if you trust it, raise --limit-memory")
            else:
                raise SubloraError(f"{what}: cannot be checked ({value})")
        raise SubloraError(f"{what}: takes more than {limits.minutes:g} minutes; if you trust it, raise --limit-minutes")
    except EOFError:
        process.join()
        status = process.exitcode or 0
        ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        cure = "it wants too much memory, or there is too little; see --limit-memory"
        raise SubloraError(f"{what}: cannot be checked (the process ended with {ended}: {cure})") from None
    finally:
        process.kill()
        process.join()


def _call(sender: Connection, name: str, arguments: tuple, limits: Limits) -> None:
    """In the process: send what the function returns, or why it does not."""
    tqdm.std.tqdm.set_lock(threading.RLock())  # by default also a lock between processes, which outlives one that is killed
    warnings.showwarning = lambda message, *_, **__: sender.send(("warned", str(message)))
    module, _, function = name.partition(":")
    try:
        call = getattr(importlib.import_module(module), function)
        _limit(limits)
        sender.send(("returned", call(*arguments, limits=limits)))
    except SubloraError as error:
        sender.send(("refused", str(error)))
    except KeyboardInterrupt:  # the terminal sends it to both
        os._exit(130)
    except BaseException as error:
        text = one_line(error)
        short = isinstance(error, MemoryError) or any(word in text for word in OUT_OF_MEMORY)
        sender.send(("memory" if short else "failed", f"{type(error).__name__}: {text}"))


def _limit(limits: Limits) -> None:
    """From here on. The processor's time, on all cores, ends the process even if nobody waits for it any more."""
    spent = sum(os.times()[:2])
    _lower(resource.RLIMIT_CPU, int(spent + 60 * limits.minutes * (os.cpu_count() or 1)) + 1)
    counts = Path("/proc/self/statm")
    if counts.exists():  # private memory that can be written to: neither libraries nor token stores, which are mapped from files
        _lower(resource.RLIMIT_DATA, int(counts.read_text().split()[5]) * resource.getpagesize() + int(limits.memory * 2**30))


def _lower(limit: int, to: int) -> None:
    hard = resource.getrlimit(limit)[1]
    to = to if hard == resource.RLIM_INFINITY else min(to, hard)
    resource.setrlimit(limit, (to, hard))
