"""Photographs as people have them, as the 8-bit RGB that networks are fed: any mode, any depth, upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ripu.datasets.scenes import read_picture

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings (lower case) of the files that are taken for images."""


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Read an image file of any kind that Pillow knows.

    Grey becomes RGB, transparency is left out, 16 bits become 8 (the most significant ones), and the turn that the EXIF
    data of a camera ask for is carried out: the image is upright, as viewers show it.

    Args:
        path: The file.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SceneError: The file is missing, damaged or absurdly large.
    """
    return read_picture(path, _upright_rgb)


def _upright_rgb(file: Image.Image) -> NDArray[np.uint8]:
    picture = ImageOps.exif_transpose(file)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _from_deep_grey(np.asarray(picture))
    return np.asarray(picture.convert("RGB"))


def _from_deep_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits: integers are taken for 16 bits, floats for 0..1 (or 0..255 where any exceeds 1)."""
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values.astype(np.float64))
        scaled = finite * (255.0 if finite.max(initial=0.0) <= 1.0 else 1.0)
    else:
        scaled = values.astype(np.float64) / 257.0
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
