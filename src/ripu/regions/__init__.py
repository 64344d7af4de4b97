"""Region shapes (Table 6): the pixels that one pick of a region shows the annotator.

A shape is a frozen dataclass; see :class:`RegionShape`. A new one is one file here and one YAML file in ``conf/region``
with its ``_target_``; the tests find it there.
"""

from ripu.regions.interface import RegionShape
from ripu.regions.rectangles import Rectangles
from ripu.regions.square import Square
from ripu.regions.superpixels import Superpixels

__all__ = ["Rectangles", "RegionShape", "Square", "Superpixels"]
