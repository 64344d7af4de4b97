"""Prediction uncertainty alone (an ablation of Eq. 6)."""

from __future__ import annotations

from torch import Tensor

from ripu.acquisition.interface import PixelwiseScore
from ripu.functional import entropy_and_label


class UncertaintyOnly(PixelwiseScore):
    """Score U in nats: the window mean of the pixel entropy (RA, Eq. 5) or the pixel's own entropy (PA)."""

    @staticmethod
    def of_pixels(strip_CRW: Tensor) -> Tensor:
        """Return the entropy in nats."""
        return entropy_and_label(strip_CRW)[0]
