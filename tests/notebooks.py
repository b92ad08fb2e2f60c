"""Executes notebooks on their defaults and stores their outputs; `python tests/notebooks.py NOTEBOOK ...`, or `make notebooks`.

The outputs hold no progress bar, and a notebook that writes to standard error is refused. Pictures get a palette, which makes them
smaller.
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image


def store_outputs(path: Path) -> None:
    """Execute a notebook in its folder, and replace the file by the executed one. Raises RuntimeError for standard error."""
    notebook = nbformat.read(path, as_version=4)
    before = notebook.metadata.copy()
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": path.parent}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute(env={**os.environ, "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    notebook.metadata = before  # without this machine's version of Python and the states of widgets
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{path.name}, cell {cell.id}, writes to standard error: {output.text}")
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)  # shows nothing without its kernel
            if "image/png" in data:
                data["image/png"] = _with_palette(data["image/png"])
    nbformat.write(notebook, path)


def _with_palette(picture: str) -> str:
    """A PNG in base64 with 64 colours, in base64."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        store_outputs(Path(name))
