"""Several processes that do the steps of one run together: `accelerate launch` starts them, and their log is followed."""

import codecs
import fcntl
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sublora.errors import SubloraError, one_line, printable
from sublora.own import note

PROCESSES = "SUBLORA_PROCESSES"
"""In the environment: how many processes `sublora run --processes` asks for."""
LOG = "processes.log"
"""In a run's folder: what its processes said. Each of them holds a shared lock on it until it ends."""
_ERROR = "sublora: "
"""So begins the line in the log that says why a process failed; what follows is not shown."""


def asked_for() -> int:
    """How many processes do a step together; 1 in a process that is one of several. Raises SubloraError unless it is a number."""
    given = os.environ.get(PROCESSES, "1")
    if not given.isdecimal() or int(given) < 1:
        raise SubloraError(f"{PROCESSES}: {given!r:.40} is not a number of processes; give 1 or more")
    return 1 if "RANK" in os.environ else int(given)


def together(step: str, folder: Path) -> None:
    """Let several processes do `step` (`run.STEPS`), and those before it, of the run in `folder`; returns when all have ended.

    What they show is shown here. The results do not depend on their number, beyond rounding. If one process ends too early,
    the others are ended, too, and the checkpoints stay. All end if this process is killed.
    Raises SubloraError: the one of a process, or one that names the log.
    """
    import torch

    count, log = asked_for(), folder / LOG
    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise SubloraError(f"--processes {count}: there are {gpus} GPUs here, and each process needs its own; ask for fewer")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={count}", "--num_machines=1"]
    launcher += ["--machine_rank=0", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "--module", "sublora"]
    command = [*launcher, "step", step, str(folder / "params.yaml"), "--runs", str(folder.parent), "--log", str(log)]
    threads = str(max(1, len(os.sched_getaffinity(0)) // count) if hasattr(os, "sched_getaffinity") else 1)
    environment = {"OMP_NUM_THREADS": threads, **os.environ, **({} if gpus else {"ACCELERATE_USE_CPU": "true"})}
    note(log)
    with open(log, "a+b", buffering=0) as said, tempfile.TemporaryFile() as launched:
        fcntl.flock(said, fcntl.LOCK_EX)  # waits for processes whose parent was killed: they are about to end
        fcntl.flock(said, fcntl.LOCK_UN)
        said.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=launched, stderr=subprocess.STDOUT, env=environment)
        assert process.stdin is not None
        decoder, errors, ended = codecs.getincrementaldecoder("utf-8")("replace"), "", False
        try:
            while not ended:
                time.sleep(0.2)
                ended = process.poll() is not None
                new = decoder.decode(said.read())
                if not errors:
                    shown, *error = new.partition(_ERROR)
                    print(printable(shown, "\n\t\r\x1b"), end="", file=sys.stderr, flush=True)
                    new = "".join(error)
                errors += new
        finally:
            process.stdin.close()  # which ends those that are still there
            process.wait()
            fcntl.flock(said, fcntl.LOCK_EX)
        if process.returncode:
            launched.seek(0)
            report = launched.read()
            said.write(report)
            raise SubloraError(_why(errors, report.decode("utf-8", "replace"), log, count))


def _why(errors: str, report: str, log: Path, count: int) -> str:
    """One line: what the processes said, or how the launcher saw the first one end."""
    # The launcher ends the others by signal 15. Those that waited for the one that was killed may be seen first: they lost a peer.
    killed = next((signal for signal in re.findall(r"exitcode\s*: -(\d+)", report) if signal != "15"), None)
    reasons = [said for said in re.findall(rf"^{_ERROR}(.+)$", errors, re.MULTILINE) if " by peer" not in said]
    if killed or not reasons:
        how = f"was killed (signal {killed})" if killed else "failed"
        return f"{log.parent}: one of {count} processes {how}; {log} says more. The same command goes on from the last checkpoint"
    return reasons[0]


def as_one_of_several(work: Callable[[], Any], log: Path) -> None:
    """Do `work` in one of the processes that `together` starts. All output goes to `log`.

    Ends the process with status 1 if the work fails, or when the process that called `together` has ended.
    """
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    fcntl.flock(handle, fcntl.LOCK_SH)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()  # the pipe closes with its other end
    try:
        work()
    except Exception as error:
        kind = "" if isinstance(error, SubloraError) else f"{type(error).__name__}: "
        print(f"\n{_ERROR}{kind}{one_line(error, 2000)}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        os._exit(1)  # the others may wait for this one, and libraries for them
