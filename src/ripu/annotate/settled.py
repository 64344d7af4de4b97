"""Decide which answers to a question count."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.journal import Answer

UNANSWERED, ANSWERED, UNSURE, CONFLICT = range(4)

NOT_ANSWERED = 254
"""Label of a pixel without an answer; other tools may leave some out."""


def contradict(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Return whether two answers to a question differ in a pixel that both answer."""
    return bool(((first != second) & (first != NOT_ANSWERED) & (second != NOT_ANSWERED)).any())


def joined(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the first answer with the pixels that it leaves out from the second."""
    return np.where(first == NOT_ANSWERED, second, first)


def counting(answers: Iterable[Answer]) -> list[Answer]:
    """Return the answers to a question that count: the last one of each annotator, or the last decision."""
    last: dict[str, Answer] = {}
    decided = None
    for one in answers:
        last.pop(one.by, None)
        last[one.by] = one
        if one.resolves and one.labels is not None:
            decided = one
    return [decided] if decided is not None else list(last.values())


def settle(answers: Iterable[Answer]) -> tuple[int, NDArray[np.uint8] | None]:
    """Return the state of a question, and its labels if it is answered."""
    found = counting(answers)
    labels = [one.labels for one in found if one.labels is not None]
    if not found:
        return UNANSWERED, None
    if not labels:
        return UNSURE, None
    whole = labels[0]
    for one in labels[1:]:
        if contradict(whole, one):
            return CONFLICT, None
        whole = joined(whole, one)
    return ANSWERED, whole
