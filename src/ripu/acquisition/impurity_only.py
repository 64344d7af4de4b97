"""Region impurity alone (an ablation of Eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_radius, entropy_and_label, label_dtype, map_pixels, region_impurity


@dataclass(frozen=True)
class ImpurityOnly:
    """Score P (Eq. 4). Ties, which are many, go by row and column: an uncertain tie break would be U again.

    Attributes:
        radius: k of the window.
    """

    radius: int
    needs_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.radius)

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        num_classes = int(logits.shape[1]) if logits.ndim == 4 else 1
        _, label_BHW = map_pixels(logits, size, entropy_and_label, (torch.float32, label_dtype(num_classes)))
        impurity_BHW = region_impurity(label_BHW, num_classes, self.radius)
        return ScoreMaps(impurity_BHW, impurity=impurity_BHW)
