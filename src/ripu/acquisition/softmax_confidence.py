"""Least confidence: one minus the largest probability."""

from __future__ import annotations

import torch
from torch import Tensor

from ripu.acquisition.interface import PixelwiseScore


class SoftmaxConfidence(PixelwiseScore):
    """Score 1 - max_c P_c (SCONF)."""

    @staticmethod
    def of_pixels(strip_CRW: Tensor) -> Tensor:
        """Return the lack of confidence."""
        return 1.0 - torch.softmax(strip_CRW, dim=0).amax(dim=0)
