"""Ctrl-C while a command is still importing: one line and status 130, as later on. Imports next to nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

STOPPED = 130
"""Exit status of a command that was stopped by Ctrl-C, as shells have it."""


def _leave(number: int, frame: Any) -> None:
    os.write(2, b"\nstopped before anything was begun\n")
    os._exit(STOPPED)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def guard_start(name: str) -> None:
    """Let Ctrl-C end this process quietly until :func:`begin`; in a helper process of a command, leave it to the command.

    Args:
        name: ``__name__`` of the module that is a command. Does nothing where it is imported by another.
    """
    if not _is_main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # ignored by whoever started it
        return
    if name == "__main__":
        signal.signal(signal.SIGINT, _leave)
    elif name == "__mp_main__":
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def begin() -> None:
    """From here on Ctrl-C raises :class:`KeyboardInterrupt`."""
    if _is_main_thread() and signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def told(line: str) -> int:
    """Say that a command was stopped; returns the exit status."""
    if _is_main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # that loader processes end now is no news for PyTorch's handler
    print(f"\n{line}", file=sys.stderr)
    return STOPPED
