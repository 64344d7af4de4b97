"""The content of an export, and the answers in a file, matched to the questions of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.codecs.masks import Labels, Mask, stack
from ripu.annotate.codecs.names import ClassNames, short, stem_of
from ripu.annotate.errors import UnknownQuestionError
from ripu.annotate.import_report import ImportedAnswer, ImportReport
from ripu.annotate.questions import QID, Question, Questions
from ripu.annotate.settled import NOT_ANSWERED
from ripu.labelstore import LabelReader, export_name

QuestionsOf = Callable[[int], Questions]

ReadImage = Callable[[int], NDArray[np.uint8]]
"""Returns an image by its number at label resolution, (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Asked:
    """The content of an export.

    Attributes:
        questions: The questions of a round.
        names: The names of the classes.
        read_image: Returns an image by its number.
        final_labels: Returns the answer that a question has already.
    """

    questions: Questions
    names: ClassNames
    read_image: ReadImage
    final_labels: Callable[[Question], Labels | None]


class Answers:
    """Collects the answers of a file."""

    def __init__(self, store: LabelReader, questions_of: QuestionsOf) -> None:
        """Begin without answers.

        Args:
            store: The label store of the run.
            questions_of: Returns the questions of a round.
        """
        self.store = store
        self._questions_of = questions_of
        self._num_rounds = store.num_rounds
        self._rounds: dict[int, Questions] = {}
        self._images = {export_name(number, one.image_id): number for number, one in enumerate(store.images)}
        self._labels: dict[str, tuple[Question, Labels]] = {}
        self._conflicts: dict[str, None] = {}
        self._unknown_questions: dict[str, None] = {}
        self._unknown_images: dict[str, None] = {}
        self._unsure: dict[str, None] = {}
        self._dropped = 0

    def _questions(self, index: int) -> Questions:
        if index not in self._rounds:
            self._rounds[index] = self._questions_of(index)
        return self._rounds[index]

    def question(self, qid: str) -> Question | None:
        """Return a question; note an unknown name and return None."""
        match = QID.fullmatch(qid)
        if match and int(match[1]) < self._num_rounds:
            with contextlib.suppress(UnknownQuestionError):
                return self._questions(int(match[1])).question(qid)
        self._unknown_questions[short(qid)] = None
        return None

    def question_of_crop(self, name: str) -> Question | None:
        """Return the question that a crop is named after; note an unknown name and return None."""
        stem = stem_of(name)
        if QID.fullmatch(stem):
            return self.question(stem)
        self.skip_image(name)
        return None

    def image(self, name: str) -> int | None:
        """Return the number of the image that a file is named after; note an unknown name and return None."""
        number = self._images.get(stem_of(name))
        if number is None:
            self.skip_image(name)
        return number

    def skip_image(self, name: str) -> None:
        """Note a file that belongs to no image of the run."""
        self._unknown_images[short(name)] = None

    def add(self, question: Question, labels: Labels, clash: Mask | None = None) -> None:
        """Add an answer, which may be one of several that together cover a question.

        Args:
            question: The question.
            labels: (M,) uint8 in the order of its pixels, 254 for no answer.
            clash: (M,) bool, True for pixels with two answers; None for none.
        """
        is_given = labels != NOT_ANSWERED
        _, known = self._labels.setdefault(question.qid, (question, np.full(len(labels), NOT_ANSWERED, np.uint8)))
        differs = is_given & (known != NOT_ANSWERED) & (known != labels)
        if differs.any() or (clash is not None and clash.any()):
            self._conflicts[question.qid] = None
        known[is_given] = labels[is_given]

    def add_unsure(self, question: Question) -> None:
        """Note a question that the annotator was unsure about; it gets no answer."""
        self._unsure[question.qid] = None

    def add_window(
        self, question: Question, masks: Iterable[tuple[int, Mask]], corner: tuple[int, int], size: tuple[int, int]
    ) -> None:
        """Add what is painted in a window around a question.

        Args:
            question: The question.
            masks: Labels with their masks, (h, w) bool.
            corner: First row and column of the window.
            size: Its height and width.
        """
        window, clash = stack(size, masks)
        rows, columns = (question.pixels - corner).T
        labels = window[rows, columns]
        self._dropped += int((window != NOT_ANSWERED).sum() - (labels != NOT_ANSWERED).sum())
        self.add(question, labels, clash[rows, columns])

    def add_image(self, number: int, masks: Iterable[tuple[int, Mask]]) -> None:
        """Add what is painted on an image: answers to the questions of every round.

        Args:
            number: Number of the image.
            masks: Labels with their masks, (H, W) bool.
        """
        image = self.store.images[number]
        label, clash = stack((image.height, image.width), masks)
        left = int((label != NOT_ANSWERED).sum())
        for index in range(self._num_rounds if left else 0):
            for question in self._questions(index).of_image(number):
                rows, columns = question.pixels.T
                labels = label[rows, columns]
                left -= int((labels != NOT_ANSWERED).sum())
                self.add(question, labels, clash[rows, columns])
        self._dropped += left

    def result(self) -> tuple[list[ImportedAnswer], ImportReport]:
        """Return the answers by round, image and pick, then the unsure ones, and what was left out."""
        kept = [
            (question, labels)
            for qid, (question, labels) in self._labels.items()
            if qid not in self._conflicts and (labels != NOT_ANSWERED).any()
        ]
        kept.sort(key=lambda one: (one[0].round, one[0].number, one[0].pick))
        report = ImportReport(
            conflicts=[*self._conflicts],
            unknown_questions=[*self._unknown_questions],
            unknown_images=[*self._unknown_images],
            dropped_pixels=self._dropped,
        )
        unsure: list[ImportedAnswer] = [(qid, None) for qid in self._unsure]
        return [*((question.qid, labels) for question, labels in kept), *unsure], report
