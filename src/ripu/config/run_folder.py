"""Where Hydra puts its log file during a dry run: a folder that goes when the process ends."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_VARIABLE = "RIPU_DRY_RUN"
"""Environment variable that tells the jobs of a sweep in other processes which folder it is."""


def run_folder(folder: str, is_dry: bool) -> str:
    """The folder that Hydra makes for a run: its own, or a temporary one for a dry run.

    Args:
        folder: ``paths.output_dir``.
        is_dry: Whether nothing may be left there.
    """
    if not is_dry:
        return folder
    if _VARIABLE not in os.environ:
        made = os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="ripu-dry-run-")

        def remove(owner: int = os.getpid()) -> None:
            if os.getpid() == owner:  # not in loader processes that were forked from it
                shutil.rmtree(made, ignore_errors=True)

        atexit.register(remove)
    return os.environ[_VARIABLE]
