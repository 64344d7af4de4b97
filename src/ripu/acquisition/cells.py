"""The cells of the features of a network, in the pixels of its logits.

Legend: C classes, D features, h w cells of the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.interface import Features
from ripu.functional import check_finite, check_logits


@dataclass(frozen=True)
class Cells:
    """The pixels of the logits that lie in the middle of each cell, and how many cells have theirs in the image.

    Cells in the padding take the last pixel of the image.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    inside: tuple[int, int]

    @classmethod
    def of(cls, features: Features, size: tuple[int, int]) -> Cells:
        """Find the cells of features in logits of ``size`` (h, w)."""
        middles, inside = [], []
        for count, extent, length in zip(features.values.shape[2:], features.extent, size, strict=True):
            middle = nearest(np.arange(count), count, extent)
            inside.append(max(1, int((middle < length).sum())))
            middles.append(np.minimum(middle, length - 1))
        return cls(middles[0], middles[1], (inside[0], inside[1]))

    def spread(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of at most ``count`` cells of the image, evenly spread whatever its proportions."""
        height, width = self.inside
        if height * width <= count:
            rows, columns = np.divmod(np.arange(height * width), width)
            return rows, columns
        # Multiples of two irrational numbers (Roberts' sequence) fill a square evenly.
        turn = np.arange(1, count + 1)
        root = 1.32471795724474602596
        return (
            (np.modf(turn / root)[0] * height).astype(np.int64),
            (np.modf(turn / root**2)[0] * width).astype(np.int64),
        )


def nearest(positions: NDArray[np.int64], length: int, other: int) -> NDArray[np.int64]:
    """Return the places, out of ``other``, in which the middles of positions out of ``length`` lie."""
    return (2 * positions + 1) * other // (2 * length)


def check_features(logits: Tensor, features: Features) -> None:
    """Refuse logits and features that are not finite, or logits of a wrong shape."""
    check_logits(logits)
    check_finite(logits)
    check_finite(features.values)
