"""Commands that are forked from a process with the libraries loaded; importing them is most of a short command's time.

:func:`start` and :func:`run` take commands ``[sys.executable, "-m", MODULE, ...]``. What they start is a real process
with its own id, environment, working folder, streams and signals. The server that forks it has imported libraries
alone, nothing of ripu, has started Numba's compiler, and has one thread. Its processes answer to SIGINT, also where the
tests run in the background and ignore it. A command whose environment differs in what libraries read while they are
imported is started as usual, and so is every command of a system that cannot tell when a process ends (Linux can).

The other ranks of a job with ``trainer.devices=N``, which Lightning starts from the first, are forked too, as its
children: they stand by from its beginning on.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import random
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

LIBRARIES = ("torch", "pytorch_lightning", "segmentation_models_pytorch", "albumentations", "torchmetrics", "hydra")
READ_ON_IMPORT = (
    "PYTHON",
    "OMP_",
    "MKL_",
    "LD_",
    "TORCH",
    "PL_",
    "CUDA_",
    "SLURM_",
    "RANK",
    "LOCAL_",
    "NODE_",
    "WORLD_",
    "NUMBA_",
    "WANDB_",  # it makes a folder, which the first process to end takes away
)
RANK = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
"""Names of a rank's place: of the libraries, only Lightning reads one of them on import, see :func:`_know_rank`."""
SETTINGS = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "NO_ALBUMENTATIONS_UPDATE": "1"}
ONE = struct.Struct("<i")


def start(arguments: list[str], *, fresh: bool = False, **options: Any) -> subprocess.Popen[Any]:
    """Return ``subprocess.Popen(arguments, **options)``, forked where that is the same, and never if ``fresh``."""
    return (_Forked if not fresh and _is_alike(arguments, options) else subprocess.Popen)(arguments, **options)


def run(arguments: list[str], *, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command and capture what it prints, like ``subprocess.run``."""
    with start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def _is_alike(arguments: list[str], options: dict[str, Any]) -> bool:
    if not hasattr(os, "pidfd_open") or arguments[:2] != [sys.executable, "-m"]:
        return False
    env = options.get("env") or {}
    path = env.get("PYTHONPATH", "")
    mine = {**os.environ, **SETTINGS, "PYTHONPATH": path}
    return os.path.dirname(__file__) in path.split(os.pathsep) and all(
        mine.get(name) == env.get(name)
        for name in {*mine, *env}
        if name.startswith(READ_ON_IMPORT) and name not in RANK
    )


class _Forked(subprocess.Popen[Any]):
    """A process that the server forks and waits for; all else is the standard library's."""

    def _execute_child(self, args: list[str], *given: Any) -> None:
        streams = given[9:15]  # p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        fds = [own if fd < 0 else fd for own, fd in enumerate((streams[0], streams[3], streams[5]))]
        request = {"words": args[2:], "folder": os.fspath(given[4] or "."), "env": given[5], "session": given[20]}
        text = json.dumps(request, default=os.fspath).encode()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(_address())
        socket.send_fds(self._server, [ONE.pack(len(text))], fds)
        self._server.sendall(text)
        (self.pid,) = ONE.unpack(_receive(self._server, ONE.size))
        self._child_created = True
        self._close_pipe_fds(*streams)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        self._server.setblocking(not wait_flags & os.WNOHANG)
        try:
            (status,) = ONE.unpack(_receive(self._server, ONE.size))
        except BlockingIOError:
            return 0, 0
        self._server.close()
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the server of forked commands has ended")
        data += part
    return data


@functools.cache
def _address() -> str:
    """Return the socket of this process's server, started at the first call; it ends with this process."""
    path = Path(tempfile.mkdtemp(prefix="forks-")) / "socket"
    mine = subprocess.Popen(
        [sys.executable, __file__, str(path)],
        env={**os.environ, **SETTINGS},
        stdin=subprocess.PIPE,  # its end is that of this process
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert mine.stdout is not None
    assert mine.stdout.readline() == b"ready\n"
    _address.server = mine  # type: ignore[attr-defined]  # keeps the pipes open
    return str(path)


def _serve(path: str) -> dict[str, Any]:
    """Fork a process for each request, and tell how it ended; return the request in the forked process."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)  # as Hydra's: Lightning leaves its messages to the handlers that it finds
    for name in LIBRARIES:
        importlib.import_module(name)
    _start_numba()
    logging.getLogger().removeHandler(handler)
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}  # by the file descriptor that becomes ready at the end
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        os.write(1, b"ready\n")
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    shutil.rmtree(os.path.dirname(path))
                    os._exit(0)
                if key.fileobj is not listener:
                    selector.unregister(key.fd)
                    _tell_end(key.fd, *running.pop(key.fd))
                    continue
                connection = listener.accept()[0]
                request = _request(connection)
                if not (pid := os.fork()):
                    for pidfd, (_, other) in running.items():
                        os.close(pidfd)
                        other.close()
                    connection.close()
                    return request
                for fd in request["fds"]:
                    os.close(fd)
                connection.sendall(ONE.pack(pid))
                pidfd = os.pidfd_open(pid)
                running[pidfd] = (pid, connection)
                selector.register(pidfd, selectors.EVENT_READ)


def _start_numba() -> None:
    """Compile something: Numba sets its compiler up at the first call, which takes longer than loading kernels."""
    with contextlib.suppress(Exception):  # like ripu, commands work without it
        importlib.import_module("numba").njit(lambda: 0)()


def _tell_end(pidfd: int, pid: int, connection: socket.socket) -> None:
    os.close(pidfd)
    with connection, contextlib.suppress(OSError):  # if nobody waits for it
        connection.sendall(ONE.pack(os.waitpid(pid, 0)[1]))


def _request(connection: socket.socket) -> dict[str, Any]:
    head, fds, _, _ = socket.recv_fds(connection, ONE.size, 3)
    return {**json.loads(_receive(connection, ONE.unpack(head)[0])), "fds": fds}


def _become(request: dict[str, Any]) -> None:
    """Turn the forked process into the one that was asked for, and run its module."""
    if request["session"]:
        os.setsid()
    for own, fd in enumerate(request["fds"]):
        os.dup2(fd, own)
    for fd in request["fds"]:
        os.close(fd)
    # New objects: those of the server know whether its own streams can be sought.
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        errors, buffering = ("backslashreplace", 1) if name == "stderr" else ("strict", 1 if os.isatty(fd) else -1)
        stream = open(fd, "w" if fd else "r", buffering, errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    _run(_rank_asked_for(request) or request)


def _run(request: dict[str, Any]) -> None:
    """Run a module as the command ``python -m`` does."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    random.seed()
    sys.modules["numpy"].random.seed()
    _know_rank()
    importlib.invalidate_caches()
    here = os.path.dirname(__file__)
    known = {here, *filter(None, request["env"]["PYTHONPATH"].split(os.pathsep))}
    named = request["env"]["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [os.getcwd(), *named, *(folder for folder in sys.path if folder not in known)]
    if any((Path(folder) / "sitecustomize.py").exists() for folder in named):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    module, *words = request["words"]
    sys.argv = [module, *words]
    sys.orig_argv[:] = [sys.executable, "-m", *request["words"]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _know_rank() -> None:
    """Tell Lightning the rank that it reads from the environment when it is imported."""
    rank = next((os.environ[name] for name in ("RANK", "LOCAL_RANK") if name in os.environ), "0")
    sys.modules["lightning_utilities.core.rank_zero"].rank_zero_only.rank = int(rank)


# ---- the other ranks of a job


class _Rank(subprocess.Popen[Any]):
    """A rank that stood by; a child of this process like any other."""

    standing_by: ClassVar[list[tuple[int, int]]] = []  # process ids, and the pipes that wait for a request

    def _execute_child(self, args: list[str], *given: Any) -> None:
        self.pid, pipe = self.standing_by.pop(0)
        self._child_created = True
        request = {"words": args[2:], "folder": os.fspath(given[4] or "."), "env": given[5]}
        with open(pipe, "w") as file:
            json.dump(request, file)


def _start_rank(arguments: list[str], **options: Any) -> subprocess.Popen[Any]:
    kind = _Rank if _Rank.standing_by and arguments[:2] == [sys.executable, "-m"] else subprocess.Popen
    return kind(arguments, **options)


def _rank_asked_for(request: dict[str, Any]) -> dict[str, Any] | None:
    """Let the other ranks of a job stand by; return, in such a rank, what it is asked for, and None in the first."""
    counts = [word.partition("=")[2] for word in request["words"] if word.startswith("trainer.devices=")]
    if request["words"][0] != "ripu.train" or not counts or {*RANK} & request["env"].keys():
        return None
    for _ in range(1, int(counts[-1]) if counts[-1].isdecimal() else 1):
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            os.close(writer)
            for _, other in _Rank.standing_by:
                os.close(other)
            _Rank.standing_by.clear()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            with open(reader) as file:
                text = file.read()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not text:  # the first rank has ended
                os._exit(0)
            return dict(json.loads(text))
        os.close(reader)
        _Rank.standing_by.append((pid, writer))
    launcher = importlib.import_module("pytorch_lightning.strategies.launchers.subprocess_script")
    launcher.subprocess = SimpleNamespace(Popen=_start_rank)  # type: ignore[attr-defined]
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _become(_serve(sys.argv[1]))
