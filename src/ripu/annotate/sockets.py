"""Sockets for the server of the page: a port of this machine or of the network, or a path."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from ripu.annotate.errors import AnnotationError


def tcp_socket(host: str, port: int, last: int) -> socket.socket:
    """Open the given port, else that of the last server (its page may have unsent answers), else a free one."""
    if not port and last:
        with contextlib.suppress(AnnotationError):
            return tcp_socket(host, last, 0)
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # without it, asyncio leaves Nagle's delay on
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise AnnotationError(
            f"--port {port} cannot be used ({error.strerror}); choose another, or leave it out"
        ) from error
    return sock


def unix_socket(path: Path) -> socket.socket:
    """Open a socket at a path that only its owner may use; a socket that is there already is replaced."""
    if not hasattr(socket, "AF_UNIX"):
        raise AnnotationError("--socket needs Unix sockets, which this system does not have; use --port")
    sock = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        if path.is_socket():
            path.unlink()
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise AnnotationError(
            f"--socket {path} cannot be made ({error.strerror or error}); name another path"
        ) from error
    finally:
        os.umask(old)
    return sock


def own_addresses() -> list[str]:
    """Return the addresses of this machine under its own name; none if the name has none."""
    with contextlib.suppress(OSError):
        return [str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return []
