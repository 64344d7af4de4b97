"""The densities of two sets of points as Gaussian mixtures, and the logarithm of their ratio; float64, no BLAS.

Sums run in a fixed order on one core, so the numbers do not depend on the number of threads or processes.

Legend: N points, D dimensions, K components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ripu.acquisition.color_clusters import k_means

Array = NDArray[np.float64]

PASSES = 20
"""Passes of expectation-maximisation; a fixed number, so that nothing depends on a tolerance."""

PRIOR = 10.0
"""Points of variance 1 that every component has beside its own; variances stay away from 0."""

MOST_COMPONENTS, POINTS_EACH = 10, 100


@dataclass(frozen=True)
class Mixture:
    """Gaussians with a variance of their own in each dimension.

    Attributes:
        weight_K: Their shares.
        mean_KD, variance_KD: Of each.
    """

    weight_K: Array
    mean_KD: Array
    variance_KD: Array

    @classmethod
    def of(cls, points_ND: Array, num_components: int, key: int) -> Mixture:
        """Fit a mixture to points that have variance 1 about, from the k-means clusters of ``key``."""
        cluster_N = k_means(points_ND, num_components, key)
        member_NK = np.eye(num_components)[cluster_N]
        mixture = cls._of_members(points_ND, member_NK)
        for _ in range(PASSES):
            joint_NK = mixture._joint(points_ND)
            member_NK = np.exp(joint_NK - _log_sum(joint_NK)[:, None])
            mixture = cls._of_members(points_ND, member_NK)
        return mixture

    @classmethod
    def _of_members(cls, points_ND: Array, member_NK: Array) -> Mixture:
        count_K = member_NK.sum(axis=0)
        mean_KD = np.einsum("nk,nd->kd", member_NK, points_ND) / np.maximum(count_K, 1e-9)[:, None]
        square_KD = np.einsum("nk,nd->kd", member_NK, points_ND**2) - count_K[:, None] * mean_KD**2
        variance_KD = (np.maximum(square_KD, 0.0) + PRIOR) / (count_K + PRIOR)[:, None]
        return cls((count_K + 1.0) / (len(points_ND) + len(count_K)), mean_KD, variance_KD)

    def log_density(self, points_ND: Array) -> Array:
        """Return the logarithm of the density of each point, (N,), up to a constant that all mixtures share."""
        return _log_sum(self._joint(points_ND))

    def _joint(self, points_ND: Array) -> Array:
        inverse_KD = 1.0 / self.variance_KD
        distance_NK = np.einsum("nd,kd->nk", points_ND**2, inverse_KD)
        distance_NK -= 2.0 * np.einsum("nd,kd->nk", points_ND, self.mean_KD * inverse_KD)
        constant_K = (self.mean_KD**2 * inverse_KD).sum(axis=1) + np.log(self.variance_KD).sum(axis=1)
        joint_NK: Array = np.log(self.weight_K) - 0.5 * (distance_NK + constant_K)
        return joint_NK


@dataclass(frozen=True)
class DensityPair:
    """The densities of points above and below, in coordinates in which both together have covariance 1.

    Attributes:
        mean_D: Of all points.
        transform_DD: To those coordinates, from the left.
        above, below: The mixtures.
    """

    mean_D: Array
    transform_DD: Array
    above: Mixture
    below: Mixture

    @classmethod
    def of(cls, above_ND: Array, below_ND: Array, key: int) -> DensityPair:
        """Fit both densities; each needs a point.

        Both get a component for every 100 points above, at least 1 and at most 10. The covariance of all points is
        shrunk towards that of a sphere, by ``D / (N + D)``.
        """
        points_ND = np.concatenate([above_ND, below_ND])
        num_points, num_dimensions = points_ND.shape
        mean_D = points_ND.mean(axis=0)
        covariance_DD = np.einsum("ni,nj->ij", points_ND - mean_D, points_ND - mean_D) / num_points
        shrinkage = num_dimensions / (num_points + num_dimensions)
        sphere = max(float(np.trace(covariance_DD)) / num_dimensions, 1e-12)
        covariance_DD = (1.0 - shrinkage) * covariance_DD + shrinkage * sphere * np.eye(num_dimensions)
        transform_DD = np.linalg.inv(np.linalg.cholesky(covariance_DD))
        num_components = min(max(len(above_ND) // POINTS_EACH, 1), MOST_COMPONENTS)
        mixtures = [
            Mixture.of(_moved(part_ND, mean_D, transform_DD), min(num_components, len(part_ND)), key)
            for part_ND in (above_ND, below_ND)
        ]
        return cls(mean_D, transform_DD, *mixtures)

    def log_ratio(self, points_ND: Array) -> Array:
        """Return the logarithm of the density above over that below at each point, (N,)."""
        moved_ND = _moved(points_ND, self.mean_D, self.transform_DD)
        return self.above.log_density(moved_ND) - self.below.log_density(moved_ND)


def _moved(points_ND: Array, mean_D: Array, transform_DD: Array) -> Array:
    moved_ND: Array = np.einsum("nd,ed->ne", points_ND - mean_D, transform_DD)
    return moved_ND


def _log_sum(values_NK: Array) -> Array:
    highest_N = values_NK.max(axis=1)
    summed_N: Array = np.log(np.exp(values_NK - highest_N[:, None]).sum(axis=1)) + highest_N
    return summed_N
