"""Work shared among processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def num_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[_Job], _Result],
    jobs: Sequence[_Job],
    num_workers: int | None = None,
    prepare: Callable[[], object] | None = None,
) -> Iterator[_Result]:
    """Apply a function to jobs in several processes; in this one if that is as fast.

    Args:
        function: Can be pickled, as can its jobs and results.
        jobs: Its arguments, in the order of the results.
        num_workers: Number of processes; by default that of the cores, and none for a few jobs.
        prepare: Called once in each new process.
    """
    workers = min(num_workers or num_cores(), len(jobs))
    if workers <= 1 or (num_workers is None and len(jobs) <= 4):
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), prepare) as pool:
        try:
            yield from pool.map(function, jobs)
        except BaseException:  # e.g. Ctrl-C: drop the jobs that wait
            pool.shutdown(wait=False, cancel_futures=True)
            raise
