"""The folder ``report/`` of a run, and its encodings: a compact record of what a finished run no longer has.

gallery.json                 classes, colours and the images of the gallery
target-00018-image.jpg       an image of the gallery, at most :data:`MOST_WIDTH` wide
target-00018-truth.png       its label, if there is one
target-00018-round-003.npz   score, impurity, uncertainty and prediction, right before round 3 (from 0)
target-00018-after.png       its prediction at the end
val-00012-*                  image, truth and prediction of the validation images with the lowest mIoU
evaluation-*-rank*.npz       confusion matrix, calibration and IoU by image of the evaluation at a step; ``-final``
progress.json                the learning curve and the rounds so far

Labels and predictions are grey PNGs of train ids. Every file is replaced as a whole. No torch here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.io.writing import write_bytes

FOLDER = "report"
MOST_WIDTH = 768
MAP_WIDTH = 320
MAP_NAMES = ("score", "impurity", "uncertainty")


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a compressed ``.npz``, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def fitted(size: tuple[int, int], most_width: int) -> tuple[int, int]:
    """Return the (height, width) of at most a width, in the proportions of ``size``."""
    height, width = size
    return size if width <= most_width else (max(1, round(height * most_width / width)), most_width)


def _narrow(picture: Image.Image, most_width: int, resampling: Image.Resampling) -> Image.Image:
    height, width = fitted((picture.height, picture.width), most_width)
    return picture if picture.width == width else picture.resize((width, height), resampling)


def jpeg(image: NDArray[np.uint8], most_width: int = MOST_WIDTH, quality: int = 82) -> bytes:
    """Encode an (H, W, 3) or (H, W) uint8 picture as JPEG, scaled down if it is wider than ``most_width``."""
    buffer = io.BytesIO()
    picture = _narrow(Image.fromarray(image), most_width, Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def png(ids: NDArray[np.uint8], most_width: int = MOST_WIDTH) -> bytes:
    """Encode (H, W) or (H, W, 3) ids as PNG, scaled down by the nearest pixel if wider than ``most_width``."""
    buffer = io.BytesIO()
    _narrow(Image.fromarray(ids), most_width, Image.Resampling.NEAREST).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def quantised(values: NDArray[np.floating]) -> tuple[NDArray[np.uint8], float]:
    """Encode a map (H, W) in 8 bits, averaged down to :data:`MAP_WIDTH`; negative numbers count as 0.

    Returns:
        The map, and the number that 255 stands for.
    """
    picture = Image.fromarray(np.maximum(values, 0.0).astype(np.float32))
    small = np.asarray(_narrow(picture, MAP_WIDTH, Image.Resampling.BOX))
    largest = float(small.max(initial=0.0))
    steps = np.rint(small * (255.0 / largest)) if largest > 0 else np.zeros_like(small)
    return steps.astype(np.uint8), largest
