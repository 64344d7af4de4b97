"""Answers on their way into the journal: their labels are checked, and imported ones compared with what is known."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.errors import WrongLabelsError
from ripu.annotate.import_report import ImportReport
from ripu.annotate.journal import Answer, Journal
from ripu.annotate.questions import Question, Questions
from ripu.annotate.settled import NOT_ANSWERED, contradict, counting, joined
from ripu.labelstore import VOID, LabelReader


def check_labels(question: Question, labels: NDArray[np.uint8], num_classes: int, *, lowest_void: int = VOID) -> None:
    """Refuse labels, (M,) uint8, that do not fit a question.

    Raises:
        WrongLabelsError: There is not one for each pixel, or one is neither a class nor at least ``lowest_void``.
    """
    if len(labels) != len(question.pixels):
        raise WrongLabelsError(
            f"question {question.qid} has {len(question.pixels)} pixels, but the number of labels is {len(labels)}; "
            "give one per pixel"
        )
    wrong = labels[(labels >= num_classes) & (labels < lowest_void)]
    if wrong.size:
        raise WrongLabelsError(
            f"question {question.qid}: label {wrong[0]} is neither a class 0..{num_classes - 1} nor {VOID} (void)"
        )


class Incoming:
    """An import: the answers of one annotator that the journal does not have yet.

    Attributes:
        report: The outcome so far.
        added: The answers to write to the journal, by question.
    """

    def __init__(
        self,
        by: str,
        journal: Journal,
        store: LabelReader,
        digests: Sequence[str],
        num_classes: int,
        report: ImportReport,
    ) -> None:
        """Begin an import.

        Args:
            by: The annotator.
            journal: The journal of answers.
            store: The label store.
            digests: A digest of what each round asks.
            num_classes: C, the number of classes.
            report: The outcome of reading the file, to add to.
        """
        self._by, self._journal, self._store = by, journal, store
        self._digests, self._num_classes = digests, num_classes
        self.report = report
        self.added: dict[str, Answer] = {}

    def add(self, questions: Questions, question: Question, labels: NDArray[np.uint8] | None) -> None:
        """Add the answer to a question, unless it is known or contradicts another, and count it in the report.

        Args:
            questions: The questions of its round.
            question: The question.
            labels: (M,) uint8: classes, 255 for void, 254 for no answer; None for unsure.

        Raises:
            WrongLabelsError: The labels do not fit the question.
        """
        pending = self.added.get(question.qid)
        earlier = self._journal.answers_to(question.round, question.number, question.pick)
        if labels is None:
            if pending is None and not earlier:
                self.report.unsure.append(question.qid)
                self._keep(question, None, "unsure")
            return
        labels = np.asarray(labels, dtype=np.uint8)
        check_labels(question, labels, self._num_classes, lowest_void=NOT_ANSWERED)
        is_given = labels != NOT_ANSWERED
        if not is_given.any():
            return
        self.report.incomplete += not is_given.all()
        counted = counting([*earlier, *([] if pending is None else [pending])])
        known = {one.by: one.labels for one in counted if one.labels is not None}
        is_conflict = any(contradict(one, labels) for one in known.values())
        if known and not is_conflict and (functools.reduce(joined, known.values()) != NOT_ANSWERED)[is_given].all():
            self.report.known += 1
            return
        if is_conflict or self._is_contradicted(questions, question, labels):
            self.report.conflicts.append(question.qid)
            if not is_conflict or self._by in known:
                return
        else:
            self.report.new += pending is None
        if self._by in known:
            labels = joined(known[self._by], labels)
        self._keep(question, labels, f"{self._digests[question.round]}\0")

    def _keep(self, question: Question, labels: NDArray[np.uint8] | None, facts: str) -> None:
        """Keep an answer under a name that tells it: importing it again adds nothing."""
        content = b"" if labels is None else labels.tobytes()
        name = hashlib.sha256(f"{self._by}\0{question.qid}\0{facts}".encode() + content).hexdigest()
        self.added[question.qid] = Answer(
            f"import-{name[:32]}", question.round, question.number, question.pick, self._by, labels
        )

    def _is_contradicted(self, questions: Questions, question: Question, labels: NDArray[np.uint8]) -> bool:
        """Return whether the label store has other answers, e.g. those of an earlier cut."""
        found, is_known = self._store.answered(question.image_id, questions.flat(question))
        return bool((is_known & (labels != NOT_ANSWERED) & (found != labels)).any())
