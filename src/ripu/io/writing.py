"""Files and folders that appear whole or not at all: written under a temporary name, then renamed into place."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ripu.io.errors import RipuError, cause_and_remedy

TMP_PREFIX = ".tmp-"
"""Begins the names of unfinished files. Those of a process that was killed may be removed."""

_IS_WINDOWS = os.name == "nt"


class WriteError(RipuError, OSError):
    """The operating system refused a write; names the path, the cause and the remedy."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refused write of a file or folder into :class:`WriteError`; other errors pass through."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {cause_and_remedy(error)}") from error
    except RuntimeError as error:  # torch's archives report a failed write only in words
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is not None:
            raise WriteError(f"{path} cannot be written: {cause_and_remedy(cause)}") from error
        if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
            raise WriteError(f"{path} cannot be written: the write was cut off; free some space on its disk") from error
        raise


class AtomicFile:
    """A temporary file that :meth:`publish` renames into place; without that it is removed on leaving.

    Only refusals of the operating system become :class:`WriteError`. Errors of the code that produces the data pass
    through. ``numpy.save`` and ``torch.save`` accept it as a file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "picks.dat"
        >>> with AtomicFile(path) as file:
        ...     _ = file.write(b"done")
        ...     file.publish()
        >>> path.read_bytes()
        b'done'
    """

    def __init__(self, path: Path) -> None:
        """Prepare a file; its folder must exist."""
        self.path = path
        # Random and not the pid: ranks on two hosts may share one.
        self._temporary = path.with_name(f"{TMP_PREFIX}{path.name[:40]}-{os.urandom(6).hex()}")
        self._handle: BinaryIO | None = None

    def __enter__(self) -> AtomicFile:
        with self._explained():
            self._handle = open(self._temporary, "xb")
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            if self._handle is not None:
                self._handle.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def write(self, data: Any) -> int:
        """Append bytes, or anything with the buffer protocol; return their number."""
        assert self._handle is not None
        with self._explained():
            return self._handle.write(data)

    def rewrite(self, position: int, data: bytes) -> None:
        """Replace bytes that were written before, and go on at the end."""
        assert self._handle is not None
        with self._explained():
            self._handle.seek(position)
            self._handle.write(data)
            self._handle.seek(0, os.SEEK_END)

    def flush(self) -> None:
        """Hand what is written to the operating system."""
        assert self._handle is not None
        with self._explained():
            self._handle.flush()

    def publish(self, name: str | None = None, *, durable: bool = False) -> None:
        """Give the file its name, or ``name`` in the same folder, in place of a file of that name.

        ``durable`` syncs the file and its folder to the disk, for what cannot be made again.
        """
        self.flush()
        assert self._handle is not None
        with self._explained():
            if durable:
                os.fsync(self._handle.fileno())
            self._handle.close()  # Windows does not rename an open file
            publish(self._temporary, self.path if name is None else self.path.with_name(name))
            if durable:
                sync(self.path.parent)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return writing(self.path)


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file over another, or a finished folder to a name that is free."""
    for wait in (0.01, 0.03, 0.1, 0.3, 1.0) if _IS_WINDOWS else ():
        try:
            return os.replace(temporary, path)
        except PermissionError:  # somebody reads the file just now, which Windows takes for a reason to refuse
            time.sleep(wait)
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk itself; Windows has no such call for folders."""
    if _IS_WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write or replace a file as :class:`AtomicFile` does; make its folder."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicFile(path) as file:
        file.write(data)
        file.publish(durable=durable)


def write_json(path: Path, content: Any, *, durable: bool = False) -> None:
    """Write a JSON file as :func:`write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode(), durable=durable)
