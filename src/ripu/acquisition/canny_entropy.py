"""Entropy on the edges of the image (Table 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps, check_images
from ripu.acquisition.uncertainty_only import UncertaintyOnly
from ripu.functional import check_radius
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class CannyEntropy:
    """Score U on the pixels that are Canny edges of the image, 0 elsewhere; ties go to the larger U.

    U is the window mean of the pixel entropy (RA) or the pixel's own (PA). The comparison shows whether impurity is
    more than an edge detector. The paper names neither thresholds nor filter; 100 and 200 are from the OpenCV tutorial.

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA), True for pixels (PA).
        low_threshold: Gradient (0..255 scale, L1 norm of Sobel 3 x 3) above which a pixel continues an edge.
        high_threshold: Gradient above which a pixel starts one.
    """

    radius: int
    pixel: bool = False
    low_threshold: float = 100.0
    high_threshold: float = 200.0
    needs_image: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_radius(self.radius)
        if not 0 <= self.low_threshold <= self.high_threshold:
            raise ConfigError(
                f"thresholds {self.low_threshold} and {self.high_threshold} must satisfy 0 <= low <= high."
            )

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], *, images: Tensor) -> ScoreMaps:
        """Score a batch; resize its images, which must fit the logits (else ConfigError), to ``size`` first."""
        check_images(images, logits)
        uncertainty_BHW = UncertaintyOnly(self.radius, self.pixel)(logits, size, keys).score
        is_edge_BHW = torch.empty(uncertainty_BHW.shape, dtype=torch.bool)
        for is_edge_HW, image in zip(is_edge_BHW, images.cpu().numpy(), strict=True):
            gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
            gray = cv2.resize(gray, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
            is_edge_HW.copy_(torch.from_numpy(cv2.Canny(gray, self.low_threshold, self.high_threshold)) > 0)
        score_BHW = uncertainty_BHW * is_edge_BHW.to(uncertainty_BHW.device)
        return ScoreMaps(score_BHW, tie_break=uncertainty_BHW, uncertainty=uncertainty_BHW)
