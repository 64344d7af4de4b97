"""Fixed rectangles (Table 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class Rectangles:
    """A grid of rectangles from the top left corner; those at the right and lower border may be smaller.

    Attributes:
        height: Rows of a rectangle, pixels at label resolution.
        width: Columns of a rectangle.
    """

    height: int
    width: int
    is_fixed: ClassVar[bool] = True
    needs_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"region.{name}={value} must be a whole number of pixels, 1 or more")

    def region_px(self) -> int:
        """Return the pixels of a rectangle."""
        return self.height * self.width

    def partition(self, size: tuple[int, int], image: NDArray[np.uint8] | None = None) -> NDArray[np.int32]:
        """Cut an image; see :meth:`ripu.regions.RegionShape.partition`; rectangles are numbered row by row.

        >>> Rectangles(1, 2).partition((2, 3)).tolist()
        [[0, 0, 1], [2, 2, 3]]
        """
        rows = np.arange(size[0], dtype=np.int32)[:, None] // self.height
        columns = np.arange(size[1], dtype=np.int32) // self.width
        numbers: NDArray[np.int32] = rows * (columns[-1] + 1) + columns
        return numbers
