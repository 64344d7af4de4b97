"""k-means with plain loops."""

from __future__ import annotations

import numpy as np


def k_means(points: list[list[float]], num_clusters: int, key: int, most_passes: int) -> list[int]:
    """Begin by k-means++, then let each centre move to the mean of its points until nothing changes."""

    def distance(one: list[float], other: list[float]) -> float:
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))

    draws = np.random.default_rng(key)
    centres = [list(points[int(draws.integers(len(points)))])]
    while len(centres) < num_clusters:
        nearest = [min(distance(point, centre) for centre in centres) for point in points]
        if sum(nearest) <= 0:
            break
        limit, summed = draws.random() * sum(nearest), 0.0
        for point, far in zip(points, nearest, strict=True):
            summed += far
            if summed > limit:
                centres.append(list(point))
                break
    owner: list[int] = []
    for _ in range(most_passes):
        found = [
            min(range(len(centres)), key=lambda number, point=point: distance(point, centres[number]))  # type: ignore[misc]
            for point in points
        ]
        if found == owner:
            break
        owner = found
        for number in range(len(centres)):
            own = [point for point, by in zip(points, owner, strict=True) if by == number]
            if own:
                centres[number] = [sum(axis) / len(own) for axis in zip(*own, strict=True)]
    return owner
