"""Straight-line splits of a region into two parts, the likeliest first; most two-class windows are split this way."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 400
"""Larger regions are painted, not split."""

MOST_SPLITS = 24


def line_splits(pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return every way in which a straight line divides some pixels, in 64 directions.

    Args:
        pixels: (M, 2) rows and columns.

    Returns:
        (S, M) bool, True on the side without the first pixel; each partition once, never with an empty side.
    """
    if len(pixels) < 2:
        return np.zeros((0, len(pixels)), dtype=np.bool_)
    return _splits_of((pixels - pixels[0]).astype(np.int64).tobytes())


@functools.lru_cache(maxsize=256)
def _splits_of(shape: bytes) -> NDArray[np.bool_]:
    """Return the splits of pixels given relative to the first one; windows share a few shapes."""
    pixels = np.frombuffer(shape, dtype=np.int64).reshape(-1, 2)
    centred = pixels - pixels.mean(axis=0)
    found: dict[bytes, NDArray[np.bool_]] = {}
    for angle in np.arange(64) * np.pi / 64:
        direction = np.array([np.sin(angle), np.cos(angle)])
        distance = np.round(centred @ direction, 9)
        levels = np.unique(distance)
        for level in (levels[1:] + levels[:-1]) / 2:
            mask = distance > level
            mask = ~mask if mask[0] else mask
            found.setdefault(mask.tobytes(), mask)
    return np.array(list(found.values()), dtype=np.bool_).reshape(-1, len(pixels))


def ranked_splits(
    pixels: NDArray[np.int64], colors: NDArray[np.uint8] | None, predicted: NDArray[np.uint8] | None
) -> list[str]:
    """Return straight-line splits, the likeliest first.

    A split is better the more of the colour variance lies between its parts, and the more pixels have the predicted
    label that is most frequent in their part.

    Args:
        pixels: (M, 2) rows and columns.
        colors: (M, 3) RGB of the pixels; None if unknown.
        predicted: (M,) the network's labels; None if unknown.

    Returns:
        At most :data:`MOST_SPLITS` texts of M characters, 0 or 1; the first is always 0. Empty for a single pixel and
        for more than :data:`MOST_PIXELS`.
    """
    if not 2 <= len(pixels) <= MOST_PIXELS:
        return []
    masks = line_splits(pixels)
    quality = np.zeros(len(masks))
    ones = masks.sum(axis=1)[:, None].astype(np.float64)
    zeros = len(pixels) - ones
    if colors is not None:
        values = colors.astype(np.float64) - colors.mean(axis=0)
        total = float((values**2).sum())
        if total > 0:
            sums = masks @ values  # the other side sums to its negative
            quality += ((sums**2).sum(axis=1)[:, None] * (1 / ones + 1 / zeros))[:, 0] / total
    if predicted is not None and len(np.unique(predicted)) > 1:
        hot = predicted[:, None] == np.unique(predicted)
        inside = masks.astype(np.int64) @ hot
        quality += (inside.max(axis=1) + (hot.sum(axis=0) - inside).max(axis=1)) / len(pixels)
    order = np.argsort(-quality, kind="stable")[:MOST_SPLITS]
    return ["".join("1" if one else "0" for one in masks[item].tolist()) for item in order.tolist()]
