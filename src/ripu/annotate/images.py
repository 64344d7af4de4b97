"""The pictures of the page: crops at label resolution, and overviews."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ripu.annotate.errors import AnnotationError, UnknownImageError
from ripu.io.errors import RipuError
from ripu.labelstore import LabelReader

OVERVIEW_SIDE = 640
MOST_CROP_PX = 2_000_000
KEPT_IMAGES = 6


@dataclass(frozen=True)
class Crop:
    """A part of an image.

    Attributes:
        data: PNG.
        row, column: The top left pixel.
    """

    data: bytes
    row: int
    column: int


class Images:
    """The target images, at the resolution of their labels; the last few are kept in memory."""

    def __init__(self, store: LabelReader, read: Callable[[int], NDArray[np.uint8]]) -> None:
        """Serve the images of a store.

        Args:
            store: The label store.
            read: Returns an image by its number: (h, w, 3) uint8 RGB.
        """
        self._store, self._read = store, read
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return an image at the resolution of its label: (H, W, 3) uint8 RGB.

        Raises:
            UnknownImageError: The run has no image of this number.
            AnnotationError: Its file is missing or damaged.
        """
        if not 0 <= number < len(self._store.images):
            raise UnknownImageError(f"image {number} does not exist; the run has {len(self._store.images)} images")
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        about = self._store.images[number]
        try:
            image = self._read(number)
        except (OSError, RipuError) as error:
            raise AnnotationError(f"the image {about.image_id} cannot be read: {error}") from error
        if image.shape[:2] != (about.height, about.width):
            image = cv2.resize(image, (about.width, about.height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        with self._lock:
            self._kept[number] = image
            while len(self._kept) > KEPT_IMAGES:
                self._kept.popitem(last=False)
        return image

    def crop(self, number: int, row: int, column: int, height: int, width: int) -> Crop:
        """Return a rectangle of an image, clipped at its border.

        Raises:
            AnnotationError: It lies outside the image, is empty, or has more than :data:`MOST_CROP_PX` pixels.
        """
        image = self.image(number)
        top, left = max(row, 0), max(column, 0)
        part = image[top : max(row + height, 0), left : max(column + width, 0)]
        if not part.size or part.shape[0] * part.shape[1] > MOST_CROP_PX:
            raise AnnotationError(
                f"the rectangle {height} x {width} at row {row}, column {column} is empty or too large; images are "
                f"{image.shape[0]} x {image.shape[1]}"
            )
        return Crop(encoded(".png", part), top, left)

    def overview(self, number: int) -> tuple[bytes, float]:
        """Return the whole image as JPEG, its longer side at most :data:`OVERVIEW_SIDE`, and its scale."""
        image = self.image(number)
        scale = min(1.0, OVERVIEW_SIDE / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return encoded(".jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)), scale


def encoded(ending: str, pixels: NDArray[np.uint8], png_level: int = 1) -> bytes:
    """Return the bytes of an image file.

    Args:
        ending: ``.png`` or ``.jpg``.
        pixels: (H, W) or (H, W, 3) uint8 RGB.
        png_level: Compression of PNG, 0 (fast) to 9 (small).
    """
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(ending, stored, [cv2.IMWRITE_PNG_COMPRESSION, png_level] if ending == ".png" else [])
    assert done
    return bytes(data)
