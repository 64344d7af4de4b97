"""The differences between two label stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.errors import LabelStoreError
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import VOID


@dataclass
class Overlap:
    """The sizes of two sets and their intersection."""

    first: int = 0
    second: int = 0
    both: int = 0

    @property
    def iou(self) -> float | None:
        """Intersection over union; None if both sets are empty."""
        union = self.first + self.second - self.both
        return self.both / union if union else None

    def count(self, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
        """Add two masks of one shape."""
        self.first += int(first.sum())
        self.second += int(second.sum())
        self.both += int((first & second).sum())

    def to_json(self) -> dict[str, Any]:
        """Return the counts and their IoU."""
        return {**vars(self), "iou": self.iou}


@dataclass
class StoreDiff:
    """The overlap of two runs.

    Attributes:
        num_images: Images that both have, in one size.
        only_first: Image ids that only the first has.
        only_second: Image ids that only the second has, or in another size.
        picks: Per common round: pick positions of that round.
        pixels: Per common round: pixels asked for so far, those from before the runs began included.
        classes: Per class name: revealed pixels of the class; ``both`` are pixels that have it in both runs.
        conflicts: Pixels that both runs revealed, with different labels.
    """

    num_images: int
    only_first: list[str]
    only_second: list[str]
    picks: list[Overlap] = field(default_factory=list)
    pixels: list[Overlap] = field(default_factory=list)
    classes: dict[str, Overlap] = field(default_factory=dict)
    conflicts: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
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
    """Compare two stores with the same classes over the images that both have.

    Raises:
        LabelStoreError: The class names differ.
    """
    if first.class_names != second.class_names:
        raise LabelStoreError(
            f"{first.path} and {second.path} have different classes; only runs on the same classes can be compared"
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
        so_far = [store.asked_mask(image.image_id, 0) for store in (first, second)]  # before the runs began
        for index in range(num_rounds):
            centres = [np.zeros_like(mask) for mask in so_far]
            for store, mask, places in zip((first, second), so_far, centres, strict=True):
                mask.reshape(-1)[store.asked(image.image_id, index).indices] = True
                places[tuple(store.picks(image.image_id, index).picks.T)] = True
            result.picks[index].count(*centres)
            result.pixels[index].count(*so_far)
        one, other = (store.revealed_label(image.image_id) for store in (first, second))
        for number, overlap in enumerate(result.classes.values()):
            overlap.count(one == number, other == number)
        result.conflicts += int(((one != other) & (one != VOID) & (other != VOID)).sum())
    return result
