"""Superpixels (Table 6), by SLIC."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class Superpixels:
    """SLIC superpixels of the image that the network sees, brought to label resolution by the nearest pixel.

    The paper uses SEEDS. The OpenCV build that has SEEDS cannot be installed beside the one that the augmentation
    library needs, so these are SLIC superpixels (Achanta et al., TPAMI 2012) of scikit-image, an optional extra.

    Attributes:
        pixels: Pixels of a superpixel, on average, at label resolution.
        compactness: Weight of closeness over likeness of colour; larger gives squarer superpixels.
        sigma: Width of the Gaussian that smooths the image first, in pixels of the network's input.
    """

    pixels: int
    compactness: float = 10.0
    sigma: float = 0.0
    is_fixed: ClassVar[bool] = True
    needs_image: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.pixels, bool) or not isinstance(self.pixels, int) or self.pixels < 1:
            raise ConfigError(f"region.pixels={self.pixels} must be a whole number of pixels, 1 or more")
        if not self.compactness > 0 or not self.sigma >= 0:
            raise ConfigError(
                f"region.compactness={self.compactness} must be above 0 and region.sigma={self.sigma} 0 or more"
            )
        if importlib.util.find_spec("skimage") is None:
            raise ConfigError(
                "region=superpixels needs scikit-image, which is not installed; install the extra: "
                "pip install 'ripu[superpixels]', or use region=square or region=rectangles"
            )

    def region_px(self) -> int:
        """Return the mean pixels of a superpixel."""
        return self.pixels

    def partition(self, size: tuple[int, int], image: NDArray[np.uint8] | None = None) -> NDArray[np.int32]:
        """Cut an image; see :meth:`ripu.regions.RegionShape.partition`."""
        if image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ConfigError("superpixels need the image, uint8 RGB (h, w, 3)")
        from skimage.segmentation import slic

        height, width = image.shape[:2]
        # SLIC moves centres that are at least a pixel apart: there are never more of them than pixels.
        wanted = max(1, min(round(size[0] * size[1] / self.pixels), height * width))
        numbers = slic(
            image,
            n_segments=wanted,
            compactness=self.compactness,
            sigma=self.sigma,
            start_label=0,
            channel_axis=-1,
            enforce_connectivity=True,
        ).astype(np.int32)
        rows, columns = (
            np.minimum((2 * np.arange(out) + 1) * length // (2 * out), length - 1)
            for out, length in ((size[0], height), (size[1], width))
        )
        enlarged: NDArray[np.int32] = numbers[rows[:, None], columns]
        return enlarged
