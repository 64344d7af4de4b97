"""Small stores for the tests of the label store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ripu.labelstore import ImageAnswers, ImagePicks, LabelStore, Regions, Round, TargetImage, square_regions

CLASSES = ("road", "car", "sky")
IMAGES = (
    TargetImage("aachen/aachen_000000_000019", 24, 31),
    TargetImage("aachen/aachen_000001_000019", 24, 31),
    TargetImage("bochum/bochum_000000_000019", 17, 40),
    TargetImage("bochum/empty", 9, 9),
)
A = IMAGES[0].image_id  # the image that most tests look at
RADIUS = 1
BUDGET = 6


def truth(number: int) -> np.ndarray:
    """(H * W,) uint8 labels with some void."""
    image = IMAGES[number]
    labels = np.random.default_rng(number).integers(0, len(CLASSES) + 1, image.height * image.width).astype(np.uint8)
    labels[labels == len(CLASSES)] = 255
    return labels


def picks(number: int, index: int) -> np.ndarray:
    """(N, 2) picks whose 3 x 3 squares are disjoint in this and all other rounds; some touch the border."""
    image = IMAGES[number]
    rows, cols = np.meshgrid(np.arange(0, image.height, 3), np.arange(0, image.width, 3), indexing="ij")
    grid = np.random.default_rng(number).permutation(np.stack([rows, cols], axis=-1).reshape(-1, 2))
    return grid[index * BUDGET : (index + 1) * BUDGET]


def asked(number: int, index: int) -> np.ndarray:
    image = IMAGES[number]
    return square_regions(picks(number, index), RADIUS, image.height, image.width).indices


def records(index: int, numbers: range | list[int] | None = None, *, answered: bool = True) -> Iterator:
    """The picks of a round and, unless told otherwise, their answers."""
    for number in range(3) if numbers is None else numbers:
        image_id = IMAGES[number].image_id
        scores = np.linspace(1, 0.5, BUDGET, dtype=np.float32)
        yield ImagePicks(image_id, picks(number, index), scores, digest=f"digest {number} {index}")
        if answered:
            indices = asked(number, index)
            yield ImageAnswers(image_id, indices, truth(number)[indices])


def begin(store: LabelStore, index: int) -> Round:
    return store.begin_round(
        index, 100 * (index + 1), BUDGET, reveal_radius=RADIUS, suppress_radius=2 * RADIUS, info={"score": "ripu"}
    )


def make(folder: Path, num_rounds: int = 0) -> LabelStore:
    store = LabelStore.create(folder, IMAGES, CLASSES, {"seed": 3}, planned_picks=3 * BUDGET)
    for index in range(num_rounds):
        assert store.add_round(begin(store, index), records(index))
    return store


def expected_label(number: int, num_rounds: int) -> np.ndarray:
    image = IMAGES[number]
    label = np.full(image.height * image.width, 255, dtype=np.uint8)
    for index in range(num_rounds if number < 3 else 0):
        indices = asked(number, index)
        label[indices] = truth(number)[indices]
    return label.reshape(image.height, image.width)


def check_labels(store: LabelStore, num_rounds: int) -> None:
    for number, image in enumerate(IMAGES):
        np.testing.assert_array_equal(
            store.revealed_label(image.image_id, num_rounds), expected_label(number, num_rounds)
        )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store but the lock, which names a process."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}


def run_and_die(work: object) -> int:
    """Call ``work`` in a forked child that leaves without any clean-up; its exit status."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = work() or 0  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def regions(sets: list[list[int]]) -> Regions:
    return Regions.from_sets(sets)


class Stop(BaseException):
    """Like a KeyboardInterrupt: not an error that anybody handles."""


def append(store: LabelStore) -> None:
    """Answer the pixels of the first image that have no answer yet."""
    indices = np.arange(24 * 31)
    known = store.is_committed(A, indices)
    store.append_answers([ImageAnswers(A, indices[~known], truth(0)[~known])])


def commit_first(store: LabelStore) -> None:
    """Commit round 0 to an empty store."""
    store.add_round(begin(store, 0), records(0))
    check_labels(store, 1)
