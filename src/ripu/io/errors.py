"""The base of every error that a user can act on, and the one place that prints errors."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ripu.io.signals import ignore_dead_workers

_CAUGHT = re.compile(r"^Caught (\w+) in .*?\n.*\n(?:[\w.]+\.)?\1: (.*)$", re.DOTALL)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)
_PEER = re.compile(r"gloo|connection (?:was )?(?:closed|reset|refused)|broken pipe", re.I)
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED", re.I
)

_SHARED_MEMORY = (
    "Workers pass batches on through /dev/shm, which is full: containers get 64 MB unless told otherwise. Start them "
    "with docker run --shm-size=8g (or --ipc=host), or use data.num_workers=0, which reads in the process that trains"
)
_FEWER_WORKERS = (
    "Most often the machine ran out of memory: lower data.num_workers or the batch, or use data.num_workers=0, which "
    "reads in the process that trains"
)


class RipuError(Exception):
    """Base of every error that a user can act on; the message names the value, the cause and the remedy."""

    can_resume = True  # the same command, resumed, may succeed once the cause is gone


class ConfigError(RipuError, ValueError):
    """A configuration that cannot be run, or an argument that cannot be used."""


def print_error(error: BaseException) -> None:
    """Print an error that the user can act on, in one line on stderr; raise any other."""
    ignore_dead_workers()
    line = line_of(error)
    if line is None:
        raise error
    print(f"\nerror: {line}", file=sys.stderr)  # below a progress bar that is still on the screen


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error that the user can act on and end the command with status 1; raise any other."""
    try:
        yield
    except Exception as error:
        print_error(error)
        sys.exit(1)


def line_of(error: BaseException) -> str | None:
    """Return the line that explains an error and names the remedy; None for a fault of the program itself."""
    if isinstance(error, RipuError):
        return message_of(error)
    if is_out_of_memory(error):
        return _out_of_memory(error)
    worker = _WORKER.search(str(error))
    if isinstance(error, RuntimeError) and worker:
        how = worker[2].splitlines()[0].strip().rstrip(".").removeprefix("is ")
        who = "workers with process IDs" if "," in worker[1] else "worker with process ID"
        is_shared = "bus error" in worker[2].lower() or "shared memory" in worker[2].lower()
        return f"the data {who} {worker[1]} died ({how}). {_SHARED_MEMORY if is_shared else _FEWER_WORKERS}"
    if _is_of_lost_worker(error):
        return f"a data worker died ({str(error) or type(error).__name__}). {_FEWER_WORKERS}"
    if isinstance(error, BrokenProcessPool):
        return (
            "a process that reads or makes data died; most often the machine ran out of memory. Start the command again"
        )
    if _is_a(error, {"DistNetworkError", "DistStoreError", "DistBackendError"}, _PEER):
        return (
            f"another process of this job has ended or cannot be reached ({message_of(error).splitlines()[0]}); see "
            "its output, and resume with the same number of processes"
        )
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {cause_and_remedy(error)}"
    return None


def message_of(error: BaseException) -> str:
    """Return the message of an error, without the traceback of the loader process that it comes from.

    >>> message_of(ValueError("Caught ValueError in DataLoader worker process 0.\\nOriginal ...\\nx.ValueError: bad"))
    'bad'
    """
    caught = _CAUGHT.match(str(error))
    return (caught[2] if caught else str(error)).strip()


def cause_and_remedy(error: OSError) -> str:
    """Return what the operating system refused and what to do about it, in a phrase each.

    >>> cause_and_remedy(OSError(errno.ENOSPC, "No space left on device"))
    'the disk (or a quota, or a limit on the size of files) is full; free some space'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk (or a quota, or a limit on the size of files) is full; free some space"
    if error.errno == errno.EROFS:
        return "the file system is mounted read-only; name another folder"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; make the folder writable, or name another"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a file is in the way of a folder; move it, or name another folder"
    return f"{error.strerror or error}; check the disk"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a device or on the CPU."""
    return _is_a(error, {"OutOfMemoryError", "MemoryError"}, _NO_MEMORY)


def _is_a(error: BaseException, names: set[str], words: re.Pattern[str]) -> bool:
    """Return whether a class of an error has one of these names, or a RuntimeError contains these words."""
    is_named = not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)
    return is_named or (isinstance(error, RuntimeError) and bool(words.search(str(error))))


def _out_of_memory(error: BaseException) -> str:
    said = message_of(error)
    first = said.splitlines()[0] if said else type(error).__name__
    is_device = re.search(r"cuda|hip|mps", f"{type(error).__module__} {first}", re.I)
    return (
        f"there is not enough memory on {'the device' if is_device else 'this machine'} ({first.rstrip('.')}). In a "
        "new run (another paths.output_dir): data.source_batch=1 data.target_batch=1 (with trainer.accumulate=2 a "
        "step sees as many images as before), or a smaller data.target_size and data.source_size. In the same run: "
        "trainer.precision=bf16-mixed on a GPU, and data.num_workers=0 to save main memory"
    )


def _is_of_lost_worker(error: BaseException) -> bool:
    """Return whether a loader lost its worker while the two were talking.

    A dying process closes its sockets before the system counts it as dead. PyTorch asks only about the latter, and then
    passes on the error of the socket.
    """
    if not isinstance(error, (ConnectionError, EOFError, FileNotFoundError)):
        return False
    files = [Path(frame.f_code.co_filename).as_posix() for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(file.endswith("torch/utils/data/dataloader.py") for file in files) and "/multiprocessing/" in files[-1]
