"""Prediction of single images: their size in the network, and images that are predicted strip by strip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.datasets.georeference import Georeference
from ripu.datasets.image_files import ImageReader, as_rgb, naming_file, resize_image
from ripu.datasets.image_rows import ImageRows, open_rows
from ripu.datasets.proportions import Fit, fitted
from ripu.datasets.resized_rows import ResizedRows
from ripu.inference.predictor import Predictor
from ripu.inference.results import Painter, ResultFiles, Strip
from ripu.io.errors import RipuError

MIN_SIDE = 32
"""The shortest side that an image has for the network."""

_SAME_SHAPE = 0.05  # relative difference of aspect ratios up to which an image gets the size of training
_MOST_ROW_PIXELS = 2**25  # of a row of tiles: the logits of 19 classes take 2.5 GB
_WHOLE_PIXELS = 2**24  # larger images are predicted strip by strip
_JPEG_SIDE = 65500  # the longest side that a JPEG can have


class PictureSizeError(RipuError, ValueError):
    """An image is too large at the given scale."""


def network_size(
    size: tuple[int, int], trained: tuple[int, int], scale: float | None, fit: Fit = "stretch"
) -> tuple[int, int]:
    """Return the size at which an image goes through the network.

    Without a scale, a network trained with ``data.fit=pad`` sees an image as in evaluation. With ``stretch``, images of
    the aspect ratio of training (within 5 %) get the size of training, as in evaluation; others keep their own ratio
    and get as many pixels as training had.

    Args:
        size, trained: (height, width) of the image, and of target images in training.
        scale: Network pixels per image pixel; None as described.
        fit: ``data.fit`` in training.

    Example:
        >>> network_size((1024, 2048), (640, 1280), None)
        (640, 1280)
        >>> network_size((2048, 1024), (640, 1280), None)
        (1280, 640)
        >>> network_size((1024, 2048), (640, 1280), 0.25)
        (256, 512)
    """
    (height, width), (rows, columns) = size, trained
    if scale is None and fit == "pad":
        return fitted(size, trained, fit)
    if scale is None:
        stretch = (width / height) / (columns / rows)
        if max(stretch, 1 / stretch) < 1 + _SAME_SHAPE:
            return trained
        scale = math.sqrt(rows * columns / (height * width))
    return max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))


def check_row_of_tiles(size: tuple[int, int], network: tuple[int, int], tile: tuple[int, int]) -> None:
    """Refuse an image whose logits would not fit into memory: those of a row of tiles are held together.

    Args:
        size, network: (height, width) of the image, and at network size.
        tile: (height, width) of a tile.

    Raises:
        PictureSizeError: A row of tiles has more than 2**25 pixels.
    """
    rows = min(network[0], tile[0])
    if rows * network[1] > _MOST_ROW_PIXELS:
        raise PictureSizeError(
            f"{size[0]} x {size[1]} pixels are {network[0]} x {network[1]} for the network, and a row of tiles "
            f"{rows} x {network[1]}, more than {_MOST_ROW_PIXELS} in all; give a smaller scale"
            + (" or a lower tile" if rows == tile[0] else "")
        )


@dataclass(frozen=True)
class Job:
    """An image to predict.

    Attributes:
        path: Its file.
        files: The result of each kind.
        place: Its place on the earth, if it has one.
    """

    path: Path
    files: Mapping[str, Path]
    place: Georeference | None

    @property
    def all(self) -> list[Path]:
        """The results, and the files that place them."""
        place = self.place
        beside = [file for path in self.files.values() for file in place.beside(path)] if place is not None else []
        return [*self.files.values(), *beside]


@dataclass(frozen=True)
class Picture:
    """An image that is read.

    Attributes:
        size, network: (height, width), and at network size.
        image: At network size, (bands, h, w) uint8; None if it is to be predicted strip by strip.
        shown: As RGB, (H, W, 3) uint8, if there is an image.
        missing: Where it has no data, (H, W) bool; None if it marks none.
    """

    size: tuple[int, int]
    network: tuple[int, int]
    image: Tensor | None = None
    shown: NDArray[np.uint8] | None = None
    missing: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class PhotoPredictor:
    """Predicts single images.

    Attributes:
        predictor: Predicts tensors.
        painter: Makes the results.
        reader: Reads the images.
        trained: (height, width) that target images had in training.
        scale, fit: See :func:`network_size`.
    """

    predictor: Predictor
    painter: Painter
    reader: ImageReader
    trained: tuple[int, int]
    scale: float | None
    fit: Fit

    def read(self, job: Job) -> Picture:
        """Read an image, or only its header if it is to be predicted strip by strip.

        Raises:
            SceneError: The file cannot be read.
            PictureSizeError: It is too large.
        """
        with open_rows(job.path, self.reader) as rows:
            height, width = rows.size
            if "overlay" in job.files and job.files["overlay"].suffix == ".jpg" and max(height, width) > _JPEG_SIDE:
                raise PictureSizeError(
                    f"{height} x {width} pixels are too many for an overlay, which is a JPEG of at most {_JPEG_SIDE} a "
                    "side; leave overlay out of write"
                )
            network, tile = network_size(rows.size, self.trained, self.scale, self.fit), self.predictor.tile
            check_row_of_tiles(rows.size, network, tile)
            if self.is_tall(rows.size, network):
                return Picture(rows.size, network)
            image = rows(0, height)
            planes = _planes(resize_image(image, network))
            return Picture(rows.size, network, planes, as_rgb(image), _missing(job.place, rows, 0, height))

    def is_tall(self, size: tuple[int, int], network: tuple[int, int]) -> bool:
        """Return whether an image is predicted strip by strip; ``network`` is its (height, width) at network size."""
        return network[0] > self.predictor.tile[0] or size[0] * size[1] > _WHOLE_PIXELS

    def predict_strips(self, job: Job, picture: Picture, each: Callable[..., Iterable[Any]]) -> None:
        """Predict an image strip by strip, and write its results; ``each`` is that of :meth:`ResultFiles.write`.

        Raises:
            SceneError: The file turns out to be damaged.
            ValueError: The network returns logits that are not finite.
        """
        with ExitStack() as stack:
            rows = stack.enter_context(open_rows(job.path, self.reader))
            again = rows if rows.is_decoded else stack.enter_context(open_rows(job.path, self.reader))
            results = stack.enter_context(ResultFiles(job.files, picture.size, self.painter, job.place))
            resized = ResizedRows(rows, picture.size, picture.network)
            strips = self.predictor.stream(lambda count: _planes(resized.read(count)), picture.network, picture.size)
            for top, label, entropy in strips:
                bottom = top + len(label)
                shown = as_rgb(again(top, bottom)) if "overlay" in job.files else None
                results.write(Strip(label, entropy, shown, _missing(job.place, again, top, bottom)), each)
            results.publish()

    def write(self, job: Job, picture: Picture, label: NDArray[np.uint8], entropy: NDArray[np.float32]) -> None:
        """Write the results of an image that was predicted whole."""
        with ResultFiles(job.files, picture.size, self.painter, job.place) as results:
            results.write(Strip(label, entropy, picture.shown, picture.missing))
            results.publish()


def _planes(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _missing(place: Georeference | None, rows: ImageRows, top: int, bottom: int) -> NDArray[np.bool_] | None:
    if place is None or not place.is_tiff:
        return None
    with naming_file(rows.path):
        if rows.mask is not None:  # as GDAL, which then looks at neither transparency nor values
            return rows.mask.missing(top, bottom)
        return None if place.nodata is None and place.alpha is None else place.missing(rows.stored(top, bottom))
