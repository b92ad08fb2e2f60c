"""Put the search's index into a script, so that pages opened from disk can be searched; Quarto runs this after it has rendered."""

import os
import sys
from pathlib import Path

from sublora.reporting.search_index import embed_index

if reason := embed_index(Path(os.environ.get("QUARTO_PROJECT_OUTPUT_DIR", "_site"))):
    print(f"Note: {reason}", file=sys.stderr)
