"""The annotation of a run: who is asked what, what counts as its answer, and when a round is closed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.agreement import Agreement, agreement_of
from ripu.annotate.classes import AnnotationClass, class_keys
from ripu.annotate.errors import (
    AnnotationError,
    OtherRoundError,
    RoundClosedError,
    UnknownQuestionError,
)
from ripu.annotate.frozen import frozen_answers
from ripu.annotate.import_report import ImportedAnswer, ImportReport
from ripu.annotate.incoming import Incoming, check_labels
from ripu.annotate.journal import Answer, Journal
from ripu.annotate.open_round import OpenRound, Settings
from ripu.annotate.questions import Question, Questions, parse_qid, qid_of
from ripu.annotate.settled import ANSWERED, counting, settle
from ripu.io.writing import WriteError
from ripu.labelstore import LabelReader
from ripu.labelstore.cut import is_closed, is_taken, reopen, write_cut


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


class Session:
    """The open round of a run, its answers so far, and the people who work on it.

    Attributes:
        run: The folder of the run.
        store: Its label store.
        classes: The classes with their letters.
        settings: How the run wants its questions answered.
        journal: The journal of answers.
        classes_digest: Changes with the classes and with what the newest round asks: older answers do not fit then.
    """

    def __init__(
        self,
        run: Path,
        store: LabelReader,
        colors: Sequence[tuple[int, int, int]],
        settings: Settings | None = None,
        *,
        num_rounds: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the journal of a run.

        Args:
            run: The folder of the run.
            store: Its label store.
            colors: RGB of each class.
            settings: How the run wants its questions answered.
            num_rounds: Rounds that the run plans; None if unknown.
            clock: Seconds since the epoch.

        Raises:
            AnnotationError: Another process has the journal open, or letters are given twice.
        """
        self.run, self.store = run, store
        self.folder = run / "annotation"
        self.settings = settings or Settings()
        self.num_rounds = num_rounds
        letters = class_keys(store.class_names, self.settings.keys)
        self.classes = tuple(
            AnnotationClass(number, name, tuple(color), letter)  # type: ignore[arg-type]
            for number, (name, color, letter) in enumerate(zip(store.class_names, colors, letters, strict=True))
        )
        self.classes_digest = _digest([store.class_names])
        self._clock = clock
        self.journal = Journal(self.folder)
        try:
            self._round: OpenRound | None = None
            self._asked: list[str] = []  # digests of the rounds
            self._agreement: tuple[tuple[int, int], float, Agreement | None] | None = None
            self._older: dict[int, Questions] = {}
            self.refresh()
        except BaseException:
            self.journal.close()
            raise

    def close_journal(self) -> None:
        """Close the journal."""
        self.journal.close()

    # ---- the round

    def refresh(self) -> None:
        """Look for a new round in the label store."""
        asked = [event.content_sha256 for event in self.store.log.rounds]
        if asked != self._asked:
            for index, digest in enumerate(asked):
                self.journal.know_round(index, digest)
            self._asked, self._round = asked, None
            self._older.clear()
            self.classes_digest = _digest([self.store.class_names, *asked[-1:]])
        if asked and self._round is None:
            self._round = self._opened(len(asked) - 1)

    def _opened(self, number: int) -> OpenRound:
        return OpenRound(self.folder, self.journal, self.settings, Questions(self.store, number), self._clock)

    @property
    def current(self) -> OpenRound:
        """The newest round.

        Raises:
            RoundClosedError: The run has asked nothing yet.
        """
        self.refresh()
        if self._round is None:
            raise RoundClosedError("the run has not asked anything yet; wait for its first round")
        return self._round

    @property
    def questions(self) -> Questions:
        """The questions of the newest round."""
        return self.current.questions

    @property
    def state(self) -> str:
        """``waiting`` before the first round, ``open`` or ``closed``."""
        self.refresh()
        if self._round is None:
            return "waiting"
        return "closed" if is_closed(self.folder, self._round.questions.round) else "open"

    def questions_of(self, round_index: int) -> Questions:
        """Return the questions of a round up to the newest.

        Raises:
            UnknownQuestionError: The round does not exist yet.
        """
        if round_index == self.questions.round:
            return self.questions
        if not 0 <= round_index < self.store.num_rounds:
            done = self.store.num_rounds
            raise UnknownQuestionError(f"round {round_index + 1} has not been asked yet; {done} have been")
        if round_index not in self._older:
            self._older[round_index] = Questions(self.store, round_index)
        return self._older[round_index]

    def _require_open(self) -> OpenRound:
        current = self.current
        if is_closed(self.folder, current.questions.round):
            raise RoundClosedError(
                f"round {current.questions.round + 1} is closed; the next one opens when the run asks its questions"
            )
        return current

    # ---- asking

    def next_questions(self, by: str, count: int) -> tuple[list[Question], float | None]:
        """Return questions for a person, reserved for :data:`LEASE_SECONDS`.

        Args:
            by: The annotator.
            count: The most questions to return.

        Returns:
            The questions, best first. If there are none: None if nothing is left for this person, else the seconds
            until another person's block becomes free.

        Raises:
            RoundClosedError: The round is closed, or none exists yet.
        """
        return self._require_open().next_questions(by, count)

    def conflicts(self, count: int) -> list[tuple[Question, list[Answer]]]:
        """Return questions whose answers contradict each other, with the answers."""
        current = self.current
        found = []
        for position in current.in_conflict()[:count].tolist():
            question = current.questions.question(current.questions.at(position))
            found.append((question, list(counting(self.journal.answers_to(*parse_qid(question.qid))))))
        return found

    # ---- answering

    def save(self, answers: Sequence[Answer], round_index: int | None = None, classes: str | None = None) -> int:
        """Write answers to the open round: all of them or none. They are on the disk when this returns.

        Args:
            answers: The answers. Those whose name is known are ignored, also after their round.
            round_index: The round that they are meant for; None for the one that the answers name.
            classes: The :attr:`classes_digest` that the sender used; None to skip the check.

        Returns:
            The number of answers, known ones included.

        Raises:
            OtherRoundError: They are meant for another round or other classes.
            RoundClosedError: The round is closed.
            WrongLabelsError: Labels do not fit their question.
            UnknownQuestionError: A question was not asked.
            WriteError: The disk is full.
        """
        current = self.current
        number, given = current.questions.round, len(answers)
        answers = [one for one in answers if not self.journal.has(one.client_id)]
        if given and not answers:
            return given
        for one in answers:
            if one.round != number or (round_index is not None and round_index != number):
                raise OtherRoundError(
                    f"this answer is for round {(one.round if round_index is None else round_index) + 1}, but round "
                    f"{number + 1} is open now; reload the page"
                )
        if classes is not None and classes != self.classes_digest:
            raise OtherRoundError(
                "these answers were given with other classes, or before the round was asked again; reload the page and "
                "answer again"
            )
        self._require_open()
        for one in answers:
            question = current.questions.question(qid_of(one.round, one.image, one.pick))
            if one.labels is not None:
                check_labels(question, one.labels, len(self.classes))
        is_new = self.journal.add(answers)
        current.count([one for one, new in zip(answers, is_new, strict=True) if new])
        is_spent = self.settings.hours is not None and current.seconds >= 3600 * self.settings.hours
        if is_spent and self.journal.last_event(number) != "reopened":  # somebody wants to go on
            self.close("the time box")
        return given

    def undo(self, by: str, client_id: str) -> bool:
        """Take back an answer to the open round.

        Returns:
            False if this annotator gave no such answer, or has undone it already.

        Raises:
            RoundClosedError: The round is closed.
        """
        current = self._require_open()
        undone = self.journal.undo(by, client_id, current.questions.round)
        if undone is None:
            return False
        current.uncount(undone)
        return True

    def import_answers(
        self, by: str, answers: Iterable[ImportedAnswer], report: ImportReport | None = None
    ) -> ImportReport:
        """Import answers from another tool. Repeating an import adds nothing.

        Args:
            by: The name under which they are kept.
            answers: The answers, to questions of any round.
            report: The outcome of reading their file, to add to; None for a new report.

        Returns:
            The outcome. A question that has another answer already is a conflict, for the queue if the other answer is
            somebody else's; a person's own answer is never replaced.

        Raises:
            WrongLabelsError: Labels do not fit their question; nothing is written.
            RoundClosedError: The newest round is closed; nothing is written.
            WriteError: The disk is full; nothing is written.
        """
        self._require_open()
        report = ImportReport() if report is None else report
        incoming = Incoming(by, self.journal, self.store, self._asked, len(self.classes), report)
        for qid, labels in answers:
            try:
                questions = self.questions_of(parse_qid(qid)[0])
                question = questions.question(qid)
            except UnknownQuestionError:
                report.unknown_questions.append(str(qid)[:60])
                continue
            incoming.add(questions, question, labels)
        self.journal.add(list(incoming.added.values()))
        self._round = None  # counted again
        self.refresh()
        return report

    # ---- what counts

    def final_labels(self, question: Question) -> NDArray[np.uint8] | None:
        """Return the answer to a question that counts.

        Returns:
            (M,) uint8: classes, 255 void, 254 for a pixel that an import left out; None if the question is unanswered,
            unsure, or has contradicting answers.
        """
        state, labels = settle(self.journal.answers_to(*parse_qid(question.qid)))
        return labels if state == ANSWERED else None

    def close(self, by: str) -> dict[str, int]:
        """Close the open round: freeze its answers for the run.

        Unanswered, unsure and contradicting questions stay unrevealed. Late answers to earlier rounds go with it.

        Returns:
            Counts: questions, answered, unanswered, unsure, conflicts.

        Raises:
            RoundClosedError: It is closed already, or none exists yet.
            WriteError: The disk is full; it stays open.
        """
        current = self._require_open()
        number = current.questions.round
        counts = current.counts()
        self._agreement = None  # that of all answers is frozen, not the last one shown
        people = sum(one.count > 0 for one in current.people.values())
        facts = {**counts, "seconds": current.seconds, "annotators": people, **self.quality()}
        frozen = frozen_answers(self.journal, self.store, self.questions_of, number)
        write_cut(self.folder, self.store, number, facts, frozen)
        with contextlib.suppress(WriteError):  # it is closed, if without a note
            self.journal.note(number, "closed", by)
        return counts

    def reopen(self, by: str) -> None:
        """Open the newest round again.

        Raises:
            AnnotationError: It is not closed, or the run has begun to use its answers.
        """
        number = self.current.questions.round
        if not is_closed(self.folder, number):
            raise AnnotationError(f"round {number + 1} is not closed")
        if is_taken(self.folder, number) or not reopen(self.folder, number):
            raise AnnotationError(
                f"round {number + 1} cannot be opened again: the run has begun to train on its answers; answers "
                "imported now go with the next round; or undo this one (python -m ripu.labels undo)"
            )
        with contextlib.suppress(WriteError):
            self.journal.note(number, "reopened", by)

    # ---- reports

    def agreement(self) -> Agreement | None:
        """Return how far people agree on questions of the newest round that two of them answered; None if none."""
        current = self.current
        stamp = (current.questions.round, self.journal.num_changes)
        if self._agreement is None or (self._agreement[0] != stamp and self._clock() > self._agreement[1]):
            began = time.monotonic()
            shared = (parse_qid(current.questions.at(position)) for position in sorted(current.shared))
            answers = (one for key in shared for one in self.journal.answers_to(*key))
            found = agreement_of(answers, len(self.classes))
            # Computed again only after twenty times as long as it took: a page asks for it all the time.
            self._agreement = stamp, self._clock() + 20 * (time.monotonic() - began), found
        return self._agreement[2]

    def quality(self) -> dict[str, Any]:
        """Return agreement, and agreement with the suggestions, as plain values."""
        found = self.agreement()
        return {
            "agreement": None if found is None else found.to_json(),
            "suggestions": self.current.suggestion_counts(),
        }

    def stats(self) -> dict[str, Any]:
        """Return the figures of the newest round; see docs/annotate.md."""
        return {"round": self.current.questions.round, **self.current.stats(), **self.quality()}
