"""Agreement between people who answered the same questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.journal import Answer
from ripu.annotate.settled import NOT_ANSWERED


@dataclass(frozen=True)
class Pair:
    """Two people and the pixels that both have answered.

    Attributes:
        first, second: The annotators.
        pixels: Number of pixels.
        agreement: Share of them with the same label, void included.
        kappa: Cohen's kappa, ``(p_o - p_e) / (1 - p_e)``; None if only one label occurs.
    """

    first: str
    second: str
    pixels: int
    agreement: float
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """Agreement over all pairs of people.

    Attributes:
        pairs: Each pair that shares questions, by name.
        agreement: Share of equal labels over all pairs.
        kappa: Kappa over all pairs together; None if only one label occurs.
    """

    pairs: tuple[Pair, ...]
    agreement: float
    kappa: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return {
            "pairs": [vars(pair) for pair in self.pairs],
            "agreement": self.agreement,
            "kappa": self.kappa,
        }


def cohen_kappa(matrix: NDArray[np.int64]) -> float | None:
    """Return Cohen's kappa of a square matrix of counts; None if chance explains all of the agreement.

    Example:
        >>> cohen_kappa(np.array([[20, 5], [10, 15]]))
        0.4
    """
    total = matrix.sum()
    observed = np.trace(matrix) / total
    expected = float((matrix.sum(axis=0) * matrix.sum(axis=1)).sum()) / float(total) ** 2
    return None if expected >= 1 else round(float((observed - expected) / (1 - expected)), 12)


def agreement_of(answers: Iterable[Answer], num_classes: int) -> Agreement | None:
    """Compare people on the questions that several have answered; answers that decide a conflict do not count.

    Args:
        answers: The answers of a round, question by question.
        num_classes: C.

    Returns:
        The agreement; None if no question has two answers.
    """
    matrices: dict[tuple[str, str], NDArray[np.int64]] = {}
    for _, group in itertools.groupby(answers, lambda one: (one.image, one.pick)):
        last = {one.by: one.labels for one in group if not one.resolves and one.labels is not None}
        for first, second in itertools.combinations(sorted(last), 2):
            both = (last[first] != NOT_ANSWERED) & (last[second] != NOT_ANSWERED)
            if not both.any():
                continue
            left, right = (np.minimum(last[name][both], num_classes).astype(np.int64) for name in (first, second))
            matrix = matrices.setdefault((first, second), np.zeros((num_classes + 1, num_classes + 1), np.int64))
            np.add.at(matrix, (left, right), 1)
    if not matrices:
        return None
    pairs = tuple(
        Pair(first, second, int(one.sum()), float(np.trace(one) / one.sum()), cohen_kappa(one))
        for (first, second), one in sorted(matrices.items())
    )
    whole: NDArray[np.int64] = np.sum(list(matrices.values()), axis=0)
    return Agreement(pairs, float(np.trace(whole) / whole.sum()), cohen_kappa(whole))
