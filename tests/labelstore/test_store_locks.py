"""Two writers of one store, with locks and where a file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import ledger
from ledger import append, commit_first, contents, make
from ripu.labelstore import LabelStore
from ripu.labelstore.errors import StoreLockedError


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
