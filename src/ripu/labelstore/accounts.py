"""The budget account of a label store (asked, answered, void, spent, left), and the comparison of two stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.errors import LabelStoreError
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import VOID, IntArray, LabelArray, Regions, Round, regions_of


def count_clicks(pick_of_pixel: IntArray, labels: LabelArray, num_picks: int) -> IntArray:
    """Return the picks in which each label occurs, (256,) int64, for answered pixels, (M,); see :class:`Tally`."""
    is_given = np.zeros((num_picks, 256), dtype=np.bool_)
    is_given[pick_of_pixel, labels] = True
    return np.asarray(is_given.sum(axis=0), dtype=np.int64)


@dataclass
class Tally:
    """Counts over some picks. Classes are in train-id order.

    Clicks are the labels that a person had to give: per pick, the number of different labels among its answered pixels,
    void being one of them. A pick of one pixel is one click, a region across two classes is two, a pick without an
    answer none.
    """

    picks: int  # regions or single pixels: the unit of the budget
    answered_picks: int  # every pixel has an answer
    void_picks: int  # every answer is void: spent without a label
    clicks: int
    void_clicks: int
    asked_pixels: int
    answered_pixels: int  # void or not
    missing_pixels: int
    void_pixels: int
    class_pixels: list[int]
    class_clicks: list[int]  # also the number of picks in which the class occurs

    @classmethod
    def zero(cls, num_classes: int) -> Tally:
        """Return an empty tally."""
        return cls(0, 0, 0, 0, 0, 0, 0, 0, 0, [0] * num_classes, [0] * num_classes)

    @classmethod
    def count(cls, regions: Regions, labels: LabelArray, known: NDArray[np.bool_], num_classes: int) -> Tally:
        """Count the picks of one image and round, whose M pixels have these labels if they are ``known``, (M,) bool."""
        pick_of_pixel = regions.pick_of_pixel
        num_answers = np.bincount(pick_of_pixel[known], minlength=len(regions))
        num_void = np.bincount(pick_of_pixel[known & (labels == VOID)], minlength=len(regions))
        is_whole = num_answers == np.diff(regions.offsets)
        pixels = np.bincount(labels[known], minlength=256)
        clicks = count_clicks(pick_of_pixel[known], labels[known], len(regions))
        return cls(
            picks=len(regions),
            answered_picks=int(is_whole.sum()),
            void_picks=int((is_whole & (num_void == num_answers)).sum()),
            clicks=int(clicks.sum()),
            void_clicks=int(clicks[VOID]),
            asked_pixels=len(labels),
            answered_pixels=int(known.sum()),
            missing_pixels=int((~known).sum()),
            void_pixels=int(pixels[VOID]),
            class_pixels=pixels[:num_classes].tolist(),
            class_clicks=clicks[:num_classes].tolist(),
        )

    def add(self, other: Tally) -> None:
        """Add another tally in place."""
        for name, more in vars(other).items():
            mine = getattr(self, name)
            is_list = isinstance(mine, list)
            setattr(self, name, [a + b for a, b in zip(mine, more, strict=True)] if is_list else mine + more)

    def to_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return the counts as a JSON object, classes by name."""
        return {
            name: dict(zip(class_names, value, strict=True)) if isinstance(value, list) else value
            for name, value in vars(self).items()
        }


@dataclass
class RoundAccount:
    """The counts of a live round, and the picks of its budget that it did not spend, over all images.

    Nothing is said to be left if the images share a budget or differ in size, or regions have sizes of their own: then
    the budget per image is only a limit.
    """

    spec: Round
    tally: Tally
    left_picks: int | None


@dataclass
class StoreStats:
    """The budget account of a store.

    ``planned_picks`` are those that the run plans to spend on all images and rounds, on top of the carried ones. It
    is None without a plan, and if images differ in size: the plan is that of the largest then. (On the training grid
    the budget is the same for all sizes.) Each of the picks that are left will cost one click or more.
    """

    class_names: tuple[str, ...]  # in train-id order
    num_pixels: int  # of all images
    carried: Tally  # asked before the run began; not part of its plan
    total: Tally  # with the carried picks
    rounds: list[RoundAccount]  # live ones
    images: dict[str, Tally]  # by image id
    planned_picks: int | None
    left_picks: int | None
    left_pixels: int | None  # that they can ask about at most; None if regions are not squares
    left_picks_per_image: dict[str, int] | None
    unasked_answers: int  # pixels answered, but not asked about by these rounds, e.g. of undone ones

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        names, left = self.class_names, self.left_picks_per_image or {}
        return {
            "num_images": len(self.images),
            "num_pixels": self.num_pixels,
            "carried": self.carried.to_json(names),
            "total": self.total.to_json(names),
            "rounds": [
                {
                    **{name: getattr(account.spec, name) for name in ("index", "step", "budget")},
                    **account.tally.to_json(names),
                    "left_picks": account.left_picks,
                }
                for account in self.rounds
            ],
            "images": {
                image_id: {**tally.to_json(names), "left_picks": left.get(image_id)}
                for image_id, tally in self.images.items()
            },
            "planned_picks": self.planned_picks,
            "left_picks": self.left_picks,
            "left_pixels": self.left_pixels,
            "unasked_answers": self.unasked_answers,
        }


def all_planned_picks(store: LabelReader) -> int | None:
    """Return the picks that a run plans over all images and rounds; see :attr:`StoreStats.planned_picks`."""
    planned = store.planned_picks
    return planned * len(store.images) if planned is not None and _has_one_budget(store) else None


def _has_one_budget(store: LabelReader) -> bool:
    is_on_grid = bool(store.rounds) and all("grid" in spec.info for spec in store.rounds)
    return is_on_grid or len({(image.height, image.width) for image in store.images}) <= 1


def store_stats(store: LabelReader, num_rounds: int | None) -> StoreStats:
    """Return the account; see :meth:`ripu.labelstore.LabelStore.stats`."""
    num_classes = len(store.class_names)
    specs = store.rounds_as_of(num_rounds)
    tallies = [Tally.zero(num_classes) for _ in specs]
    carried, total = Tally.zero(num_classes), Tally.zero(num_classes)
    images: dict[str, Tally] = {}
    own_picks: dict[str, int] = {}
    unasked, are_squares = 0, True
    for image in store.images:
        image_id = image.image_id
        records = store.picks_as_of(image_id, len(specs))
        num_carried = len(records) - len(specs)
        images[image_id] = Tally.zero(num_classes)
        for tally, (spec, record) in zip([carried] * num_carried + tallies, records, strict=True):
            regions = regions_of(record, spec, image)
            counts = Tally.count(regions, *store.answered(image_id, regions.indices), num_classes)
            tally.add(counts)
            images[image_id].add(counts)
        own_picks[image_id] = sum(len(record.picks) for _, record in records[num_carried:])
        are_squares &= all(record.regions is None for _, record in records[num_carried:])
        unasked += len(store.answers(image_id)[0]) - images[image_id].answered_pixels
        total.add(images[image_id])
    is_own_budget = are_squares and _has_one_budget(store) and not any("budget_per" in spec.info for spec in specs)
    planned = all_planned_picks(store)
    left = left_pixels = left_per_image = None
    if planned is not None:
        left = planned - sum(own_picks.values())
        if specs and are_squares:
            left_pixels = left * (2 * specs[-1].reveal_radius + 1) ** 2
    if store.planned_picks is not None and is_own_budget:
        left_per_image = {image_id: store.planned_picks - picks for image_id, picks in own_picks.items()}
    return StoreStats(
        class_names=store.class_names,
        num_pixels=sum(image.height * image.width for image in store.images),
        carried=carried,
        total=total,
        rounds=[
            RoundAccount(spec, tally, spec.budget * len(images) - tally.picks if is_own_budget else None)
            for spec, tally in zip(specs, tallies, strict=True)
        ],
        images=images,
        planned_picks=planned,
        left_picks=left,
        left_pixels=left_pixels,
        left_picks_per_image=left_per_image,
        unasked_answers=unasked,
    )


def diff_stores(first: LabelReader, second: LabelReader) -> dict[str, Any]:
    """Compare two stores over the images that both have in one size; return a JSON object.

    An overlap has the sizes of two sets and of ``both``, and their ``iou`` (None if both are empty). Those from before
    the runs began are among ``pixels_so_far``. ``conflicts`` are pixels revealed with different labels.

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
    picks, pixels = np.zeros((2, num_rounds, 3), dtype=np.int64)
    classes = np.zeros((len(first.class_names), 3), dtype=np.int64)
    conflicts = 0
    for image in common:
        so_far = [store.asked_mask(image.image_id, 0) for store in (first, second)]  # before the runs began
        for index in range(num_rounds):
            centres = [np.zeros_like(mask) for mask in so_far]
            for store, mask, places in zip((first, second), so_far, centres, strict=True):
                mask.reshape(-1)[store.asked(image.image_id, index).indices] = True
                places[tuple(store.picks(image.image_id, index).picks.T)] = True
            picks[index] += _sizes(*centres)
            pixels[index] += _sizes(*so_far)
        mine, other = (store.revealed_label(image.image_id) for store in (first, second))
        for number in range(len(classes)):
            classes[number] += _sizes(mine == number, other == number)
        conflicts += int(((mine != other) & (mine != VOID) & (other != VOID)).sum())
    return {
        "num_images": len(common),
        "only_first": [image.image_id for image in first.images if image.image_id not in ids],
        "only_second": [image.image_id for image in second.images if image.image_id not in ids],
        "rounds": [
            {"index": index, "picks": _overlap(picks[index]), "pixels_so_far": _overlap(pixels[index])}
            for index in range(num_rounds)
        ],
        "classes": {name: _overlap(sizes) for name, sizes in zip(first.class_names, classes, strict=True)},
        "conflicts": conflicts,
    }


def _sizes(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> IntArray:
    return np.array([first.sum(), second.sum(), (first & second).sum()])


def _overlap(sizes: IntArray) -> dict[str, Any]:
    first, second, both = sizes.tolist()
    union = first + second - both
    return {"first": first, "second": second, "both": both, "iou": both / union if union else None}
