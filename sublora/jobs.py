"""Params files as jobs of a cluster or of this machine, through submitit, and what has become of them."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
import yaml
from filelock import FileLock, Timeout
from submitit.helpers import DelayedSubmission

from sublora.atomic import write_text
from sublora.errors import SubloraError, one_line, printable
from sublora.pipeline import run
from sublora.processes import PROCESSES
from sublora.run import read_kept

EXECUTORS = ("local", "slurm")
JOBS = "jobs"
"""The folder in RUNS with the jobs: submitit's files and logs (`<id>_0_log.err`), and two files for each job's state."""
DEFAULTS = {"local": {"timeout_min": 60 * 24 * 365}, "slurm": {"timeout_min": 60 * 24}}
"""A local job waits for no one; a job of a cluster that runs out of its time is requeued."""
ENDINGS = {"COMPLETED": "ended without a word", "TIMEOUT": "ran out of time too often"}
"""States of slurm that need another word here."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "PREEMPTED", "RESIZING", "CONFIGURING")
ALIVE = ("RUNNING", "COMPLETING", "UNKNOWN")
"""States of slurm in which a job is what it last said that it is. UNKNOWN: `sacct` does not know it, or is not there."""


@dataclass(frozen=True)
class Job:
    """The call of `pipeline.run` that a job makes, in `here`. It notes its state in `<runs>/jobs/<id>.state.json`."""

    params: Path
    runs: Path
    notebooks: Path
    force: bool
    overrides: tuple[str, ...]
    processes: str
    here: Path

    def __call__(self) -> None:
        os.chdir(self.here)
        os.environ[PROCESSES] = self.processes
        terminated: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
        with FileLock(_lock(self.runs, _own_id())):  # held as long as the job is alive
            self._say("running")
            try:
                folders = list(run(self.params, self.runs, self.notebooks, self.force, self.overrides))
            except Exception as error:
                if terminated:  # so was the notebook's process: the cluster is about to requeue this job, or to end it
                    time.sleep(600)
                kind = "" if isinstance(error, SubloraError) else f"{type(error).__name__}: "
                self._say("failed", kind + one_line(error, 2000))
                raise
            self._say("finished", ", ".join(map(str, folders)))

    def checkpoint(self) -> DelayedSubmission:
        """The same call again. submitit asks for it when the job is preempted or out of time; the run resumes by itself."""
        self._say("waiting", "requeued")
        return DelayedSubmission(replace(self, force=False))

    def _say(self, state: str, why: str = "") -> None:
        write_text(self.runs / JOBS / f"{_own_id()}.state.json", json.dumps({"state": state, "why": why}))


def _own_id() -> str:
    return submitit.JobEnvironment().job_id


def _lock(runs: Path, job: str) -> Path:
    return runs / JOBS / f".{job}.lock"


def submit(executor: str, jobs: Iterable[Job], given: Iterable[str]) -> list[str]:
    """The ids of the jobs, submitted. given: `key=value`, of `submitit.AutoExecutor.update_parameters`.

    Raises SubloraError for an unknown executor or key, and where the cluster's commands are missing or fail.
    """
    if executor not in EXECUTORS:
        raise SubloraError(f"--executor: {executor!r:.40} is none of {', '.join(EXECUTORS)}")
    jobs, parameters = list(jobs), DEFAULTS[executor] | _parameters(given)
    shared = sorted(submitit.AutoExecutor._valid_parameters())
    if wrong := [key for key in parameters if key not in shared and not key.startswith(f"{executor}_")]:
        known = f"it takes {', '.join(shared)}, and what begins with {executor}_"
        raise SubloraError(f"--set-executor: {wrong[0]!r:.60} is no parameter of --executor {executor}; {known}")
    folder = (jobs[0].runs / JOBS).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ids = []
    try:
        queue = submitit.AutoExecutor(folder, cluster=executor, slurm_max_num_timeout=1000)
        queue.update_parameters(**parameters)
        for job in jobs:
            queue.update_parameters(name=f"sublora-{job.params.stem}")
            ids.append(queue.submit(job).job_id)
            (folder / f"{ids[-1]}.state.json").unlink(missing_ok=True)  # of an older process with this number
            record = {"params": str(job.params), "executor": executor, "number": len(list(folder.glob("*.job.json")))}
            write_text(folder / f"{ids[-1]}.job.json", json.dumps(record))
    except (NameError, AssertionError, TypeError) as error:
        raise SubloraError(f"--set-executor: {one_line(error, 300)}") from None
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        raise SubloraError(f"--executor {executor}: {one_line(error, 300)}") from None
    return ids


def _parameters(given: Iterable[str]) -> dict[str, Any]:
    parameters = {}
    for each in given:
        key, equals, value = each.partition("=")
        try:
            parameters[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not key.strip():
            raise SubloraError(f"--set-executor: {each!r:.60} is not key=value, such as slurm_partition=gpu")
    return parameters


def states(runs: Path) -> list[dict[str, str]]:
    """Of each params file the newest job, in the order of submission: params, job (its id), state, why.

    state: waiting, running, finished or failed; why: the reason of a failure, or the folders that a finished job made.
    """
    newest: dict[str, tuple[int, str, str]] = {}
    for file in (runs / JOBS).glob("*.job.json"):
        record, job = read_kept(file, json.loads), file.name.removesuffix(".job.json")
        found = int(record.get("number", 0)), job, str(record.get("executor"))
        params = str(record.get("params"))
        newest[params] = max(found, newest.get(params, found))
    rows = []
    for params, (_, job, executor) in sorted(newest.items(), key=lambda item: item[1]):
        said = read_kept(runs / JOBS / f"{job}.state.json", json.loads)
        state, why = str(said.get("state", "waiting")), str(said.get("why", ""))
        if state in ("waiting", "running"):
            state, why = (_in_slurm if executor == "slurm" else _local)(runs, job, state, why)
        rows.append({"params": params, "job": job, "state": state, "why": printable(why)})
    return rows


def _in_slurm(runs: Path, job: str, state: str, why: str) -> tuple[str, str]:
    word = (submitit.SlurmJob((runs / JOBS).resolve(), job).state.split() or ["UNKNOWN"])[0]
    if word in ALIVE:
        return state, why
    if word in WAITING:
        return "waiting", "requeued" if state == "running" else why
    return "failed", f"{ENDINGS.get(word, word)}; see {runs / JOBS}/{job}_0_log.err. Submitted again, it goes on where it was"


def _local(runs: Path, job: str, state: str, why: str) -> tuple[str, str]:
    if state == "running":
        try:
            with FileLock(_lock(runs, job), timeout=0):
                pass
        except Timeout:
            return state, why
    else:  # not begun, or about to begin again
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(job), 0)
            return state, why
    return "failed", f"its process was killed; see {runs / JOBS}/{job}_0_log.err. Submitted again, it goes on where it was"
