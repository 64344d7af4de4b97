"""Writing files of a run: what the operating system refuses is said with the path, the cause and the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system says of a full disk, a spent quota and a limit on the size of files."""


class WriteError(OSError):
    """A file of a run could not be written; names the path, the cause and the remedy."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refusal to write into an error that names the file.

    Args:
        path: What is being written.

    Raises:
        WriteError: The disk is full, or the folder may not be written to. Other errors pass through.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {cause_and_remedy(error)}") from error
    except RuntimeError as error:  # torch's archives tell of a failed write in words alone
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is not None:
            raise WriteError(f"{path} cannot be written: {cause_and_remedy(cause)}") from error
        if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
            raise WriteError(
                f"{path} cannot be written: the write was cut off; free some space on the disk that it lies on"
            ) from error
        raise


def cause_and_remedy(error: OSError) -> str:
    """What the operating system refused, and what to do, in a phrase each.

    >>> cause_and_remedy(OSError(errno.ENOSPC, "No space left on device"))
    'the disk (or a quota, or a limit on the size of files) is full; free some space'
    """
    if error.errno in FULL:
        return "the disk (or a quota, or a limit on the size of files) is full; free some space"
    if error.errno == errno.EROFS:
        return "the file system is mounted for reading only; name another folder"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission is denied; make the folder writable, or name another"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a file lies where a folder must be; move it, or name another folder"
    return f"{error.strerror or error}; look at the disk that it lies on"
