"""The grid of the training pixels in a label, for single pixels that are asked about where training sees them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class TrainingGrid:
    """The places of the training pixels in the label: strictly increasing (h,) rows and (w,) columns, int64.

    Training resizes a label by taking the nearest label pixel for each of its own (Pillow's centre-sampled nearest).
    It never sees the others.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @classmethod
    def between(cls, label_size: tuple[int, int], train_size: tuple[int, int]) -> TrainingGrid:
        """Return the grid of a label size (H, W) and a training size (h, w).

        Raises:
            ConfigError: The label is smaller than the training size, so one of its pixels would stand for several.

        >>> TrainingGrid.between((5, 8), (4, 4)).rows.tolist()
        [0, 1, 3, 4]
        """
        if label_size[0] < train_size[0] or label_size[1] < train_size[1]:
            raise ConfigError(
                f"protocol.pixel_grid=training needs labels of at least the training size, but data.target_size="
                f"{list(train_size)} is larger than a label of {list(label_size)}; use protocol.pixel_grid=label"
            )
        return cls(_nearest(label_size[0], train_size[0]), _nearest(label_size[1], train_size[1]))

    def near(self, places: NDArray[np.integer], radius: int) -> NDArray[np.bool_]:
        """Return an (h, w) mask of the pixels within ``radius`` (Chebyshev, on the grid) of (N, 2) label pixels."""
        mask = np.zeros((len(self.rows), len(self.columns)), dtype=np.bool_)
        rows, columns = np.searchsorted(self.rows, places[:, 0]), np.searchsorted(self.columns, places[:, 1])
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            mask[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1] = True
        return mask

    def label_radius(self, radius: int, label_size: tuple[int, int]) -> int:
        """Return a distance on the label that pixels more than ``radius`` apart on the grid are sure to exceed."""
        scale = min(label_size[0] / len(self.rows), label_size[1] / len(self.columns))
        return int(radius * scale)


@lru_cache(maxsize=64)
def _nearest(length: int, new_length: int) -> NDArray[np.int64]:
    """Return the positions that Pillow's nearest filter samples when ``length`` pixels become ``new_length``."""
    line = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    taken: NDArray[np.int64] = np.asarray(line.resize((new_length, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
    taken.flags.writeable = False
    return taken
