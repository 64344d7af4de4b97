"""Reading files that anyone may have written: each is refused by its head before memory is taken for its content.

Nothing is unpickled, and no code that a file names is called. All readers raise UntrustedError for a file that is
damaged, larger than ``most_bytes`` or of another form, and OSError for one that cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.parsers import expat

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
    """Read a JSON file."""
    with open_regular(path, most_bytes) as file:
        text = file.read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UntrustedError(f"{path} is not JSON ({error})") from error


def read_yaml(path: Path, most_bytes: int = 1 << 24) -> Any:
    """Read a YAML file of plain values, such as the ``config.yaml`` of a run.

    References (``*NAME``) are refused: a few lines of them can fill the memory.
    """
    import yaml

    with open_regular(path, most_bytes) as file:
        content = file.read()
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = content.decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=SafeLoader)):
            raise UntrustedError(f"{path} refers to parts of itself (*NAME); ripu.train writes no such file")
        return yaml.load(text, Loader=SafeLoader)  # noqa: S506 (safe)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"{path} is not YAML ({' '.join(str(error).split())})") from error


def parse_xml(content: bytes | str, target: ElementTree.TreeBuilder | None = None) -> Any:
    """Parse XML of somebody else, and return what the target makes of it: the root element unless one is given.

    A document type is refused before anything in it is read: its entities may be bombs.

    Raises:
        ValueError: It is not well-formed, or declares a document type or an entity; the message is the cause alone.
    """
    parser = ElementTree.XMLParser(target=target)  # noqa: S314 (no declarations)
    try:
        _refuse_declarations(content)
        parser.feed(content)
        return parser.close()
    except (ElementTree.ParseError, expat.ExpatError, UnicodeError, LookupError) as error:
        raise ValueError(f"it is not XML ({error})") from error


class _BehindDeclarations(Exception):
    """The first element of a document, which no declaration may follow."""


def _refuse_declarations(content: bytes | str) -> None:
    """Read XML up to its first element, whatever its encoding, and refuse a document type, which holds all entities.

    Raises:
        ValueError: It declares a document type.
        ExpatError: It is not well-formed.
    """

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type or an entity, which can be harmful; such files are not read")

    def end(*_: object) -> None:
        raise _BehindDeclarations

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = end
    with contextlib.suppress(_BehindDeclarations):
        parser.Parse(content, True)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        flat |= leaves(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def read_array(path: Path, kind: str, num_axes: int, most_bytes: int = MOST_BYTES) -> NDArray[Any]:
    """Read the array of a ``.npy`` file; ``kind`` is ``bool``, ``integer`` or ``number``."""
    with _parsing(path, most_bytes) as file:
        return _array(file, os.fstat(file.fileno()).st_size, f"{path}: it", kind, num_axes)


def read_arrays(
    path: Path, form: Mapping[str, tuple[str, int]], optional: bool = False, most_bytes: int = MOST_BYTES
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a ``.npz`` file.

    Args:
        path: The file.
        form: Kind (``bool``, ``integer`` or ``number``) and number of axes by name; others are not read.
        optional: Names may be missing.
        most_bytes: Of all arrays together, unpacked; if they claim more, nothing is unpacked.
    """
    found = {}
    with _parsing(path, most_bytes) as opened, zipfile.ZipFile(opened) as archive:
        parts = archive.infolist()
        by_name = {part.filename: part for part in parts}
        if len(parts) > MOST_MEMBERS or len(by_name) < len(parts):
            raise UntrustedError(f"{path} contains {len(parts)} parts, or some twice; it was not written by ripu.train")
        if (claimed := sum(part.file_size for part in parts)) > most_bytes:
            raise UntrustedError(f"{path} claims {claimed} bytes unpacked, more than {most_bytes}; it is not unpacked")
        for name, (kind, num_axes) in form.items():
            part = by_name.get(f"{name}.npy")
            if part is not None:
                with archive.open(part) as file:  # reads no more than the size that the part claims
                    found[name] = _array(file, part.file_size, f"{path}: {name}", kind, num_axes)
            elif not optional:
                raise UntrustedError(f"{path} contains no {name}; it was not written by ripu.train")
    return found


def open_regular(path: Path, most_bytes: int | None = MOST_BYTES) -> IO[bytes]:
    """Open a regular file of at most ``most_bytes`` for reading; a pipe would make its reader wait for ever."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode):
        cause = "is not a regular file"
    elif most_bytes is not None and facts.st_size > most_bytes:
        cause = f"has {facts.st_size} bytes, more than {most_bytes}; it is not read"
    else:
        return file
    file.close()
    raise UntrustedError(f"{path} {cause}")


@contextlib.contextmanager
def _parsing(path: Path, most_bytes: int) -> Iterator[IO[bytes]]:
    """Open a file; call it damaged if parsing it fails."""
    with open_regular(path, most_bytes) as file:
        try:
            yield file
        except UntrustedError:
            raise
        except Exception as error:  # numpy and zipfile raise many kinds, depending on the bytes
            raise UntrustedError(f"{path} is damaged ({str(error) or type(error).__name__})") from error


def _array(file: IO[bytes], size: int, name: str, kind: str, num_axes: int) -> NDArray[Any]:
    """Read an array of the right form, whose head claims exactly the bytes that follow it."""
    if np.lib.format.read_magic(file) == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"it contains {dtype}, not numbers")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"it claims the shape {shape}, which is not that of its {size} bytes")
    if dtype.kind not in _KINDS[kind] or len(shape) != num_axes:
        raise UntrustedError(
            f"{name} is {dtype} with {len(shape)} axes instead of {kind} with {num_axes}; it was not written by "
            "ripu.train"
        )
    values = np.frombuffer(bytearray(file.read()), dtype=dtype)  # writable
    return values.reshape(shape, order="F" if is_fortran else "C")
