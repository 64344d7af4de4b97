"""The painter of queries: which pixels an image was asked about, in the colours of rounds or classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.taxonomy import VOID
from ripu.inference import palette
from ripu.labelstore import BEFORE, LabelReader

Picture = NDArray[np.uint8]

SPARSE = 0.005  # pixels are painted larger than they are if less than this fraction of an image was queried


def queried_map(store: LabelReader, image_id: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the queries of an image, made smaller in such a way that none is lost.

    The size (height, width) is not above that of the label. The result is (height, width, 3) uint8: round from 1, class
    (255: void or not answered), 0; all 0 where nothing was queried.
    """
    image = store.image(image_id)
    queried = np.zeros((image.height, image.width), dtype=np.uint8)
    for spec in store.rounds:
        queried.reshape(-1)[store.asked(image_id, spec.index).indices] = min(spec.index + 1, 254)
    label = store.revealed_label(image_id)
    result = np.zeros((*size, 3), dtype=np.uint8)
    rows, columns = np.nonzero(queried)
    last = np.argsort(label[rows, columns] != VOID, kind="stable")  # a class wins over void in the same place
    rows, columns = rows[last], columns[last]
    small_rows, small_columns = rows * size[0] // image.height, columns * size[1] // image.width
    result[small_rows, small_columns, 0] = queried[rows, columns]
    result[small_rows, small_columns, 1] = label[rows, columns]
    return result


def round_table() -> NDArray[np.uint8]:
    """Return the colour of each round from 0, (256, 3); :data:`ripu.labelstore.BEFORE` is grey."""
    table = np.asarray([palette.round_color(number) for number in range(256)], dtype=np.uint8)
    table[BEFORE] = palette.GRID
    return table


def class_table(colors: Sequence[palette.RGB]) -> NDArray[np.uint8]:
    """Return the colour of each train id, (256, 3); others, void among them, are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = np.asarray(colors, dtype=np.uint8)
    return table


def dimmed(image: Picture) -> Picture:
    """Return an image (H, W, 3) dark enough for the colours of rounds."""
    return (image * 0.5).astype(np.uint8)


def pale(image: Picture) -> Picture:
    """Return an image (H, W, 3) in light grey, on which even dark classes stand out."""
    grey: Picture = (255 - 0.35 * (255 - image.mean(axis=-1, keepdims=True))).astype(np.uint8)
    return grey.repeat(3, axis=-1)


def paint(
    ground: Picture, values: NDArray[np.uint8], is_queried: NDArray[np.bool_], table: NDArray[np.uint8]
) -> Picture:
    """Paint queried pixels over an image, in the colours of a (256, 3) table; see :func:`dimmed` and :func:`pale`."""
    values, is_queried = enlarged(values, is_queried)
    return np.where(is_queried[..., None], table[values], ground)


def enlarged(values: NDArray[np.uint8], is_queried: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Put a square around each queried pixel if less than :data:`SPARSE` of the image (H, W) was queried.

    Where squares overlap, the later pixel in reading order wins.
    """
    if is_queried.mean() >= SPARSE:
        return values, is_queried
    reach = max(1, values.shape[1] // 250)
    grown, is_grown = values.copy(), is_queried.copy()
    for row, column in zip(*np.nonzero(is_queried), strict=True):
        square = slice(max(0, row - reach), row + reach + 1), slice(max(0, column - reach), column + reach + 1)
        grown[square], is_grown[square] = values[row, column], True
    return grown, is_grown
