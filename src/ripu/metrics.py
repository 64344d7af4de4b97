"""Segmentation quality from one confusion matrix over a whole set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ripu.datasets.taxonomy import Taxonomy


@dataclass(frozen=True)
class SegmentationScores:
    """What a confusion matrix says.

    Attributes:
        miou: Mean IoU in percent over the classes that occur.
        per_class_iou: IoU in percent by class name; None where the class occurs in neither truth nor prediction.
        pixel_accuracy: Share of labelled pixels that are right, in percent.
        subsets: Mean IoU in percent over the taxonomy's named subsets.
    """

    miou: float
    per_class_iou: Mapping[str, float | None]
    pixel_accuracy: float
    subsets: Mapping[str, float]


def scores_from_confusion(confusion: Tensor, taxonomy: Taxonomy) -> SegmentationScores:
    """IoU of every class, ``TP / (TP + FP + FN)``, and their mean.

    Args:
        confusion: (C, C) integer counts; rows are truth, columns prediction; void pixels are not in it.
        taxonomy: Names of the classes, and the subsets to average over.

    Returns:
        The scores. A mean over no class at all is NaN.
    """
    counts = confusion.to("cpu", torch.float64)
    hits = counts.diag()
    union = counts.sum(0) + counts.sum(1) - hits
    iou = {
        name: (100.0 * float(hit / total) if total > 0 else None)
        for name, hit, total in zip(taxonomy.class_names, hits, union, strict=True)
    }

    def mean(names: tuple[str, ...]) -> float:
        values = [value for name in names if (value := iou[name]) is not None]
        return sum(values) / len(values) if values else float("nan")

    total = counts.sum()
    return SegmentationScores(
        miou=mean(taxonomy.class_names),
        per_class_iou=iou,
        pixel_accuracy=100.0 * float(hits.sum() / total) if total > 0 else float("nan"),
        subsets={name: mean(names) for name, names in taxonomy.subsets.items()},
    )
