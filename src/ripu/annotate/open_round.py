"""The open round: who is asked what, and counts that every answer updates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.journal import Answer, Journal
from ripu.annotate.questions import BLOCK_PICKS, Question, Questions, qid_of
from ripu.annotate.settled import ANSWERED, CONFLICT, UNANSWERED, UNSURE, settle
from ripu.annotate.suggestions import Predictions, is_biased, is_blind

LEASE_SECONDS = 600.0
"""A block stays reserved for a person this long after the last answer or request for questions."""

PAUSE_MS = 60_000
"""A longer answer includes a pause: it counts as this long, and is left out of the mean."""


@dataclass(frozen=True)
class Settings:
    """The way a run wants its questions answered; see ``conf/oracle/human.yaml``.

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


class OpenRound:
    """The newest round, with counts that every answer updates."""

    def __init__(
        self, folder: Path, journal: Journal, settings: Settings, questions: Questions, clock: Callable[[], float]
    ) -> None:
        """Count the answers so far.

        Args:
            folder: ``RUN/annotation``.
            journal: The journal of answers.
            settings: How the run wants its questions answered.
            questions: The questions of the round.
            clock: Seconds since the epoch.
        """
        self.questions, self._journal, self._settings, self._clock = questions, journal, settings, clock
        count, blocks = len(questions), questions.blocks
        self.states: NDArray[np.uint8] = np.zeros(count, dtype=np.uint8)
        self._tally = [count, 0, 0, 0]
        self.shared: set[int] = set()
        self.num_people: NDArray[np.uint8] = np.zeros(count, dtype=np.uint8)
        self.people: dict[str, _Person] = {}
        self._ms = 0
        per_image = -(-questions.counts // BLOCK_PICKS)
        self._first_block = np.concatenate([[0], np.cumsum(per_image)])
        self._rank = np.zeros(len(blocks), dtype=np.int64)
        self._rank[self._first_block[blocks.image] + blocks.first // BLOCK_PICKS] = np.arange(len(blocks))
        start = questions.offsets[blocks.image] + blocks.first
        self._start = start.astype(np.int64)
        share = np.asarray(settings.overlap)
        draws = np.random.default_rng(questions.round).random(len(blocks))
        self.wanted: NDArray[np.uint8] = np.where(draws < share, 2, 1).astype(np.uint8)
        self.left: NDArray[np.int32] = blocks.size.astype(np.int32).copy()
        self.leases: dict[int, dict[str, float]] = {}
        self.suggested: dict[str, list[int]] = {}
        self.examples: dict[int, str] = {}
        self._predictions = Predictions(folder, questions.store, questions.round)
        for key, group in itertools.groupby(journal.answers(questions.round), lambda one: (one.image, one.pick)):
            self._settle(self.position(*key), list(group), is_first=True)
        for block, by, until in journal.leases(questions.round, clock()):
            if block < len(blocks):
                self.leases.setdefault(block, {})[by] = until

    @property
    def seconds(self) -> float:
        """Seconds of work on the round so far."""
        return self._ms / 1000

    def position(self, image: int, pick: int) -> int:
        """Return the position of a question among all of the round."""
        return int(self.questions.offsets[image]) + pick

    def block_of(self, image: int, pick: int) -> int:
        """Return the block of a question."""
        return int(self._rank[self._first_block[image] + pick // BLOCK_PICKS])

    def _person(self, by: str) -> _Person:
        """Return the record of an annotator."""
        if by not in self.people:
            self.people[by] = _Person(np.zeros(len(self.questions), dtype=np.bool_))
        return self.people[by]

    # ---- counting

    def _settle(self, position: int, answers: Sequence[Answer], *, is_first: bool = False) -> None:
        state, labels = settle(answers)
        self._tally[int(self.states[position])] -= 1
        self._tally[state] += 1
        self.states[position] = state
        names = {one.by for one in answers}
        before = int(self.num_people[position])
        self.num_people[position] = min(len(names), 255)
        if answers:
            block = self.block_of(answers[0].image, answers[0].pick)
            wanted = int(self.wanted[block])
            self.left[block] += int(before >= wanted) - int(len(names) >= wanted)
        (self.shared.add if len(names) > 1 else self.shared.discard)(position)
        for by in names:
            self._person(by).mask[position] = True
        if is_first:
            for one in answers:
                self._spend(one, 1)
        if labels is not None and labels[0] not in self.examples and (labels == labels[0]).all():
            self.examples.setdefault(int(labels[0]), self.questions.at(position))

    def _spend(self, answer: Answer, sign: int) -> None:
        person = self._person(answer.by)
        person.count += sign
        if answer.ms is not None:
            self._ms += sign * min(answer.ms, PAUSE_MS)
            if answer.ms <= PAUSE_MS:
                person.timed += sign
                person.timed_ms += sign * answer.ms
        self._compare(answer, sign)

    def count(self, answers: Sequence[Answer]) -> None:
        """Count new answers, already written to the journal."""
        for one in answers:
            self._spend(one, 1)
        for image, pick in {(one.image, one.pick) for one in answers}:
            found = self._journal.answers_to(self.questions.round, image, pick)
            self._settle(self.position(image, pick), found)
        now = self._clock()
        for one in answers:
            self._lease(self.block_of(one.image, one.pick), one.by, now, renew_only=True)

    def uncount(self, answer: Answer) -> None:
        """Stop counting an answer that the journal has marked as undone."""
        self._spend(answer, -1)
        position = self.position(answer.image, answer.pick)
        block = self.block_of(answer.image, answer.pick)
        found = self._journal.answers_to(self.questions.round, answer.image, answer.pick)
        if not found:
            self.left[block] += int(self.num_people[position] >= self.wanted[block])
            self.num_people[position] = 0
        self._settle(position, found)
        if not any(one.by == answer.by for one in found):
            self._person(answer.by).mask[position] = False
        self._lease(block, answer.by, self._clock(), renew_only=False)

    # ---- suggestions

    def suggestion(self, question: Question) -> tuple[NDArray[np.uint8] | None, bool]:
        """Return the labels to suggest, None to suggest nothing, and whether the question is blind."""
        if not self._settings.suggest or is_biased(self.suggestion_counts()):
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
        question = self.questions.question(qid_of(answer.round, answer.image, answer.pick))
        labels = self._predictions.labels(question)
        if labels is not None:
            kind = "blind" if answer.suggestion == "blind" else "shown"
            counts = self.suggested.setdefault(kind, [0, 0])
            counts[0] += sign
            counts[1] += sign * int(np.array_equal(labels, answer.labels))

    def suggestion_counts(self) -> dict[str, Any] | None:
        """Return counts of answers and of agreement with the network, shown and blind; None without suggestions."""
        if not self.suggested:
            return None
        return {kind: {"answers": one[0], "agree": one[1]} for kind, one in sorted(self.suggested.items())}

    # ---- asking

    def next_questions(self, by: str, count: int) -> tuple[list[Question], float | None]:
        """Return questions for a person; see :meth:`ripu.annotate.session.Session.next_questions`."""
        now = self._clock()
        for block, holders in list(self.leases.items()):
            if not holders or max(holders.values()) <= now:
                del self.leases[block]
        found: list[Question] = []
        own = sorted(block for block, holders in self.leases.items() if holders.get(by, 0) > now)
        for block in own:
            if len(found) >= count:
                break
            if not (mine := self._open_in(block, by)):  # done: it comes back if an answer is undone
                del self.leases[block][by]
            found += mine
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
        image = self.questions.store.images[found[0].number]
        pixels = np.concatenate([self.questions.flat(one) for one in found])
        _, is_known = self.questions.store.answered(image.image_id, pixels)
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
            self._journal.lease(self.questions.round, block, by, until)
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
        """Return the number of questions, in total and in each state."""
        tally = self._tally
        return {
            "questions": len(self.questions),
            "answered": tally[ANSWERED],
            "unanswered": tally[UNANSWERED],
            "unsure": tally[UNSURE],
            "conflicts": tally[CONFLICT],
        }

    def stats(self) -> dict[str, Any]:
        """Return counts, times and people."""
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
