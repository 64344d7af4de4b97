"""How two label stores differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.errors import LabelStoreError
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import VOID, LabelArray, TargetImage


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
        pixels: Per round that both have: pixels asked for up to and including it, also before the runs began.
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
    so_far = [store.asked_mask(image.image_id, 0).reshape(-1) for store in (first, second)]  # before the runs began
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
