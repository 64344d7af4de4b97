"""The entropy of an image times how much it looks like the target to a discriminator (AADA, Su et al. 2020).

Legend: B batch, C classes, H W size of the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.acquisition.uncertainty_only import UncertaintyOnly


@dataclass(frozen=True)
class DomainEntropy:
    """Score a pixel by its entropy times ``D / (1 - D)`` of its image; the mean over an image is its score.

    ``D`` is the probability that a discriminator of predicted probabilities gives to the target. With ``z`` the mean of
    its logits over the image, ``D / (1 - D) = exp(z)``. Outside rounds, no discriminator is known, and the factor is 1.

    Attributes:
        discriminator: Maps probabilities (B, C, h, w) to the logits of the target, (B, 1, h', w').
    """

    discriminator: Any = field(default=None, compare=False, repr=False)
    needs_image: ClassVar[bool] = False
    reads_kept: ClassVar[str] = "discriminator"
    trained_by: ClassVar[str] = "aada"

    def with_kept(self, kept: Any) -> DomainEntropy:
        """Return the score with the discriminator that the objective keeps; a replay knows none."""
        return replace(self, discriminator=None if kept is None else kept.discriminator)

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        entropy_BHW = UncertaintyOnly(0, True)(logits, size, keys).score
        if self.discriminator is None:
            return ScoreMaps(entropy_BHW, uncertainty=entropy_BHW)
        with torch.no_grad():
            ratio_B = self.discriminator(logits.float().softmax(dim=1)).float().mean(dim=(1, 2, 3)).exp()
        return ScoreMaps(entropy_BHW * ratio_B[:, None, None], uncertainty=entropy_BHW)
