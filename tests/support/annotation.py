"""A label store with a round, and a session on it, as annotation tests need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripu.annotate.journal import Answer
from ripu.annotate.open_round import Settings
from ripu.annotate.questions import Question, parse_qid
from ripu.annotate.session import Session
from ripu.labelstore import ImagePicks, LabelStore, Regions, TargetImage, square_regions

CLASSES = ("road", "roof", "sky")
COLORS = ((128, 64, 128), (70, 70, 70), (70, 130, 180))
SIZE = (40, 60)
IMAGES = tuple(TargetImage(f"tag/ü {number}", *SIZE) for number in range(3))


def truth(number: int) -> NDArray[np.uint8]:
    """Return the true label of an image: three bands with a void corner, moved with the number."""
    label = (np.arange(SIZE[1])[None, :] // 20 + np.arange(SIZE[0])[:, None] // 14 + number) % len(CLASSES)
    label = label.astype(np.uint8)
    label[:4, :4] = 255
    return label


def picture(number: int) -> NDArray[np.uint8]:
    """Return an image whose colours follow its label."""
    label = truth(number)
    noise = np.random.default_rng(number).integers(0, 30, (*SIZE, 3))
    return (np.asarray([*COLORS, *[(9, 9, 9)] * 253], dtype=np.int64)[label] // 2 + 90 + noise).astype(np.uint8)


def grid_picks(radius: int, per_image: int, seed: int = 0) -> list[ImagePicks]:
    """Return picks whose windows touch the borders and each other, in random order with falling scores."""
    rng = np.random.default_rng(seed)
    side = 2 * radius + 1
    rows, columns = np.meshgrid(np.arange(0, SIZE[0], side), np.arange(0, SIZE[1], side), indexing="ij")
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1)
    records = []
    for image in IMAGES:
        chosen = rng.permutation(centres)
        scores = np.sort(rng.random(len(chosen)).astype(np.float32))[::-1]
        records.append(ImagePicks(image.image_id, chosen[:per_image], scores[:per_image]))
    return records


def with_regions(records: list[ImagePicks]) -> list[ImagePicks]:
    """Return the same picks as ragged regions: each a window without its last pixel, where it has several."""
    found = []
    for record in records:
        squares = square_regions(record.picks, 2, *SIZE)
        sets = np.split(squares.indices, squares.offsets[1:-1])
        regions = Regions.from_sets([one[:-1] if len(one) > 1 else one for one in sets])
        found.append(ImagePicks(record.image_id, record.picks, record.scores, regions))
    return found


def add_round(store: LabelStore, index: int, *, radius: int = 1, per_image: int = 40) -> None:
    """Commit a round of unanswered picks; round n takes the n-th part of a shuffled grid."""
    picks = grid_picks(radius, per_image * (index + 1))
    spec = store.begin_round(index, 10 * (index + 1), per_image, reveal_radius=radius, suppress_radius=2 * radius)
    part = slice(per_image * index, per_image * (index + 1))
    scores = [record.scores for record in picks]
    store.add_round(
        spec,
        [
            ImagePicks(record.image_id, record.picks[part], None if score is None else score[part])
            for record, score in zip(picks, scores, strict=True)
        ],
    )


def make_run(run: Path, *, radius: int = 1, per_image: int = 40) -> Path:
    """Make a folder with a label store that has one unanswered round."""
    with LabelStore.create(run / "labels", IMAGES, CLASSES) as store:
        add_round(store, 0, radius=radius, per_image=per_image)
    return run


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def open_session(run: Path, settings: Settings | None = None, clock: Clock | None = None) -> Session:
    """Open a session on a run of :func:`make_run`."""
    return Session(run, LabelStore.open(run / "labels"), COLORS, settings, num_rounds=5, clock=clock or Clock())


def true_labels(question: Question) -> NDArray[np.uint8]:
    """Return the right answer to a question."""
    return truth(question.number)[question.pixels[:, 0], question.pixels[:, 1]]


def answer(
    question: Question, labels: ArrayLike | None, by: str = "ann", name: str | None = None, **more: Any
) -> Answer:
    """Return an answer to a question; None for unsure."""
    array = None if labels is None else np.asarray(labels, dtype=np.uint8)
    return Answer(name or f"{by}-{question.qid}", *parse_qid(question.qid), by, array, **more)


def answer_all(session: Session, by: str = "ann", count: int = 8) -> list[Question]:
    """Answer rightly what a person is asked; return the questions."""
    answered: list[Question] = []
    while True:
        questions, _ = session.next_questions(by, count)
        if not questions:
            return answered
        session.save([answer(one, true_labels(one), by, ms=1500) for one in questions])
        answered += questions
