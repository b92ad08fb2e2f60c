"""`sublora run --executor` and `sublora status`: jobs side by side here, and those of a slurm whose commands are stand-ins."""

import json
import os
import signal
import subprocess
import time

import nbformat
import pytest
from tiny import complaint, settings, write_params, write_texts

from sublora import jobs
from sublora.processes import PROCESSES

STEP = """
import os, pathlib, time
folder = pathlib.Path(runs) / name
(folder / "begun.txt").open("a").write(f"{os.getppid()}\\n")
if name == "bad":
    raise ValueError("this one fails\\nin two lines")
while name == "long" and not pathlib.Path("go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A study whose notebook trains nothing, with three params files: good, bad, and long, which waits for a file `go`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PROCESSES, "1")  # `--processes` sets it, and it must not stay set
    notebook = nbformat.v4.new_notebook()
    begin = nbformat.v4.new_code_cell("name = runs = None", metadata={"tags": ["parameters"]})
    notebook.cells = [begin, nbformat.v4.new_code_cell(STEP)]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "step.ipynb")
    write_texts(tmp_path / "texts", 20)
    for name in ("good", "bad", "long"):
        write_params(tmp_path / f"{name}.yaml", settings("texts", name=name, notebooks=["step"]))
    return tmp_path


def states(expected, seconds=600):
    """The states by params file, waiting until those are as expected."""
    end = time.monotonic() + seconds
    while True:
        rows = {row["params"]: row for row in jobs.states(jobs.Path("runs"))}
        found = {name: row["state"] for name, row in rows.items()}
        if found == expected:
            return rows
        assert time.monotonic() < end, rows
        time.sleep(0.1)


def test_local_jobs_run_side_by_side_and_one_that_fails_says_why(here, sublora):
    status, out, _ = sublora("run", "--executor", "local", "long.yaml", "bad.yaml")
    assert status == 0 and out.startswith("submitted: long.yaml, job ") and out.endswith("next: sublora status\n")
    rows = states({"long.yaml": "running", "bad.yaml": "failed"})
    assert rows["bad.yaml"]["why"].endswith("step.ipynb: ValueError: this one fails in two lines (see runs/bad/step.failed.ipynb)")
    (here / "go").touch()
    states({"long.yaml": "finished", "bad.yaml": "failed"})
    status, out, _ = sublora("status")
    assert status == 0
    assert [line.split()[:3:2] for line in out.splitlines()[1:]] == [["long.yaml", "finished"], ["bad.yaml", "failed"]]


def test_a_local_job_that_is_killed_has_failed(here):
    folder = here / "runs" / "jobs"
    folder.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for job, state in ((str(ended.pid), "running"), ("notanumber", "waiting"), (str(os.getpid()), "waiting")):
        (folder / f"{job}.job.json").write_text(json.dumps({"params": job, "executor": "local", "number": 0}))
        (folder / f"{job}.state.json").write_text(json.dumps({"state": state}))
    found = {row["job"]: (row["state"], row["why"][:22]) for row in jobs.states(here / "runs")}
    killed = ("failed", "its process was killed")
    assert found == {str(ended.pid): killed, "notanumber": killed, str(os.getpid()): ("waiting", "")}


@pytest.fixture
def slurm(here, monkeypatch):
    """Stand-ins for slurm's commands: they note how they were called, and `sacct` says what stands in the file `state`."""
    folder = here / "bin"
    folder.mkdir()
    commands = {
        "sbatch": 'cp "$1" script; echo "Submitted batch job 77"',
        "srun": 'exec "${@:6}"',  # --unbuffered --output FILE --error FILE
        "sacct": 'echo "JobID|State|NodeList"; echo "77|$(cat state)|node1"',
        "scontrol": 'echo "$@" >> scontrol.txt',
    }
    for name, does in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{does}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    facts = {"JOB_ID": "77", "NTASKS": "1", "JOB_NUM_NODES": "1", "NODEID": "0", "PROCID": "0", "LOCALID": "0"}
    node = {"SLURM_JOB_NODELIST": "node1", **{f"SLURM_{name}": value for name, value in facts.items()}}
    return lambda: subprocess.Popen(["bash", "script"], env={**os.environ, **node})


def slurm_says(here, state):
    (here / "state").write_text(state)
    jobs.submitit.SlurmJob.watcher.clear()
    return {row["params"]: (row["state"], row["why"]) for row in jobs.states(jobs.Path("runs"))}["long.yaml"]


def test_a_slurm_job_is_requeued_when_it_is_preempted_and_goes_on(here, slurm, sublora):
    keys = ["timeout_min=600", "gpus_per_node=8", "slurm_partition=gpu", "slurm_additional_parameters={licenses: x}"]
    status, out, err = sublora(
        "run", "--executor", "slurm", "--processes", 8, *(f"--set-executor={key}" for key in keys), "long.yaml", "--force"
    )
    assert (status, err) == (0, "") and out.splitlines()[0] == "submitted: long.yaml, job 77"
    script = (here / "script").read_text().splitlines()
    asked = {"time=600", "gpus-per-node=8", "partition=gpu", "licenses=x", "signal=USR2@90", "job-name=sublora-long"}
    assert {f"#SBATCH --{each}" for each in asked} <= set(script)
    assert slurm_says(here, "PENDING") == ("waiting", "")
    job, begun = slurm(), here / "runs" / "long" / "begun.txt"
    end = time.monotonic() + 600
    while not begun.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert slurm_says(here, "RUNNING") == ("running", "")
    os.kill(int(begun.read_text()), signal.SIGUSR2)
    job.wait(300)
    assert (here / "scontrol.txt").read_text() == "requeue 77\n"
    assert slurm_says(here, "REQUEUED") == ("waiting", "requeued")
    (here / "go").touch()
    assert slurm().wait(600) == 0
    assert slurm_says(here, "COMPLETED") == ("finished", "runs/long")
    assert slurm_says(here, "FAILED") == ("finished", "runs/long")  # what it said itself, it knows better


@pytest.mark.parametrize(
    ("state", "shown", "why"),
    [
        ("OUT_OF_MEMORY", "failed", "OUT_OF_MEMORY; see runs/jobs/77_0_log.err. Submitted again, it goes on where it was"),
        ("CANCELLED by 0", "failed", "CANCELLED; see runs/jobs/77_0_log.err. Submitted again, it goes on where it was"),
        ("COMPLETED", "failed", "ended without a word; see runs/jobs/77_0_log.err. Submitted again, it goes on where it was"),
        ("PREEMPTED", "waiting", "requeued"),
    ],
)
def test_slurm_knows_of_ends_that_a_job_cannot_note(here, slurm, state, shown, why):
    folder = here / "runs" / "jobs"
    folder.mkdir(parents=True)
    (folder / "77.job.json").write_text(json.dumps({"params": "long.yaml", "executor": "slurm", "number": 0}))
    (folder / "77.state.json").write_text(json.dumps({"state": "running"}))
    assert slurm_says(here, state) == (shown, why)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--executor", "pbs"), "--executor: 'pbs' is none of local, slurm"),
        (("--set-executor", "timeout_min=5"), "--set-executor: has no effect without --executor"),
        (("--executor", "local", "--set-executor", "slurm_time=5"), "--set-executor: 'slurm_time' is no parameter of"),
        (("--executor", "local", "--set-executor", "local_no=5"), "--set-executor: "),
        (("--executor", "local", "--set-executor", "timeout_min=soon"), "--set-executor: "),
        (("--executor", "local", "--set-executor", "timeout_min"), "--set-executor: 'timeout_min' is not key=value"),
        (("--executor", "slurm"), '--executor slurm: Could not detect "srun"'),
        (("--executor", "local", "--set", "training.step=1"), "good.yaml: unknown key 'training.step'"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(here, sublora, monkeypatch, options, says):
    monkeypatch.setenv("PATH", "/nowhere")
    assert complaint(sublora("run", "good.yaml", *options)).startswith(f"sublora: {says}")
    assert not list((here / "runs").glob("jobs/*.json"))


def test_without_jobs_there_is_no_table(here, sublora):
    assert complaint(sublora("status")).startswith("sublora: runs/jobs: no job; submit one with")
