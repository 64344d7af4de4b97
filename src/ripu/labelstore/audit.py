"""Accounts of a label store: what was spent, whether everything is intact, how two runs differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.errors import LabelStoreError
from ripu.labelstore.files import FileEntry, RecordFile, check_whole_file
from ripu.labelstore.log import AnswersEvent, RoundEvent, UndoEvent
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    VOID,
    ImageAnswers,
    IntArray,
    LabelArray,
    TargetImage,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    decode_answers,
    decode_picks,
    regions_of,
)


@dataclass
class Tally:
    """Counts over some picks.

    Attributes:
        picks: Picks asked for: what the budget is counted in.
        clicks: Labels a person had to give: per pick, the number of different labels among its answered pixels, void
            being one of them. A pick of one pixel is one click, a region that straddles two classes is two, a pick
            without an answer none.
        asked_pixels: Pixels asked for.
        answered_pixels: Those of them that have an answer, void or not.
        void_pixels: Those whose answer is void (255): spent without a label.
        class_pixels: (C,) pixels per class, in train-id order.
    """

    picks: int
    clicks: int
    asked_pixels: int
    answered_pixels: int
    void_pixels: int
    class_pixels: list[int]

    @classmethod
    def zero(cls, num_classes: int) -> Tally:
        """Nothing yet."""
        return cls(0, 0, 0, 0, 0, [0] * num_classes)

    def add(self, other: Tally) -> None:
        """Add another tally in place."""
        self.picks += other.picks
        self.clicks += other.clicks
        self.asked_pixels += other.asked_pixels
        self.answered_pixels += other.answered_pixels
        self.void_pixels += other.void_pixels
        self.class_pixels = [a + b for a, b in zip(self.class_pixels, other.class_pixels, strict=True)]

    def to_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """The counts as a JSON object, classes by name."""
        return {
            "picks": self.picks,
            "clicks": self.clicks,
            "asked_pixels": self.asked_pixels,
            "answered_pixels": self.answered_pixels,
            "missing_pixels": self.asked_pixels - self.answered_pixels,
            "void_pixels": self.void_pixels,
            "class_pixels": dict(zip(class_names, self.class_pixels, strict=True)),
        }


@dataclass
class StoreStats:
    """The budget account of a store.

    Attributes:
        class_names: Names in train-id order.
        num_pixels: Pixels of all images together.
        total: Over the live rounds.
        rounds: Per live round: its index, step and budget of picks per image, and its tally.
        images: Per image id its tally.
        planned_picks: Picks that the run means to spend over all images and rounds; None if no plan was given.
        left_picks: What is left of them.
        unasked_answers: Pixels that are answered but not asked for by the rounds counted here, e.g. of undone rounds.
    """

    class_names: tuple[str, ...]
    num_pixels: int
    total: Tally
    rounds: list[tuple[int, int, int, Tally]]
    images: dict[str, Tally]
    planned_picks: int | None
    left_picks: int | None
    unasked_answers: int

    def to_json(self) -> dict[str, Any]:
        """Everything as a JSON object."""
        return {
            "num_images": len(self.images),
            "num_pixels": self.num_pixels,
            "total": self.total.to_json(self.class_names),
            "rounds": [
                {"index": index, "step": step, "budget": budget, **tally.to_json(self.class_names)}
                for index, step, budget, tally in self.rounds
            ],
            "images": {image_id: tally.to_json(self.class_names) for image_id, tally in self.images.items()},
            "planned_picks": self.planned_picks,
            "left_picks": self.left_picks,
            "unasked_answers": self.unasked_answers,
        }


def store_stats(store: LabelReader, num_rounds: int | None = None) -> StoreStats:
    """Count what was asked, answered and spent.

    Args:
        store: The store.
        num_rounds: Only rounds with an index below this; None for all.

    Returns:
        Counts per image, per round and per class.

    Raises:
        CorruptStoreError: If a file is damaged.
        RoundOrderError: If fewer rounds are committed than ``num_rounds``.
    """
    num_classes = len(store.class_names)
    specs = store.rounds_as_of(num_rounds)
    rounds = [(spec.index, spec.step, spec.budget, Tally.zero(num_classes)) for spec in specs]
    images: dict[str, Tally] = {}
    total = Tally.zero(num_classes)
    unasked = 0
    for image in store.images:
        tally = images[image.image_id] = Tally.zero(num_classes)
        for spec, (_, _, _, of_round) in zip(specs, rounds, strict=True):
            regions = store.asked(image.image_id, spec.index)
            labels, known = store.answered(image.image_id, regions.indices)
            pick_of_pixel, found = regions.pick_of_pixel[known], labels[known].astype(np.int64)
            counts = np.bincount(found, minlength=256)
            one = Tally(
                picks=len(regions),
                clicks=len(np.unique(pick_of_pixel * 256 + found)),
                asked_pixels=len(labels),
                answered_pixels=len(found),
                void_pixels=int(counts[VOID]),
                class_pixels=counts[:num_classes].tolist(),
            )
            tally.add(one)
            of_round.add(one)
        unasked += len(store.answers(image.image_id)[0]) - tally.answered_pixels
        total.add(tally)
    planned = None if store.planned_picks is None else store.planned_picks * len(images)
    return StoreStats(
        class_names=store.class_names,
        num_pixels=sum(image.height * image.width for image in store.images),
        total=total,
        rounds=rounds,
        images=images,
        planned_picks=planned,
        left_picks=None if planned is None else planned - total.picks,
        unasked_answers=unasked,
    )


def verify_store(store: LabelReader) -> list[str]:
    """Check every checksum and every invariant, also of rounds that were undone.

    The invariants: rounds are numbered without gaps and their steps increase; no image is over budget; no pixel is
    asked for twice; picks and answers lie inside their image; labels are classes or void; no pixel has two answers;
    every file belongs to this store.

    Args:
        store: The store.

    Returns:
        One line per fault, naming file and image; empty if all is well.
    """
    try:
        log = store.log
        header = store.header
    except LabelStoreError as error:
        return [str(error)]
    problems: list[str] = []
    live: list[RoundEvent] = []
    for position, event in enumerate(log.events):
        where = f"{store.path}: event {position} of the manifest"
        if isinstance(event, UndoEvent):
            if not live or live.pop().spec.index != event.index:
                problems.append(f"{where}: undoes round {event.index}, which is not the last one")
        elif isinstance(event, RoundEvent):
            if event.spec.index != len(live):
                problems.append(f"{where}: is round {event.spec.index} where round {len(live)} is due")
            if live and event.spec.step <= live[-1].spec.step:
                problems.append(f"{where}: step {event.spec.step} does not come after step {live[-1].spec.step}")
            live.append(event)
    readable: dict[str, RecordFile] = {}
    for name, entry in log.files.items():
        fault, file = _check_file(store, entry)
        if fault:
            problems.append(fault)
        if file is not None:
            readable[name] = file
    rounds = [event for event in log.events if isinstance(event, RoundEvent)]
    answers = [event for event in log.events if isinstance(event, AnswersEvent)]
    expected: list[tuple[str, str, dict[str, Any] | None]] = [
        *((event.file.name, "picks", event.spec.to_json()) for event in rounds),
        *((event.file.name, "answers", None) for event in answers),
    ]
    for name, kind, spec in expected:
        file = readable.get(name)
        if file is not None and file.header != {"kind": kind, "store": header.sha256, "round": spec}:
            problems.append(f"{file.path}: its header belongs to another store or round")
            del readable[name]
        elif file is not None and file.images and file.images[-1] >= len(header.images):
            problems.append(f"{file.path}: has records of images that the store was created without")
            del readable[name]
    digests = {position: content_digest(event.spec) for position, event in enumerate(rounds)}
    for number, image in enumerate(header.images):
        problems += _check_image(number, image, rounds, live, answers, readable, digests, len(header.class_names))
    for position, event in enumerate(rounds):
        if event.file.name in readable and digests[position].hexdigest() != event.content_sha256:
            problems.append(f"{store.path / event.file.name}: is not the content that round {event.spec.index} was")
    return problems


def _check_file(store: LabelReader, entry: FileEntry) -> tuple[str, RecordFile | None]:
    path = store.path / entry.name
    fault = ""
    try:
        check_whole_file(path, entry)
    except LabelStoreError as error:
        fault = str(error)
    try:
        return fault, RecordFile(path, entry)
    except LabelStoreError as error:
        return fault or str(error), None


def _check_image(
    number: int,
    image: TargetImage,
    rounds: list[RoundEvent],
    live: list[RoundEvent],
    answers: list[AnswersEvent],
    readable: dict[str, RecordFile],
    digests: dict[int, hashlib._Hash],
    num_classes: int,
) -> Iterator[str]:
    """The faults of one image; feeds the digests of the rounds on the way."""
    asked: NDArray[np.bool_] | None = None
    for position, event in enumerate(rounds):
        file = readable.get(event.file.name)
        if file is None:
            continue
        try:
            payload = file.read(number)
            if payload is None:
                continue
            digests[position].update(number.to_bytes(4, "little") + hashlib.sha256(payload).digest())
            record = check_picks(decode_picks(payload, image.image_id), event.spec, image)
            if any(event is one for one in live):
                where = f"round {event.spec.index}, image {image.image_id!r}"
                indices = regions_of(record, event.spec, image).indices
                if asked is None:
                    asked = np.zeros(image.height * image.width, dtype=np.bool_)
                check_disjoint(indices, asked, where, image.width)
                asked[indices] = True
        except LabelStoreError as error:
            yield f"{file.path}: {error}"
    seen: list[IntArray] = []
    for one in answers:
        file = readable.get(one.file.name)
        if file is None:
            continue
        try:
            payload = file.read(number)
            if payload is not None:
                given = ImageAnswers(image.image_id, *decode_answers(payload, image))
                seen.append(check_answers(given, num_classes, image)[0])
        except LabelStoreError as error:
            yield f"{file.path}: {error}"
    every = np.sort(np.concatenate(seen)) if seen else np.zeros(0, dtype=np.int64)
    again = every[1:][every[1:] == every[:-1]]
    if again.size:
        row, col = divmod(int(again[0]), image.width)
        yield f"image {image.image_id!r}: pixel (row {row}, column {col}) is answered in two batches"


@dataclass
class Overlap:
    """How much of two sets is common.

    Attributes:
        first: Size of the one.
        second: Size of the other.
        both: Size of the intersection.
    """

    first: int = 0
    second: int = 0
    both: int = 0

    @property
    def iou(self) -> float | None:
        """Intersection over union, None where both are empty."""
        union = self.first + self.second - self.both
        return self.both / union if union else None

    def count(self, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
        """Add two masks of one shape."""
        self.first += int(first.sum())
        self.second += int(second.sum())
        self.both += int((first & second).sum())

    def to_json(self) -> dict[str, Any]:
        """The counts and their IoU."""
        return {"first": self.first, "second": self.second, "both": self.both, "iou": self.iou}


@dataclass
class StoreDiff:
    """What two runs have in common.

    Attributes:
        num_images: Images that both have, in one size.
        only_first: Image ids of the first alone.
        only_second: Image ids of the second alone, or of another size there.
        picks: Per round that both have: pick positions of that round.
        pixels: Per round that both have: pixels asked for up to and including it.
        classes: Per class name: revealed pixels of the class; ``both`` are pixels that have it in both runs.
        conflicts: Pixels that both runs revealed with different labels.
    """

    num_images: int
    only_first: list[str]
    only_second: list[str]
    picks: list[Overlap] = field(default_factory=list)
    pixels: list[Overlap] = field(default_factory=list)
    classes: dict[str, Overlap] = field(default_factory=dict)
    conflicts: int = 0

    def to_json(self) -> dict[str, Any]:
        """Everything as a JSON object."""
        return {
            "num_images": self.num_images,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "rounds": [
                {"index": index, "picks": picks.to_json(), "pixels_so_far": pixels.to_json()}
                for index, (picks, pixels) in enumerate(zip(self.picks, self.pixels, strict=True))
            ],
            "classes": {name: overlap.to_json() for name, overlap in self.classes.items()},
            "conflicts": self.conflicts,
        }


def diff_stores(first: LabelReader, second: LabelReader) -> StoreDiff:
    """Compare two stores over the images that both have.

    Args:
        first: A store.
        second: Another with the same classes.

    Returns:
        Overlap per round and per class.

    Raises:
        LabelStoreError: If the class names differ.
        CorruptStoreError: If a file is damaged.
    """
    if first.class_names != second.class_names:
        raise LabelStoreError(
            f"{first.path} and {second.path} have different classes; only runs on one set of classes can be compared"
        )
    others = {image.image_id: image for image in second.images}
    common = [image for image in first.images if others.get(image.image_id) == image]
    ids = {image.image_id for image in common}
    num_rounds = min(first.num_rounds, second.num_rounds)
    result = StoreDiff(
        num_images=len(common),
        only_first=[image.image_id for image in first.images if image.image_id not in ids],
        only_second=[image.image_id for image in second.images if image.image_id not in ids],
        picks=[Overlap() for _ in range(num_rounds)],
        pixels=[Overlap() for _ in range(num_rounds)],
        classes={name: Overlap() for name in first.class_names},
    )
    for image in common:
        _diff_image(first, second, image, result)
    return result


def _diff_image(first: LabelReader, second: LabelReader, image: TargetImage, result: StoreDiff) -> None:
    shape = (image.height, image.width)
    so_far = [np.zeros(shape[0] * shape[1], dtype=np.bool_) for _ in range(2)]
    for index in range(len(result.picks)):
        centres = []
        for store, mask in zip((first, second), so_far, strict=True):
            mask[store.asked(image.image_id, index).indices] = True
            centres.append({tuple(pick) for pick in store.picks(image.image_id, index).picks.tolist()})
        picks = result.picks[index]
        picks.first += len(centres[0])
        picks.second += len(centres[1])
        picks.both += len(centres[0] & centres[1])
        result.pixels[index].count(*so_far)
    labels: list[LabelArray] = [store.revealed_label(image.image_id) for store in (first, second)]
    for number, overlap in enumerate(result.classes.values()):
        overlap.count(labels[0] == number, labels[1] == number)
    result.conflicts += int(((labels[0] != labels[1]) & (labels[0] != VOID) & (labels[1] != VOID)).sum())
