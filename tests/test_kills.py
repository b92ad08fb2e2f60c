"""A slice of `fuzz/kill_runs.py`: random kills change nothing. The whole of it runs for as many kills as one likes."""

import subprocess
import sys

from tiny import HOME


def test_runs_that_are_killed_end_as_others_do():
    command = [sys.executable, HOME / "fuzz" / "kill_runs.py", "--kills", "6", "--kinds", "pretrain,words,encoder two processes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "kills, all certificates the same" in done.stdout
