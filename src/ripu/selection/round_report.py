"""Counts of a round, taken from the label store: the entries of ``rounds`` in ``results.json``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.datasets.scenes import SceneDataset
from ripu.datasets.taxonomy import VOID
from ripu.labelstore import LabelReader, TargetImage, regions_of
from ripu.labelstore.accounts import count_clicks
from ripu.selection.candidates import grown
from ripu.selection.rank_part import RoundTally


def report_round(store: LabelReader, index: int, tally: RoundTally, started: float) -> dict[str, Any]:
    """Sum up a committed round.

    Args:
        store: The label store after the commit.
        index: Number of the round, from 0.
        tally: The work of this rank.
        started: ``time.monotonic()`` at the start of the round.

    Returns:
        ``index``, ``step``, ``picks`` (places picked in this round) and ``seconds``;
        ``acquisition``: the class of its score;
        ``clicks``: labels that people had to give so far, before the run too (``ripu.labelstore.accounts.Tally``);
        ``labelled_pixels``: target pixels queried so far, before the run too;
        ``labelled_fraction``: share of all target pixels queried so far, before the run too;
        ``void_fraction``: share of the pixels queried so far whose answer was void;
        ``class_pixels``: revealed pixels so far by class name, before the run too;
        ``new_class_pixels``: revealed pixels of this round only, by class name;
        ``overlap`` and ``overlap_by_chance``: see :func:`round_overlap`;
        ``images_per_second``: images scored per second, over all ranks;
        ``mean_impurity`` (nats) and ``mean_uncertainty`` of this rank's picks; None if the score has none, or without a
            pick.
    """
    seconds = time.monotonic() - started
    counts = count_answers(store, index)
    overlap, by_chance = round_overlap(store, index)
    return {
        "index": index,
        "step": store.rounds[index].step,
        "acquisition": store.rounds[index].info.get("acquisition"),
        **counts,
        "overlap": overlap,
        "overlap_by_chance": by_chance,
        "seconds": seconds,
        "images_per_second": len(store.images) / seconds,
        "mean_impurity": _mean(tally.impurity, tally.picks),
        "mean_uncertainty": _mean(tally.uncertainty, tally.picks),
    }


def _mean(total: float | None, count: int) -> float | None:
    return total / count if total is not None and count else None


def count_answers(store: LabelReader, index: int) -> dict[str, Any]:
    """Return the entries of :func:`report_round` that come from the label store, as they are now."""
    before, new = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    picks = asked = clicks = total = 0
    for image in store.images:
        total += image.height * image.width
        records = store.picks_as_of(image.image_id, index + 1)
        regions = [regions_of(record, earlier, image) for earlier, record in records]
        picks += len(regions[-1])
        labels, is_known = store.answered(image.image_id, np.concatenate([region.indices for region in regions]))
        asked += len(labels)
        sizes = np.concatenate([np.diff(region.offsets) for region in regions])
        pick_of_pixel = np.repeat(np.arange(len(sizes)), sizes)
        clicks += int(count_clicks(pick_of_pixel[is_known], labels[is_known], len(sizes)).sum())
        first = len(labels) - len(regions[-1].indices)
        before += np.bincount(labels[:first][is_known[:first]], minlength=256)
        new += np.bincount(labels[first:][is_known[first:]], minlength=256)
    counts = before + new
    return {
        "picks": picks,
        "clicks": clicks,
        "labelled_pixels": asked,
        "labelled_fraction": asked / total,
        "void_fraction": float(counts[VOID]) / asked if asked else 0.0,
        "class_pixels": _by_name(counts, store.class_names),
        "new_class_pixels": _by_name(new, store.class_names),
    }


def round_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of :func:`report_round` by the names under which they are logged."""
    always = ("labelled_fraction", "void_fraction", "picks", "seconds", "images_per_second")
    optional = ("mean_impurity", "mean_uncertainty", "overlap", "overlap_by_chance", "human_hours")
    values = {f"al/{name}": float(report[name]) for name in (*always, *optional) if report.get(name) is not None}
    return values | {f"al/pixels/{name}": float(count) for name, count in report["class_pixels"].items()}


def carried_fraction(store: LabelReader) -> float:
    """Return the share of all target pixels queried before the run began."""
    if not store.carried:
        return 0.0
    asked = sum(int(store.asked_mask(image.image_id, 0).sum()) for image in store.images)
    return asked / sum(image.height * image.width for image in store.images)


def round_overlap(store: LabelReader, index: int) -> tuple[float | None, float | None]:
    """Return the share of a round's picks near the round before, and the share that random picks would have.

    Near is the :func:`neighbourhood`. Both are None in the first round and without a pick, and the second for regions
    of fixed shape.
    """
    if index == 0:
        return None, None
    picks, near, expected, is_fixed = 0, 0, 0.0, False
    count = min(250, len(store.images))  # spread evenly
    for item in range(count):
        image = store.images[(2 * item + 1) * len(store.images) // (2 * count)]
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
        is_open = ~store.suppressed(image.image_id, index)
        expected += len(record.picks) * float((around & is_open).sum()) / max(1, int(is_open.sum()))
    if picks == 0:
        return None, None
    return near / picks, None if is_fixed else expected / picks


def neighbourhood(store: LabelReader, image: TargetImage, index: int) -> NDArray[np.bool_]:
    """Mark the pixels (H, W) around a round's picks, up to twice the distance at which later picks may lie.

    For windows this is ``2 * (suppress_radius + 1)`` (Chebyshev distance). For regions of fixed shape it is the region
    and the pixels that touch it.
    """
    record = store.picks(image.image_id, index)
    mask = np.zeros((image.height, image.width), dtype=np.bool_)
    if record.regions is not None:
        mask.reshape(-1)[record.regions.indices] = True
        return grown(mask, 1)
    reach = 2 * (store.rounds[index].suppress_radius + 1)
    for row, column in record.picks.tolist():  # much quicker than grown() for a few picks
        mask[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
    return mask


def true_class_pixels(scenes: SceneDataset) -> dict[str, int] | None:
    """Count the pixels of each class in the labels of a data set; None if no scene has a label.

    Raises:
        SceneError: A label file is missing or damaged.
    """
    labelled = [index for index, scene in enumerate(scenes.scenes) if scene.label is not None]
    if not labelled:
        return None
    counts = np.zeros(256, dtype=np.int64)
    with ThreadPoolExecutor(4) as pool:
        try:
            for found in pool.map(lambda index: np.bincount(scenes.read_label(index).ravel(), minlength=256), labelled):
                counts += found
        except BaseException:  # e.g. Ctrl-C: do not read the remaining labels
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return _by_name(counts, scenes.taxonomy.class_names)


def _by_name(counts: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, int]:
    return {name: int(counts[train_id]) for train_id, name in enumerate(names)}
