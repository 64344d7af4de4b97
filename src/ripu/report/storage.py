"""The folder ``report/`` of a run: what a report needs and a finished run no longer has, in a compact form.

gallery.json                 classes, colours and the images of the gallery
target-00018-image.jpg       an image of the gallery, at most :data:`MOST_WIDTH` wide
target-00018-truth.png       its label, where there is one
target-00018-round-003.npz   score, impurity, uncertainty and prediction, right before round 3 (from 0) asked
target-00018-after.png       its prediction at the end
val-00012-*                  image, truth and prediction of the validation images that went worst
evaluation-*-rank*.npz       confusion matrix, calibration and IoU by image of the evaluation at a step; ``-final``
progress.json                the learning curve and the rounds so far

Labels and predictions are grey PNGs of train ids. Every file is replaced whole. No torch here.
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
JPEG_QUALITY = 82


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a compressed ``.npz``, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def fitted(size: tuple[int, int], most_width: int) -> tuple[int, int]:
    """(height, width) of at most a width, in the proportions of ``size``."""
    height, width = size
    if width <= most_width:
        return height, width
    return max(1, round(height * most_width / width)), most_width


def jpeg(image: NDArray[np.uint8], most_width: int = MOST_WIDTH, quality: int = JPEG_QUALITY) -> bytes:
    """An (H, W, 3) or (H, W) uint8 picture as JPEG, made smaller where it is wider."""
    height, width = fitted((image.shape[0], image.shape[1]), most_width)
    picture = Image.fromarray(image)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def png(ids: NDArray[np.uint8], most_width: int = MOST_WIDTH) -> bytes:
    """(H, W) ids, or (H, W, 3), as PNG, made smaller by the nearest pixel where they are wider."""
    height, width = fitted((ids.shape[0], ids.shape[1]), most_width)
    picture = Image.fromarray(ids)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def quantised(values: NDArray[np.floating], most_width: int = MAP_WIDTH) -> tuple[NDArray[np.uint8], float]:
    """A map of numbers >= 0 in 8 bits, made smaller by averaging, and the number that 255 stands for.

    Args:
        values: (H, W) floating; numbers below 0 count as 0.
        most_width: Greatest width of the result.
    """
    height, width = fitted((values.shape[0], values.shape[1]), most_width)
    picture = Image.fromarray(np.maximum(values, 0.0).astype(np.float32))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BOX)
    small = np.asarray(picture)
    largest = float(small.max(initial=0.0))
    steps = np.rint(small * (255.0 / largest)) if largest > 0 else np.zeros_like(small)
    return steps.astype(np.uint8), largest
