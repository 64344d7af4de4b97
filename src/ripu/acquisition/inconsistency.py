"""The disagreement of two classifiers (LabOR, Shin et al. 2021), a variant.

Legend: B batch, C classes, R rows of a strip, H W size of the maps, h w of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ripu.acquisition.anchors import class_sums
from ripu.acquisition.interface import Features, ScoreMaps, size_of
from ripu.acquisition.uncertainty_only import UncertaintyOnly
from ripu.functional import check_logits, check_radius, label_dtype, map_pixels, window_mean
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class Inconsistency:
    """Score the pixels on which the network and the second classifier of its method do not agree.

    With ``P`` and ``Q`` the probabilities of the two, ``m = 1`` where their most probable classes differ, else 0, and
    ``d = 1/2 sum_c |P_c - Q_c|``: regions (RA) score the window mean of ``m + d``, so that pixels of the mask come
    first. For pixels (PA), the classes that the network predicts take turns. A pixel of the mask scores ``2 - 1/2
    |P - mean P|_2``, where the mean is over pixels of the mask with its class, at the size of the logits: the most
    representative come first. Other pixels score ``d``, so they follow when a class has no pixel in the mask.

    Outside rounds, no second classifier is known, and the score is the entropy.

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA), True for pixels (PA).
        head: Maps :class:`Features` and a size to the logits of the second classifier.
    """

    radius: int
    pixel: bool = False
    head: Any = field(default=None, compare=False, repr=False)
    needs_image: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True
    reads_kept: ClassVar[str] = "head"
    trained_by: ClassVar[str] = "labor"

    def __post_init__(self) -> None:
        check_radius(self.radius)

    @property
    def is_comparable(self) -> bool:
        """False for pixels, whose classes take turns."""
        return not self.pixel

    def with_kept(self, kept: Any) -> Inconsistency:
        """Return the score with the classifier that the objective keeps; a replay knows none."""
        return replace(self, head=None if kept is None else kept.head)

    def __call__(
        self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], features: Features | None = None
    ) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        if self.head is None or features is None:
            return UncertaintyOnly(self.radius, self.pixel)(logits, size, keys)
        check_logits(logits)
        with torch.no_grad():
            second = self.head(features.float(), size_of(logits))
        if second.shape != logits.shape:
            raise ConfigError(
                f"the second classifier gives logits {tuple(second.shape)}, not {tuple(logits.shape)} as the network"
            )
        both = torch.cat([logits.float(), second.float()], dim=1)
        if not self.pixel:
            (own_BHW,) = map_pixels(both, size, _mask_and_distance, (torch.float32,))
            score_BHW = window_mean(own_BHW, self.radius)
            return ScoreMaps(score_BHW, uncertainty=score_BHW)
        parts = [self._points(both[b : b + 1], size) for b in range(len(both))]
        if not parts:
            empty = torch.empty((0, *size), device=logits.device)
            return ScoreMaps(empty, uncertainty=empty, group=empty.to(label_dtype(int(logits.shape[1]))))
        score_BHW, group_BHW = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return ScoreMaps(score_BHW, uncertainty=score_BHW, group=group_BHW)

    @staticmethod
    def _points(both: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return scores and predicted classes of the pixels of an image, each (1, H, W)."""
        num_classes = both.shape[1] // 2
        prototype_CC = prototypes(both)

        def kernel(strip_CRW: Tensor) -> tuple[Tensor, ...]:
            probs_CRW, label_RW, differs_RW, distance_RW = _compare(strip_CRW)
            mean_CRW = prototype_CC[label_RW].permute(2, 0, 1)
            far_RW = (probs_CRW - mean_CRW).square().sum(dim=0).sqrt()
            return torch.where(differs_RW, 2.0 - 0.5 * far_RW, distance_RW), label_RW

        return map_pixels(both, size, kernel, (torch.float32, label_dtype(num_classes)))


def prototypes(both: Tensor) -> Tensor:
    """Return the mean probabilities of the pixels of each predicted class on which two classifiers differ, (C, C).

    Rows are the predicted classes; a row is 0 if no pixel of its class is in the mask.

    Args:
        both: (1, 2 * C, h, w) float32 logits of the first and the second classifier.
    """
    probs_CRW, label_RW, differs_RW, _ = _compare(both[0])
    inside_RW = torch.where(differs_RW, label_RW, 255)
    total_1CC, count_1C = class_sums(probs_CRW[None], inside_RW[None], len(probs_CRW))
    return total_1CC[0] / count_1C[0].clamp(min=1)[:, None]


def _mask_and_distance(strip_CRW: Tensor) -> tuple[Tensor, ...]:
    _, _, differs_RW, distance_RW = _compare(strip_CRW)
    return (differs_RW + distance_RW,)


def _compare(both_CRW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return probabilities and label of the first classifier, where the second one's label differs, and d."""
    first, second = both_CRW.view(2, -1, *both_CRW.shape[1:]).softmax(dim=1)
    label_RW = first.argmax(dim=0)
    return first, label_RW, label_RW != second.argmax(dim=0), 0.5 * (first - second).abs().sum(dim=0)
