"""The radius of an embedding in hyperbolic space times its entropy (HALO, Franco et al. 2024), a variant.

Legend: B batch, C classes, H W size of the maps, h w of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ripu.acquisition.interface import Features, ScoreMaps, size_of
from ripu.acquisition.uncertainty_only import UncertaintyOnly
from ripu.functional import check_radius, map_entropy_and_label, window_mean


@dataclass(frozen=True)
class HyperbolicRadius:
    """Score the distance of a pixel's embedding to the origin of the ball times the entropy of its prediction there.

    Both come from the hyperbolic head of ``method=halo``. Regions (RA) score the mean of the products in their window,
    pixels (PA) their own product. Outside rounds, no head is known, and the score is the entropy of the network.

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA), True for pixels (PA).
        ball: The head, :class:`ripu.methods.halo.Ball`.
    """

    radius: int
    pixel: bool = False
    ball: Any = field(default=None, compare=False, repr=False)
    needs_image: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True
    reads_kept: ClassVar[str] = "ball"
    trained_by: ClassVar[str] = "halo"

    def __post_init__(self) -> None:
        check_radius(self.radius)

    def with_kept(self, kept: Any) -> HyperbolicRadius:
        """Return the score with the head that the objective keeps; a replay knows none."""
        return replace(self, ball=None if kept is None else kept.ball)

    def __call__(
        self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], features: Features | None = None
    ) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        if self.ball is None or features is None:
            return UncertaintyOnly(self.radius, self.pixel)(logits, size, keys)
        own_size = size_of(logits)
        with torch.no_grad():
            head = self.ball(features, own_size)
            far = interpolate(self.ball.radius(features), features.extent, mode="bilinear", align_corners=False)
        entropy_BHW, _ = map_entropy_and_label(head, size)
        far_BHW = interpolate(far[:, :, : own_size[0], : own_size[1]], size, mode="bilinear", align_corners=True)[:, 0]
        score_BHW = far_BHW.mul_(entropy_BHW)
        if not self.pixel:
            score_BHW, entropy_BHW = window_mean(score_BHW, self.radius), window_mean(entropy_BHW, self.radius)
        return ScoreMaps(score_BHW, uncertainty=entropy_BHW)
