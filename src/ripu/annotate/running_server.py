"""The running server of a run: the record of its address and key, and requests of the other commands to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any

from ripu.annotate.errors import AnnotationError
from ripu.io.writing import write_json


def record_file(run: Path) -> Path:
    """Return the place of the record: address and key of the running server, readable only by its owner."""
    return run / "annotation" / "server.json"


def write_record(run: Path, content: dict[str, Any]) -> None:
    """Write the record for the owner alone."""
    old = os.umask(0o077)
    try:
        write_json(record_file(run), content)
    finally:
        os.umask(old)


def read_record(run: Path) -> dict[str, Any] | None:
    """Return the record of the server; None if it has none."""
    try:
        found = json.loads(record_file(run).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "url" in found else None


class _Connection(http.client.HTTPConnection):
    """A connection to a running server on this machine, by its port or socket; never through a proxy."""

    def __init__(self, about: dict[str, Any]) -> None:
        port = str(about["url"]).rstrip("/").rpartition(":")[2]
        super().__init__("127.0.0.1", int(port) if port.isdecimal() else 0, timeout=600)  # closing millions takes long
        self._path = about.get("socket")

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask_server(run: Path, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Send a request to the running server; return None if no server is running."""
    about = read_record(run)
    if about is None:
        return None
    connection = _Connection(about)
    status, content = 0, b""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):  # ended and left its file behind
        connection.request(
            "GET" if body is None else "POST",
            path,
            None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {about.get('token')}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        status, content = answer.status, answer.read()
    connection.close()
    try:
        found = json.loads(content)
    except ValueError:
        return None  # something else has its port by now
    if not isinstance(found, dict) or status in (401, 403):
        return None
    if status != 200:
        raise AnnotationError(str(found.get("error", f"the server of the page answers with status {status}")))
    return found
