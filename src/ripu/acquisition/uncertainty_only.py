"""Prediction uncertainty alone (an ablation of Eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_radius, entropy_and_label, map_pixels, window_mean


@dataclass(frozen=True)
class UncertaintyOnly:
    """Score U: the window mean of the pixel entropy (RA, Eq. 5) or the pixel's own entropy (PA), in nats.

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
        (entropy_BHW,) = map_pixels(logits, size, lambda strip: entropy_and_label(strip)[:1], (torch.float32,))
        uncertainty_BHW = entropy_BHW if self.pixel else window_mean(entropy_BHW, self.radius)
        return ScoreMaps(uncertainty_BHW, uncertainty=uncertainty_BHW)
