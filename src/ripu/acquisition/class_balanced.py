"""Another score, with the picks shared out evenly among the predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ripu.acquisition.interface import Acquisition, ScoreMaps
from ripu.functional import map_entropy_and_label


@dataclass(frozen=True)
class ClassBalanced:
    """The scores of another score; the predicted classes of an image take turns in picking.

    The next pick of an image goes to the class with the fewest picks of this round so far (of equal ones, to that with
    the best place), and is the best place that is left among those predicted as this class, by the other score. So
    every predicted class gets the same number of picks, up to one, until its places run out; its share then goes to the
    others. The class of a place is that of the pixel in its middle (the smallest of equally probable ones), and that of
    most of its pixels for a region of fixed shape. Every round begins anew.

    Attributes:
        score: The score that decides inside each class.
    """

    score: Acquisition
    is_comparable: ClassVar[bool] = False

    @property
    def needs_image(self) -> bool:
        """True if the other score needs the image."""
        return self.score.needs_image

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], **images: Any) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        maps = self.score(logits, size, keys, **images)
        return replace(maps, group=map_entropy_and_label(logits, size)[1])
