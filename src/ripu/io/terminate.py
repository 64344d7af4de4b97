"""SIGTERM as a stop, jobs that SLURM requeues, and processes that end with their job. Imports next to nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Any

_PR_SET_PDEATHSIG = 1
_told: list[int] = []


class Terminated(KeyboardInterrupt):
    """A run was told to stop by SIGTERM: treated as Ctrl-C, but for the exit status."""


def terminate_like_interrupt() -> None:
    """Let SIGTERM raise :class:`Terminated` from here on, as Ctrl-C raises :class:`KeyboardInterrupt`."""
    _told.clear()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)


def leave(number: int, frame: Any) -> None:
    """A signal handler that stops what is running, once."""
    note(number)
    signal.signal(number, signal.SIG_IGN)  # once is enough: what follows is the way out
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def note(number: int) -> None:
    """Remember that a signal asks for a stop, which has to wait for a moment; data workers may die of the same signal."""
    _told.append(number)
    let_workers_die()


def let_workers_die() -> None:
    """From here on the death of a data worker is no news by itself, in this process.

    PyTorch's handler raises an error at any place whenever a child ends after a worker has died, and so would break off the
    step, the checkpoint or the message that tells of the death. Where data are missed, the loader still says so.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def was_told() -> bool:
    """Whether a signal has asked for a stop.

    Where all processes of a job get the signal, a data worker may die of it, and the error that follows is no error.
    """
    return bool(_told)


def status() -> int | None:
    """The exit status that belongs to the signal, as shells have it; None where there was none."""
    return 128 + _told[-1] if _told else None


def is_requeued() -> bool:
    """Whether this is a job that SLURM has put back into its queue: it goes on with what it left."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def die_with_parent() -> None:
    """On Linux, let the further processes that Lightning starts on a machine end when the one that started them does."""
    if os.environ.get("LOCAL_RANK", "0") == "0" or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
