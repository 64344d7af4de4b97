"""Margin: how close the second class comes to the first."""

from __future__ import annotations

import torch
from torch import Tensor

from ripu.acquisition.interface import PixelwiseScore


class Margin(PixelwiseScore):
    """Score 1 - (P_1st - P_2nd) in [0, 1]; 0 with one class."""

    @staticmethod
    def of_pixels(strip_CRW: Tensor) -> Tensor:
        """Return the closeness of the best two classes."""
        # A running best two: topk over planes is many times slower.
        first_RW, *others = torch.softmax(strip_CRW, dim=0).unbind(0)
        second_RW = torch.zeros_like(first_RW)
        for probs_RW in others:
            second_RW = torch.maximum(second_RW, torch.minimum(first_RW, probs_RW))
            first_RW = torch.maximum(first_RW, probs_RW)
        return 1.0 - (first_RW - second_RW)
