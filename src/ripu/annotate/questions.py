"""The questions of a round: one for each pick, in blocks of one image, best score first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ripu.annotate.errors import UnknownQuestionError
from ripu.labelstore import ImagePicks, LabelReader, Regions, regions_of

BLOCK_PICKS = 32
"""Most questions in a block: about a minute of work in one image."""

_NUMBER = "(0|[1-9][0-9]{0,8})"
QID = re.compile(f"{_NUMBER}-{_NUMBER}-{_NUMBER}")
"""Name of a question: round, image and pick."""

KEPT_IMAGES = 16
"""Number of images whose picks stay in memory."""


@dataclass(frozen=True)
class Question:
    """A pick, as a question to a person.

    Attributes:
        qid: Its name, ``ROUND-IMAGE-PICK`` in decimals from 0; see :func:`qid_of`.
        round: Number of the round.
        number: Number of the image in the label store.
        image_id: The image.
        pick: Position among the picks of the image, in picking order.
        pixels: (M, 2) int64 rows and columns, row by row; the labels of an answer have the same order.
        score: Score of the pick; None if the round kept none.
    """

    qid: str
    round: int
    number: int
    image_id: str
    pick: int
    pixels: NDArray[np.int64]
    score: float | None


@dataclass(frozen=True)
class Blocks:
    """All blocks of a round, best first, so that any prefix is the best part to have labelled.

    Attributes:
        image: (B,) int32 numbers of images.
        first: (B,) int32 position of the block's first pick.
        size: (B,) int32 number of its picks.
    """

    image: NDArray[np.int32]
    first: NDArray[np.int32]
    size: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.image)


def qid_of(round_index: int, number: int, pick: int) -> str:
    """Return the name of a question."""
    return f"{round_index}-{number}-{pick}"


def parse_qid(qid: str) -> tuple[int, int, int]:
    """Return round, image number and pick of a question's name.

    Raises:
        UnknownQuestionError: It is not such a name.
    """
    match = QID.fullmatch(str(qid))
    if match is None:
        raise UnknownQuestionError(f"{str(qid)[:60]!r} is not the name of a question (ROUND-IMAGE-PICK, e.g. 0-12-3)")
    return int(match[1]), int(match[2]), int(match[3])


class Questions:
    """The questions of one round of a label store; pixels are read on demand."""

    def __init__(self, store: LabelReader, round_index: int) -> None:
        """Count the questions of a round.

        Args:
            store: The label store.
            round_index: The round.

        Raises:
            RoundOrderError: It is not committed.
        """
        self.store = store
        self.round = round_index
        self.spec = store.rounds_as_of(round_index + 1)[-1]
        counts, best = [], []
        for image in store.images:
            record = store.picks(image.image_id, round_index)
            counts.append(len(record.picks))
            best.append(_block_scores(record))
        self.counts: NDArray[np.int64] = np.asarray(counts, dtype=np.int64)
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.counts)])
        self.blocks = _make_blocks(best, self.counts)
        self._read: dict[int, tuple[ImagePicks, Regions]] = {}

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __iter__(self) -> Iterator[Question]:
        for number in np.flatnonzero(self.counts).tolist():
            yield from self.of_image(number)

    def count(self, number: int) -> int:
        """Return the number of questions about an image."""
        return int(self.counts[number])

    def position(self, qid: str) -> int:
        """Return the position of a question among all of the round, image by image in picking order.

        Raises:
            UnknownQuestionError: The round has not asked it.
        """
        round_index, number, pick = parse_qid(qid)
        if round_index != self.round or number >= len(self.counts) or pick >= self.counts[number]:
            raise UnknownQuestionError(
                f"question {qid} is not one of round {self.round + 1}, which asked {len(self)} questions about "
                f"{len(self.counts)} images"
            )
        return int(self.offsets[number]) + pick

    def at(self, position: int) -> str:
        """Return the name of the question at a position; the inverse of :meth:`position`."""
        number = int(np.searchsorted(self.offsets, position, side="right")) - 1
        return qid_of(self.round, number, position - int(self.offsets[number]))

    def question(self, qid: str) -> Question:
        """Return a question.

        Raises:
            UnknownQuestionError: The round has not asked it.
        """
        self.position(qid)
        _, number, pick = parse_qid(qid)
        return self._some(number, pick, pick + 1)[0]

    def of_image(self, number: int) -> list[Question]:
        """Return the questions about an image, in picking order."""
        return self._some(number, 0, self.count(number))

    def _of(self, number: int) -> tuple[ImagePicks, Regions]:
        """Return the picks of an image and their pixels."""
        if number not in self._read:
            while len(self._read) >= KEPT_IMAGES:
                del self._read[next(iter(self._read))]
            image = self.store.images[number]
            record = self.store.picks(image.image_id, self.round)
            self._read[number] = record, regions_of(record, self.spec, image)
        return self._read[number]

    def _some(self, number: int, first: int, stop: int) -> list[Question]:
        record, regions = self._of(number)
        width = self.store.images[number].width
        cuts = regions.offsets[first : stop + 1].tolist()
        return [
            Question(
                qid_of(self.round, number, pick),
                self.round,
                number,
                record.image_id,
                pick,
                np.stack(np.divmod(regions.indices[start:end], width), axis=1),
                None if record.scores is None else float(record.scores[pick]),
            )
            for pick, start, end in zip(range(first, stop), cuts, cuts[1:], strict=False)
        ]

    def flat_of(self, number: int, pick: int) -> NDArray[np.int64]:
        """Return the flat indices of the pixels that a pick asks for, (M,)."""
        _, regions = self._of(number)
        indices: NDArray[np.int64] = regions.indices[regions.offsets[pick] : regions.offsets[pick + 1]]
        return indices

    def flat(self, question: Question) -> NDArray[np.int64]:
        """Return the flat indices of a question's pixels, (M,)."""
        width = self.store.images[question.number].width
        indices: NDArray[np.int64] = question.pixels[:, 0] * width + question.pixels[:, 1]
        return indices

    def in_block(self, block: int) -> list[Question]:
        """Return the questions of a block: the best first, then always the nearest of the rest."""
        number, first = int(self.blocks.image[block]), int(self.blocks.first[block])
        questions = self._some(number, first, first + int(self.blocks.size[block]))
        centres = np.asarray([question.pixels.mean(axis=0) for question in questions])
        return [questions[item] for item in nearest_order(centres)]


def nearest_order(points: NDArray[np.float64]) -> list[int]:
    """Return an order of points from the first on, always to the nearest of the rest; ties go by position.

    Args:
        points: (N, 2) coordinates.
    """
    if not len(points):
        return []
    left = np.ones(len(points), dtype=np.bool_)
    order = [0]
    left[0] = False
    while left.any():
        distance = ((points - points[order[-1]]) ** 2).sum(axis=1)
        distance[~left] = np.inf
        order.append(int(distance.argmin()))
        left[order[-1]] = False
    return order


def _block_scores(record: ImagePicks) -> NDArray[np.float32]:
    """Return the mean score of each block of an image; without scores, earlier picks are better."""
    count = len(record.picks)
    if not count:
        return np.zeros(0, dtype=np.float32)
    scores = -np.arange(count, dtype=np.float32) if record.scores is None else record.scores.astype(np.float32)
    starts = np.arange(0, count, BLOCK_PICKS)
    means = np.add.reduceat(scores, starts) / np.diff([*starts.tolist(), count])
    return means.astype(np.float32)


def _make_blocks(scores: list[NDArray[np.float32]], counts: NDArray[np.int64]) -> Blocks:
    number = np.repeat(np.arange(len(scores), dtype=np.int32), [len(one) for one in scores])
    first = np.concatenate([np.zeros(0, np.int32), *(np.arange(len(one), dtype=np.int32) for one in scores)])
    first *= BLOCK_PICKS
    size = np.minimum(counts[number] - first, BLOCK_PICKS).astype(np.int32)
    every = np.concatenate([np.zeros(0, np.float32), *scores])
    order = np.lexsort((first, number, -every))
    return Blocks(number[order], first[order].astype(np.int32), size[order])
