"""Photographs as people have them, as the 8-bit RGB that networks are fed: any mode, any depth, upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import read_picture
from ripu.datasets.upright import upright_rgb

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings (lower case) of the files that are taken for images."""


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Read an image file of any kind that Pillow knows, as :func:`ripu.datasets.upright.upright_rgb` has it.

    Args:
        path: The file.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SceneError: The file is missing, damaged or absurdly large.
    """
    return read_picture(path, upright_rgb)
