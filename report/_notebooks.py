"""Write the pages of the executed notebooks; Quarto runs this before it renders."""

import sys
from pathlib import Path

from sublora.errors import SubloraError
from sublora.reporting.notebooks import write_pages

try:
    write_pages(Path("notebooks"))
except SubloraError as error:
    sys.exit(f"ERROR: {error}")
