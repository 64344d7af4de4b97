"""The terms of the teacher objective as literal float64 loops; nothing shared with the package."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reference.losses import probabilities

Array = NDArray[np.float64]
Ids = NDArray[np.integer]


def pseudo_labels(logits: Array, label: Ids, confidence: float) -> tuple[Ids, Array]:
    """Return the teacher's label of each pixel without a revealed one (255 elsewhere), and its weight."""
    probs = probabilities(logits)
    batch, _, height, width = probs.shape
    pseudo, weight = np.full(label.shape, 255), np.zeros(label.shape)
    for b in range(batch):
        sure = sum(max(probs[b, :, i, j]) > confidence for i in range(height) for j in range(width))
        for i in range(height):
            for j in range(width):
                if label[b, i, j] == 255:
                    pseudo[b, i, j] = int(np.argmax(probs[b, :, i, j]))
                    weight[b, i, j] = sure / (height * width)
    return pseudo, weight


def weighted_ce(logits: Array, label: Ids, weight: Array) -> float:
    """Return the sum of weight x cross-entropy over the labelled pixels, divided by the number of all pixels."""
    probs = probabilities(logits)
    batch, height, width = label.shape
    total = 0.0
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                if label[b, i, j] != 255:
                    total -= weight[b, i, j] * math.log(probs[b, label[b, i, j], i, j])
    return total / (batch * height * width)
