"""A literal auto-encoder of predictions, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]
"""The weights and biases of its layers, by ``NAME.weight`` and ``NAME.bias``."""


def likely(weights: Weights, probs: np.ndarray, hidden: np.ndarray, side: int) -> np.ndarray:
    """The logits (C, H, W) that it makes of probabilities, those of ``hidden`` cells unknown to it."""
    classes, height, width = probs.shape
    cells = np.zeros((classes, -(-height // side), -(-width // side)))
    for i, j in np.ndindex(*cells.shape[1:]):
        block = probs[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
        cells[:, i, j] = 1.0 / classes if hidden[i, j] else block.mean(axis=(1, 2))
    mean = probs.mean(axis=(1, 2))
    half = leaky(convolved(cells, weights, "first", 2))
    given = weights["condition.weight"] @ mean + weights["condition.bias"]
    quarter = leaky(convolved(half, weights, "second", 2) + given[:, None, None])
    again = leaky(convolved(resized(quarter, half.shape[1:]), weights, "third", 1))
    return resized(convolved(resized(again, cells.shape[1:]), weights, "last", 1), (height, width))


def leaky(values: np.ndarray) -> np.ndarray:
    """The leaky rectifier."""
    return np.where(values < 0, 0.2 * values, values)


def convolved(values: np.ndarray, weights: Weights, name: str, stride: int) -> np.ndarray:
    """A 3 x 3 convolution around every ``stride``-th pixel; outside the image values are 0."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    _, height, width = values.shape
    outside = np.zeros((len(values), height + 2, width + 2))
    outside[:, 1:-1, 1:-1] = values
    found = np.zeros((len(weight), -(-height // stride), -(-width // stride)))
    for i, j in np.ndindex(*found.shape[1:]):
        window = outside[:, stride * i : stride * i + 3, stride * j : stride * j + 3]
        found[:, i, j] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return found


def resized(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Bilinear values at the middles of the pixels of another size."""
    for axis, length in ((1, size[0]), (2, size[1])):
        own = values.shape[axis]
        parts = []
        for place in range(length):
            middle = max(0.0, (place + 0.5) * own / length - 0.5)
            low = min(int(middle), own - 1)
            high, share = min(low + 1, own - 1), middle - int(middle)
            parts.append((1.0 - share) * values.take(low, axis) + share * values.take(high, axis))
        values = np.stack(parts, axis=axis)
    return values
