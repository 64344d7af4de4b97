"""Resizing of images row by row, to the values of :func:`ripu.datasets.image_files.resize_image`.

Pillow resizes along rows first, and rounds. Along columns, its weights (``Resample.c``: the bicubic filter with
a = -1/2, widened when shrinking, in fixed point of 22 bits) are applied here, so that only a few rows are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.image_files import resize_image

_SUPPORT = 2.0  # of the bicubic filter, in pixels
_BITS = 22
_BLOCK_VALUES = 2**20  # of the image, read at a time


class ResizedRows:
    """The rows of an image at another size, from top to bottom.

    Args:
        rows: ``rows(top, bottom)`` returns rows of the image, (rows, W, B) uint8.
        size, target: (height, width) of the image, and of the result.
    """

    def __init__(
        self, rows: Callable[[int, int], NDArray[np.uint8]], size: tuple[int, int], target: tuple[int, int]
    ) -> None:
        self._rows, self._size, self._target = rows, size, target
        self._next = 0  # row of the result
        self._held: NDArray[np.uint8] | None = None  # rows of the image, resized along the rows
        self._first = 0  # row of the image that they begin with
        self._block = max(1, _BLOCK_VALUES // size[1])

    def read(self, count: int) -> NDArray[np.uint8]:
        """Return the next rows of the result, (count, width, B) uint8."""
        start, stop = self._next, self._next + count
        self._next = stop
        if self._size[0] == self._target[0]:
            parts = [self._narrow(top, min(top + self._block, stop)) for top in range(start, stop, self._block)]
            return np.concatenate(parts)
        result: NDArray[np.uint8] | None = None
        for row in range(start, stop):
            first, weights = _weights(row, *self._sizes())
            held = self._hold(first, first + len(weights))
            total = np.tensordot(weights, held[first - self._first :][: len(weights)].astype(np.float64), axes=1)
            if result is None:
                result = np.empty((count, *total.shape), dtype=np.uint8)
            result[row - start] = np.clip(np.floor((total + 2.0 ** (_BITS - 1)) / 2.0**_BITS), 0, 255)
        assert result is not None
        return result

    def _sizes(self) -> tuple[int, int]:
        return self._size[0], self._target[0]

    def _narrow(self, top: int, bottom: int) -> NDArray[np.uint8]:
        return resize_image(self._rows(top, bottom), (bottom - top, self._target[1]))

    def _hold(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return held rows that contain those from ``first`` to before ``last``."""
        held = self._held
        end = 0 if held is None else self._first + len(held)
        if held is None or end < last:
            kept = [] if held is None or first >= end else [held[first - self._first :]]
            start = max(first, end)
            self._first = first
            read = self._narrow(start, min(self._size[0], max(last, start + self._block)))
            self._held = held = np.concatenate([*kept, read])
        return held


def _weights(row: int, height: int, target: int) -> tuple[int, NDArray[np.float64]]:
    """Return the first row of the image that a row of the result depends on, and the weights from there on, x 2**22."""
    scale = height / target
    spread = max(scale, 1.0)
    center = (row + 0.5) * scale
    first = max(0, int(center - _SUPPORT * spread + 0.5))
    last = min(height, int(center + _SUPPORT * spread + 0.5))
    shares = [_bicubic((place - center + 0.5) / spread) for place in range(first, last)]
    total = sum(shares)
    fixed = [math.trunc(share / total * 2**_BITS + math.copysign(0.5, share)) for share in shares]
    return first, np.array(fixed, dtype=np.float64)


def _bicubic(distance: float) -> float:
    x = abs(distance)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0
