from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ripu.io.lock import FileLock, LockedError
from ripu.io.writing import WriteError

FORKS = """
import os, sys, time
from pathlib import Path
from ripu.io.lock import FileLock

lock = FileLock(Path(sys.argv[1]))
child = os.fork()  # as a data loader worker is
if child == 0:
    print(os.getpid(), lock.is_held, flush=True)
    time.sleep(600)
time.sleep(600)
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        child, is_held = parent.stdout.readline().split()
        assert is_held == "False"
        with pytest.raises(LockedError, match=f"locked by pid {parent.pid} on "):
            FileLock(tmp_path / "lock")
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        os.kill(int(child), 0)  # the child lives on
        FileLock(tmp_path / "lock").release()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)


def test_a_lock_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = FileLock(tmp_path / "lock")
    order: list[str] = []

    def second() -> None:
        with FileLock(tmp_path / "lock", wait_for="the first one"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    while not caplog.messages:
        time.sleep(0.01)
    order.append("first")
    first.release()
    thread.join(30)
    assert order == ["first", "second"]
    assert caplog.messages == [
        f"waiting for the first one ({tmp_path / 'lock'}; pid {os.getpid()} on {os.uname().nodename})"
    ]


def test_a_released_lock_does_not_release_the_next(tmp_path: Path) -> None:
    first = FileLock(tmp_path / "lock")
    first.release()
    second = FileLock(tmp_path / "lock")
    first.release()
    assert (first.is_held, second.is_held) == (False, True)
    with pytest.raises(LockedError, match="this process"):
        FileLock(tmp_path / "lock")
    second.release()
    assert (tmp_path / "lock").read_bytes() == b""


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"nowhere/lock: cannot be opened for writing \(No such file or directory\)"):
        FileLock(tmp_path / "nowhere" / "lock")
