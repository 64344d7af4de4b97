"""Margin, weighted by the rarity of the predicted class in the pool (after MulActSeg)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_finite, check_logits, check_radius, map_pixels, window_mean
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class MarginBalanced:
    """Score (1 - (P_1st - P_2nd)) * (strength * share_c + 1)^-2, c the most probable class of the pixel.

    ``share_c`` is the mean predicted probability of class c over the target images, each of which counts the same. A
    round gathers it before it scores the first image, from predictions alone: no label is read. Outside rounds, it is
    the mean over the image itself.

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA): the window mean. True for pixels (PA): the pixel's own score.
        strength: a of the weight, 0 or more; 0 is the margin alone.
        shares: The mean probabilities of the pool, one for each class; None outside rounds.
    """

    radius: int
    pixel: bool = False
    strength: float = 6.0
    shares: tuple[float, ...] | None = None
    needs_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.radius)
        if not 0.0 <= self.strength < float("inf"):
            raise ConfigError(f"strength {self.strength} must be 0 or more.")

    def survey(self, logits: Tensor) -> NDArray[np.float64]:
        """Return the mean probability of each class over an image, (C,), from its logits (1, C, h, w)."""
        check_logits(logits)
        check_finite(logits)
        shares: NDArray[np.float64] = logits[0].float().softmax(dim=0).double().mean(dim=(1, 2)).cpu().numpy()
        return shares

    def with_pool(self, found: NDArray[np.float64]) -> MarginBalanced:
        """Return the score for a pool of images whose :meth:`survey` is (N, C)."""
        return replace(self, shares=tuple(found.mean(axis=0).tolist()))

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        check_logits(logits)
        check_finite(logits)
        maps = [self._margin(logits[b : b + 1], size) for b in range(len(logits))]
        own_BHW = torch.cat(maps) if maps else torch.empty((0, *size), device=logits.device)
        score_BHW = own_BHW if self.pixel else window_mean(own_BHW, self.radius)
        return ScoreMaps(score_BHW, uncertainty=score_BHW)

    def _margin(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        shares = self.survey(logits) if self.shares is None else np.asarray(self.shares)
        weights = ((self.strength * shares + 1.0) ** -2).tolist()

        def kernel(strip_CRW: Tensor) -> tuple[Tensor, ...]:
            # A running best two, as in Margin; the weight is that of the first class at the maximum.
            first_RW, *others = torch.softmax(strip_CRW, dim=0).unbind(0)
            second_RW, weight_RW = torch.zeros_like(first_RW), torch.full_like(first_RW, weights[0])
            for probs_RW, weight in zip(others, weights[1:], strict=True):
                second_RW = torch.maximum(second_RW, torch.minimum(first_RW, probs_RW))
                weight_RW = weight_RW.masked_fill(probs_RW > first_RW, weight)
                first_RW = torch.maximum(first_RW, probs_RW)
            return ((1.0 - (first_RW - second_RW)) * weight_RW,)

        return map_pixels(logits, size, kernel, (torch.float32,))[0]
