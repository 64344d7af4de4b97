"""Literal loops of class-balanced self-training, in float64."""

from __future__ import annotations

import math

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of (C, H, W) logits."""
    shifted = np.exp(logits - logits.max(axis=0))
    return shifted / shifted.sum(axis=0)


def thresholds(images: list[np.ndarray], share: float, step: float) -> list[float]:
    """The threshold of each class over images of (C, H, W) probabilities.

    Confidences are rounded down to steps of -log(1 - P), the last of which begins a step before 16.
    """
    found = []
    for number in range(len(images[0])):
        sure = []
        for probs in images:
            for row in range(probs.shape[1]):
                for column in range(probs.shape[2]):
                    pixel = probs[:, row, column]
                    if int(pixel.argmax()) == number:
                        rest = sum(one for place, one in enumerate(pixel) if place != number)
                        nats = 16.0 if rest == 0.0 else min(-math.log(rest), 16.0)
                        sure.append(min(math.floor(nats / step), round(16.0 / step) - 1) * step)
        sure.sort(reverse=True)
        found.append(1.0 - math.exp(-sure[math.ceil(round(share * len(sure), 9)) - 1]) if sure else 1.0)
    return found


def pseudo_label(probs: np.ndarray, limits: list[float]) -> np.ndarray:
    """The pseudo-labels of (C, H, W) probabilities."""
    label = np.full(probs.shape[1:], 255, dtype=np.uint8)
    for row in range(probs.shape[1]):
        for column in range(probs.shape[2]):
            ratio = [probs[number, row, column] / limits[number] for number in range(len(limits))]
            if max(ratio) >= 1.0:
                label[row, column] = ratio.index(max(ratio))
    return label


def smooth(logits: np.ndarray, label: np.ndarray) -> float:
    """The mean over labelled pixels of the mean over classes of -log P; (B, C, H, W) logits."""
    values = []
    for number in range(len(logits)):
        probs = softmax(logits[number])
        for row in range(label.shape[1]):
            for column in range(label.shape[2]):
                if label[number, row, column] != 255:
                    values.append(sum(-math.log(one) for one in probs[:, row, column]) / len(probs))
    return sum(values) / len(values) if values else 0.0
