"""Where relative paths lead: to the folder of the whole study, in notebooks as on the command line."""

import os
from pathlib import Path


def study_folder() -> Path:
    """The current folder, or the folder above if the current one is the folder `notebooks` beside a folder `params`."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "params").is_dir() else here


def enter_study() -> Path:
    """Move to `study_folder`, and return it.

    Jupyter starts a notebook in its own folder, papermill and `sublora run` start it in the folder of the command. From here on,
    relative paths mean the same to all of them.
    """
    os.chdir(study_folder())
    return Path.cwd()
