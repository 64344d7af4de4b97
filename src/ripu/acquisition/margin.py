"""Margin: how close the second class comes to the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_radius, map_pixels, window_mean


@dataclass(frozen=True)
class Margin:
    """Score 1 - (P_1st - P_2nd) in [0, 1]: its window mean for regions (RA), the pixel's own for pixels (PA).

    With one class the score is 0.

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
        (closeness_BHW,) = map_pixels(logits, size, _closeness, (torch.float32,))
        uncertainty_BHW = closeness_BHW if self.pixel else window_mean(closeness_BHW, self.radius)
        return ScoreMaps(uncertainty_BHW, uncertainty=uncertainty_BHW)


def _closeness(strip_CRW: Tensor) -> tuple[Tensor, ...]:
    # A running best two: topk over planes is many times slower.
    first_RW, *others = torch.softmax(strip_CRW, dim=0).unbind(0)
    second_RW = torch.zeros_like(first_RW)
    for probs_RW in others:
        second_RW = torch.maximum(second_RW, torch.minimum(first_RW, probs_RW))
        first_RW = torch.maximum(first_RW, probs_RW)
    return (1.0 - (first_RW - second_RW),)
