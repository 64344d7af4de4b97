"""Work in processes gives the same results in the same order as work in this one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from ripu.io.process_pool import in_processes, num_cores


def square_and_pid(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def leave_a_mark(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()


def fail(number: int) -> int:
    raise ValueError(f"job {number} failed")


def test_results_come_in_order_from_other_processes(tmp_path: Path) -> None:
    results = list(in_processes(square_and_pid, range(6), 2, partial(leave_a_mark, str(tmp_path))))
    assert [square for square, _ in results] == [0, 1, 4, 9, 16, 25]
    pids = {pid for _, pid in results}
    assert os.getpid() not in pids
    assert pids <= {int(path.name) for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("count", "num_workers"), [(6, 1), (4, None), (1, 2), (0, 2)])
def test_little_work_stays_in_this_process(count: int, num_workers: int | None) -> None:
    results = list(in_processes(square_and_pid, range(count), num_workers))
    assert results == [(number**2, os.getpid()) for number in range(count)]


def test_an_error_of_a_job_is_raised() -> None:
    with pytest.raises(ValueError, match="job 0 failed"):
        list(in_processes(fail, range(4), 2))


def test_there_is_a_core() -> None:
    assert 1 <= num_cores() <= (os.cpu_count() or 1)
