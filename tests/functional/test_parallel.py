from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from ripu.functional import for_each
from ripu.functional.parallel import split_rows, strip_rows

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def workers(num_threads: int) -> set[int]:
    """Return the threads that ran two jobs for each of ``num_threads`` workers; in every one torch has one thread."""
    torch.set_num_threads(num_threads)
    found: list[tuple[int, int]] = []
    meet = threading.Barrier(num_threads)

    def task(_: int) -> None:
        meet.wait(20)
        found.append((threading.get_ident(), torch.get_num_threads()))

    for_each(task, [(job,) for job in range(2 * num_threads)], CPU)
    assert {count for _, count in found} == {1}
    assert torch.get_num_threads() == num_threads
    return {ident for ident, _ in found}


def test_workers_stay_until_their_number_changes() -> None:
    first = workers(2)
    assert len(first) == 2
    assert workers(2) == first
    assert len(workers(3)) == 3
    assert workers(1) == {threading.get_ident()}


def test_the_first_error_is_raised_and_the_workers_go_on() -> None:
    torch.set_num_threads(2)

    def task(job: int) -> None:
        assert job != 1, "job 1 fails"

    with pytest.raises(AssertionError, match="job 1 fails"):
        for_each(task, [(0,), (1,)], CPU)
    assert len(workers(2)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_starts_its_own_workers() -> None:
    workers(2)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if len(workers(2)) == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_strips_cover_the_rows() -> None:
    assert split_rows(5, 2) == [(0, 2), (2, 4), (4, 5)]
    assert strip_rows(19, 10_000_000, CPU) == 1
