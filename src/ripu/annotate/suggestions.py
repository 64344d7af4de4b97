"""Suggestions: the network's labels of queried pixels, shown or withheld, and the bias that showing them causes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.questions import Question
from ripu.labelstore import LabelReader
from ripu.labelstore.predictions import PredictionFiles

BLIND_SHARE = 10
"""One question in this many is asked without a suggestion."""

MOST_BIAS = 0.05
"""Suggestions stop if people agree with the network this much more often when they see its label."""


class Predictions:
    """The network's labels of the pixels that a round asks about, as the run wrote them."""

    def __init__(self, folder: Path, store: LabelReader, round_index: int) -> None:
        """Find the files of a round in ``RUN/annotation``."""
        self._files = PredictionFiles(folder, store, round_index)
        self._cached: tuple[int, list[NDArray[np.uint8]]] | None = None

    def labels(self, question: Question) -> NDArray[np.uint8] | None:
        """Return the labels of a question's pixels, (M,) uint8; None if the run kept none."""
        if self._cached is None or self._cached[0] != question.number:
            self._cached = (question.number, self._files.read(question.number))
        found = self._cached[1]
        if question.pick >= len(found) or len(found[question.pick]) != len(question.pixels):
            return None
        return found[question.pick]


def is_blind(qid: str) -> bool:
    """Return whether a question is one of those that are asked without a suggestion, whoever answers."""
    return hashlib.sha256(f"blind {qid}".encode()).digest()[0] % BLIND_SHARE == 0


def is_biased(counts: Mapping[str, Any] | None) -> bool:
    """Return whether suggestions draw answers to the network by more than :data:`MOST_BIAS`, significantly.

    Args:
        counts: ``{"shown": {"answers": n, "agree": m}, "blind": {...}}``.

    Returns:
        True if the agreement with the network is higher where its label was shown, by more than :data:`MOST_BIAS`, and
        the difference is above 1.96 standard errors (two proportions, pooled).
    """
    if counts is None or "shown" not in counts or "blind" not in counts:
        return False
    shown, blind = counts["shown"], counts["blind"]
    if min(shown["answers"], blind["answers"]) < 1:
        return False
    difference = shown["agree"] / shown["answers"] - blind["agree"] / blind["answers"]
    pooled = (shown["agree"] + blind["agree"]) / (shown["answers"] + blind["answers"])
    error = math.sqrt(pooled * (1 - pooled) * (1 / shown["answers"] + 1 / blind["answers"]))
    return bool(difference > max(MOST_BIAS, 1.96 * error))
