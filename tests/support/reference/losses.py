"""Equations (8)-(11) as literal float64 loops; slow on purpose, nothing shared with the package.

Logits are (B, C, H, W), labels (B, H, W) with 255 = no label.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def probabilities(logits: Array) -> Array:
    """Softmax over the classes."""
    batch, classes, height, width = logits.shape
    result = np.zeros(logits.shape)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                values = [float(logits[b, c, i, j]) for c in range(classes)]
                powers = [math.exp(value - max(values)) for value in values]
                for c in range(classes):
                    result[b, c, i, j] = powers[c] / sum(powers)
    return result


def supervised(logits: Array, label: NDArray[np.integer], average: str, balance: float = 0.0) -> float:
    """Eq. (8), with weights of classes."""
    probs = probabilities(logits)
    batch, height, width = label.shape
    ids = [int(value) for value in label.flatten() if value != 255]
    weights = {c: ids.count(c) ** -balance for c in set(ids)}
    scale = len(ids) / sum(weights[c] for c in ids) if ids else 0.0
    total, labelled = 0.0, 0
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                if label[b, i, j] != 255:
                    weight = scale * weights[int(label[b, i, j])]
                    total -= weight * math.log(probs[b, label[b, i, j], i, j])
                    labelled += 1
    count = labelled if average == "labelled" else batch * height * width
    return total / count if count else 0.0


def boundary(label: NDArray[np.integer], detector: str) -> NDArray[np.bool_]:
    """Which pixels lie on a label boundary."""
    batch, height, width = label.shape
    result = np.zeros(label.shape, dtype=bool)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                own = int(label[b, i, j])
                laplacian, differs = 0, False
                for u in range(i - 1, i + 2):
                    for v in range(j - 1, j + 2):
                        is_inside = 0 <= u < height and 0 <= v < width
                        other = int(label[b, u, v]) if is_inside else 0
                        laplacian += own - other
                        differs |= is_inside and other != own
                result[b, i, j] = own != 255 and (differs if detector == "neighbors" else laplacian != 0)
    return result


def consistency(logits: Array, label: NDArray[np.integer], boundary_only: bool, detector: str, border: str) -> float:
    """Eq. (9)."""
    probs = probabilities(logits)
    batch, classes, height, width = logits.shape
    mask = boundary(label, detector)
    total, count = 0.0, 0
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                if boundary_only and not mask[b, i, j]:
                    continue
                window = [(u, v) for u in range(i - 1, i + 2) for v in range(j - 1, j + 2)]
                if border == "clip":
                    window = [(u, v) for u, v in window if 0 <= u < height and 0 <= v < width]
                else:
                    window = [(min(max(u, 0), height - 1), min(max(v, 0), width - 1)) for u, v in window]
                for c in range(classes):
                    mean = sum(float(probs[b, c, u, v]) for u, v in window) / len(window)
                    total += abs(float(probs[b, c, i, j]) - mean)
                count += 1
    return total / count if count else 0.0


def negative(logits: Array, threshold: float, epsilon: float = 0.0) -> float:
    """Eq. (10) and (11)."""
    total, count = 0.0, 0
    for prob in probabilities(logits).ravel():
        if prob < threshold:
            total -= math.log(1.0 - prob + epsilon)
            count += 1
    return total / count if count else 0.0
