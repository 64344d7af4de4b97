"""Places spread over the clusters of an image's colours: a first round that needs no trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps, check_images
from ripu.acquisition.random import RandomScore
from ripu.io.errors import ConfigError

_MOST_PIXELS = 8192  # of the copy that is clustered
_MOST_PASSES = 20


@dataclass(frozen=True)
class ColorClusters:
    """Random scores, the picks shared out evenly among the k-means clusters of the image's colours and places.

    Every image is clustered by itself, on a copy of at most 8,192 pixels. A pixel is described by its colour (CIELAB,
    L in 0..100) and by ``100 * position_weight`` times its row and column over the longer side. Centres begin by
    k-means++ from the key of the image and move at most 20 times (Lloyd). An image of fewer colours and places than
    ``num_clusters`` has fewer clusters. Of the logits, only their number and device matter.

    Attributes:
        num_clusters: k of k-means, 1..256.
        position_weight: Weight of the place against the colour; 0 clusters colours alone.
    """

    num_clusters: int = 16
    position_weight: float = 0.5
    needs_image: ClassVar[bool] = True
    is_comparable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_clusters <= 256:
            raise ConfigError(f"num_clusters {self.num_clusters} must lie in 1..256.")
        if not 0.0 <= self.position_weight < float("inf"):
            raise ConfigError(f"position_weight {self.position_weight} must be 0 or more.")

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int], *, images: Tensor) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`."""
        check_images(images, logits)
        score_BHW = RandomScore()(logits, size, keys).score
        group_BHW = torch.empty(score_BHW.shape, dtype=torch.uint8)
        for group_HW, image, key in zip(group_BHW, images.cpu().numpy(), keys, strict=True):
            group_hw = self.clusters(image, key)
            group_HW.copy_(torch.from_numpy(cv2.resize(group_hw, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)))
        return ScoreMaps(score_BHW, group=group_BHW.to(score_BHW.device))

    def clusters(self, image: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
        """Return the clusters of the small copy of an (H, W, 3) RGB image, (h, w) uint8."""
        height, width = image.shape[:2]
        scale = min(1.0, (_MOST_PIXELS / (height * width)) ** 0.5)
        h, w = max(1, int(height * scale)), max(1, int(width * scale))
        small = cv2.resize(np.ascontiguousarray(image), (w, h), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
        place = np.indices((h, w)).reshape(2, -1).T * (100.0 * self.position_weight / max(h, w))
        return k_means(np.hstack([lab, place]), self.num_clusters, key).reshape(h, w).astype(np.uint8)


def k_means(points_ND: NDArray[np.float64], num_clusters: int, key: int) -> NDArray[np.int64]:
    """Return the cluster of each point, (N,) in 0..num_clusters - 1; the same for the same points and key.

    Centres begin by k-means++ (Arthur and Vassilvitskii, SODA 2007), fewer if no further point differs from them. A
    centre that loses all its points stays where it is, and the nearer of two equally near ones has the lower number.

    >>> k_means(np.array([[0.0], [0.1], [5.0], [5.1]]), 2, key=1).tolist()
    [0, 0, 1, 1]
    """
    draws = np.random.default_rng(key)
    centres = [points_ND[int(draws.integers(len(points_ND)))]]
    nearest_N = np.full(len(points_ND), np.inf)
    while len(centres) < num_clusters:
        nearest_N = np.minimum(nearest_N, ((points_ND - centres[-1]) ** 2).sum(axis=1))
        summed_N = np.cumsum(nearest_N)
        if summed_N[-1] <= 0.0:
            break
        centres.append(points_ND[int(np.searchsorted(summed_N, draws.random() * summed_N[-1], side="right"))])
    centre_KD = np.stack(centres)
    cluster_N = np.full(len(points_ND), -1, dtype=np.int64)
    for _ in range(_MOST_PASSES):
        distance_NK = (centre_KD**2).sum(axis=1) - 2.0 * points_ND @ centre_KD.T
        moved_N = distance_NK.argmin(axis=1)
        if np.array_equal(moved_N, cluster_N):
            break
        cluster_N = moved_N
        is_member_KN = (cluster_N == np.arange(len(centre_KD))[:, None]).astype(np.float64)
        count_K1 = is_member_KN.sum(axis=1, keepdims=True)
        centre_KD = np.where(count_K1 > 0, is_member_KN @ points_ND / np.maximum(count_K1, 1), centre_KD)
    return cluster_N
