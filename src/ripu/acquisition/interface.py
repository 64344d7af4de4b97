"""The interface of a score: its call and the maps that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True)
class ScoreMaps:
    """Maps at the size of the labels, on the device of the logits.

    Attributes:
        score: (B, H, W) float32; the highest are picked.
        tie_break: (B, H, W) float32; of equal scores the larger one wins. None: row, then column decide.
        impurity: (B, H, W) float32 nats (Eq. 4), for reports; None if the score does not use it.
        uncertainty: (B, H, W) float32 (Eq. 5 or the pixel's own), for reports; None if the score does not use it.
    """

    score: Tensor
    tie_break: Tensor | None = None
    impurity: Tensor | None = None
    uncertainty: Tensor | None = None


class Acquisition(Protocol):
    """A score: logits in, maps out. One file and one ``conf/acquisition/*.yaml`` make a new one.

    Attributes:
        needs_image: True if the call needs ``images``: uint8 (B, h, w, 3) RGB at any size.
    """

    needs_image: ClassVar[bool]

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], **images: Any) -> ScoreMaps:
        """Score a batch.

        Args:
            logits: (B, C, h, w) floating; up-sampled once to ``size`` (bilinear, align_corners).
            size: (H, W) of the labels.
            keys: One non-negative integer below 2**64 per image, a function of seed, round and image alone. Only random
                scores read it: the same key gives the same map on any device and in any batch.
            **images: ``images`` if ``needs_image``, nothing otherwise.

        Raises:
            ValueError: Logits of a wrong shape or not finite; the message names the batch positions.
        """
        ...
