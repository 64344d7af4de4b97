"""Random draws among the most uncertain places (PixelPick), in all rounds alike or moving from random to uncertain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ripu.acquisition.interface import Acquisition, ScoreMaps
from ripu.acquisition.random import uniform_map
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class PixelPick:
    """A random draw from the top share of an image by another score (Shin et al., ICCV 2021 workshops).

    With ``n = ceil(fraction * H * W)``, a place is in the top if fewer than n places have a higher score; so places
    that tie at the threshold are all in, and there is at least one. The top is drawn from uniformly. Only where it runs
    out, e.g. because of earlier picks, do the others follow, by their score.

    Attributes:
        score: The score that the top is taken by.
        fraction: The share of the image, in (0, 1]; 1 is purely random.
    """

    score: Acquisition
    fraction: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction {self.fraction} must lie in (0, 1].")

    @property
    def needs_image(self) -> bool:
        """True if the other score needs the image."""
        return self.score.needs_image

    @property
    def is_comparable(self) -> bool:
        """True if the scores of different images can be compared."""
        return getattr(self.score, "is_comparable", True)

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], **images: Any) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`. Draws are numbers in [0, 1), all others below."""
        maps = self.score(logits, size, keys, **images)
        drawn = [self.rescore(values_HW, key) for values_HW, key in zip(maps.score, keys, strict=True)]
        return replace(maps, score=torch.stack(drawn) if drawn else maps.score)

    def rescore(self, value: Tensor, key: int) -> Tensor:
        """Return the scores of places with these values of the other score, as float32 of the same shape.

        >>> PixelPick(None, 0.5).rescore(torch.tensor([3.0, 1.0, 2.0, 2.0]), key=7).gt(0).tolist()
        [True, False, True, True]
        """
        rank = math.ceil(round(self.fraction * value.numel(), 9))
        lowest = value.flatten().topk(rank).values[-1]
        uniform = uniform_map(key, (1, value.numel()), value.device).reshape(value.shape)
        return torch.where(value >= lowest, uniform, value - lowest - 1.0).float()


@dataclass(frozen=True)
class DiverseToUncertain(PixelPick):
    """:class:`PixelPick` from a top share that shrinks from round to round: first random, in the end uncertain.

    In round r (from 0) of R, the top share is ``fraction ** (r / (R - 1))``: 1, i.e. purely random, in the first round,
    and ``fraction`` in the last one. A single round is random. Outside rounds, it is as in the last one.

    Attributes:
        fraction: The share of the image in the last round, in (0, 1].
    """

    fraction: float = 0.01

    def for_round(self, index: int, num_rounds: int) -> DiverseToUncertain:
        """Return the score with the share of a round, counted from 0."""
        return replace(self, fraction=self.fraction ** (index / max(1, num_rounds - 1)))
