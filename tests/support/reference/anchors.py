"""Literal loops of class means, anchors and distances, in float64."""

from __future__ import annotations

import numpy as np

from reference.clustering import k_means


def class_means(features: np.ndarray, label: np.ndarray, num_classes: int, min_cells: int) -> list[float]:
    """The mean features of each class, one class after the other; (D, h, w) features, (h, w) label."""
    found: list[float] = []
    for number in range(num_classes):
        cells = [features[:, row, column] for row, column in np.ndindex(*label.shape) if label[row, column] == number]
        if len(cells) < min_cells:
            found += [0.0] * len(features)
        else:
            found += [float(sum(one[axis] for one in cells)) / len(cells) for axis in range(len(features))]
    return found


def anchors(points: list[list[float]], num_anchors: int, key: int) -> list[list[float]]:
    """The means of the clusters, by their first coordinate."""
    owner = k_means(points, num_anchors, key, most_passes=20)
    found = []
    for number in sorted(set(owner)):
        own = [point for point, by in zip(points, owner, strict=True) if by == number]
        found.append([sum(axis) / len(own) for axis in zip(*own, strict=True)])
    return sorted(found, key=lambda anchor: anchor[0])


def distances(point: list[float], anchors: list[list[float]]) -> list[float]:
    """The mean square distance of a point to each anchor."""
    return [sum((a - b) ** 2 for a, b in zip(point, anchor, strict=True)) / len(point) for anchor in anchors]
