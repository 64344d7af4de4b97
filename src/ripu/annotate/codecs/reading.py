"""Find and check files of answers, which are not to be trusted, and refuse bad ones in one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ripu.annotate.errors import AnnotationError
from ripu.datasets.errors import SceneError
from ripu.io.reading import MOST_BYTES, UntrustedError, open_regular

AGAIN = "export it again from the tool that wrote it"


class MalformedError(ValueError):
    """A fault in a file, and its remedy; :func:`explaining` adds the name of the file."""

    def __init__(self, cause: str, remedy: str = AGAIN) -> None:
        super().__init__(f"{cause}; {remedy}")


@contextlib.contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn every fault in a file into an :class:`AnnotationError` of one sentence that names the file."""
    try:
        yield
    except MalformedError as error:
        raise AnnotationError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise AnnotationError(f"{error.filename or path} does not exist; check the path") from error
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
    except UntrustedError as error:
        raise AnnotationError(f"{error}; {AGAIN}") from error
    except SceneError as error:
        raise AnnotationError(str(error)) from error


def read_document(path: Path, name: str) -> bytes:
    """Read a file of a known name: itself, in its folder, or as the only one of its kind in a ZIP archive.

    Args:
        path: The file, the folder or the archive.
        name: Name of the file in the folder; its extension tells its kind.

    Raises:
        MalformedError: The archive is damaged, has no such file or several, or claims more than ``MOST_BYTES``.
        UntrustedError, OSError: It cannot be read.
    """
    with open_regular(path / name if path.is_dir() else path) as file:
        content = file.read()
    if not content.startswith(b"PK\x03\x04"):
        return content
    ending = PurePosixPath(name).suffix
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [part for part in archive.infolist() if part.filename.lower().endswith(ending)]
            if len(parts) == 1 and parts[0].file_size <= MOST_BYTES:
                return archive.read(parts[0])
    except Exception as error:  # zipfile raises many kinds, depending on the bytes
        raise MalformedError(f"the archive is damaged ({error or type(error).__name__})") from error
    raise MalformedError(
        f"the archive contains {len(parts)} {ending} files, or a huge one", f"unpack it and name the {ending} file"
    )


def read_json(path: Path, name: str) -> Any:
    """Read a JSON file as :func:`read_document` finds it."""
    try:
        return json.loads(read_document(path, name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, (MalformedError, UntrustedError)):
            raise
        raise MalformedError(f"not JSON ({error})") from error


def field(value: Any, key: str, *kinds: type, where: str) -> Any:
    """Return a value of a JSON object and check its type; True and False are not integers.

    Raises:
        MalformedError: It is missing, or of another type.
    """
    found = value.get(key) if isinstance(value, dict) else None
    if type(found) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise MalformedError(f"{where} has no {key} of type {wanted}")
    return found


def check_free(out: Path) -> None:
    """Refuse a folder that is not empty: answers that somebody has filled in are never overwritten.

    Raises:
        AnnotationError: It is not empty, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AnnotationError(f"{out} exists and is not an empty folder; name another one")
