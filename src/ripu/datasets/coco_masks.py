"""COCO's masks: run lengths as numbers and as text, and polygons, as pycocotools reads them.

An image may have thousands of small instances, so the parts of an image take no time or memory for pixels around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BITS = 45
_FINE = 5  # polygons are drawn on a grid so many times finer


@dataclass(frozen=True)
class Part:
    """The pixels of an instance inside the box around them.

    Attributes:
        rows: Of the box, in the image.
        columns: Of the box, in the image.
        mask: (rows, columns) bool.
    """

    rows: slice
    columns: slice
    mask: NDArray[np.bool_]


def mask_of_runs(runs: Sequence[Any], size: int) -> NDArray[np.bool_]:
    """Return a flat mask of runs, the first one of zeros.

    Raises:
        ValueError: The runs are not integers of at least 0, or do not add up to the size.
    """
    _check_runs(runs, size)
    mask: NDArray[np.bool_] = np.repeat(np.arange(len(runs)) % 2 == 1, np.asarray(runs, dtype=np.int64))
    return mask


def part_of_runs(runs: Sequence[Any], size: tuple[int, int]) -> Part | None:
    """Return the part of an image (height, width) that runs cover, column by column, the first one of zeros.

    None if it is empty.

    Raises:
        ValueError: The runs are not integers of at least 0, or do not add up to the size.
    """
    height, width = size
    _check_runs(runs, height * width)
    ends = np.cumsum(np.asarray(runs[: len(runs) // 2 * 2], dtype=np.int64)).reshape(-1, 2)  # of zeros, of ones
    ends = ends[ends[:, 0] < ends[:, 1]]
    if not len(ends):
        return None
    left, right = int(ends[0, 0]) // height, -(-int(ends[-1, 1]) // height)
    bounds = np.concatenate([[left * height], ends.ravel(), [right * height]])
    flat = np.repeat(np.arange(len(bounds) - 1) % 2 == 1, np.diff(bounds))
    first, last = ends[:, 0] % height, (ends[:, 1] - 1) % height
    is_tall = ends[:, 0] // height < (ends[:, 1] - 1) // height  # in several columns
    top, bottom = (0, height) if is_tall.any() else (int(first.min()), int(last.max()) + 1)
    mask = flat.reshape(right - left, height)[:, top:bottom].T
    return Part(slice(top, bottom), slice(left, right), np.ascontiguousarray(mask))


def _check_runs(runs: Sequence[Any], size: int) -> None:
    if not all(type(run) is int and 0 <= run <= size for run in runs) or sum(runs) != size:
        raise ValueError(f"the runs of its mask do not add up to its {size} pixels")


def runs_of_text(text: str) -> list[int]:
    """Return the runs of COCO's text: from the fourth on differences from the last but one, in digits of five bits.

    Raises:
        ValueError: It is not such a text.

    >>> runs_of_text("61X13mN000`0")
    [6, 1, 40, 4, 5, 4, 5, 4, 21]
    """
    runs: list[int] = []
    value = shift = 0
    for sign in text:
        digit = ord(sign) - 48
        if not 0 <= digit < 64 or shift > _MOST_BITS:
            raise ValueError("its mask is not in the text form of run-length encoding")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its mask is cut off")
    return runs


def part_of_polygons(polygons: Iterable[Any], size: tuple[int, int]) -> Part | None:
    """Return the part of an image (height, width) that polygons cover together; None if it is surely empty.

    A polygon is x, y, x, y, ... in pixels, of which (0, 0) is the corner of the image.

    Raises:
        ValueError: One has fewer than three points, or one far outside the image, or is not a list of numbers.
    """
    parts = [part for polygon in polygons if (part := _part_of_polygon(polygon, size)) is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    top, bottom = min(part.rows.start for part in parts), max(part.rows.stop for part in parts)
    left, right = min(part.columns.start for part in parts), max(part.columns.stop for part in parts)
    mask = np.zeros((bottom - top, right - left), dtype=np.bool_)
    for part in parts:
        rows, columns = part.rows, part.columns
        mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] |= part.mask
    return Part(slice(top, bottom), slice(left, right), mask)


def _part_of_polygon(points: Sequence[float], size: tuple[int, int]) -> Part | None:
    try:
        flat = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("its polygon is not a list of numbers") from error
    if flat.ndim != 1 or len(flat) < 6 or len(flat) % 2:
        raise ValueError("its polygon is not x, y, x, y, ... of three or more points")
    height, width = size
    if not np.isfinite(flat).all() or np.abs(flat).max() > 10 * (max(height, width) + 100):
        raise ValueError("its polygon has points far outside the image")
    corners = np.trunc(_FINE * flat.reshape(-1, 2) + 0.5).astype(np.int64)
    across, down = _outline(np.concatenate([corners, corners[:1]]))
    # Where the outline passes from a column to the next, a pixel of the coarse grid begins or ends its inside.
    moved = np.flatnonzero(np.diff(across)) + 1
    left = np.where(across[moved] < across[moved - 1], across[moved], across[moved] - 1)
    column = (left + 0.5) / _FINE - 0.5
    kept = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = (np.minimum(down[moved], down[moved - 1]) + 0.5) / _FINE - 0.5
    row = np.ceil(np.clip(row, 0, height))
    if not kept.any():
        return None
    touched, begins = column[kept].astype(np.int64), row[kept].astype(np.int64)
    first, end = int(touched.min()), int(touched.max()) + 1
    top, bottom = int(begins.min()), int(begins.max())
    tall = bottom - top
    changes = np.zeros(tall * (end - first) + 1, dtype=np.uint8)  # column by column, each with an even number of them
    np.bitwise_xor.at(changes, (touched - first) * tall + begins - top, 1)
    np.bitwise_xor.accumulate(changes, out=changes)
    mask = np.ascontiguousarray(changes[:-1].view(np.bool_).reshape(end - first, tall).T)
    return Part(slice(top, bottom), slice(first, end), mask) if tall else None


def _outline(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the points x, y of the lines between corners of the fine grid, both ends of each included."""
    across, down = [], []
    for (x0, y0), (x1, y1) in zip(corners[:-1].tolist(), corners[1:].tolist(), strict=True):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        steps = np.arange(max(dx, dy) + 1)
        is_flat = dx >= dy
        if is_reversed := (x0 > x1 if is_flat else y0 > y1):
            x0, y0, x1, y1 = x1, y1, x0, y0
        if is_flat:
            slope = (y1 - y0) / dx if dx else 0.0
            x, y = steps + x0, np.trunc(y0 + slope * steps + 0.5).astype(np.int64)
        else:
            slope = (x1 - x0) / dy
            x, y = np.trunc(x0 + slope * steps + 0.5).astype(np.int64), steps + y0
        across.append(x[::-1] if is_reversed else x)
        down.append(y[::-1] if is_reversed else y)
    return np.concatenate(across), np.concatenate(down)
