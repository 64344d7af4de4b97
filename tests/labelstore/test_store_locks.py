"""Writers of one store exclude each other, with locks and where a file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ledger
from ledger import append, begin, check_labels, commit_first, contents, make
from ripu.labelstore import LabelStore
from ripu.labelstore.errors import StoreLockedError


def test_writing_needs_the_lock(folder: Path) -> None:
    store = make(folder, 1)
    reader = LabelStore.open(folder)
    assert not reader.is_writable
    for write in (
        lambda: reader.append_answers([]),
        lambda: reader.undo_round(0),
        lambda: reader.commit_round(begin(reader, 1)),
        lambda: reader.add_round(begin(reader, 1), []),
    ):
        with pytest.raises(StoreLockedError, match="write=True"):
            write()
    with pytest.raises(StoreLockedError, match="this process"):
        LabelStore.open(folder, write=True)
    store.close()
    store.close()
    with pytest.raises(StoreLockedError):
        store.undo_round(0)
    second = LabelStore.open(folder, write=True)
    del store  # the first writer's end does not end the second
    assert second.is_writable
    with pytest.raises(StoreLockedError, match="this process"):
        LabelStore.open(folder, write=True)
    del second  # a writer that nobody refers to any more holds nothing
    LabelStore.open(folder, write=True).close()


HOLD = """
import sys
from ripu.labelstore import LabelStore
from ripu.labelstore.errors import StoreLockedError
try:
    store = LabelStore.open(sys.argv[1], write=True)
except StoreLockedError as error:
    print(f"refused: {error}", flush=True)
else:
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_the_lock_dies_with_its_process(folder: Path) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(folder)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def first_line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    make(folder, 1).close()
    holder = start()
    try:
        assert first_line(holder) == "holding\n"
        with start() as second:
            assert f"locked by pid {holder.pid} on " in first_line(second)
        with pytest.raises(StoreLockedError, match=f"pid {holder.pid} on "):
            LabelStore.open(folder, write=True)
        check_labels(LabelStore.open(folder), 1)  # readers do not mind
    finally:
        holder.kill()
        holder.communicate()
    with LabelStore.open(folder, write=True) as store:
        assert store.is_writable


def test_a_manifest_that_another_process_wrote_is_not_written_over(tmp_path: Path) -> None:
    """On file systems without locks, the manifest shows that another process has written."""
    from ripu.labelstore.log import Log, write_log

    folder = tmp_path / "labels"
    with make(folder, 2) as store:
        write_log(folder, store.header.sha256, Log(store.log.events[:2]))
        before = contents(folder)
        with pytest.raises(StoreLockedError, match=r"manifest\.json: was changed by another process"):
            store.undo_round(0)
        assert contents(folder) == before


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_writing_continues_after_one_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused_with(code))
    folder = tmp_path / "labels"
    store = make(folder, 1)
    assert [message.partition("; ")[0] for message in caplog.messages] == [
        f"{folder / 'lock'}: this file system has no locks ({os.strerror(code)}), so other writers are not kept out"
    ]
    with pytest.raises(StoreLockedError, match="this process"):
        LabelStore.open(folder, write=True)

    def other_process() -> None:
        with LabelStore.open(folder, write=True) as other:
            other.undo_round(0)

    assert ledger.run_and_die(other_process) == 0
    with pytest.raises(StoreLockedError, match=r"manifest\.json: was changed by another process"):
        append(store)
    store.close()
    with LabelStore.open(folder, write=True) as store:
        commit_first(store)
    assert len(caplog.messages) == 1


def test_without_locks_a_holder_that_may_still_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused_with(errno.ENOLCK))
    (tmp_path / "lock").write_text("pid 12 on elsewhere\n")
    make(tmp_path).close()
    assert "the file names pid 12 on elsewhere" in caplog.text


@pytest.mark.parametrize("code", [errno.EACCES, errno.EAGAIN])
def test_a_lock_that_another_process_holds_is_an_error(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path).close()
    (tmp_path / "lock").write_text("pid 12 on elsewhere\n")
    monkeypatch.setattr(fcntl, "flock", refused_with(code))
    with pytest.raises(StoreLockedError, match="locked by pid 12 on elsewhere"):
        LabelStore.open(tmp_path, write=True)


def refused_with(code: int) -> Callable[..., None]:
    def flock(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return flock
