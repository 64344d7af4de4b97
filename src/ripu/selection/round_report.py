"""What a round revealed, counted from the label store: the entries of ``rounds`` in ``results.json``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID
from ripu.labelstore import LabelReader, Regions, Round, TargetImage, regions_of

OVERLAP_IMAGES = 250
"""Overlap with the round before is measured on at most this many images, spread evenly."""


class Tally(Protocol):
    """What a rank did in a round, as :class:`ripu.selection.engine.RoundTally` counts it."""

    picks: int
    impurity: float
    uncertainty: float


@dataclass(frozen=True)
class RoundReport:
    """What a round revealed, over all ranks.

    Attributes:
        index: Number of the round, from 0.
        step: Training step.
        picks: Places picked in this round.
        labelled_fraction: Share of all target pixels that have been asked about so far, also before the run began.
        void_fraction: Share of the pixels asked about so far whose answer was void.
        class_pixels: Revealed pixels so far by class name, also before the run began.
        new_class_pixels: Revealed pixels of this round alone by class name.
        overlap: Share of this round's picks that are neighbours of what the round before asked for in the same image
            (see :func:`neighbourhood`); None in the first round, or without a pick.
        overlap_by_chance: The same share for picks at random among the pixels that could still be picked; None in the
            first round, and for regions of fixed shape.
        seconds: Duration of the round.
        images_per_second: Images scored a second, over all ranks.
        mean_impurity: Mean region impurity of this rank's picks in nats; None where the score has none.
        mean_uncertainty: Mean uncertainty of this rank's picks in nats; None where the score has none.
    """

    index: int
    step: int
    picks: int
    labelled_fraction: float
    void_fraction: float
    class_pixels: Mapping[str, int]
    new_class_pixels: Mapping[str, int]
    overlap: float | None
    overlap_by_chance: float | None
    seconds: float
    images_per_second: float
    mean_impurity: float | None
    mean_uncertainty: float | None


def report_round(store: LabelReader, index: int, tally: Tally, started: float) -> RoundReport:
    """Sum up a committed round.

    Args:
        store: The label store after the commit.
        index: Number of the round.
        tally: What this rank did.
        started: ``time.monotonic()`` at the start of the round.

    Raises:
        RoundOrderError: There is no such round.
    """
    seconds = time.monotonic() - started
    spec = store.rounds[index]
    before, new = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    picks = asked = total = 0
    for image in store.images:
        total += image.height * image.width
        regions = [regions_of(record, one, image) for one, record in store.carried_picks(image.image_id)]
        regions += [store.asked(image.image_id, earlier) for earlier in range(index + 1)]
        picks += len(regions[-1])
        labels, is_known = store.answered(image.image_id, np.concatenate([region.indices for region in regions]))
        asked += len(labels)
        first = len(labels) - len(regions[-1].indices)
        before += np.bincount(labels[:first][is_known[:first]], minlength=256)
        new += np.bincount(labels[first:][is_known[first:]], minlength=256)
    counts = before + new
    overlap, by_chance = round_overlap(store, index)
    return RoundReport(
        index=index,
        step=spec.step,
        picks=picks,
        labelled_fraction=asked / total,
        void_fraction=float(counts[VOID]) / asked if asked else 0.0,
        class_pixels=_by_name(counts, store.class_names),
        new_class_pixels=_by_name(new, store.class_names),
        overlap=overlap,
        overlap_by_chance=by_chance,
        seconds=seconds,
        images_per_second=len(store.images) / seconds,
        mean_impurity=tally.impurity / tally.picks if tally.picks and tally.impurity else None,
        mean_uncertainty=tally.uncertainty / tally.picks if tally.picks and tally.uncertainty else None,
    )


def carried_fraction(store: LabelReader) -> float:
    """Share of all target pixels that were asked about before the run began."""
    if not store.carried:
        return 0.0
    asked = sum(int(store.asked_mask(image.image_id, 0).sum()) for image in store.images)
    return asked / sum(image.height * image.width for image in store.images)


def round_overlap(
    store: LabelReader, index: int, num_images: int = OVERLAP_IMAGES
) -> tuple[float | None, float | None]:
    """How far a round stays where the round before was.

    No pixel is asked for twice, so what is counted are neighbours.

    Args:
        store: The label store.
        index: Number of the round.
        num_images: Look at this many images at most, spread evenly.

    Returns:
        The share of the round's picks that lie in the :func:`neighbourhood` of the round before, and the share that
        picks at random would have. None each where there is nothing to tell: first round, no pick, fixed regions (the
        second).

    Raises:
        RoundOrderError: There is no such round.
    """
    spec = store.rounds[index]
    if index == 0:
        return None, None
    picks = near = 0
    expected = 0.0
    is_fixed = False
    for image in _spread(store.images, num_images):
        record = store.picks(image.image_id, index)
        if not len(record.picks):
            continue
        around = neighbourhood(store, image, index - 1)
        picks += len(record.picks)
        if record.regions is not None:
            is_fixed = True
            near += len(np.unique(record.regions.pick_of_pixel[around.reshape(-1)[record.regions.indices]]))
            continue
        near += int(around[record.picks[:, 0], record.picks[:, 1]].sum())
        is_open = ~store.suppressed(image.image_id, spec.index)
        expected += len(record.picks) * float((around & is_open).sum()) / max(1, int(is_open.sum()))
    if picks == 0:
        return None, None
    return near / picks, None if is_fixed else expected / picks


def neighbourhood(store: LabelReader, image: TargetImage, index: int) -> NDArray[np.bool_]:
    """The pixels around what a round asked for, as near as a later pick may come and as far again.

    Windows: within ``2 * (suppress_radius + 1)`` of a pick (Chebyshev distance). Regions of fixed shape: the region and
    the pixels that touch it.

    Returns:
        (H, W) bool.
    """
    spec: Round = store.rounds[index]
    record = store.picks(image.image_id, index)
    mask = np.zeros((image.height, image.width), dtype=np.bool_)
    if record.regions is not None:
        return _grown(record.regions, mask)
    reach = 2 * (spec.suppress_radius + 1)
    for row, column in record.picks.tolist():
        mask[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
    return mask


def _grown(regions: Regions, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Regions and the pixels around them, diagonal ones included."""
    mask.reshape(-1)[regions.indices] = True
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    wide: NDArray[np.bool_] = grown.copy()
    wide[:, 1:] |= grown[:, :-1]
    wide[:, :-1] |= grown[:, 1:]
    return wide


def true_class_pixels(scenes: SceneDataset, num_threads: int = 4) -> dict[str, int] | None:
    """How often each class occurs in the labels of a data set: what is revealed is held against it.

    Args:
        scenes: The scenes; those without a label are left out.
        num_threads: Files that are read at the same time.

    Returns:
        Pixels by class name; None where no scene has a label.

    Raises:
        SceneError: A label file is missing or damaged.
    """
    labelled = [index for index, scene in enumerate(scenes.scenes) if scene.label is not None]
    if not labelled:
        return None

    def count(index: int) -> NDArray[np.int64]:
        counted: NDArray[np.int64] = np.bincount(scenes.read_label(index).reshape(-1), minlength=256)
        return counted

    counts = np.zeros(256, dtype=np.int64)
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for one in pool.map(count, labelled):
                counts += one
        except BaseException:  # Ctrl-C, for one: the labels that wait are not read any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return _by_name(counts, scenes.taxonomy.class_names)


def _by_name(counts: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, int]:
    return {name: int(counts[train_id]) for train_id, name in enumerate(names)}


def _spread(images: tuple[TargetImage, ...], count: int) -> Iterator[TargetImage]:
    count = min(count, len(images))
    return (images[(2 * item + 1) * len(images) // (2 * count)] for item in range(count))
