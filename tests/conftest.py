"""What every test may use. `sublora` is imported before torch, as it asks torch's threads to wait without long spins."""

import sys

import pytest
from hypothesis import settings

from sublora import cli

settings.register_profile("sublora", deadline=None)  # how long an example takes says something of the machine alone
settings.load_profile("sublora")


@pytest.fixture
def sublora(capsys, monkeypatch):
    """Calls the command line as a user does; returns (exit status, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sublora", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return call
