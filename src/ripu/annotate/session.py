"""The annotation of a run: who is asked what, what counts as its answer, and when a round is closed."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.agreement import Agreement, agreement_of
from ripu.annotate.errors import (
    AnnotationError,
    OtherRoundError,
    RoundClosedError,
    UnknownQuestionError,
    WrongLabelsError,
)
from ripu.annotate.journal import Answer, Journal
from ripu.annotate.questions import BLOCK_PICKS, Question, Questions, parse_qid
from ripu.annotate.suggestions import Predictions, is_blind, is_biased
from ripu.labelstore import VOID, LabelReader
from ripu.labelstore.cut import is_closed, is_taken, reopen, write_cut
from ripu.labelstore.records import Pixels

NOT_ANSWERED = 254
"""In labels of an import: no answer for this pixel."""

LEASE_SECONDS = 600.0
"""A block stays one person's for this long after the last answer or request for questions."""

PAUSE_MS = 60_000
"""An answer that took longer has a pause in it; it counts as this long, and not in the mean."""

KEYS = "asdfgjklqwertyiopzxcbnm"
"""Letters for classes in the order in which they are given out; H, U and V have other uses."""


@dataclass(frozen=True)
class AnnotationClass:
    """A class on the page.

    Attributes:
        id: Train id.
        name: Its name.
        color: RGB, 0..255.
        key: The letter that answers with it; empty if there are more classes than letters.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    key: str


@dataclass
class ImportReport:
    """The outcome of an import.

    Attributes:
        new: Questions answered by it.
        known: Questions that had the same answer.
        conflicts: Questions that have another answer.
        unknown_questions: Names that are no questions of the run.
        unknown_images: Images that the run does not have.
        dropped_pixels: Pixels that were not asked.
        incomplete: Questions with pixels that the import left out.
    """

    new: int = 0
    known: int = 0
    conflicts: list[str] = field(default_factory=list)
    unknown_questions: list[str] = field(default_factory=list)
    unknown_images: list[str] = field(default_factory=list)
    dropped_pixels: int = 0
    incomplete: int = 0


@dataclass(frozen=True)
class Settings:
    """How a run wants its questions answered; see ``conf/oracle/human.yaml``.

    Attributes:
        overlap: Share of the blocks that two people answer.
        suggest: Show what the network predicts.
        hours: Close a round after this many hours of work; None for no limit.
        keys: Class name -> letter.
    """

    overlap: float = 0.0
    suggest: bool = False
    hours: float | None = None
    keys: Mapping[str, str] = field(default_factory=dict)


class Session:
    """The open round of a run, its answers so far, and the people at work on it.

    Attributes:
        run: The folder of the run.
        store: Its label store.
        classes: The classes with their letters.
        settings: How the run wants its questions answered.
        journal: The journal of answers.
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
        self.classes_digest = hashlib.sha256(json.dumps(store.class_names).encode()).hexdigest()[:16]
        self._clock = clock
        self.journal = Journal(self.folder)
        try:
            self._round: _Round | None = None
            self._older: dict[int, Questions] = {}
            self.refresh()
        except BaseException:
            self.journal.close()
            raise

    def close_journal(self) -> None:
        """Give the journal back."""
        self.journal.close()

    # ---- the round

    def refresh(self) -> None:
        """Look for a new round in the label store."""
        count = self.store.num_rounds
        if count and (self._round is None or self._round.questions.round != count - 1):
            self._round = _Round(self, Questions(self.store, count - 1))
        elif not count:
            self._round = None

    @property
    def current(self) -> _Round:
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
            UnknownQuestionError: There is no such round yet.
        """
        if round_index == self.questions.round:
            return self.questions
        if not 0 <= round_index < self.store.num_rounds:
            raise UnknownQuestionError(f"round {round_index} has not been asked; there are {self.store.num_rounds}")
        if round_index not in self._older:
            self._older[round_index] = Questions(self.store, round_index)
        return self._older[round_index]

    def _require_open(self) -> _Round:
        current = self.current
        if is_closed(self.folder, current.questions.round):
            raise RoundClosedError(
                f"round {current.questions.round} is closed; the next one opens when the run has asked it"
            )
        return current

    # ---- asking

    def next_questions(self, by: str, count: int) -> tuple[list[Question], float | None]:
        """Return questions for a person; they are this person's for :data:`LEASE_SECONDS`.

        Args:
            by: The annotator.
            count: Most questions.

        Returns:
            The questions, best first. If there are none: None where nothing is left for this person, else the seconds
            until a block of somebody else's becomes free.

        Raises:
            RoundClosedError: The round is closed, or there is none.
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
            answers: The answers. Those whose name is known are ignored.
            round_index: The round that they are meant for; None for that of the answers.
            classes: :attr:`classes_digest` of whoever answered; None to leave the check out.

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
        number = current.questions.round
        if classes is not None and classes != self.classes_digest:
            raise OtherRoundError("these answers were given with other classes; reload the page and answer again")
        for one in answers:
            if one.round != number or (round_index is not None and round_index != number):
                raise OtherRoundError(
                    f"this answer is to round {one.round if round_index is None else round_index}, and round {number} "
                    "is open now; reload the page"
                )
        self._require_open()
        for one in answers:
            self._check(current.questions, one)
        is_new = self.journal.add(answers)
        current.count([one for one, new in zip(answers, is_new, strict=True) if new])
        if self.settings.hours is not None and current.seconds >= 3600 * self.settings.hours:
            self.close("the time box")
        return len(answers)

    def _check(self, questions: Questions, answer: Answer, *, lowest_void: int = VOID) -> None:
        question = questions.question(f"{answer.round}-{answer.image}-{answer.pick}")
        if answer.labels is None:
            return
        if len(answer.labels) != len(question.pixels):
            raise WrongLabelsError(
                f"question {question.qid} asks for {len(question.pixels)} pixels, and {len(answer.labels)} labels "
                "were given; give one a pixel"
            )
        wrong = answer.labels[(answer.labels >= len(self.classes)) & (answer.labels < lowest_void)]
        if wrong.size:
            raise WrongLabelsError(
                f"question {question.qid}: label {wrong[0]} is neither a class 0..{len(self.classes) - 1} nor {VOID} "
                "(void)"
            )

    def undo(self, by: str, client_id: str) -> bool:
        """Take an answer of the open round back.

        Returns:
            False if there is no such answer by this annotator, or if it is undone already.

        Raises:
            RoundClosedError: The round is closed.
        """
        current = self._require_open()
        undone = self.journal.undo(by, client_id)
        if undone is None:
            return False
        if undone.round == current.questions.round:
            current.uncount(undone)
        return True

    def import_answers(self, by: str, answers: Iterable[tuple[str, NDArray[np.uint8]]]) -> ImportReport:
        """Take answers from another tool. The same import twice adds nothing.

        Args:
            by: The name under which they are kept.
            answers: Names of questions of any round, and labels in the order of their pixels; 254 for no answer.

        Returns:
            The outcome. A question that has another answer already is a conflict, for the queue if the other answer is
            somebody else's; an own answer is never replaced.

        Raises:
            WrongLabelsError: Labels do not fit their question; nothing is written.
            RoundClosedError: The newest round is closed; nothing is written.
            WriteError: The disk is full; nothing is written.
        """
        self._require_open()
        report = ImportReport()
        added: list[Answer] = []
        for qid, labels in answers:
            try:
                round_index, number, pick = parse_qid(qid)
                questions = self.questions_of(round_index)
                question = questions.question(qid)
            except UnknownQuestionError:
                report.unknown_questions.append(str(qid)[:60])
                continue
            labels = np.asarray(labels, dtype=np.uint8)
            name = hashlib.sha256(f"{by}\0{qid}\0".encode() + labels.tobytes()).hexdigest()
            answer = Answer(f"import-{name[:32]}", round_index, number, pick, by, labels)
            self._check(questions, answer, lowest_void=NOT_ANSWERED)
            is_given = labels != NOT_ANSWERED
            if not is_given.any():
                continue
            report.incomplete += not is_given.all()
            earlier = [
                one for one in counting(self.journal.answers_to(round_index, number, pick)) if one.labels is not None
            ]
            if any(np.array_equal(one.labels, labels) for one in earlier):  # type: ignore[arg-type]
                report.known += 1
                continue
            if earlier or self._is_contradicted(question, labels):
                report.conflicts.append(question.qid)
                if not earlier or any(one.by == by for one in earlier):
                    continue
            else:
                report.new += 1
            added.append(answer)
        self.journal.add(added)
        self._round = None  # counted anew
        self.refresh()
        return report

    def _is_contradicted(self, question: Question, labels: NDArray[np.uint8]) -> bool:
        """Return whether the label store has other answers, e.g. those of an earlier cut."""
        found, is_known = self.store.answered(question.image_id, self._flat(question))
        return bool((is_known & (labels != NOT_ANSWERED) & (found != labels)).any())

    def _flat(self, question: Question) -> NDArray[np.int64]:
        width = self.store.images[question.number].width
        flat: NDArray[np.int64] = question.pixels[:, 0] * width + question.pixels[:, 1]
        return flat

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
            RoundClosedError: It is closed already, or there is none.
            WriteError: The disk is full; it stays open.
        """
        current = self._require_open()
        number = current.questions.round
        counts = current.counts()
        facts = {**counts, "seconds": current.seconds, "annotators": len(current.people), **self.quality()}
        write_cut(self.folder, self.store, number, facts, self._frozen(number))
        self.journal.note(number, "closed", by)
        return counts

    def reopen(self, by: str) -> None:
        """Open the newest round again.

        Raises:
            AnnotationError: It is not closed, or the run has begun to use its answers.
        """
        number = self.current.questions.round
        if not is_closed(self.folder, number):
            raise AnnotationError(f"round {number} is not closed")
        if is_taken(self.folder, number) or not reopen(self.folder, number):
            raise AnnotationError(
                f"round {number} cannot be opened again: the run has begun to train on its answers; later answers go "
                "with the next round (import), or undo the round (python -m ripu.labels undo)"
            )
        self.journal.note(number, "reopened", by)

    def _frozen(self, round_index: int) -> Iterator[tuple[int, Pixels]]:
        """Yield the answers that count and that the label store does not have, images ascending."""
        by_image: dict[int, list[tuple[int, int, NDArray[np.uint8]]]] = {}
        late = [one for one in self.journal.rounds() if one < round_index]
        for earlier in late:
            for key, group in itertools.groupby(self.journal.answers(earlier), lambda one: (one.image, one.pick)):
                state, labels = settle(list(group))
                if state == ANSWERED and labels is not None:
                    by_image.setdefault(key[0], []).append((earlier, key[1], labels))
        newest = self.journal.answers(round_index)
        numbers = sorted(by_image)
        for number, group in itertools.groupby(newest, lambda one: one.image):
            while numbers and numbers[0] < number:
                yield from self._frozen_image(numbers[0], by_image[numbers.pop(0)])
            found = by_image.get(number, [])
            if numbers and numbers[0] == number:
                numbers.pop(0)
            for pick, answers in itertools.groupby(group, lambda one: one.pick):
                state, labels = settle(list(answers))
                if state == ANSWERED and labels is not None:
                    found.append((round_index, pick, labels))
            yield from self._frozen_image(number, found)
        for number in numbers:
            yield from self._frozen_image(number, by_image[number])

    def _frozen_image(
        self, number: int, answers: list[tuple[int, int, NDArray[np.uint8]]]
    ) -> Iterator[tuple[int, Pixels]]:
        parts = []
        for round_index, pick, labels in answers:
            question = self.questions_of(round_index).of_image(number)[pick]
            is_given = labels != NOT_ANSWERED
            parts.append((self._flat(question)[is_given], labels[is_given]))
        indices = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
        labels = np.concatenate([np.zeros(0, np.uint8), *(part[1] for part in parts)])
        _, is_known = self.store.answered(self.store.images[number].image_id, indices)
        indices, labels = indices[~is_known], labels[~is_known]
        order = np.argsort(indices, kind="stable")
        if len(order):
            yield number, (indices[order], labels[order])

    # ---- reports

    def agreement(self) -> Agreement | None:
        """Return how far people agree on the questions of the newest round that two have answered; None if none."""
        current = self.current
        return agreement_of(self.journal.answers(current.questions.round), len(self.classes))

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


# ---- answers to one question

UNANSWERED, ANSWERED, UNSURE, CONFLICT = range(4)


def counting(answers: Iterable[Answer]) -> list[Answer]:
    """Return the answers to a question that count: the last one of each annotator, or the last that decides."""
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
    if any(not np.array_equal(one, labels[0]) for one in labels[1:]):
        return CONFLICT, None
    return ANSWERED, labels[0]


class _Round:
    """The newest round: counts that are kept up to date with each answer."""

    def __init__(self, session: Session, questions: Questions) -> None:
        self.session, self.questions = session, questions
        count, blocks = len(questions), questions.blocks
        self.states: NDArray[np.uint8] = np.zeros(count, dtype=np.uint8)
        self.num_people: NDArray[np.uint8] = np.zeros(count, dtype=np.uint8)
        self.people: dict[str, _Person] = {}
        self._ms = 0
        per_image = -(-questions.counts // BLOCK_PICKS)
        self._first_block = np.concatenate([[0], np.cumsum(per_image)])
        self._rank = np.zeros(len(blocks), dtype=np.int64)
        self._rank[self._first_block[blocks.image] + blocks.first // BLOCK_PICKS] = np.arange(len(blocks))
        start = questions.offsets[blocks.image] + blocks.first
        self._start = start.astype(np.int64)
        share = np.asarray(session.settings.overlap)
        draws = np.random.default_rng(questions.round).random(len(blocks))
        self.wanted: NDArray[np.uint8] = np.where(draws < share, 2, 1).astype(np.uint8)
        self.left: NDArray[np.int32] = blocks.size.astype(np.int32).copy()
        self.leases: dict[int, dict[str, float]] = {}
        self.suggested: dict[str, list[int]] = {}
        self.examples: dict[int, str] = {}
        self._predictions = Predictions(session.folder, session.store, questions.round)
        for key, group in itertools.groupby(
            session.journal.answers(questions.round), lambda one: (one.image, one.pick)
        ):
            self._settle(self.position(*key), list(group), is_first=True)
        for block, by, until in session.journal.leases(questions.round, session._clock()):
            if block < len(blocks):
                self.leases.setdefault(block, {})[by] = until

    @property
    def seconds(self) -> float:
        return self._ms / 1000

    def position(self, image: int, pick: int) -> int:
        return int(self.questions.offsets[image]) + pick

    def block_of(self, image: int, pick: int) -> int:
        return int(self._rank[self._first_block[image] + pick // BLOCK_PICKS])

    def person(self, by: str) -> _Person:
        if by not in self.people:
            self.people[by] = _Person(np.zeros(len(self.questions), dtype=np.bool_))
        return self.people[by]

    # ---- counting

    def _settle(self, position: int, answers: Sequence[Answer], *, is_first: bool = False) -> None:
        self.states[position], labels = settle(answers)
        names = {one.by for one in answers}
        before = int(self.num_people[position])
        self.num_people[position] = min(len(names), 255)
        if answers:
            block = self.block_of(answers[0].image, answers[0].pick)
            wanted = int(self.wanted[block])
            self.left[block] += int(before >= wanted) - int(len(names) >= wanted)
        for by in names:
            self.person(by).mask[position] = True
        if is_first:
            for one in answers:
                self._spend(one, 1)
        if labels is not None and len(self.examples) < len(self.session.classes) and (labels == labels[0]).all():
            self.examples.setdefault(int(labels[0]), self.questions.at(position))

    def _spend(self, answer: Answer, sign: int) -> None:
        person = self.person(answer.by)
        person.count += sign
        if answer.ms is not None:
            self._ms += sign * min(answer.ms, PAUSE_MS)
            if answer.ms <= PAUSE_MS:
                person.timed += sign
                person.timed_ms += sign * answer.ms
        self._compare(answer, sign)

    def count(self, answers: Sequence[Answer]) -> None:
        for one in answers:
            self._spend(one, 1)
        for image, pick in {(one.image, one.pick) for one in answers}:
            found = self.session.journal.answers_to(self.questions.round, image, pick)
            self._settle(self.position(image, pick), found)
        now = self.session._clock()
        for one in answers:
            self._lease(self.block_of(one.image, one.pick), one.by, now, renew_only=True)

    def uncount(self, answer: Answer) -> None:
        self._spend(answer, -1)
        position = self.position(answer.image, answer.pick)
        block = self.block_of(answer.image, answer.pick)
        found = self.session.journal.answers_to(self.questions.round, answer.image, answer.pick)
        if not found:
            self.left[block] += int(self.num_people[position] >= self.wanted[block])
            self.num_people[position] = 0
        self._settle(position, found)
        if not any(one.by == answer.by for one in found):
            self.person(answer.by).mask[position] = False
        self._lease(block, answer.by, self.session._clock(), renew_only=False)

    # ---- suggestions

    def suggestion(self, question: Question) -> tuple[NDArray[np.uint8] | None, bool]:
        """Return the network's labels of a question, None if they are not shown, and whether it is a blind one."""
        if not self.session.settings.suggest or is_biased(self.suggestion_counts()):
            return None, False
        labels = self._predictions.labels(question)
        if labels is None:
            return None, False
        return (None, True) if is_blind(question.qid) else (labels, False)

    def prediction(self, question: Question) -> NDArray[np.uint8] | None:
        """Return the network's labels of a question's pixels, shown or not; None if they were not kept."""
        return self._predictions.labels(question)

    def _compare(self, answer: Answer, sign: int) -> None:
        if answer.suggestion is None or answer.labels is None:
            return
        question = self.questions.of_image(answer.image)[answer.pick]
        labels = self._predictions.labels(question)
        if labels is not None:
            kind = "blind" if answer.suggestion == "blind" else "shown"
            counts = self.suggested.setdefault(kind, [0, 0])
            counts[0] += sign
            counts[1] += sign * int(np.array_equal(labels, answer.labels))

    def suggestion_counts(self) -> dict[str, Any] | None:
        """Return answers and agreements with the network, with and without its suggestion; None without any."""
        if not self.suggested:
            return None
        return {kind: {"answers": one[0], "agree": one[1]} for kind, one in sorted(self.suggested.items())}

    # ---- asking

    def next_questions(self, by: str, count: int) -> tuple[list[Question], float | None]:
        now = self.session._clock()
        for block in [number for number, holders in self.leases.items() if max(holders.values()) <= now]:
            del self.leases[block]
        found: list[Question] = []
        own = sorted(block for block, holders in self.leases.items() if holders.get(by, 0) > now)
        for block in own:
            if len(found) >= count:
                break
            found += self._open_in(block, by)
        closed = set(own)
        while len(found) < count:
            block_or_none = self._free_block(by, now, closed)
            if block_or_none is None:
                break
            closed.add(block_or_none)
            fresh = self._open_in(block_or_none, by)
            if fresh:
                self._lease(block_or_none, by, now, renew_only=False)
                found += fresh
        for block in {self.block_of(one.number, one.pick) for one in found[:count]}:
            self._lease(block, by, now, renew_only=True)
        return found[:count], None if found else self._wait(by, now)

    def _open_in(self, block: int, by: str) -> list[Question]:
        """Return the questions of a block that this person may still answer."""
        mine = self.people[by].mask if by in self.people else None
        wanted, found = int(self.wanted[block]), []
        for question in self.questions.in_block(block):
            position = self.position(question.number, question.pick)
            if self.num_people[position] >= wanted or (mine is not None and mine[position]):
                continue
            found.append(question)
        if not found:
            return []
        image = self.session.store.images[found[0].number]
        pixels = np.concatenate([self.session._flat(one) for one in found])
        _, is_known = self.session.store.answered(image.image_id, pixels)
        parts = np.split(is_known, np.cumsum([len(one.pixels) for one in found])[:-1])
        return [one for one, known in zip(found, parts, strict=True) if not known.all()]

    def _free_block(self, by: str, now: float, closed: set[int]) -> int | None:
        is_free = self.left > 0
        for block, holders in self.leases.items():
            others = sum(1 for name, until in holders.items() if name != by and until > now)
            if others >= self.wanted[block]:
                is_free[block] = False
        is_free[list(closed)] = False
        if by in self.people:
            mask = self.people[by].mask
            for block in np.flatnonzero(is_free & (self.wanted > 1)).tolist():
                size = int(self.questions.blocks.size[block])
                if mask[self._start[block] : self._start[block] + size].all():
                    is_free[block] = False
                else:
                    break
        best = int(is_free.argmax()) if len(is_free) else 0
        return best if len(is_free) and is_free[best] else None

    def _lease(self, block: int, by: str, now: float, *, renew_only: bool) -> None:
        holders = self.leases.get(block, {})
        if renew_only and by not in holders:
            return
        until = now + LEASE_SECONDS
        if until - holders.get(by, 0.0) > LEASE_SECONDS / 4:  # not at each answer
            self.session.journal.lease(self.questions.round, block, by, until)
            self.leases.setdefault(block, {})[by] = until

    def _wait(self, by: str, now: float) -> float | None:
        ends = [
            until - now
            for block, holders in self.leases.items()
            if self.left[block] > 0
            for name, until in holders.items()
            if name != by and until > now
        ]
        return min(ends) if ends else None

    def in_conflict(self) -> NDArray[np.int64]:
        """Return the positions of questions with contradicting answers."""
        return np.flatnonzero(self.states == CONFLICT)

    # ---- figures

    def counts(self) -> dict[str, int]:
        tally = np.bincount(self.states, minlength=4).tolist()
        return {
            "questions": len(self.questions),
            "answered": tally[ANSWERED],
            "unanswered": tally[UNANSWERED],
            "unsure": tally[UNSURE],
            "conflicts": tally[CONFLICT],
        }

    def stats(self) -> dict[str, Any]:
        timed = sum(one.timed for one in self.people.values())
        mean = sum(one.timed_ms for one in self.people.values()) / timed / 1000 if timed else None
        counts = self.counts()
        left = int(self.left.sum())
        return {
            **counts,
            "left": left,
            "seconds_per_answer": mean,
            "hours_left": None if mean is None else left * mean / 3600,
            "hours_spent": self.seconds / 3600,
            "annotators": [
                {
                    "by": by,
                    "answered": one.count,
                    "seconds_per_answer": one.timed_ms / one.timed / 1000 if one.timed else None,
                }
                for by, one in sorted(self.people.items())
                if one.count
            ],
        }


@dataclass
class _Person:
    """One annotator in a round."""

    mask: NDArray[np.bool_]
    count: int = 0
    timed: int = 0
    timed_ms: int = 0


def class_keys(names: Sequence[str], chosen: Mapping[str, str]) -> list[str]:
    """Return a letter for each class: the chosen one, else the first free one of its name, else of :data:`KEYS`, else none.

    Args:
        names: The classes in train-id order.
        chosen: Class name -> letter.

    Raises:
        AnnotationError: A letter is given twice, has another use, or belongs to no class.

    Example:
        >>> class_keys(["road", "roof", "sky"], {"sky": "y"})
        ['r', 'o', 'y']
    """
    for name, letter in chosen.items():
        if name not in names:
            raise AnnotationError(f"oracle.keys names the class {name!r}; the classes are {', '.join(names)}")
        if not isinstance(letter, str) or len(letter) != 1 or letter.lower() not in KEYS:
            raise AnnotationError(
                f"oracle.keys gives {name!r} the key {letter!r}; give one of the letters {', '.join(KEYS)}"
            )
    taken = [letter.lower() for letter in chosen.values()]
    if len(set(taken)) < len(taken):
        raise AnnotationError("oracle.keys gives two classes the same letter; give each its own")
    free = [letter for letter in KEYS if letter not in taken]
    letters = []
    for name in names:
        if name in chosen:
            letters.append(chosen[name].lower())
            continue
        wanted = [letter for letter in name.lower() if letter in free] or free
        if not wanted:
            letters.append("")
            continue
        letters.append(wanted[0])
        free.remove(wanted[0])
    return letters
