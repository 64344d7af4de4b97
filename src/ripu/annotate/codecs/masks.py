"""Masks: overlaid, as run lengths, and as COCO's text form of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.codecs.reading import MalformedError
from ripu.annotate.settled import NOT_ANSWERED
from ripu.datasets.coco_masks import mask_of_runs, runs_of_text

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def stack(shape: tuple[int, int], masks: Iterable[tuple[int, Mask]]) -> tuple[Labels, Mask]:
    """Overlay the masks of classes.

    Args:
        shape: Height and width.
        masks: Label and (H, W) bool mask.

    Returns:
        (H, W) uint8 labels, 254 outside all masks, and (H, W) bool, True where masks of different labels overlap.
    """
    label, clash = np.full(shape, NOT_ANSWERED, dtype=np.uint8), np.zeros(shape, dtype=np.bool_)
    for value, mask in masks:
        clash |= mask & (label != NOT_ANSWERED) & (label != value)
        label[mask] = value
    return label, clash


def split(label: Labels) -> Iterator[tuple[int, Mask]]:
    """Yield each label of an image, ascending and without 254, with its mask; the inverse of :func:`stack`."""
    for value in np.unique(label[label != NOT_ANSWERED]).tolist():
        yield value, label == value


def bounds(mask: NDArray[np.generic]) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a mask that is not empty; the last two lie outside it."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def to_runs(mask: NDArray[np.generic]) -> list[int]:
    """Return the lengths of the runs of a flat mask, the first one of zeros (possibly empty).

    >>> to_runs(np.array([1, 1, 0, 1]))
    [0, 2, 1, 1]
    """
    flat = np.asarray(mask, dtype=np.bool_).reshape(-1)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [0, *starts.tolist(), len(flat)]
    return [*([0] if len(flat) and flat[0] else []), *np.diff(edges).tolist()]


def from_runs(runs: list[int], size: int, where: str) -> Mask:
    """Return a flat mask of runs, the first one of zeros; MalformedError if they are none of its size."""
    try:
        return mask_of_runs(runs, size)
    except ValueError as error:
        raise MalformedError(f"{where}: {error}") from error


def to_text(runs: Sequence[int]) -> str:
    """Return runs as COCO's text: from the fourth on, as differences from the last but one, in digits of five bits.

    >>> to_text([6, 1, 40, 4, 5, 4, 5, 4, 21])
    '61X13mN000`0'
    """
    signs = []
    for number, run in enumerate(runs):
        left, is_open = run - (runs[number - 2] if number > 2 else 0), True
        while is_open:
            digit, left = left & 31, left >> 5
            is_open = left != (-1 if digit & 16 else 0)
            signs.append(chr(48 + digit + 32 * is_open))
    return "".join(signs)


def from_text(text: str, where: str) -> list[int]:
    """Return the runs in COCO's text form, the inverse of :func:`to_text`; raise MalformedError for any other text."""
    try:
        return runs_of_text(text)
    except ValueError as error:
        raise MalformedError(f"{where}: {error}") from error
