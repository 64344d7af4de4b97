"""k-square-neighbours: the paper's regions (Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Square:
    """The (2k+1) x (2k+1) square around each pick, clipped at the image border.

    Attributes:
        radius: k.
    """

    radius: int = 1
    is_fixed: ClassVar[bool] = False
    needs_image: ClassVar[bool] = False

    def region_px(self) -> int:
        """Return the pixels of a square."""
        return (2 * self.radius + 1) ** 2

    def partition(self, size: tuple[int, int], image: NDArray[np.uint8] | None = None) -> NDArray[np.int32]:
        """Raise TypeError: squares lie around picks, and no image is cut into them."""
        raise TypeError("squares lie around picks; an image is not cut into them")
