"""The equations as literal float64 loops. Slow on purpose: nothing here shares code or ideas with the package."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def window(i: int, j: int, radius: int, height: int, width: int) -> list[tuple[int, int]]:
    """Eq. (1), clipped at the image border."""
    return [
        (u, v)
        for u in range(i - radius, i + radius + 1)
        for v in range(j - radius, j + radius + 1)
        if 0 <= u < height and 0 <= v < width
    ]


def plogp(share: float, epsilon: float) -> float:
    if epsilon == 0.0:
        return 0.0 if share == 0.0 else share * math.log(share)
    return share * math.log(share + epsilon)


def region_impurity(label: NDArray[np.int64], num_classes: int, radius: int, epsilon: float = 0.0) -> Array:
    """Eqs. (3) and (4) of one (H, W) label map."""
    height, width = label.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            region = window(i, j, radius, height, width)
            for c in range(num_classes):
                result[i, j] -= plogp(sum(label[u, v] == c for u, v in region) / len(region), epsilon)
    return result


def softmax(logits: Array) -> Array:
    """(C,) -> (C,)."""
    powers = [math.exp(value - max(logits)) for value in logits]
    return np.array([power / sum(powers) for power in powers])


def pixel_entropy(logits: Array, epsilon: float = 0.0) -> Array:
    """Section 3.3, (C, H, W) -> (H, W)."""
    _, height, width = logits.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            result[i, j] = -sum(plogp(float(p), epsilon) for p in softmax(logits[:, i, j]))
    return result


def window_mean(values: Array, radius: int) -> Array:
    """Eq. (5) of one (H, W) map."""
    height, width = values.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            region = window(i, j, radius, height, width)
            result[i, j] = sum(float(values[u, v]) for u, v in region) / len(region)
    return result


def bilinear(values: Array, size: tuple[int, int]) -> Array:
    """align_corners=True interpolation of one (h, w) map: the corner pixels' centres coincide."""
    source_height, source_width = values.shape
    height, width = size
    result = np.zeros(size)
    for i in range(height):
        y = i * (source_height - 1) / (height - 1) if height > 1 else 0.0
        top = min(int(y), source_height - 1)
        bottom = min(top + 1, source_height - 1)
        for j in range(width):
            x = j * (source_width - 1) / (width - 1) if width > 1 else 0.0
            left = min(int(x), source_width - 1)
            right = min(left + 1, source_width - 1)
            upper = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
            lower = values[bottom, left] * (1 - (x - left)) + values[bottom, right] * (x - left)
            result[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return result


def ripu_score(logits: Array, radius: int, size: tuple[int, int], pixel: bool) -> Array:
    """Eq. (6) of one image, (C, h, w) -> (H, W)."""
    full = np.stack([bilinear(plane, size) for plane in logits])
    entropy = pixel_entropy(full)
    uncertainty = entropy if pixel else window_mean(entropy, radius)
    return region_impurity(full.argmax(axis=0), len(full), radius) * uncertainty


def margin_balanced(
    logits: NDArray[np.float64], shares: NDArray[np.float64], strength: float, radius: int, pixel: bool
) -> NDArray[np.float64]:
    """1 - (best - second best), times (a * share of the best class + 1)^-2; window means for regions."""
    num_classes, height, width = logits.shape
    score = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            probs = softmax(logits[:, row, column])
            best = max(range(num_classes), key=lambda number, probs=probs: (probs[number], -number))  # type: ignore[misc]
            second = max([probs[number] for number in range(num_classes) if number != best], default=0.0)
            score[row, column] = (1 - (probs[best] - second)) / (strength * shares[best] + 1) ** 2
    return score if pixel else window_mean(score, radius)
