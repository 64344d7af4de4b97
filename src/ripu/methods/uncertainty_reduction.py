"""Adaptation without source data by predictions that resist dropout (URMA, Teja and Fleuret 2021), a variant.

Legend: B batch, C classes, H W size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ripu.acquisition.interface import size_of
from ripu.losses import is_image, masked_mean
from ripu.methods.heads import Head
from ripu.methods.self_training import SelfTraining, mean_entropy
from ripu.methods.supervised import pseudo_of
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student


@dataclass(frozen=True)
class UncertaintyReduction(SelfTraining):
    """Cross-entropy of class-balanced pseudo-labels, the entropy, and decoders that see features with dropout.

    ``pseudo`` and ``smooth`` as in :class:`ripu.methods.SelfTraining`; ``entropy = entropy_weight * mean entropy`` of
    the pixels; ``decoders_ce``, the mean cross-entropy of the decoders for the pseudo-labels; and ``stability``,
    ``stability_weight`` times the sum over the decoders of the mean over pixels and classes of ``(P_c - Q_c)^2``, where
    ``P`` are the probabilities of the network, without a gradient, and ``Q`` those of the decoder.

    Attributes:
        num_decoders: Decoders, each a convolution on the features that the classifier reads.
        dropout: Of whole features, before each decoder.
    """

    entropy_weight: float = 1.0
    stability_weight: float = 0.1
    num_decoders: int = 4
    dropout: float = 0.5
    kept_lr_factor: float = 10.0
    needs_features: ClassVar[bool] = True

    def keeps(self, network: nn.Module) -> nn.ModuleList:
        """Return the decoders."""
        width, classes = num_features(network), int(network.num_classes)  # type: ignore[arg-type]
        return nn.ModuleList(Head(width, classes, self.dropout) for _ in range(self.num_decoders))

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo``, ``entropy``, ``decoders_ce`` and ``stability``."""
        logits, features = student.with_features(batch["image"])
        pseudo, shape = pseudo_of(batch), batch.get("shape")
        others = [head(features, size_of(logits)) for head in student.kept]
        return {
            **self.pseudo_terms(logits, pseudo, batch),
            "entropy": self.entropy_weight * mean_entropy(logits, is_image(logits, shape)),
            "decoders_ce": torch.stack([self.ce(one, pseudo, batch) for one in others]).mean(),
            "stability": self.stability_weight * torch.stack([instability(logits, one, shape) for one in others]).sum(),
        }


def instability(logits: Tensor, other: Tensor, shape: Tensor | None = None) -> Tensor:
    """Return the mean over pixels and classes of the squared differences of probabilities.

    Only the ``other`` logits learn from it; for ``shape`` see :mod:`ripu.losses`.
    """
    difference = logits.detach().float().softmax(dim=1) - other.float().softmax(dim=1)
    return masked_mean(difference.square().mean(dim=1), is_image(logits, shape))
