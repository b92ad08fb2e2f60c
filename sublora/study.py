"""Where relative paths lead: to the folder of the whole study, in notebooks as on the command line."""

import os
from pathlib import Path


def enter_study() -> Path:
    """The current folder, after a notebook that was opened in `notebooks/` has moved to the folder above.

    Jupyter starts a notebook in its own folder, papermill and `sublora run` in the folder of the command: relative paths mean the
    same to all of them from here on. The folder above counts only if it has a folder `params`.
    """
    here = Path.cwd()
    if here.name == "notebooks" and (here.parent / "params").is_dir():
        os.chdir(here.parent)
    return Path.cwd()
