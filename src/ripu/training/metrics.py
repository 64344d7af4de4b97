"""Segmentation quality from one confusion matrix over a whole set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

from ripu.datasets.taxonomy import VOID, Taxonomy


class ConfusionMatrix(Metric):
    """Counts of (truth, prediction) over all images and ranks.

    Under ``trainer.deterministic``, torchmetrics' own compares every pixel with every cell, which takes 12 GB for one
    image of 2048 x 1024. This one counts whole numbers without weights, which is deterministic anyway.

    Attributes:
        counts: (C, C) int64 without void pixels; rows are truth, columns prediction.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Add pixels: integer train ids, and a label of the same shape with 255 for void."""
        is_known = label != VOID
        cells = label[is_known].long() * self.num_classes + prediction[is_known]
        self.counts += torch.bincount(cells, minlength=self.num_classes**2).view(self.num_classes, -1)

    def compute(self) -> Tensor:
        """Return the (C, C) int64 counts."""
        return self.counts.clone()


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a confusion matrix.

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

    def to_metrics(self) -> dict[str, float]:
        """Return the scores by the names under which they are logged.

        With subsets there are several means, so the mean over all C classes is also called ``mIoUC``, e.g. ``mIoU16``.
        """
        values = {"mIoU": self.miou, "pixel_accuracy": self.pixel_accuracy, **self.subsets}
        values |= {f"iou/{name}": iou for name, iou in self.per_class_iou.items() if iou is not None}
        return values | ({f"mIoU{len(self.per_class_iou)}": self.miou} if self.subsets else {})


def scores_from_confusion(
    confusion: Tensor, taxonomy: Taxonomy, scored: Sequence[str] | None = None
) -> SegmentationScores:
    """Return the IoU of every class, ``TP / (TP + FP + FN)``, and their mean, NaN over no class at all.

    Args:
        confusion: (C, C) integer counts without void pixels; rows are truth, columns prediction.
        taxonomy: The C classes.
        scored: The classes that are reported, of which the truth consists; None for all. A prediction of another
            class only misses the true one.
    """
    names = taxonomy.class_names if scored is None else tuple(scored)
    counts = confusion.to("cpu", torch.float64)
    hits = counts.diag()
    union = counts.sum(0) + counts.sum(1) - hits
    iou = {
        name: (100.0 * float(hit / total) if total > 0 else None)
        for name, hit, total in zip(taxonomy.class_names, hits, union, strict=True)
        if name in names
    }

    def mean(names: tuple[str, ...]) -> float:
        values = [value for name in names if (value := iou[name]) is not None]
        return sum(values) / len(values) if values else float("nan")

    total = counts.sum()
    return SegmentationScores(
        miou=mean(names),
        per_class_iou=iou,
        pixel_accuracy=100.0 * float(hits.sum() / total) if total > 0 else float("nan"),
        subsets={name: mean(names) for name, names in taxonomy.subsets.items()},
    )
