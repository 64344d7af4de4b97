"""Stop signals: Ctrl-C and SIGTERM end a command with one line and the exit status of shells. Imports next to nothing.

A command that is still importing has nothing to save and ends at once (:func:`guard_start`). After :func:`end_guard`,
Ctrl-C raises :class:`KeyboardInterrupt`, and after :func:`stop_on_sigterm` SIGTERM raises :class:`Terminated`. After
:func:`requeue_on_sigusr1`, SIGUSR1 puts a job of SLURM back into its queue.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import threading
from typing import Any

WAITING = 75
"""Exit status of a run that waits for answers; EX_TEMPFAIL of sysexits.h."""

STOPPED = 130
"""Exit status of a command that Ctrl-C stopped, as in shells."""

_PR_SET_PDEATHSIG = 1
_requested: list[int] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM stopped a run: treated like Ctrl-C, except for the exit status."""


def guard_start(name: str) -> None:
    """Let Ctrl-C end this process quietly until :func:`end_guard`; helper processes of a command ignore it.

    A character that the terminal cannot show is printed as its code from here on, instead of ending the command.

    ``name`` is the ``__name__`` of the command's module; nothing happens if another module imports it.
    """
    if name == "__main__":
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    if not _is_main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # e.g. a shell's background job
        return
    if name == "__main__":
        signal.signal(signal.SIGINT, _exit_at_once)
    elif name == "__mp_main__":
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_guard() -> None:
    """Let Ctrl-C raise :class:`KeyboardInterrupt` from here on."""
    if _is_main_thread() and signal.getsignal(signal.SIGINT) is _exit_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_on_sigterm() -> None:
    """Let SIGTERM raise :class:`Terminated` from here on."""
    _requested.clear()
    if _is_main_thread():
        signal.signal(signal.SIGTERM, stop_now)


def stop_now(number: int, frame: Any) -> None:
    """Handle a stop signal: raise :class:`KeyboardInterrupt` or :class:`Terminated`, once."""
    request_stop(number)
    signal.signal(number, signal.SIG_IGN)  # a second one must not break off the way out
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def request_stop(number: int) -> None:
    """Remember a stop signal that has to wait for a moment; data workers may die of the same signal."""
    _requested.append(number)
    ignore_dead_workers()


def is_stop_requested() -> bool:
    """Return whether a signal has asked for a stop: errors after it, e.g. of a worker that it killed, are no faults."""
    return bool(_requested)


def stop_status() -> int | None:
    """Return the exit status that belongs to the signal, as in shells; None without a signal."""
    return 128 + _requested[-1] if _requested else None


def leave() -> None:
    """Let nothing break off the way out of a stopped command: from here on SIGTERM has no effect."""
    ignore_dead_workers()
    if _is_main_thread():  # SLURM sends it to a job that it requeues, which may be on its way out already
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def say_stopped(line: str) -> int:
    """Print that a command was stopped; return the exit status of Ctrl-C. See :func:`leave`."""
    leave()
    print(f"\n{line}", file=sys.stderr)
    return STOPPED


def ignore_dead_workers() -> None:
    """Let PyTorch ignore the death of data workers from here on, in this process.

    Its handler raises an error at any place whenever a child ends after a worker has died. That would break off the
    step, the checkpoint or the message about the death. Where data are missed, the loader still says so.
    """
    if _is_main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def leave_signals_to_parent(worker: int = 0) -> None:
    """Let this data worker outlive signals that are sent to all processes of a job; only its parent's SIGTERM ends it.

    A process that trains needs its workers up to the end of the step, at which the job saves its checkpoint. This is a
    ``worker_init_fn`` of loaders, for any ``worker``.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS, Windows
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def watch() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def is_slurm_job() -> bool:
    """Return whether this process runs in a SLURM job, other than an interactive shell."""
    return "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def requeue_on_sigusr1() -> None:
    """Under SLURM, let SIGUSR1 requeue the job from here on: see :func:`requeue`. Data workers ignore it."""
    if not (_is_main_thread() and is_slurm_job() and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL):
        return

    def on_signal(number: int, frame: Any, owner: int = os.getpid()) -> None:
        if os.getpid() == owner:  # SLURM signals every process of the job
            requeue()

    signal.signal(signal.SIGUSR1, on_signal)


def requeue() -> None:
    """Let SLURM put this job back into its queue; only the first process of a run acts. SLURM then sends SIGTERM."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        return
    import subprocess

    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    words = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        cause = f"status {done.returncode}: {done.stderr.strip()}" if done.returncode else None
    except OSError as error:
        cause = str(error)
    if cause is not None:
        print(f"{' '.join(words)} failed ({cause}); the run goes on until it is stopped", file=sys.stderr)


def is_requeued() -> bool:
    """Return whether SLURM has put this job back into its queue: it then resumes."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def die_with_parent() -> None:
    """On Linux, let the processes that Lightning or torchrun starts on a machine end when their parent does."""
    is_first = os.environ.get("LOCAL_RANK", "0") == "0" and "TORCHELASTIC_RUN_ID" not in os.environ
    if is_first or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit_at_once(number: int, frame: Any) -> None:
    os.write(2, b"\nstopped before anything was begun\n")
    os._exit(STOPPED)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
