"""Values that yaml files compute as ``${ripu.NAME:...}``."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence

from omegaconf import OmegaConf

from ripu.io.errors import ConfigError
from ripu.io.signals import is_slurm_job

# Environment variables for jobs in other processes:
_DRY_RUN = "RIPU_DRY_RUN"  # the temporary folder of a dry run
_SWEEP = "RIPU_SWEEP"  # the command line of a sweep


def run_folder(folder: str, is_dry: bool) -> str:
    """Return the folder that Hydra makes for a run and logs to; a temporary one for a dry run, removed at exit."""
    if not is_dry:
        return folder
    if _DRY_RUN not in os.environ:
        made = os.environ[_DRY_RUN] = tempfile.mkdtemp(prefix="ripu-dry-run-")

        def remove(owner: int = os.getpid()) -> None:
            if os.getpid() == owner:  # not in loader processes that were forked from it
                shutil.rmtree(made, ignore_errors=True)

        atexit.register(remove)
    return os.environ[_DRY_RUN]


def started(form: str) -> str:
    """Return a name for the folder of a command: the time when it began, in a format of ``time.strftime``.

    Under SLURM it is the number of the job with a digest of the command: the same on all processes of the job, and when
    it is requeued.
    """
    if not is_slurm_job():
        return time.strftime(form)
    return f"slurm-{os.environ['SLURM_JOB_ID']}-{zlib.crc32(repr(sys.argv[1:]).encode()):08x}"


def quotient(whole: int, part: int) -> int:
    """Return the number of micro-batches of ``part`` images in a batch of ``whole``; refuse a remainder.

    >>> quotient(4, 2)
    2
    """
    if whole % part:
        raise ConfigError(f"{whole} target images cannot be dealt to {part} micro-batches; give data.target_batch")
    return whole // part


def average_decay(of_objective: float | None, target_labels: str, of_recipe: float | None) -> float | None:
    """Return the decay that an objective asks for in settings where it is used, or else that of the recipe."""
    return of_recipe if of_objective is None or target_labels in ("all", "none") else of_objective


def sweep_name(overrides: Sequence[str], number: int) -> str:
    """Return the name of a job of a sweep: its overrides that have several values on the command line, or its number.

    >>> import sys
    >>> sys.argv = ["train", "-m", "mode=ra,pa", "seed=1", "data.target_size=[64,96]"]
    >>> sweep_name(["mode=pa", "seed=1", "data.target_size=[64,96]"], 1)
    'mode=pa'
    """
    swept = set()
    for word in sys.argv if _is_sweep(sys.argv) else os.environ.get(_SWEEP, "").split("\n"):
        key, _, value = word.partition("=")
        flat = re.sub(r"[\[{(][^\[{(]*[\])}]", "", value)
        if "," in flat or value.startswith(("choice(", "range(", "interval(", "glob(")):
            swept.add(key.lstrip("+"))
    parts = [item.replace("/", "-") for item in overrides if item.partition("=")[0].lstrip("+") in swept]
    return ",".join(parts)[:200] or str(number)


def _is_sweep(words: Sequence[str]) -> bool:
    return "-m" in words or "--multirun" in words


if _is_sweep(sys.argv):
    os.environ[_SWEEP] = "\n".join(sys.argv[1:])

for _resolver in (run_folder, quotient, average_decay, sweep_name):
    OmegaConf.register_new_resolver(f"ripu.{_resolver.__name__}", _resolver, replace=True)
OmegaConf.register_new_resolver("ripu.started", started, replace=True, use_cache=True)
OmegaConf.register_new_resolver("ripu.len", len, replace=True)
OmegaConf.register_new_resolver("ripu.product", lambda one, other: one * other, replace=True)
