"""Least confidence: one minus the largest probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_radius, map_pixels, window_mean


@dataclass(frozen=True)
class SoftmaxConfidence:
    """Score 1 - max_c P_c (SCONF): its window mean for regions (RA), the pixel's own for pixels (PA).

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA), True for pixels (PA).
    """

    radius: int
    pixel: bool = False
    needs_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.radius)

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        (doubt_BHW,) = map_pixels(logits, size, _least_confidence, (torch.float32,))
        uncertainty_BHW = doubt_BHW if self.pixel else window_mean(doubt_BHW, self.radius)
        return ScoreMaps(uncertainty_BHW, uncertainty=uncertainty_BHW)


def _least_confidence(strip_CRW: Tensor) -> tuple[Tensor, ...]:
    return (1.0 - torch.softmax(strip_CRW, dim=0).amax(dim=0),)
