"""Candidates of an image in a round: windows around picks, or pieces of a partition.

Legend: N candidates, H W label size, R regions, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import Acquisition, ScoreMaps
from ripu.acquisition.nested import of_single_pixels
from ripu.functional import map_entropy_and_label
from ripu.labelstore import Regions

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Places of one image in the order of asking.

    Attributes:
        index: The image.
        places: (N, 2) int64 rows and columns.
        scores: (N,) float32, never rising unless groups take turns or scores share the picks, so any cut takes the
            first few.
        pixels: (N,) int64, the cost of each in the unit of the budget: its pixels, or 1 for windows, whose budget
            counts picks.
        regions: The pixels of each region of fixed shape; None for the round's squares, and for whole images, whose
            pixels would fill the memory (:meth:`ripu.selection.scoring.Scorer.open_pixels` finds them).
        impurity: (N,) float64 nats; None if the score has none.
        uncertainty: (N,) float64; None if the score has none.
    """

    index: int
    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    pixels: NDArray[np.int64]
    regions: Regions | None = None
    impurity: FloatArray | None = None
    uncertainty: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.places)

    def first(self, count: int) -> Candidates:
        """Return the first ``count`` candidates."""
        regions = self.regions
        if regions is not None:
            regions = Regions(regions.offsets[: count + 1], regions.indices[: regions.offsets[min(count, len(self))]])
        return replace(
            self,
            places=self.places[:count],
            scores=self.scores[:count],
            pixels=self.pixels[:count],
            regions=regions,
            impurity=None if self.impurity is None else self.impurity[:count],
            uncertainty=None if self.uncertainty is None else self.uncertainty[:count],
        )


def fixed_candidates(
    index: int,
    acquisition: Acquisition,
    logits: Tensor,
    partition: NDArray[np.int32],
    key: int,
    asked: NDArray[np.bool_],
    limit_px: int,
    *,
    at_least_one: bool = False,
    extra: dict[str, Any] | None = None,
) -> Candidates:
    """Return the best regions of a partition, as many as fit.

    Regions are taken in the order of their score until one no longer fits. Of equal scores the larger uncertainty comes
    first, then the smaller number of the region.

    Args:
        index: The image.
        acquisition: The score.
        logits: (1, C, h, w).
        partition: (H, W) int32 region numbers, -1 for no region.
        key: Key of random scores.
        asked: (H, W) bool; regions with one of these pixels are left out.
        limit_px: The most pixels in total.
        at_least_one: Return the best region even if it has more pixels than that.
        extra: Further arguments of the score, e.g. ``images``.
    """
    flat = partition.reshape(-1)
    order = np.argsort(flat, kind="stable")[int((flat < 0).sum()) :]  # pixels by region, ascending inside one
    counts = np.bincount(flat[order], minlength=1).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    place = np.zeros(len(counts), dtype=np.int64)
    is_used = counts > 0
    place[is_used] = order[(starts[:-1] + counts // 2)[is_used]]
    maps, score, impurity, uncertainty = _region_scores(acquisition, logits, partition, counts, place, key, extra or {})
    is_open = is_used & (np.bincount(flat[order], asked.reshape(-1)[order], len(counts)) == 0)
    regions = np.flatnonzero(is_open)
    tie_break = np.zeros(len(counts)) if uncertainty is None else uncertainty
    ranked = regions[np.lexsort((-tie_break[regions], -score[regions]))]
    if maps.group is not None:
        ranked = _in_turns(ranked, _majorities(maps.group, partition, len(counts)))
    fits = int(np.searchsorted(np.cumsum(counts[ranked]), limit_px, side="right"))
    chosen = ranked[: max(fits, int(at_least_one))]
    return Candidates(
        index,
        np.stack(np.divmod(place[chosen], partition.shape[1]), axis=1).reshape(-1, 2),
        score[chosen],
        counts[chosen],
        Regions.from_sets([order[starts[number] : starts[number + 1]] for number in chosen.tolist()]),
        None if impurity is None else impurity[chosen],
        None if uncertainty is None else uncertainty[chosen],
    )


def whole_candidate(index: int, maps: ScoreMaps, closed: NDArray[np.bool_]) -> Candidates:
    """Return an image as one candidate, with the mean score of its pixels that are not ``closed``, (H, W) bool.

    Its place is the first such pixel. An image without one gives no candidate.
    """
    num_open = closed.size - int(np.count_nonzero(closed))
    is_closed = torch.from_numpy(closed).to(maps.score.device) if num_open < closed.size else None

    def mean(batch: Tensor | None) -> FloatArray | None:
        if batch is None:
            return None
        values = batch[0].float() if is_closed is None else batch[0].float().masked_fill(is_closed, 0.0)
        total = values.sum(dim=1).cpu().double().numpy().sum()  # by rows: the same with any number of threads
        return np.array([total / num_open] if num_open else [])

    first, score = int(closed.argmin()), mean(maps.score)
    assert score is not None
    return Candidates(
        index,
        np.array([divmod(first, closed.shape[1])] if num_open else [], dtype=np.int64).reshape(-1, 2),
        score.astype(np.float32),
        np.ones(len(score), dtype=np.int64),
        None,
        mean(maps.impurity),
        mean(maps.uncertainty),
    )


def _region_scores(
    acquisition: Acquisition,
    logits: Tensor,
    partition: NDArray[np.int32],
    counts: NDArray[np.int64],
    place: NDArray[np.int64],
    key: int,
    extra: dict[str, Any],
) -> tuple[ScoreMaps, NDArray[np.float32], FloatArray | None, FloatArray | None]:
    """Return the maps of pixels, and (R,) score, impurity and uncertainty: Eq. (4) to (6) with regions for windows.

    The maps that a score returns tell its parts. With impurity, the score of a region is the impurity of its predicted
    labels, times the mean uncertainty of its pixels if there is one. Without impurity, it is the mean score of its
    pixels. With neither (random), it is the score of the region's middle pixel, because a mean of random numbers would
    depend on the region's size. A score of another score's values gets those of the regions.
    """
    size = (partition.shape[0], partition.shape[1])
    maps = of_single_pixels(acquisition)(logits, size, [key], **extra)
    if hasattr(acquisition, "rescore"):
        arguments = (acquisition.score, logits, partition, counts, place, key, extra)  # type: ignore[attr-defined]
        _, inner, impurity, uncertainty = _region_scores(*arguments)
        is_used = counts > 0
        inner[is_used] = acquisition.rescore(torch.from_numpy(inner[is_used]), key).numpy()
        return maps, inner, impurity, uncertainty
    if maps.impurity is None and maps.uncertainty is None:
        return maps, maps.score[0].reshape(-1).float().cpu().numpy()[place], None, None
    flat = partition.reshape(-1)
    inside = flat >= 0
    numbers = flat[inside].astype(np.int64)

    def means(batch: Tensor) -> FloatArray:
        values = batch[0].reshape(-1).cpu().double().numpy()[inside]
        return np.bincount(numbers, values, len(counts)) / np.maximum(counts, 1)

    uncertainty = None if maps.uncertainty is None else means(maps.uncertainty)
    if maps.impurity is None:
        return maps, means(maps.score).astype(np.float32), None, uncertainty
    num_classes = int(logits.shape[1])
    _, label = map_entropy_and_label(logits, size)
    label_M = label[0].reshape(-1).cpu().numpy().astype(np.int64)[inside]
    class_RC = np.bincount(numbers * num_classes + label_M, minlength=len(counts) * num_classes)
    class_RC = class_RC.reshape(len(counts), num_classes)
    nlogn_R = (class_RC * np.log(np.maximum(class_RC, 1))).sum(axis=1)
    size_R = np.maximum(counts, 1)
    impurity = np.maximum(0.0, (counts * np.log(size_R) - nlogn_R) / size_R)
    score = impurity if uncertainty is None else impurity * uncertainty
    return maps, score.astype(np.float32), impurity, uncertainty


def _majorities(group_BHW: Tensor, partition: NDArray[np.int32], num_regions: int) -> NDArray[np.int64]:
    """Return the most frequent group of the pixels of each region, (R,); the lowest of equally frequent ones."""
    group = group_BHW[0].reshape(-1).cpu().numpy().astype(np.int64)
    flat, inside, num_groups = partition.reshape(-1), partition.reshape(-1) >= 0, int(group.max()) + 1
    pairs = flat[inside].astype(np.int64) * num_groups + group[inside]
    most: NDArray[np.int64] = np.bincount(pairs, minlength=num_regions * num_groups).reshape(-1, num_groups).argmax(1)
    return most


def _in_turns(ranked: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ranked regions in the order in which their groups pick them in turns.

    >>> _in_turns(np.array([3, 0, 2, 1]), np.array([5, 7, 5, 5])).tolist()
    [3, 1, 0, 2]
    """
    turn, own = np.zeros(len(ranked), dtype=np.int64), group[ranked]
    for number in np.unique(own):
        turn[own == number] = np.arange((own == number).sum())
    return ranked[np.argsort(turn, kind="stable")]


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of scores that share the picks of an image, one after the other."""
    if len(parts) == 1:
        return parts[0]

    def one_after_the_other(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else np.concatenate(values)

    regions = [part.regions for part in parts if part.regions is not None]
    offsets = np.concatenate([[0], *(np.diff(region.offsets) for region in regions)]).cumsum()
    names = ("places", "scores", "pixels", "impurity", "uncertainty")
    return replace(
        parts[0],
        **{name: one_after_the_other(name) for name in names},
        regions=Regions(offsets, np.concatenate([region.indices for region in regions])) if regions else None,
    )


def grown(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return the pixels within a Chebyshev distance of an (H, W) mask.

    >>> grown(np.array([[True, False, False, False]]), 2).astype(int).tolist()
    [[1, 1, 1, 0]]
    """
    square = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    result: NDArray[np.bool_] = cv2.dilate(np.ascontiguousarray(mask, dtype=np.uint8), square) > 0
    return result


def global_cut(
    scores: Sequence[NDArray[np.float32]], costs: Sequence[NDArray[np.int64]], budget: int
) -> NDArray[np.int64]:
    """Return how many candidates of each image are asked about if all images share one budget.

    All candidates are taken in the order of their scores, which never rise within an image, until one no longer fits
    into the budget. Of equal scores the earlier image comes first, then the earlier candidate.

    >>> high, low = np.float32([3, 1]), np.float32([2, 1, 1])
    >>> global_cut([high, low], [np.int64([1, 1]), np.int64([1, 1, 1])], 3).tolist()
    [2, 1]
    """
    image = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
    order = np.argsort(-np.concatenate([np.zeros(0, np.float32), *scores]), kind="stable")
    spent = np.cumsum(np.concatenate([np.zeros(0, np.int64), *costs])[order])
    taken = image[order[: int(np.searchsorted(spent, budget, side="right"))]]
    return np.bincount(taken, minlength=len(scores)).astype(np.int64)
