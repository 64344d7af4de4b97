"""A lock between processes: one process at a time holds a file, which the system frees when the process ends."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from pathlib import Path

from filelock import lock_descriptor

from ripu.io.errors import RipuError
from ripu.io.writing import WriteError

_log = logging.getLogger(__name__)

_held: dict[str, FileLock] = {}  # the locks of this process by file
_warned: set[str] = set()  # files on file systems without locks that a warning has named


def _forget_in_child() -> None:
    """Close a forked child's copies of the descriptors: the lock must not outlive the process that took it."""
    for lock in _held.values():
        with contextlib.suppress(OSError):
            os.close(lock._descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class LockedError(RipuError, RuntimeError):
    """Another process holds a lock, or this one does already."""


class FileLock:
    """The exclusive right to what a lock file stands for.

    The file stays in place, and the system drops the lock when the process ends, however it ends: there is never a file
    to delete. Forked children (data loader workers) do not inherit the lock. On a file system without locks
    (``has_locks`` is False) only other users in this process are kept out, after a warning.
    """

    def __init__(self, path: Path, *, wait_for: str | None = None) -> None:
        """Take the lock; create its file.

        Args:
            path: The lock file.
            wait_for: Wait for a taken lock, and log this, e.g. ``"the run that trains the same beginning"``.

        Raises:
            LockedError: Another process or this one holds the lock, and ``wait_for`` is not given; names pid and host.
            WriteError: The file cannot be opened.
        """
        self.path, self.has_locks, self._key = path, True, os.path.realpath(path)
        pid = os.getpid()
        if wait_for is None and self._key in _held:
            raise LockedError(f"{path}: this process (pid {pid}) holds the lock already; close that writer first")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self._descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            cause = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise WriteError(
                f"{path}: cannot be opened for writing ({cause}); make the folder writable, or remove the file"
            ) from error
        try:
            self._take(wait_for)
        except BaseException:
            os.close(self._descriptor)
            raise
        _held[self._key] = self
        with contextlib.suppress(OSError):  # a full disk: the note is for people, the lock works without it
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"pid {pid} on {socket.gethostname()}\n".encode())

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    @property
    def is_held(self) -> bool:
        """True while this object holds the lock: not in a forked child, nor after :meth:`release`."""
        return _held.get(self._key) is self

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self.is_held:
            with contextlib.suppress(OSError):  # the note names a holder, and there is none now
                os.ftruncate(self._descriptor, 0)
            del _held[self._key]
            os.close(self._descriptor)

    def _take(self, wait_for: str | None) -> None:
        try:
            if lock_descriptor(self._descriptor, blocking=False):
                return
            holder = self._note() or "an unnamed process"
            if wait_for is None:
                raise LockedError(
                    f"{self.path}: locked by {holder}; wait for it to end or stop it: the lock goes with its process, "
                    "there is no file to delete"
                )
            _log.warning("waiting for %s (%s; %s)", wait_for, self.path, holder)
            lock_descriptor(self._descriptor)
        except OSError as error:
            self.has_locks = False
            if self._key not in _warned:
                _warned.add(self._key)
                note = self._note()
                _log.warning(
                    "%s: this file system has no locks (%s), so other writers are not kept out; let one process at a "
                    "time write here%s",
                    self.path,
                    error.strerror,
                    f" (the file names {note}, which may still be running)" if note else "",
                )

    def _note(self) -> str:
        """Return what the holder wrote into the file; empty if it wrote nothing, or if it cannot be read."""
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            note = os.read(self._descriptor, 200)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        except OSError:  # on Windows only the holder may read
            return ""
        return note.decode("utf-8", "replace").strip()
