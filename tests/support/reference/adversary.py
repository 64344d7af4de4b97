"""Literal convolutions of a discriminator, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Layer = tuple[np.ndarray, np.ndarray]
"""The weights (out, in, 4, 4) and biases (out,) of a convolution."""


def cells(layers: Sequence[Layer], probs: np.ndarray) -> list[float]:
    """The probability of the target in each cell of images of (B, C, H, W) probabilities, one after the other."""
    found = []
    for values in probs:
        for number, layer in enumerate(layers):
            values = _half(np.where(values < 0, 0.2 * values, values) if number else values, *layer)
        found += [1.0 / (1.0 + math.exp(-one)) for one in values.ravel()]
    return found


def _half(values: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A convolution of 4 x 4 values from one before each second pixel on; outside the image they are 0."""
    rows, columns = -(-values.shape[1] // 2), -(-values.shape[2] // 2)
    outside = np.zeros((len(values), 2 * rows + 2, 2 * columns + 2))
    outside[:, 1 : 1 + values.shape[1], 1 : 1 + values.shape[2]] = values
    found = np.zeros((len(weight), rows, columns))
    for i, j in np.ndindex(rows, columns):
        window = outside[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        found[:, i, j] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return found


def entropy(target: Sequence[float], domain: int) -> float:
    """The mean cross-entropy of a domain, 0 source or 1 target, from probabilities of the target."""
    return sum(-math.log(one if domain else 1.0 - one) for one in target) / len(target)
