"""The interface of a score: its call and the maps that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ripu.functional import check_radius, map_pixels, window_mean
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class ScoreMaps:
    """Maps at the size of the labels, on the device of the logits; all (B, H, W), float32 but for the groups.

    Attributes:
        score: The highest are picked.
        tie_break: Of equal scores the larger one wins. None: row, then column decide.
        impurity: In nats (Eq. 4), for reports; None if the score does not use it.
        uncertainty: Eq. 5 or the pixel's own, for reports; None if the score does not use it.
        group: Groups that take turns in picking, integers; None: the highest scores are picked, wherever they lie.
    """

    score: Tensor
    tie_break: Tensor | None = None
    impurity: Tensor | None = None
    uncertainty: Tensor | None = None
    group: Tensor | None = None


@dataclass(frozen=True)
class Features:
    """The features that the classifier of a network reads.

    Attributes:
        values: (B, D, h, w) floating.
        extent: (height, width) that the cells cover, in pixels of the logits: the image, and what the network adds
            below and to the right of it.
    """

    values: Tensor
    extent: tuple[int, int]

    def of_image(self, number: int) -> Features:
        """Return the features of one image of the batch."""
        return Features(self.values[number : number + 1], self.extent)

    def float(self) -> Features:
        """Return the features in float32; a network in mixed precision gives halves of it."""
        return Features(self.values.float(), self.extent)


def size_of(maps: Tensor) -> tuple[int, int]:
    """Return the (height, width) of maps (..., H, W)."""
    return int(maps.shape[-2]), int(maps.shape[-1])


def check_images(images: Tensor, logits: Tensor) -> None:
    """Refuse images that are not uint8 RGB, one for each of the logits."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8 or len(images) != len(logits):
        raise ConfigError(
            f"images must be uint8 RGB ({len(logits)}, h, w, 3), not {tuple(images.shape)} of {images.dtype}."
        )


class Acquisition(Protocol):
    """A score: logits in, maps out. One file and one ``conf/acquisition/*.yaml`` make a new one.

    Attributes:
        needs_image: True if the call needs ``images``: uint8 (B, h, w, 3) RGB at any size.

    A score may have more members:

    - ``is_comparable``: False if scores of different images cannot be compared, e.g. because groups take turns; such a
      score needs a budget for each image. Without it, they can.
    - ``is_of_images``: True if all places of an image have the same score, which only ``mode=images`` has a use for.
    - ``for_round(index, num_rounds)`` returns the score that a round, counted from 0, uses in its place.
    - ``survey(logits)`` returns what it wants to know of one image of the pool, from logits (1, C, h, w) without
      gradient, as float64 of one shape; ``with_pool(found)`` returns the score that knows them all, stacked in the
      order of the images. A round surveys the pool before it scores the first image, in a pass of its own.
    - ``needs_features``: True if the call and ``survey`` need ``features``, :class:`Features` of the same images.
      Rounds give them; outside rounds, the call does without.
    - ``survey_source(logits, features, label)`` and ``with_source(found)``: the same as ``survey`` for the images of
      the source, with their labels, (H, W) uint8 at any size. A round does this first, with at most ``source_images``
      of them. Runs without a source refuse such a score.
    - ``with_kept(kept)`` returns the score that knows what the objective of the run keeps beside the network, e.g. a
      discriminator (:class:`ripu.objectives.Objective`); in rounds it is called first. ``reads_kept`` names the part
      that it needs, and ``trained_by`` a method that keeps it; runs of methods that do not refuse such a score.
    - ``split()`` returns pairs of a share and a score: each of these scores picks its share of every image, in this
      order. Such a score needs a budget for each image, and no other score may contain it.
    - Fields that are scores themselves: all of this reaches them, too. One with the field ``score`` and the method
      ``rescore(values, key)`` says what its scores are where the other score has certain values; regions of fixed shape
      need it.
    """

    @property
    def needs_image(self) -> bool:
        """See above; usually a constant of the class."""

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], **images: Any) -> ScoreMaps:
        """Score a batch.

        Args:
            logits: (B, C, h, w) floating; up-sampled once to ``size`` (bilinear, align_corners).
            size: (H, W) of the labels.
            keys: One non-negative integer below 2**64 per image, a function of seed, round and image alone. Only random
                scores read it: the same key gives the same map on any device and in any batch.
            **images: ``images`` if ``needs_image``, ``features`` in rounds if ``needs_features``, nothing otherwise.

        Raises:
            ValueError: Logits of a wrong shape or not finite; the message names the batch positions.
        """
        ...


@dataclass(frozen=True)
class PixelwiseScore:
    """A score of single pixels, averaged over windows; a subclass defines :meth:`of_pixels` and nothing else.

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA): the window mean. True for pixels (PA): the pixel's own score.
    """

    radius: int
    pixel: bool = False
    needs_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.radius)

    @staticmethod
    def of_pixels(strip_CRW: Tensor) -> Tensor:
        """Return the (R, W) scores of the pixels of a strip of float32 logits, which it may overwrite."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`Acquisition`."""
        (own_BHW,) = map_pixels(logits, size, lambda strip_CRW: (self.of_pixels(strip_CRW),), (torch.float32,))
        score_BHW = own_BHW if self.pixel else window_mean(own_BHW, self.radius)
        return ScoreMaps(score_BHW, uncertainty=score_BHW)
