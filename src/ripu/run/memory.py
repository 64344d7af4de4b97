"""Memory that the C library keeps for the next step, and the peak of a run."""

from __future__ import annotations

import contextlib
import ctypes
import gc

import torch

from ripu.io.peak_memory import begin_process_peak

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, see malloc.h of glibc."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that a step frees, instead of giving it back to the system and asking again.

    Every step of training on a CPU allocates tensors of the same sizes. The GNU C library returns large ones to the
    system, which must clear each of their pages when they are next used: a tenth of a step. The most that a process
    uses stays the same.

    Returns:
        True if it does; False with another C library, which is left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows has no handle of its own process, macOS no mallopt
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(_MMAP_THRESHOLD, 2**30))


def begin_peak() -> None:
    """Begin the peaks of this process and of its GPUs anew, for a run that follows.

    What an earlier run in this process has freed and the C library or torch has kept is given back first.
    """
    gc.collect()
    with contextlib.suppress(OSError, TypeError, AttributeError):  # see keep_freed_memory
        ctypes.CDLL(None).malloc_trim(0)
    begin_process_peak()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # else nothing is allocated yet
        torch.cuda.empty_cache()
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
