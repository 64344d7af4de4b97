"""Literal loops of the vote of neighbours and of the confidence of images, in float64."""

from __future__ import annotations

import math

import numpy as np


def voted(probs: np.ndarray, label: np.ndarray, radius: int, passes: int, limit: float) -> np.ndarray:
    """The labels of (C, H, W) probabilities after some votes; 255 where there is none."""
    _, height, width = probs.shape
    for _ in range(passes):
        before, label = label, label.copy()
        for row in range(height):
            for column in range(width):
                if before[row, column] != 255:
                    continue
                votes = [
                    int(before[i, j])
                    for i in range(max(0, row - radius), min(height, row + radius + 1))
                    for j in range(max(0, column - radius), min(width, column + radius + 1))
                    if before[i, j] != 255
                ]
                pixel = probs[:, row, column]
                scores = []
                for number in sorted(range(len(pixel)), key=lambda one, pixel=pixel: -pixel[one])[:2]:  # type: ignore[misc]
                    share = votes.count(number) / len(votes) if votes else 0.0
                    scores.append((float(pixel[number]) * share, number))
                score, number = scores[1] if scores[1][0] > scores[0][0] else scores[0]
                if score >= limit:
                    label[row, column] = number
    return label


def confidence(probs: np.ndarray, step: float) -> float:
    """The mean over predicted classes of the mean confidence of their pixels.

    That of a pixel is rounded down to steps of -log(1 - P), the last of which begins a step before 16.
    """
    found: dict[int, list[float]] = {}
    for row in range(probs.shape[1]):
        for column in range(probs.shape[2]):
            pixel = probs[:, row, column]
            number = int(pixel.argmax())
            rest = sum(one for place, one in enumerate(pixel) if place != number)
            nats = min(-math.log(rest), 16.0) if rest > 0.0 else 16.0
            level = min(math.floor(nats / step), round(16.0 / step) - 1)
            found.setdefault(number, []).append(1.0 - math.exp(-level * step))
    return sum(sum(values) / len(values) for values in found.values()) / len(found)
