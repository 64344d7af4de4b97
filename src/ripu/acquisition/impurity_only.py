"""Region impurity alone (an ablation of Eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import check_radius, map_entropy_and_label, region_impurity


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
        _, label_BHW = map_entropy_and_label(logits, size)
        impurity_BHW = region_impurity(label_BHW, int(logits.shape[1]), self.radius)
        return ScoreMaps(impurity_BHW, impurity=impurity_BHW)
