"""Region shapes (Table 6): the pixels that one pick of a region shows the annotator.

A shape is a frozen dataclass. A new one is one file here and one YAML file in ``conf/region``; the tests
find it there.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ripu.regions.merged_superpixels import MergedSuperpixels
from ripu.regions.rectangles import Rectangles
from ripu.regions.square import Square
from ripu.regions.superpixels import Superpixels

__all__ = ["MergedSuperpixels", "Rectangles", "RegionShape", "Square", "Superpixels"]


class RegionShape(Protocol):
    """A way to cut images into regions.

    Attributes:
        is_fixed: False: regions are the windows around the picks, and :meth:`partition` is never called. True: the
            image is cut once and a pick is one of the pieces.
        needs_image: True if :meth:`partition` needs the image.

    A shape may also have ``merge(partition, probs, asked)``: it returns the regions of a round, (H, W) int32, each the
    union of pieces of the partition, from the predicted probabilities, (C, h, w) float32 at any size, and the pixels
    that were queried before, (H, W) bool.
    """

    is_fixed: ClassVar[bool]
    needs_image: ClassVar[bool]

    def region_px(self) -> int:
        """Return the number of pixels in a region at label resolution: the mean if they differ, border aside."""
        ...

    def partition(self, size: tuple[int, int], image: NDArray[np.uint8] | None = None) -> NDArray[np.int32]:
        """Return the (H, W) int32 region of each pixel of a label of ``size``, the same on every machine and round.

        Numbers count from 0, and may be unused; -1 marks pixels that belong to no region. The image is (h, w, 3) uint8
        RGB at any size, or ignored unless ``needs_image``.

        Raises:
            ValueError: An image is needed but was not given.
        """
        ...
