"""Active adversarial domain adaptation with whole images (AADA, Su et al. 2020), a variant for segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ripu.methods.adversary import SOURCE, TARGET, Adversary
from ripu.methods.supervised import Supervised
from ripu.objectives import Batch, Network, Student


@dataclass(frozen=True)
class Aada(Supervised):
    """Cross-entropy on the source and on revealed labels, and an adversary that makes predictions alike.

    With ``D`` the discriminator's probability of the target: on the source ``source_ce`` and, once the target is read,
    ``discriminator_source = -1/2 * mean log(1 - D)``; on the target ``target_ce``, ``adversarial = adversarial_weight *
    mean -log(1 - D)``, which only the network learns from, and ``discriminator_target = -1/2 * mean log D``, which only
    the discriminator learns from.

    Attributes:
        adversarial_weight: Weight of the term that makes target predictions look like those of the source.
        kept_lr_factor: Learning rate of the discriminator over that of the backbone.
    """

    adversarial_weight: float = 0.001
    kept_lr_factor: float = 1.0
    kept_parts: ClassVar[tuple[str, ...]] = ("discriminator",)

    def keeps(self, network: nn.Module) -> Adversary:
        """Return the discriminator."""
        return Adversary(int(network.num_classes))  # type: ignore[arg-type]

    def source_terms(self, student: Student, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce`` and, unless in pre-training, ``discriminator_source``."""
        logits = student(batch["image"])
        terms = {"source_ce": self.ce(logits, batch["label"], batch)}
        if is_adapting:
            terms["discriminator_source"] = 0.5 * student.kept.told_apart(logits, SOURCE, batch.get("shape"))
        return terms

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce``, ``adversarial`` and ``discriminator_target``."""
        logits, shape = student(batch["image"]), batch.get("shape")
        return {
            "target_ce": self.ce(logits, batch["label"], batch),
            "adversarial": self.adversarial_weight * student.kept.fooled(logits, SOURCE, shape),
            "discriminator_target": 0.5 * student.kept.told_apart(logits, TARGET, shape),
        }
