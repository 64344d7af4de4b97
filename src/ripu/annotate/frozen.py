"""The answers that a closed round freezes for the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.journal import Journal
from ripu.annotate.questions import Questions
from ripu.annotate.settled import ANSWERED, NOT_ANSWERED, settle
from ripu.labelstore import LabelReader
from ripu.labelstore.records import Pixels


def frozen_answers(
    journal: Journal, store: LabelReader, questions_of: Callable[[int], Questions], round_index: int
) -> Iterator[tuple[int, Pixels]]:
    """Yield the answers that count and that the label store does not have, images ascending.

    Args:
        journal: The answers.
        store: The label store.
        questions_of: Returns the questions of a round.
        round_index: The newest round; late answers to earlier ones are yielded, too.
    """
    rounds = [one for one in journal.rounds() if one <= round_index]
    for number, image in enumerate(store.images):  # one at a time: a run may have millions of answers
        is_open = len(rounds) > 1 and len(store.unanswered(image.image_id, round_index)) > 0
        found = []
        for asked_in in rounds if is_open else rounds[-1:]:
            answers = journal.answers_about(asked_in, number)
            for pick, group in itertools.groupby(answers, lambda one: one.pick):
                state, labels = settle(list(group))
                if state == ANSWERED and labels is not None:
                    found.append((asked_in, pick, labels))
        if found:
            questions = {one: questions_of(one) for one in {asked_in for asked_in, _, _ in found}}
            yield from _of_image(store, number, questions, found)


def _of_image(
    store: LabelReader,
    number: int,
    questions: Mapping[int, Questions],
    answers: Sequence[tuple[int, int, NDArray[np.uint8]]],
) -> Iterator[tuple[int, Pixels]]:
    parts = []
    for asked_in, pick, labels in answers:
        is_given = labels != NOT_ANSWERED
        parts.append((questions[asked_in].flat_of(number, pick)[is_given], labels[is_given]))
    indices = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
    labels = np.concatenate([np.zeros(0, np.uint8), *(part[1] for part in parts)])
    _, is_known = store.answered(store.images[number].image_id, indices)
    indices, labels = indices[~is_known], labels[~is_known]
    order = np.argsort(indices, kind="stable")
    if len(order):
        yield number, (indices[order], labels[order])
