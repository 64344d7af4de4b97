"""What configurations compute from one another: resolvers that Hydra's yaml files call as ``${ripu.NAME:...}``."""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from collections.abc import Sequence

from omegaconf import OmegaConf

from ripu.config.run_folder import run_folder

OmegaConf.register_new_resolver("ripu.len", len, replace=True)
OmegaConf.register_new_resolver("ripu.run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("ripu.product", lambda one, other: one * other, replace=True)


def started(form: str) -> str:
    """What tells the folder of a command from those of others: when it began.

    Under SLURM it is the number of the job and a digest of the command: the same on all of its processes, and when the job
    is put back into the queue.

    Args:
        form: As for ``time.strftime``.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return time.strftime(form)
    return f"slurm-{job}-{zlib.crc32(repr(sys.argv[1:]).encode()):08x}"


OmegaConf.register_new_resolver("ripu.started", started, replace=True, use_cache=True)


def quotient(whole: int, part: int) -> int:
    """How many times a batch goes into another.

    Raises:
        ValueError: Not a whole number of times.

    >>> quotient(4, 2)
    2
    """
    if whole % part:
        raise ValueError(f"{whole} target images cannot be dealt to {part} micro-batches; give data.target_batch")
    return whole // part


OmegaConf.register_new_resolver("ripu.quotient", quotient, replace=True)


_SWEEP = "RIPU_SWEEP"
"""Environment variable that brings a sweep's command line to jobs in other processes."""


def _is_sweep(words: Sequence[str]) -> bool:
    return "-m" in words or "--multirun" in words


if _is_sweep(sys.argv):
    os.environ[_SWEEP] = "\n".join(sys.argv[1:])


def sweep_name(overrides: Sequence[str], number: int) -> str:
    """Name of a job of a multirun: those of its overrides that the command line gives several values.

    Args:
        overrides: The overrides of the job, ``key=value``.
        number: Its number, the name where nothing can be told apart.

    Example:
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


OmegaConf.register_new_resolver("ripu.sweep_name", sweep_name, replace=True)
