"""The distance of an image to the images of the source, by its mean features of each class (MADA, Ning et al. 2021).

Legend: B batch, C classes, D features, H W size of the maps, h w cells of the features, K anchors, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.cells import Cells, check_features, nearest
from ripu.acquisition.color_clusters import k_means
from ripu.acquisition.interface import Features, ScoreMaps, size_of
from ripu.acquisition.uncertainty_only import UncertaintyOnly
from ripu.io.errors import ConfigError


def class_means(values_BDhw: Tensor, label_Bhw: Tensor, num_classes: int, min_cells: int) -> Tensor:
    """Return the mean features of the cells of each class, (B, C * D) float32.

    They are 0 for a class of fewer than ``min_cells`` cells. ``label`` is (B, h, w) integer, 255 for cells of no class.
    """
    sum_BCD, count_BC = class_sums(values_BDhw, label_Bhw, num_classes)
    mean_BCD = sum_BCD / count_BC.clamp(min=1.0)[..., None]
    return (mean_BCD * (count_BC >= min_cells)[..., None]).flatten(1)


def class_sums(values_BDhw: Tensor, label_Bhw: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the sums of the features of the cells of each class, (B, C, D) float32, and their number, (B, C) float32.

    ``label`` is (B, h, w) integer, 255 for cells of no class.
    """
    class_C = torch.arange(num_classes, device=label_Bhw.device)
    member_BCM = (label_Bhw.flatten(1)[:, None] == class_C[:, None]).float()
    return weighted_sums(member_BCM, values_BDhw), member_BCM.sum(dim=2)


def weighted_sums(weight_BCM: Tensor, values_BDhw: Tensor) -> Tensor:
    """Return the sums of the features of the cells, M of them, by the weights of each class, (B, C, D) float32.

    In mixed precision, too: half a precision would round the sums over many cells, or overflow.
    """
    with torch.autocast(values_BDhw.device.type, enabled=False):
        return weight_BCM.float() @ values_BDhw.float().flatten(2).transpose(1, 2)


def label_of_cells(logits: Tensor, features: Features) -> Tensor:
    """Return the predicted class in the middle of each cell, (B, h, w) uint8; 255 for cells outside the image."""
    return at_cells(logits.detach().argmax(dim=1).to(torch.uint8), features)


def at_cells(label_BHW: Tensor, features: Features) -> Tensor:
    """Return the label in the middle of each cell, (B, h, w); 255 for cells outside the image."""
    cells = Cells.of(features, size_of(label_BHW))
    label = label_BHW[:, torch.from_numpy(cells.rows)[:, None], torch.from_numpy(cells.columns)]
    label[:, cells.inside[0] :], label[:, :, cells.inside[1] :] = 255, 255
    return label


def anchors_of(points_ND: NDArray[np.floating[Any]], num_anchors: int, key: int) -> NDArray[np.float64]:
    """Return the means of the k-means clusters of points, (K, D) float64; fewer points are all anchors, in turn.

    >>> anchors_of(np.array([[0.0], [1.0], [8.0]]), 2, key=0).ravel().tolist()
    [0.5, 8.0]
    >>> anchors_of(np.array([[0.0], [1.0]]), 3, key=0).ravel().tolist()
    [0.0, 1.0, 0.0]
    """
    exact_ND = points_ND.astype(np.float64)
    if len(exact_ND) <= num_anchors:
        return exact_ND[np.arange(num_anchors) % len(exact_ND)]
    cluster_N = k_means(exact_ND, num_anchors, key)
    numbers = np.unique(cluster_N)  # fewer if points are the same
    means_KD = np.stack([exact_ND[cluster_N == number].mean(axis=0) for number in numbers])
    return means_KD[np.argsort(means_KD[:, 0], kind="stable")][np.arange(num_anchors) % len(numbers)]


@dataclass(frozen=True)
class AnchorDistance:
    """Score an image by the smallest mean square distance of its class means to ``num_anchors`` anchors of the source.

    The anchors are the means of the k-means clusters of the class means of at most ``source_images`` source images,
    whose cells belong to the class of their label; those of the target belong to the predicted class. The score is the
    same for all pixels of an image, so it is one for whole images (``mode=images``).

    Outside rounds, no anchor is known, and the score is the mean uncertainty of the image.

    Attributes:
        num_anchors: K.
        min_cells: Classes of fewer cells count as missing, with features of 0.
        source_images: The most source images that a round reads, evenly spread.
        seed: Of k-means.
        anchors: (K, C * D) float64; None outside rounds.
    """

    num_anchors: int = 10
    min_cells: int = 10
    source_images: int = 500
    seed: int = 31
    anchors: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    needs_image: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True
    is_of_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("num_anchors", "min_cells", "source_images"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} {value} must be 1 or more.")

    def survey_source(self, logits: Tensor, features: Features, label: Tensor) -> NDArray[np.float32]:
        """Return the class means of a source image by its label, (C * D,)."""
        check_features(logits, features)
        cells = Cells.of(features, size_of(logits))
        known = label.cpu().numpy()
        rows = nearest(cells.rows, int(logits.shape[2]), known.shape[0])
        columns = nearest(cells.columns, int(logits.shape[3]), known.shape[1])
        own = known[np.ix_(rows, columns)].copy()
        own[cells.inside[0] :], own[:, cells.inside[1] :] = 255, 255
        own_1hw = torch.from_numpy(own)[None].to(logits.device)
        means = class_means(features.values, own_1hw, int(logits.shape[1]), self.min_cells)
        found: NDArray[np.float32] = means[0].cpu().numpy()
        return found

    def with_source(self, found: NDArray[np.float32]) -> AnchorDistance:
        """Return the score for a source whose :meth:`survey_source` is (N, C * D)."""
        return replace(self, anchors=anchors_of(found, self.num_anchors, self.seed))

    def __call__(
        self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], *, features: Features | None = None
    ) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        uncertainty_BHW = UncertaintyOnly(0, True)(logits, size, keys).score
        if self.anchors is None:
            score_B = uncertainty_BHW.mean(dim=(1, 2))
        else:
            assert features is not None
            check_features(logits, features)
            label = label_of_cells(logits, features)
            means = class_means(features.values, label, int(logits.shape[1]), self.min_cells)
            anchors = torch.from_numpy(self.anchors).float().to(means.device)
            score_B = mean_square(means, anchors).amin(dim=1)
        return ScoreMaps(score_B[:, None, None].expand_as(uncertainty_BHW), uncertainty=uncertainty_BHW)


def mean_square(means_BD: Tensor, anchor_KD: Tensor) -> Tensor:
    """Return the mean square distance of each image to each anchor, (B, K)."""
    return torch.stack([(means_BD - anchor_D).square().mean(dim=1) for anchor_D in anchor_KD], dim=1)
