"""One writing process per store: a POSIX record lock that dies with its process.

Some network file systems know no locks. There, one goes on without, after a warning.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import warnings
from pathlib import Path

from ripu.labelstore.errors import StoreLockedError, StoreWriteError

_held: dict[str, int] = {}
"""Locked file -> pid that locked it. A POSIX lock does not exclude its own process, this table does."""

_told: set[str] = set()
"""Files that have been told of: they lie where there are no locks."""


def is_taken(error: OSError) -> bool:
    """Whether a lock was refused because another process holds it; any other error means that there is none to be had."""
    return error.errno in (errno.EACCES, errno.EAGAIN)


class WriterLock:
    """The exclusive right to write to a store.

    The lock is ``fcntl.lockf`` on a file that stays in place: the kernel drops it when the process ends, however it
    ends, and forked children (data loader workers) do not inherit it. On a file system without locks it keeps out this
    process alone, and says so once.

    Args:
        path: The lock file; created where it is missing.

    Raises:
        StoreLockedError: If another process, or this one, holds the lock; names its pid and host.
        StoreWriteError: If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = os.path.realpath(path)
        self._pid = os.getpid()
        self._is_released = False
        # Closing any handle of the file would drop this process's lock: look before opening.
        if _held.get(self._key) == self._pid:
            raise StoreLockedError(
                f"{path}: this process (pid {self._pid}) writes to the store already; close that writer first"
            )
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except OSError as error:
            cause = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise StoreWriteError(
                f"{path}: cannot be opened for writing ({cause}); make the folder writable, or remove what is there"
            ) from error
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if is_taken(error):
                holder = self._note() or "an unnamed process"
                os.close(self._fd)
                raise StoreLockedError(
                    f"{path}: locked by {holder} ({error.strerror}); wait for it to end or stop it, "
                    "there is no file to delete: the lock goes with its process"
                ) from error
            self._warn(error)
        _held[self._key] = self._pid
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"pid {self._pid} on {socket.gethostname()}\n".encode(), 0)
        except OSError:  # a full disk: the note is for people, the lock holds without it
            pass

    def _note(self) -> str:
        """Who wrote into the file that it holds the lock; empty where nobody did."""
        try:
            return os.pread(self._fd, 200, 0).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _warn(self, error: OSError) -> None:
        if self._key not in _told:
            _told.add(self._key)
            note = self._note()
            warnings.warn(
                f"{self.path}: no lock is to be had on this file system ({error.strerror}), so that other writers are not "
                "kept out; see to it that one process at a time writes here"
                + (f" (the file names {note}, which was not seen to end)" if note else ""),
                stacklevel=4,
            )

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock (False in a forked child and after :meth:`release`)."""
        return not self._is_released and self._pid == os.getpid()

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self.is_held:
            self._is_released = True
            with contextlib.suppress(OSError):  # the note names a holder, and there is none
                os.ftruncate(self._fd, 0)
            del _held[self._key]
            os.close(self._fd)
