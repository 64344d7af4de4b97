"""Kernels on several cores: a worker thread takes a whole strip of rows through all operations on one core.

A strip is small enough to stay in the cache, and no operation waits for the slowest core. There are
:func:`torch.get_num_threads` workers; which rows make up a strip never depends on it, so neither do the results.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

_LEAST_PIXELS = 1 << 17
"""Pixels of a map below which starting a compiled task on another core takes longer than the task."""


def strip_rows(num_planes: int, width: int, device: torch.device) -> int:
    """Return the number of rows in a strip of ``num_planes`` float32 planes of ``width`` pixels, at least 1."""
    # 2.5 MiB: 16 rows of 2048 pixels with 19 classes. On an accelerator, few large launches beat many small ones.
    limit = 5 << 19 if device.type == "cpu" else 32 << 20
    return max(1, limit // (4 * num_planes * width))


def split_rows(height: int, rows: int) -> list[tuple[int, int]]:
    """Return half-open row ranges of at most ``rows`` rows that cover ``0 .. height``.

    >>> split_rows(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(first, min(first + rows, height)) for first in range(0, height, rows)]


def band_rows(height: int, most: int, device: torch.device) -> int:
    """Return the rows that are the job of one worker: at most ``most`` and an eighth of ``height``; all on a device."""
    return min(most, max(16, -(-height // 8))) if device.type == "cpu" else height


def split_bands(height: int, most: int, device: torch.device) -> list[tuple[int, int]]:
    """Return row ranges of :func:`band_rows` that cover ``0 .. height``."""
    return split_rows(height, band_rows(height, most, device))


def share_rows(height: int, width: int) -> list[tuple[int, int]]:
    """Return row ranges for compiled tasks, whose results no cut changes: up to two for each worker."""
    num_jobs, threads = max(1, height * width // _LEAST_PIXELS), torch.get_num_threads()
    if num_jobs > threads:
        num_jobs = threads * min(2, num_jobs // threads)  # no worker waits for the last job of another
    return split_rows(height, -(-height // num_jobs))


def run_compiled(task: Callable[..., None], jobs: Sequence[tuple[int, ...]]) -> None:
    """Call a compiled task with the arguments of every job, in parallel if there is more than one."""
    if len(jobs) == 1:
        task(*jobs[0])
    else:
        for_each(task, jobs, torch.device("cpu"))


def for_each(task: Callable[..., None], jobs: Sequence[tuple[int, ...]], device: torch.device) -> None:
    """Call ``task`` with the arguments of every job; on a CPU in parallel, every job on one core.

    Gradients are off and autocast does not apply. Jobs must write to disjoint places. The first error is re-raised.
    """
    num_threads = torch.get_num_threads()
    is_inference = torch.is_inference_mode_enabled()

    def run(job: tuple[int, ...]) -> None:
        # These modes belong to a thread: a worker has to enter them again.
        with torch.inference_mode(is_inference), torch.no_grad(), torch.autocast(device.type, enabled=False):
            task(*job)

    if device.type != "cpu" or num_threads == 1:
        for job in jobs:
            run(job)
        return
    # A single job goes to a worker as well: on one core its bytes do not depend on how torch would split it.
    for _ in _workers(num_threads).map(run, jobs):
        pass


@functools.lru_cache(maxsize=1)
def _workers(num_threads: int) -> ThreadPoolExecutor:
    """Return threads that wait for jobs; starting them costs more than a small image."""
    begun = threading.Barrier(num_threads + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes over the last setting of any thread at its first use, which is now
        begun.wait()

    pool = ThreadPoolExecutor(num_threads, initializer=begin)
    for _ in range(num_threads):  # each starts a thread, as none of the others is free before the barrier
        pool.submit(int)
    begun.wait()
    # With OpenMP the setting belongs to a thread, but torch keeps the last one for threads yet to use it.
    torch.set_num_threads(num_threads)
    return pool


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_workers.cache_clear)  # the threads stay behind
