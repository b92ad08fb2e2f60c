"""`python -m sublora` is the command `sublora`."""

from sublora.cli import main

main()
