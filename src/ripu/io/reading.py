"""Reading files that anyone may have written: each is refused by its head before memory is taken for its content.

Nothing is unpickled, and no code that a file names is called.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import RipuError

MOST_BYTES = 1 << 28
"""Far more than a run records of an image or an evaluation."""
MOST_MEMBERS = 64
_KINDS = {"bool": "b", "integer": "iu", "number": "biuf"}


class UntrustedError(RipuError, ValueError):
    """A file that is damaged, too large or of another form; names it and what is wrong."""


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        most_bytes: A larger one is refused.

    Raises:
        UntrustedError: It is not JSON, too large or too deep.
        OSError: It cannot be read.
    """
    with open_regular(path, most_bytes) as file:
        text = file.read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UntrustedError(f"{path} is not JSON ({error})") from error


def read_yaml(path: Path, most_bytes: int = 1 << 24) -> Any:
    """Read a YAML file of plain values, such as the ``config.yaml`` of a run.

    References (``*NAME``) are refused: a few lines of them can fill the memory.

    Args:
        path: The file.
        most_bytes: A larger one is refused.

    Raises:
        UntrustedError: It is not YAML, names objects to be made, refers to parts of itself, or is too large or too
            deep.
        OSError: It cannot be read.
    """
    import yaml

    with open_regular(path, most_bytes) as file:
        content = file.read()
    try:
        text = content.decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise UntrustedError(f"{path} refers to parts of itself (*NAME); ripu.train writes no such file")
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (safe)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"{path} is not YAML ({' '.join(str(error).split())})") from error


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        flat |= leaves(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def read_array(path: Path, kind: str, num_axes: int, most_bytes: int = MOST_BYTES) -> NDArray[Any]:
    """Read the array of a ``.npy`` file.

    Args:
        path: The file.
        kind: ``bool``, ``integer`` or ``number``.
        num_axes: Number of axes.
        most_bytes: A larger one is refused.

    Raises:
        UntrustedError: It is damaged, too large, or another array.
        OSError: It cannot be read.
    """
    with open_regular(path, most_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _checked(path, "it", _array(file, size), kind, num_axes)
        except Exception as error:  # numpy and zipfile raise many kinds, depending on the bytes
            raise _damaged(path, error) from error


def read_arrays(
    path: Path, form: Mapping[str, tuple[str, int]], optional: bool = False, most_bytes: int = MOST_BYTES
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a ``.npz`` file.

    Args:
        path: The file.
        form: Kind (``bool``, ``integer`` or ``number``) and number of axes by name; others are not read.
        optional: Whether names may be missing.
        most_bytes: All arrays together, unpacked; more is refused, and nothing unpacked.

    Raises:
        UntrustedError: It is damaged, too large, or holds other arrays.
        OSError: It cannot be read.
    """
    with open_regular(path, most_bytes) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _members(path, archive, form, optional, most_bytes)
        except Exception as error:  # numpy and zipfile raise many kinds, depending on the bytes
            raise _damaged(path, error) from error


def _members(
    path: Path, archive: zipfile.ZipFile, form: Mapping[str, tuple[str, int]], optional: bool, most_bytes: int
) -> dict[str, NDArray[Any]]:
    parts = archive.infolist()
    by_name = {part.filename: part for part in parts}
    if len(parts) > MOST_MEMBERS or len(by_name) < len(parts):
        raise UntrustedError(f"{path} holds {len(parts)} parts, or some twice; it was not written by ripu.train")
    if (claimed := sum(part.file_size for part in parts)) > most_bytes:
        raise UntrustedError(f"{path} claims {claimed} bytes unpacked, more than {most_bytes}; it is not unpacked")
    found = {}
    for name, (kind, num_axes) in form.items():
        part = by_name.get(f"{name}.npy")
        if part is None and optional:
            continue
        if part is None:
            raise UntrustedError(f"{path} holds no {name}; it was not written by ripu.train")
        with archive.open(part) as file:  # reads no more than the size that the part claims
            found[name] = _checked(path, name, _array(file, part.file_size), kind, num_axes)
    return found


def open_regular(path: Path, most_bytes: int | None = MOST_BYTES) -> IO[bytes]:
    """Open a regular file for reading; a pipe would make its reader wait for ever.

    Args:
        path: The file.
        most_bytes: A larger one is refused; None for any size.

    Raises:
        UntrustedError: It is not a regular file, or too large.
        OSError: It cannot be read.
    """
    file = open(  # noqa: SIM115 (closed by the caller, or below)
        path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    )
    facts = os.fstat(file.fileno())
    cause = None
    if not stat.S_ISREG(facts.st_mode):
        cause = "is not a regular file"
    elif most_bytes is not None and facts.st_size > most_bytes:
        cause = f"has {facts.st_size} bytes, more than {most_bytes}; it is not read"
    if cause:
        file.close()
        raise UntrustedError(f"{path} {cause}")
    return file


def _array(file: IO[bytes], size: int) -> NDArray[Any]:
    """Read an array whose head claims exactly the bytes that are there."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, not numbers")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"it claims the shape {shape}, which is not that of its {size} bytes")
    values = np.frombuffer(bytearray(file.read()), dtype=dtype)  # writable
    return values.reshape(shape, order="F" if is_fortran else "C")


def _checked(path: Path, name: str, array: NDArray[Any], kind: str, num_axes: int) -> NDArray[Any]:
    if array.dtype.kind not in _KINDS[kind] or array.ndim != num_axes:
        raise UntrustedError(
            f"{path}: {name} is {array.dtype} with {array.ndim} axes instead of {kind} with {num_axes}; it was not "
            "written by ripu.train"
        )
    return array


def _damaged(path: Path, error: BaseException) -> UntrustedError:
    if isinstance(error, UntrustedError):
        return error
    return UntrustedError(f"{path} is damaged ({error or type(error).__name__})")
