"""The objective of the paper (Eq. 12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ripu.losses import Softmax, consistency_loss, negative_learning_loss, supervised_loss
from ripu.objectives.interface import Batch, Network


@dataclass(frozen=True)
class RipuObjective:
    """Cross-entropy and alpha1 x consistency on the source, cross-entropy and alpha2 x negative learning on the target.

    Attributes:
        consistency_weight, negative_weight: alpha1 and alpha2 of Eq. 12; a term of weight 0 is not computed.
        negative_threshold: tau of Eq. 10.
        class_balance: Of both cross-entropies; see :func:`ripu.losses.supervised_loss`.
        supervised_average: See :func:`ripu.losses.supervised_loss`.
        boundary_only, boundary_detector, consistency_border: See :func:`ripu.losses.consistency_loss`.
        loss_epsilon: ``epsilon`` of :func:`ripu.losses.negative_learning_loss`.
    """

    consistency_weight: float = 0.1
    negative_weight: float = 1.0
    negative_threshold: float = 0.05
    class_balance: float = 0.0
    supervised_average: Literal["labelled", "all"] = "labelled"
    boundary_only: bool = True
    boundary_detector: Literal["neighbors", "laplacian"] = "neighbors"
    consistency_border: Literal["clip", "replicate"] = "clip"
    loss_epsilon: float = 0.0
    needs_teacher: ClassVar[bool] = False

    def source_terms(self, student: Network, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce`` and, unless in pre-training, ``consistency``."""
        logits, shape = student(batch["image"]), batch.get("shape")
        softmax = Softmax.of(logits)
        terms = {"source_ce": self._supervised(logits, batch["label"], shape, softmax)}
        if is_adapting and self.consistency_weight:
            terms["consistency"] = self.consistency_weight * consistency_loss(
                logits,
                batch["label"],
                self.boundary_only,
                boundary_detector=self.boundary_detector,
                border=self.consistency_border,
                shape=shape,
                softmax=softmax,
            )
        return terms

    def target_terms(
        self, student: Network, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce`` and ``negative``."""
        return self.revealed_terms(student(batch["image"]), batch["label"], batch.get("shape"))

    def revealed_terms(
        self, logits: Tensor, label: Tensor, shape: Tensor | None, softmax: Softmax | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce`` and ``negative`` of logits (B, C, H, W) and revealed labels (B, H, W)."""
        softmax = Softmax.of(logits) if softmax is None else softmax
        terms = {"target_ce": self._supervised(logits, label, shape, softmax)}
        if self.negative_weight:
            terms["negative"] = self.negative_weight * negative_learning_loss(
                logits, self.negative_threshold, epsilon=self.loss_epsilon, shape=shape, softmax=softmax
            )
        return terms

    def _supervised(self, logits: Tensor, label: Tensor, shape: Tensor | None, softmax: Softmax) -> Tensor:
        average, balance = self.supervised_average, self.class_balance
        return supervised_loss(logits, label, average=average, class_balance=balance, shape=shape, softmax=softmax)
