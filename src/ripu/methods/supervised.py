"""The cross-entropies that all methods have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ripu.losses import IGNORE, supervised_loss
from ripu.objectives import Batch, Student


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy on the source, ``source_ce``; methods add to it.

    Attributes:
        class_balance, supervised_average: Of the cross-entropies of labels and pseudo-labels, see
            :func:`ripu.losses.supervised_loss`.
    """

    class_balance: float = 0.0
    supervised_average: Literal["labelled", "all"] = "labelled"
    needs_teacher: ClassVar[bool] = False

    def source_terms(self, student: Student, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce``."""
        return {"source_ce": self.ce(student(batch["image"]), batch["label"], batch)}

    def ce(self, logits: Tensor, label: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of labels (B, H, W) for images of a batch."""
        average, balance = self.supervised_average, self.class_balance
        return supervised_loss(logits, label, average=average, class_balance=balance, shape=batch.get("shape"))


def pseudo_of(batch: Batch) -> Tensor:
    """Return the pseudo-labels of a batch, (B, H, W) uint8; 255 everywhere before the first renewal."""
    return batch["pseudo"] if "pseudo" in batch else torch.full_like(batch["label"], IGNORE)
