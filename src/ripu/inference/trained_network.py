"""A trained network for single images: labels, uncertainty and score, as arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.image_files import resize_image
from ripu.functional import region_impurity, window_mean
from ripu.inference.description import Description
from ripu.inference.photo_prediction import check_row_of_tiles, network_size
from ripu.inference.predictor import Predictor

ImageLike = NDArray[np.uint8] | Image.Image | str | os.PathLike[str]
"""RGB, or the bands of the run, (H, W, 3) uint8; a Pillow image; or the path of an image file."""


class Maps(NamedTuple):
    """Labels, uncertainty and score of an image, (H, W) each."""

    label: NDArray[np.uint8]
    """Index of the predicted class."""

    uncertainty: NDArray[np.float32]
    """Entropy of each pixel's prediction, in nats."""

    score: NDArray[np.float32]
    """Eq. 6, region impurity x prediction uncertainty, in nats squared."""


class TrainedNetwork:
    """A trained network that predicts images of any size as ``python -m ripu.predict`` does; see :func:`ripu.load`.

    Attributes:
        description: Classes, sizes, preprocessing and origin.
    """

    def __init__(self, network: torch.nn.Module, device: torch.device, description: Description) -> None:
        """Take a network that maps raw images (B, 3, h, w) uint8 to logits, in evaluation mode on its device."""
        self.description = description
        tile = description.fixed_size or (max(description.target_size),) * 2
        self._predictor = Predictor(network, device, tile, overlap=0.25, batch=4, flip=description.flip)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by index."""
        return self.description.taxonomy.class_names

    def maps(self, image: ImageLike) -> Maps:
        """Return labels, uncertainty and score of an image, in one pass.

        Raises:
            ValueError: An array is not (H, W, 3) uint8, or has another number of bands than the network takes.
            SceneError: The file cannot be read.
            PictureSizeError: It has too many pixels.
        """
        values = self._read(image)
        height, width = values.shape[:2]
        network = network_size((height, width), self.description.target_size, None, self.description.fit)
        check_row_of_tiles((height, width), network, network)
        resized = resize_image(values, network)
        planes = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        ((label, entropy),) = self._predictor([planes], [(height, width)])
        return Maps(label, entropy, self._score(label, entropy))

    def predict(self, image: ImageLike) -> NDArray[np.uint8]:
        """Return the index of the predicted class, (H, W) uint8; errors as in :meth:`maps`."""
        return self.maps(image).label

    def uncertainty(self, image: ImageLike) -> NDArray[np.float32]:
        """Return the entropy of each pixel's prediction, (H, W) float32 in nats; errors as in :meth:`maps`."""
        return self.maps(image).uncertainty

    def score(self, image: ImageLike) -> NDArray[np.float32]:
        """Return Eq. 6 as the run used it (k and mode), (H, W) float32 in nats squared; errors as in :meth:`maps`."""
        return self.maps(image).score

    def _score(self, label: NDArray[np.uint8], entropy: NDArray[np.float32]) -> NDArray[np.float32]:
        radius, device = self.description.radius, self._predictor.device
        uncertainty = torch.from_numpy(entropy).to(device)[None]
        if not self.description.pixel:
            uncertainty = window_mean(uncertainty, radius)
        labels = torch.from_numpy(label).to(device)[None].long()
        impurity = region_impurity(labels, len(self.class_names), radius)
        return (impurity * uncertainty)[0].cpu().numpy()

    def _read(self, image: ImageLike) -> NDArray[np.uint8]:
        reader = self.description.image_reader
        if isinstance(image, (str, os.PathLike)):
            return reader(Path(image))
        found = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != reader.num_bands or 0 in found.shape:
            kind = "RGB" if reader.bands is None else f"the bands {list(reader.bands)} of the run"
            raise ValueError(
                f"the image is {found.dtype} of shape {found.shape}; give {kind}, (H, W, {reader.num_bands}) uint8 in "
                "0..255, or the path of a file"
            )
        return found
