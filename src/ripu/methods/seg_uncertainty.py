"""Pseudo-labels that count less where two heads disagree (Seg-Uncertainty, Zheng and Yang 2021), a variant.

Legend: B batch, C classes, H W size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.acquisition.interface import size_of
from ripu.losses import IGNORE, class_weights, is_image, masked_mean, weight_of_label
from ripu.methods.adversary import SOURCE, TARGET, Adversary
from ripu.methods.heads import Head, divergence
from ripu.methods.supervised import Supervised
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student
from ripu.schedule import Plan


class TwoHeads(nn.Module):
    """Keeps the second head and a discriminator for each head."""

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        """Make them for a network."""
        super().__init__()
        self.head = Head(num_features, num_classes, dropout)
        self.first, self.second = Adversary(num_classes), Adversary(num_classes)


@dataclass(frozen=True)
class SegUncertainty(Supervised):
    """Two heads and two adversaries; after the renewal, pseudo-labels that count by the agreement of the heads.

    With ``v`` the divergence of the second head from the first one in a pixel (:func:`ripu.methods.heads.divergence`):

    - on the source ``source_ce`` and ``second_ce``, the latter times ``second_weight``;
    - in the first stage ``discriminator_source`` and ``discriminator_target``, the sum over both adversaries, and on
      the target ``adversarial``, ``adversarial_weight`` and ``second_adversarial_weight`` times the cross-entropies of
      the source, and ``agreement = agreement_weight * mean v``;
    - in the second stage, over pixels with a pseudo-label, ``rectified = mean of CE * exp(-v)``, ``second_rectified``,
      the same of the second head times ``second_weight``, and ``uncertainty = mean v``.

    The renewal labels every pixel with its most probable class.

    Attributes:
        dropout: Of the features that the second head reads.
    """

    adversarial_weight: float = 0.001
    second_adversarial_weight: float = 0.0002
    agreement_weight: float = 0.1
    second_weight: float = 0.5
    dropout: float = 0.1
    kept_lr_factor: float = 1.0
    needs_features: ClassVar[bool] = True

    def left_out(self, plan: Plan) -> str | None:
        """Return why a stage is missing; None if both are there."""
        if not plan.renewal_steps:
            return "renewal_steps=[] leaves out the second stage, which learns from pseudo-labels; give a step"
        if plan.renewal_steps[0] > plan.pretrain_steps:
            return None
        return (
            f"renewal_steps={list(plan.renewal_steps)} leaves out the first stage, from the end of pre-training "
            f"(pretrain_steps={plan.pretrain_steps}) to the first renewal; give a later step, or fewer pretrain_steps"
        )

    def keeps(self, network: nn.Module) -> TwoHeads:
        """Return the second head and the discriminators."""
        return TwoHeads(num_features(network), int(network.num_classes), self.dropout)  # type: ignore[arg-type]

    def source_terms(self, student: Student, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce``, ``second_ce`` and, in the first stage, ``discriminator_source``."""
        first, second = self._heads(student, batch)
        terms = {
            "source_ce": self.ce(first, batch["label"], batch),
            "second_ce": self.second_weight * self.ce(second, batch["label"], batch),
        }
        if is_adapting and not student.num_renewals:
            kept, shape = student.kept, batch.get("shape")
            told = kept.first.told_apart(first, SOURCE, shape) + kept.second.told_apart(second, SOURCE, shape)
            terms["discriminator_source"] = 0.5 * told
        return terms

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of the stage."""
        first, second = self._heads(student, batch)
        kept, far, shape = student.kept, divergence(first, second), batch.get("shape")
        if "pseudo" in batch:
            return self.rectified(first, second, far, batch["pseudo"])
        fooled = self.adversarial_weight * kept.first.fooled(first, SOURCE, shape)
        told = kept.first.told_apart(first, TARGET, shape) + kept.second.told_apart(second, TARGET, shape)
        return {
            "adversarial": fooled + self.second_adversarial_weight * kept.second.fooled(second, SOURCE, shape),
            "agreement": self.agreement_weight * masked_mean(far, is_image(far, shape)),
            "discriminator_target": 0.5 * told,
        }

    def rectified(self, first: Tensor, second: Tensor, far_BHW: Tensor, pseudo: Tensor) -> dict[str, Tensor]:
        """Return the terms on pseudo-labels (B, H, W) from the logits of both heads and their divergence."""
        is_labelled = pseudo != IGNORE
        label = torch.where(is_labelled, pseudo, 0).long()
        balance = weight_of_label(class_weights(pseudo, int(first.shape[1]), self.class_balance), pseudo)

        def rectified(logits: Tensor) -> Tensor:
            loss = F.cross_entropy(logits.float(), label, reduction="none")
            return masked_mean(balance * loss * (-far_BHW).exp(), is_labelled)

        return {
            "rectified": rectified(first),
            "second_rectified": self.second_weight * rectified(second),
            "uncertainty": masked_mean(far_BHW, is_labelled),
        }

    def pseudo_label(self, logits: Tensor, learnt: None) -> Tensor:
        """Return the most probable class of each pixel, (1, h, w) uint8."""
        return logits.argmax(dim=1).to(torch.uint8)

    def _heads(self, student: Student, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits of both heads, (B, C, H, W)."""
        logits, features = student.with_features(batch["image"])
        return logits, student.kept.head(features, size_of(logits))
