"""The density of the target over that of the source where a place lies in the features of the network (D2ADA).

Wu et al., D2ADA, ECCV 2022: per predicted class, Gaussian mixtures of the features of both domains; first the places
that the target has and the source has not, later the uncertain ones.

Legend: B batch, C classes, D features, E projected features, H W size of the maps, h w cells of the features, N images,
S samples of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.cells import Cells, check_features, nearest
from ripu.acquisition.gaussian_mixtures import DensityPair
from ripu.acquisition.interface import Acquisition, Features, ScoreMaps, size_of
from ripu.acquisition.nested import arguments_of
from ripu.acquisition.uncertainty_only import UncertaintyOnly
from ripu.functional import check_radius, window_mean
from ripu.io.errors import ConfigError

_MOST_POINTS = 4000  # of a class and a domain that a mixture is fitted to, spread over the images
_NONE = -1.0  # class of a sample that is none


@dataclass(frozen=True)
class DensityRatio:
    """Score log p_target(f | c) - log p_source(f | c), f the features of a place and c its predicted class.

    ``f`` is what the classifier of the network reads, in one of its cells, projected at random (signs, Achlioptas 2003)
    to ``dimensions`` numbers. A round looks at ``samples`` cells of every target image, which belong to the predicted
    class, and of at most ``source_images`` source images, which belong to the class of their label; see
    :class:`ripu.acquisition.gaussian_mixtures.DensityPair` for the densities. A class that is missing in the samples of
    either domain has score 0. Maps of cells are up-sampled (bilinear). Ties go to the larger uncertainty. Scores of
    different classes are hardly comparable, so let classes take turns (:class:`ripu.acquisition.ClassBalanced`).

    Outside rounds nothing is known, and the score is 0 everywhere.

    Attributes:
        radius: k of the window; not used for pixels.
        pixel: False for regions (RA): the window mean. True for pixels (PA): the pixel's own score.
        dimensions: Of the projected features; networks with fewer features keep their own.
        samples: S.
        source_images: The most source images that a round reads, evenly spread.
        source: The samples of the source, (N * S, 1 + E): class and features; None until a round has read them.
        pairs: The densities of each class; None outside rounds.
    """

    radius: int
    pixel: bool = False
    dimensions: int = 32
    samples: int = 128
    source_images: int = 500
    source: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    pairs: dict[int, DensityPair] | None = field(default=None, compare=False, repr=False)
    needs_image: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_radius(self.radius)
        for name in ("dimensions", "samples", "source_images"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} {value} must be 1 or more.")

    def survey_source(self, logits: Tensor, features: Features, label: Tensor) -> NDArray[np.float64]:
        """Return the samples of a source image, (S, 1 + E): class of the label and features."""
        return self._samples(logits, features, label)

    def with_source(self, found: NDArray[np.float64]) -> DensityRatio:
        """Return the score for a source whose :meth:`survey_source` is (N, S, 1 + E)."""
        return replace(self, source=found.reshape(-1, found.shape[-1]))

    def survey(self, logits: Tensor, features: Features) -> NDArray[np.float64]:
        """Return the samples of a target image, (S, 1 + E): predicted class and features."""
        return self._samples(logits, features, None)

    def with_pool(self, found: NDArray[np.float64]) -> DensityRatio:
        """Return the score for a pool of images whose :meth:`survey` is (N, S, 1 + E)."""
        target = found.reshape(-1, found.shape[-1])
        source = target[:0] if self.source is None else self.source  # outside rounds
        pairs = {}
        for number in np.unique(target[:, 0][target[:, 0] >= 0]).astype(int).tolist():
            above, below = (_spread(part[part[:, 0] == number][:, 1:]) for part in (target, source))
            if len(below):
                pairs[number] = DensityPair.of(above, below, number)
        return replace(self, source=None, pairs=pairs)

    def _samples(self, logits: Tensor, features: Features, label: Tensor | None) -> NDArray[np.float64]:
        check_features(logits, features)
        cells = Cells.of(features, size_of(logits))
        row_S, column_S = cells.spread(self.samples)
        if label is None:
            class_S = logits[0][:, cells.rows[row_S], cells.columns[column_S]].argmax(dim=0).cpu().numpy()
        else:
            known = label.cpu().numpy()
            rows = nearest(cells.rows[row_S], int(logits.shape[2]), label.shape[0])
            columns = nearest(cells.columns[column_S], int(logits.shape[3]), label.shape[1])
            class_S = np.where(known[rows, columns] == 255, _NONE, known[rows, columns])
        values_SE = self._projected(features.values[0][:, row_S, column_S])
        sampled = np.full((self.samples, 1 + values_SE.shape[1]), _NONE)
        sampled[: len(class_S), 0], sampled[: len(class_S), 1:] = class_S, values_SE
        return sampled

    def _projected(self, values: Tensor) -> NDArray[np.float64]:
        """Return features (D, cells) as (cells, E) float64."""
        values = values.float()
        if len(values) > self.dimensions:
            values = _signs(self.dimensions, len(values)).to(values.device) @ values
        return values.T.double().cpu().numpy()

    def __call__(
        self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], *, features: Features | None = None
    ) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        uncertainty_BHW = UncertaintyOnly(self.radius, self.pixel)(logits, size, keys).score
        if self.pairs is None:
            return ScoreMaps(torch.zeros_like(uncertainty_BHW), tie_break=uncertainty_BHW, uncertainty=uncertainty_BHW)
        assert features is not None
        maps = [self._ratio(logits[b : b + 1], size, features.of_image(b)) for b in range(len(logits))]
        own_BHW = torch.cat(maps) if maps else torch.empty_like(uncertainty_BHW)
        score_BHW = own_BHW if self.pixel else window_mean(own_BHW, self.radius)
        return ScoreMaps(score_BHW, tie_break=uncertainty_BHW, uncertainty=uncertainty_BHW)

    def _ratio(self, logits: Tensor, size: tuple[int, int], features: Features) -> Tensor:
        """Return the score of the pixels of an image, (1, H, W)."""
        assert self.pairs is not None
        check_features(logits, features)
        small = size_of(logits)
        cells = Cells.of(features, small)
        class_hw = logits[0][:, torch.from_numpy(cells.rows)[:, None], torch.from_numpy(cells.columns)].argmax(dim=0)
        class_M = class_hw.cpu().numpy().reshape(-1)
        values_ME = self._projected(features.values[0].flatten(1))
        ratio_M = np.zeros(len(class_M))
        for number, pair in self.pairs.items():
            is_own_M = class_M == number
            if is_own_M.any():
                ratio_M[is_own_M] = pair.log_ratio(values_ME[is_own_M])
        ratio = torch.from_numpy(ratio_M).float().reshape(1, 1, *class_hw.shape).to(logits.device)
        covered = F.interpolate(ratio, features.extent, mode="bilinear", align_corners=False)
        own = covered[:, :, : small[0], : small[1]]
        return F.interpolate(own, size, mode="bilinear", align_corners=True)[:, 0]


@dataclass(frozen=True)
class DensityToUncertain:
    """Two scores that share out the picks of every image: at first the densest, later the most uncertain (D2ADA).

    In round r, counted from 0, the share of ``density`` is ``2 ** (-decay * r)`` and it picks first; ``uncertainty``
    picks from what is left. Outside rounds, it is ``uncertainty``.

    Attributes:
        density: The score of the first rounds.
        uncertainty: The score of the last ones.
        decay: beta of the schedule, 0 or more; 0 never changes over.
        share: The share of ``density`` in this round; 0 outside rounds.
    """

    density: Acquisition
    uncertainty: Acquisition
    decay: float = 1.0
    share: float = 0.0
    is_comparable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < float("inf"):
            raise ConfigError(f"decay {self.decay} must be 0 or more.")

    @property
    def needs_image(self) -> bool:
        """True if one of the scores needs the image."""
        return self.density.needs_image or self.uncertainty.needs_image

    def for_round(self, index: int, num_rounds: int) -> DensityToUncertain:
        """Return the score with the share of a round, counted from 0."""
        return replace(self, share=2.0 ** (-self.decay * index))

    def split(self) -> list[tuple[float, Acquisition]]:
        """Return the scores that pick, in their order, each with its share of the picks."""
        parts = [(self.share, self.density), (1.0 - self.share, self.uncertainty)]
        return [(share, score) for share, score in parts if share > 0.0]

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], **more: Any) -> ScoreMaps:
        """Score a batch by the score with the larger share; see :class:`ripu.acquisition.Acquisition`."""
        _, score = max(self.split(), key=lambda part: part[0])
        return score(logits, size, keys, **arguments_of(score, more))


def _spread(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most :data:`_MOST_POINTS` of the points, evenly spread."""
    if len(points) <= _MOST_POINTS:
        return points
    return points[np.arange(_MOST_POINTS) * len(points) // _MOST_POINTS]


@lru_cache(maxsize=8)
def _signs(rows: int, columns: int) -> Tensor:
    """Return a matrix of random signs over the root of ``columns``, always the same."""
    drawn = np.random.default_rng(0).integers(0, 2, (rows, columns)) * 2 - 1
    signs: Tensor = torch.from_numpy(drawn).float() / columns**0.5
    return signs
