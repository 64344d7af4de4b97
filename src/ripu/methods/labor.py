"""Two classifiers that are pushed apart show what to ask (LabOR, Shin et al. 2021), a variant.

Legend: B batch, C classes, H W size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ripu.acquisition import Features
from ripu.acquisition.interface import size_of
from ripu.losses import is_image, masked_mean
from ripu.methods.heads import Head
from ripu.methods.supervised import Supervised
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student


class SecondHead(nn.Module):
    """Keeps the second classifier."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        """Make it for a network."""
        super().__init__()
        self.head = Head(num_features, num_classes, dropout=0.0)


@dataclass(frozen=True)
class Labor(Supervised):
    """Cross-entropy of two classifiers on the source and on revealed labels, and a term that drives them apart.

    With ``P`` and ``Q`` the probabilities of the first and the second classifier: on the source ``source_ce`` and
    ``second_ce``, on the target ``target_ce`` and ``second_target_ce``, the terms of the second one times
    ``second_weight``, and ``discrepancy = -discrepancy_weight * mean over pixels of sum_c |P_c - Q_c|``, which only the
    second classifier learns from. :class:`ripu.acquisition.Inconsistency` asks where the two disagree.

    Attributes:
        second_weight: Weight of the cross-entropies of the second classifier.
        discrepancy_weight: Weight of the distance of the classifiers.
        kept_lr_factor: Learning rate of the second classifier over that of the backbone.
    """

    second_weight: float = 1.0
    discrepancy_weight: float = 0.1
    kept_lr_factor: float = 10.0
    needs_features: ClassVar[bool] = True
    kept_parts: ClassVar[tuple[str, ...]] = ("head",)

    def keeps(self, network: nn.Module) -> SecondHead:
        """Return the second classifier."""
        return SecondHead(num_features(network), int(network.num_classes))  # type: ignore[arg-type]

    def source_terms(self, student: Student, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce`` and ``second_ce``."""
        logits, features = student.with_features(batch["image"])
        second = student.kept.head(features, size_of(logits))
        return {
            "source_ce": self.ce(logits, batch["label"], batch),
            "second_ce": self.second_weight * self.ce(second, batch["label"], batch),
        }

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce``, ``second_target_ce`` and ``discrepancy``."""
        logits, features = student.with_features(batch["image"])
        second = student.kept.head(features, size_of(logits))
        apart = student.kept.head(Features(features.values.detach(), features.extent), size_of(logits))
        far_BHW = distance(logits.detach(), apart)
        return {
            "target_ce": self.ce(logits, batch["label"], batch),
            "second_target_ce": self.second_weight * self.ce(second, batch["label"], batch),
            "discrepancy": -self.discrepancy_weight * masked_mean(far_BHW, is_image(far_BHW, batch.get("shape"))),
        }


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return ``sum_c |P_c - Q_c|`` of each pixel, (B, H, W) float32 in [0, 2], from logits (B, C, H, W).

    >>> import torch
    >>> float(distance(torch.tensor([[[[200.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[200.0]]]])))
    2.0
    """
    return (first.float().softmax(dim=1) - second.float().softmax(dim=1)).abs().sum(dim=1)
