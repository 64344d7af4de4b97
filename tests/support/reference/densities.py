"""Gaussian mixtures and their ratio as literal float64 loops; the clusters that a mixture begins with are given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Components = list[tuple[float, list[float], list[float]]]  # weight, mean and variance of each
Clusters = Callable[[Array, int], NDArray[np.int64]]


def fit(points: Array, clusters: NDArray[np.int64], number: int, passes: int = 20, prior: float = 10.0) -> Components:
    """Return the mixture after so many passes of expectation-maximisation from hard clusters."""
    members = [[1.0 if own == k else 0.0 for k in range(number)] for own in clusters.tolist()]
    components = maximise(points, members, number, prior)
    for _ in range(passes):
        members = []
        for point in points:
            joint = [weight * math.exp(log_gauss(point, mean, variance)) for weight, mean, variance in components]
            members.append([value / sum(joint) for value in joint])
        components = maximise(points, members, number, prior)
    return components


def maximise(points: Array, members: list[list[float]], number: int, prior: float) -> Components:
    components = []
    for k in range(number):
        count = sum(row[k] for row in members)
        mean, variance = [], []
        for d in range(points.shape[1]):
            middle = sum(row[k] * point[d] for row, point in zip(members, points, strict=True)) / count
            spread = sum(row[k] * (point[d] - middle) ** 2 for row, point in zip(members, points, strict=True))
            mean.append(middle)
            variance.append((spread + prior * 1.0) / (count + prior))
        components.append(((count + 1) / (len(points) + number), mean, variance))
    return components


def log_gauss(point: Array, mean: list[float], variance: list[float]) -> float:
    return sum(
        -0.5 * ((x - m) ** 2 / v + math.log(2 * math.pi * v)) for x, m, v in zip(point, mean, variance, strict=True)
    )


def log_density(point: Array, components: Components) -> float:
    return math.log(sum(weight * math.exp(log_gauss(point, mean, variance)) for weight, mean, variance in components))


def log_ratio(points: Array, above: Array, below: Array, clusters: Clusters) -> list[float]:
    """Return log p(point | above) - log p(point | below), in coordinates in which all points are white."""
    every = np.concatenate([above, below])
    count, dimensions = every.shape
    mean = [sum(every[:, d]) / count for d in range(dimensions)]
    covariance = np.zeros((dimensions, dimensions))
    for i in range(dimensions):
        for j in range(dimensions):
            covariance[i, j] = sum((point[i] - mean[i]) * (point[j] - mean[j]) for point in every) / count
    shrinkage = dimensions / (count + dimensions)
    sphere = sum(covariance[d, d] for d in range(dimensions)) / dimensions
    covariance = (1 - shrinkage) * covariance + shrinkage * sphere * np.eye(dimensions)
    lower = np.linalg.cholesky(covariance)

    def white(part: Array) -> Array:
        return np.stack([np.linalg.solve(lower, point - mean) for point in part])

    number = min(max(len(above) // 100, 1), 10)
    mixtures = []
    for part in (white(above), white(below)):
        own = min(number, len(part))
        mixtures.append(fit(part, clusters(part, own), own))
    return [log_density(point, mixtures[0]) - log_density(point, mixtures[1]) for point in white(points)]
