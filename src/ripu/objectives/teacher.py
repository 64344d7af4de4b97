"""The objective of the paper, and a teacher that labels what is not revealed.

The teacher is the moving average of the network. It sees a target image as it was loaded and predicts a pseudo-label
with its confidence for each pixel. The network in training sees the image with classes of another image pasted onto it,
other colours and blur (ClassMix, Olsson et al. 2021; DACS, Tranheden et al. 2021). A pseudo-label counts as much as the
teacher is sure of the image it belongs to (DAFormer, Hoyer et al. 2022). Revealed labels win over pseudo-labels.

Legend: B batch, C classes, H W size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ripu.losses import IGNORE, Softmax, class_weights, is_image, weight_of_label, weighted_cross_entropy
from ripu.objectives.interface import Batch, Network
from ripu.objectives.mixing import Mixture, disturbed, pasted_area, shift_donors
from ripu.objectives.ripu import RipuObjective


@dataclass(frozen=True)
class TeacherObjective(RipuObjective):
    """Eq. 12, where the target terms also learn from pseudo-labels of a teacher.

    With ``q`` of an image, the share of its pixels that the teacher predicts with a probability above ``confidence``,
    ``label`` the revealed label, ``N`` the number of pixels of the batch without padding, ``w`` the weights of classes
    (``class_balance``, over pseudo-labels and pasted labels together):

    - ``target_ce`` and ``negative`` as in the paper, on the mixed image; pasted pixels have no revealed label;
    - ``pseudo = pseudo_weight / N * sum over pixels that are neither revealed nor pasted of q * w * CE(pseudo-label)``;
    - ``pasted = pseudo_weight / N * sum over pixels pasted from a source image of w * CE(source label)``.

    Pixels pasted from a target image keep their revealed label or their pseudo-label and ``q``.

    Attributes:
        pseudo_weight: Weight of both terms; 0 leaves Eq. 12 on disturbed images.
        confidence: In [0, 1).
        mix: Paste half of the classes of a source image (without a source: of another target image of the batch).
        jitter, blur: See :func:`ripu.objectives.mixing.disturbed`.
        teacher_decay: Not used here: the default of ``ema.decay``.
    """

    pseudo_weight: float = 1.0
    confidence: float = 0.968
    mix: bool = False
    jitter: float = 0.3
    blur: float = 0.5
    teacher_decay: float | None = None
    needs_teacher: ClassVar[bool] = True

    def target_terms(
        self, student: Network, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce``, ``negative``, ``pseudo`` and, with a source, ``pasted``."""
        assert teacher is not None
        shape = batch.get("shape")
        pseudo_BHW, weight_BHW = self.pseudo_labels(teacher(batch["image"]), batch["label"], shape)
        mixture = Mixture(batch["image"], batch["label"], pseudo_BHW, weight_BHW)
        if self.mix:
            donors = shift_donors(mixture) if source is None else Mixture.of_source(source, mixture)
            mixture = mixture.with_pasted(donors, pasted_area(donors.classes(), shape))
        logits = student(disturbed(mixture.image, self.jitter, self.blur, shape))
        softmax = Softmax.of(logits)
        terms = self.revealed_terms(logits, mixture.label, shape, softmax)
        num_pixels = weight_BHW[0].numel() * len(weight_BHW) if shape is None else int(shape.prod(dim=1).sum())
        scale = self.pseudo_weight / num_pixels
        pasted = torch.full_like(mixture.pseudo, IGNORE) if mixture.pasted is None else mixture.pasted
        label = torch.where(pasted != IGNORE, pasted, mixture.pseudo)  # no pixel has both
        balance_BHW = weight_of_label(class_weights(label, logits.shape[1], self.class_balance), label)
        weight_BHW = mixture.weight * balance_BHW
        terms["pseudo"] = scale * weighted_cross_entropy(logits, mixture.pseudo, weight_BHW, softmax=softmax)
        if mixture.pasted is not None:
            terms["pasted"] = scale * weighted_cross_entropy(logits, pasted, balance_BHW, softmax=softmax)
        return terms

    @torch.no_grad()
    def pseudo_labels(self, logits: Tensor, label: Tensor, shape: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the teacher's labels, (B, H, W) uint8 with 255 where a label is revealed or padding, and weights.

        Each weight, (B, H, W) float32, is ``q`` of its image, or 0 where there is no pseudo-label.
        """
        highest_BHW, pseudo_BHW = logits.float().softmax(dim=1).max(dim=1)
        inside = is_image(label, shape)
        is_sure = (highest_BHW > self.confidence) & inside
        share_B = is_sure.sum(dim=(1, 2)) / inside.sum(dim=(1, 2))
        is_open = inside & (label == IGNORE)
        pseudo_BHW = torch.where(is_open, pseudo_BHW, IGNORE).to(torch.uint8)
        return pseudo_BHW, is_open * share_B[:, None, None]
