"""Superpixels that grow where the network predicts the same (after Adaptive Superpixel)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ripu.io.errors import ConfigError
from ripu.regions.superpixels import Superpixels

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MergedSuperpixels(Superpixels):
    """Superpixels, joined anew in each round with neighbours of which the network predicts the same.

    A superpixel is described by the mean of the predicted probabilities over its pixels. Pairs of superpixels that
    share an edge are visited from the most alike to the least, by the Jensen-Shannon divergence of their descriptions,
    and joined if it is at most ``threshold`` and the region that results is not too large. Superpixels of which
    something was queried already stay as they are. After Adaptive Superpixel (Kim et al., ICCV 2023).

    Attributes:
        threshold: In nats, 0..log 2; 0 joins only superpixels of equal description.
        most_pieces: A region has at most this many times ``pixels`` pixels, unless a single superpixel has more.
    """

    threshold: float = 0.05
    most_pieces: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.threshold <= math.log(2):
            raise ConfigError(f"region.threshold={self.threshold} must lie in 0..{math.log(2):.3f} (nats)")
        if isinstance(self.most_pieces, bool) or not isinstance(self.most_pieces, int) or self.most_pieces < 1:
            raise ConfigError(f"region.most_pieces={self.most_pieces} must be a whole number, 1 or more")

    def merge(
        self, partition_HW: NDArray[np.int32], probs_Chw: NDArray[np.float32], asked_HW: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """Join the pieces of a partition; see :meth:`ripu.regions.RegionShape`."""
        counts_R, means_RC = describe(partition_HW, probs_Chw)
        first_N, second_N = touching(partition_HW)
        is_fixed_R = np.zeros(len(counts_R), dtype=np.bool_)
        is_fixed_R[partition_HW[asked_HW & (partition_HW >= 0)]] = True
        is_open_N = ~(is_fixed_R[first_N] | is_fixed_R[second_N])
        first_N, second_N = first_N[is_open_N], second_N[is_open_N]
        divergence_N = jensen_shannon(means_RC[first_N], means_RC[second_N])
        root, size, most = list(range(len(counts_R))), counts_R.tolist(), self.most_pieces * self.pixels

        def find(number: int) -> int:
            while root[number] != number:
                root[number] = root[root[number]]
                number = root[number]
            return number

        for place in np.argsort(divergence_N, kind="stable")[: int((divergence_N <= self.threshold).sum())].tolist():
            low, high = sorted((find(int(first_N[place])), find(int(second_N[place]))))
            if low != high and size[low] + size[high] <= most:
                root[high], size[low] = low, size[low] + size[high]
        numbers = np.array([find(number) for number in root], dtype=np.int32)
        merged_HW: NDArray[np.int32] = partition_HW.copy()
        is_inside_HW = partition_HW >= 0
        merged_HW[is_inside_HW] = numbers[partition_HW[is_inside_HW]]
        return merged_HW


def describe(partition_HW: NDArray[np.int32], probs_Chw: NDArray[np.float32]) -> tuple[NDArray[np.int64], Array]:
    """Return the pixels of each region, (R,), and the mean probabilities over them, (R, C); zeros for unused numbers.

    A pixel has the probabilities of the nearest one of the prediction.
    """
    (height, width), (h, w) = partition_HW.shape, probs_Chw.shape[1:]
    inside = partition_HW.reshape(-1) >= 0
    numbers = partition_HW.reshape(-1)[inside]
    place = ((np.arange(height) * h // height)[:, None] * w + np.arange(width) * w // width).reshape(-1)[inside]
    counts = np.bincount(numbers, minlength=int(partition_HW.max(initial=-1)) + 1)
    sums = [np.bincount(numbers, probs.reshape(-1)[place], len(counts)) for probs in probs_Chw]
    return counts.astype(np.int64), np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]


def touching(partition_HW: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of regions that share an edge of a pixel, each once, the smaller number first, in order.

    >>> [found.tolist() for found in touching(np.array([[0, 0, 1], [2, 2, -1]], dtype=np.int32))]
    [[0, 0], [1, 2]]
    """
    sides = [(partition_HW[:, :-1], partition_HW[:, 1:]), (partition_HW[:-1], partition_HW[1:])]
    pairs = np.concatenate([np.stack([one.reshape(-1), other.reshape(-1)], axis=1) for one, other in sides])
    pairs = np.sort(pairs[(pairs[:, 0] != pairs[:, 1]) & (pairs.min(axis=1) >= 0)].astype(np.int64), axis=1)
    # One number for each pair: NumPy finds the different ones many times faster than rows.
    first_N, second_N = np.divmod(np.unique(pairs[:, 0] << 32 | pairs[:, 1]), 1 << 32)
    return first_N, second_N


def jensen_shannon(first_NC: Array, second_NC: Array) -> Array:
    """Return the Jensen-Shannon divergence of distributions in nats, (N,) in 0..log 2; exactly 0 for equal ones."""

    def entropy(probs_NC: Array) -> Array:
        summed: Array = -(probs_NC * np.log(np.where(probs_NC > 0, probs_NC, 1.0))).sum(axis=1)
        return summed

    found = entropy((first_NC + second_NC) / 2) - (entropy(first_NC) + entropy(second_NC)) / 2
    return np.where((first_NC == second_NC).all(axis=1), 0.0, np.maximum(found, 0.0))
