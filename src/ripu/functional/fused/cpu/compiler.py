"""Numba, which compiles the kernels for CPUs: without Python's lock, and kept on disk.

Compiled code lies beside the sources, or in the user's cache where nobody may write there. It is made again when a file
changes, but a change of one file goes unnoticed in kernels of another: **a kernel calls functions of its own file
only**.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable[..., Any]) -> Any:
    """Return a function that Python calls, compiled at its first call for the types of its arguments."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder may be written to: every process compiles its own
        return njit(**_OPTIONS)(function)


def part(function: Callable[..., Any]) -> Any:
    """Return a function that kernels call."""
    return njit(**_OPTIONS)(function)
