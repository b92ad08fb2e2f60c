"""A slice of the fuzzing: past findings, and some certificates more. `make fuzz` goes on for minutes."""

import subprocess
import sys

from tiny import HOME


def test_hostile_certificates_are_answered(tmp_path):
    command = [sys.executable, str(HOME / "fuzz" / "fuzz_verify.py"), "--seconds", "3", "--commands", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "past findings" in done.stdout
