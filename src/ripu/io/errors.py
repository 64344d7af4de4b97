"""Errors that a person can do something about, said in a line: what happened, where, and what helps."""

from __future__ import annotations

import re
import traceback
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ripu.io.writing import WriteError, cause_and_remedy

_CAUGHT = re.compile(r"^Caught (\w+) in .*?\n.*\n(?:[\w.]+\.)?\1: (.*)$", re.DOTALL)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)
_PEER = re.compile(r"gloo|connection (?:was )?(?:closed|reset|refused)|broken pipe", re.I)
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED", re.I
)

_FEWER_WORKERS = (
    "Most often the machine ran out of memory: lower data.num_workers or the batch, or use data.num_workers=0, which reads in "
    "the process that trains"
)


class RipuError(Exception):
    """Base of every error that a user can do something about; names the value, the cause and the remedy."""


class ConfigError(RipuError, ValueError):
    """A configuration that cannot be run."""


def message_of(error: BaseException) -> str:
    """What an error says, without the trace of the loader process that it comes from.

    >>> message_of(ValueError("Caught ValueError in DataLoader worker process 0.\\nOriginal ...\\nx.ValueError: bad"))
    'bad'
    """
    text = str(error)
    caught = _CAUGHT.match(text)
    return (caught[2] if caught else text).strip()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or on the CPU."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"}:
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def line_of(error: BaseException) -> str | None:
    """What to tell a person about an error.

    Args:
        error: Any error that ended a command.

    Returns:
        The message with the remedy; None where it is a fault of the program, whose trace is needed.
    """
    if is_out_of_memory(error) and type(error).__module__.partition(".")[0] != "ripu":
        first = message_of(error).splitlines()[0] if message_of(error) else type(error).__name__
        where = (
            "the device" if re.search(r"cuda|hip|mps", f"{type(error).__module__} {first}", re.I) else "this machine"
        )
        return (
            f"there is not enough memory on {where} ({first.rstrip('.')}). Smaller, as a run of its own (another "
            "paths.output_dir): data.source_batch=1 data.target_batch=1 (with trainer.accumulate=2 a step sees as many images "
            "as before), data.target_size and data.source_size; in the same run: trainer.precision=bf16-mixed on a GPU, and "
            "data.num_workers=0 for less memory of the machine"
        )
    worker = _WORKER.search(str(error))
    if isinstance(error, RuntimeError) and worker:
        how = worker[2].splitlines()[0].strip().rstrip(".").removeprefix("is ")
        who = "workers with process numbers" if "," in worker[1] else "worker with process number"
        return f"the data {who} {worker[1]} died ({how}). {_FEWER_WORKERS}"
    if _is_of_lost_worker(error):
        return f"a data worker died ({str(error) or type(error).__name__}). {_FEWER_WORKERS}"
    if isinstance(error, BrokenProcessPool):
        return (
            "a process that reads or makes data died; most often the machine ran out of memory. Start the command again"
        )
    if _is_of_torch_distributed(error):
        return (
            f"another process of this job has ended or cannot be reached ({message_of(error).splitlines()[0]}); look at what "
            "it said, and go on with the same number of processes"
        )
    if isinstance(error, WriteError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {cause_and_remedy(error)}"
    if is_of_package(error) and isinstance(error, (ValueError, RuntimeError, FloatingPointError)):
        return message_of(error)
    return None


def _is_of_lost_worker(error: BaseException) -> bool:
    """Whether a loader lost its worker while the two were talking.

    A dying process closes its sockets before the system counts it among the dead; PyTorch, which asks only about the
    latter, then passes on the error of the socket.
    """
    if not isinstance(error, (ConnectionError, EOFError, FileNotFoundError)):
        return False
    files = [Path(frame.f_code.co_filename).as_posix() for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_loader = any(file.endswith("torch/utils/data/dataloader.py") for file in files)
    return is_loader and "/multiprocessing/" in files[-1]


def _is_of_torch_distributed(error: BaseException) -> bool:
    """Whether processes of a job could not talk to each other."""
    if {"DistNetworkError", "DistStoreError", "DistBackendError"} & {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, RuntimeError) and bool(_PEER.search(str(error))) and not is_of_package(error)


def is_of_package(error: BaseException) -> bool:
    """Whether this package raised an error; it then names the value, the cause and the remedy."""
    if type(error).__module__.partition(".")[0] == "ripu":
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and Path(frame.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parents[1])
