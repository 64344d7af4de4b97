"""Pseudo-labels without source data that an auto-encoder of label maps corrects (SFDA, Kundu et al. 2021), a variant.

Legend: B batch, C classes, H W size, h w cells of the auto-encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ripu.methods.self_training import SelfTraining, Sure, labels_above
from ripu.methods.supervised import pseudo_of
from ripu.objectives import Batch, Network, Student
from ripu.schedule import Plan

SIDE = 8
"""Pixels along the side of a cell."""


class PriorAutoencoder(nn.Module):
    """Maps the prediction of an image to a likely one: cells, two halvings, two doublings, given the classes' shares.

    Its convolutions are 3 x 3 with leaky rectifiers between them. What lies halfway depends on the mean probability of
    each class in the image, too.
    """

    def __init__(self, num_classes: int, width: int = 32) -> None:
        """Make it for predictions of ``num_classes`` classes; ``width`` channels after the first convolution."""
        super().__init__()
        self.first = nn.Conv2d(num_classes, width, kernel_size=3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1)
        self.condition = nn.Linear(num_classes, 2 * width)
        self.third = nn.Conv2d(2 * width, width, kernel_size=3, padding=1)
        self.last = nn.Conv2d(width, num_classes, kernel_size=3, padding=1)

    def forward(self, probs: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the logits of the likely prediction of an image, (1, C, H, W) as its probabilities are.

        ``hidden``, (h, w) bool, are cells that it has to guess: they are uniform in its input.
        """
        mean = probs.mean(dim=(2, 3))
        cells = F.avg_pool2d(probs, SIDE, ceil_mode=True, count_include_pad=False)
        if hidden is not None:
            cells = torch.where(hidden, 1.0 / probs.shape[1], cells)
        half = F.leaky_relu(self.first(cells), 0.2)
        quarter = F.leaky_relu(self.second(half) + self.condition(mean)[:, :, None, None], 0.2)
        again = F.leaky_relu(self.third(_resized(quarter, half)), 0.2)
        return _resized(self.last(_resized(again, cells)), probs)


def _resized(values: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(values, like.shape[2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Refined(Sure):
    """Choice of a renewal, and the auto-encoder that corrects its predictions; None in the first one."""

    prior: PriorAutoencoder | None


@dataclass(frozen=True)
class PriorEnforcing(SelfTraining):
    """Cross-entropy of pseudo-labels that the surest pixels have, by predictions that an auto-encoder corrects.

    With ``P`` the probabilities of a pixel and ``R`` those that the auto-encoder makes of the image's prediction, a
    renewal labels pixels as in :class:`ripu.methods.SelfTraining`, with probabilities proportional to
    ``P ** (1 - prior_share) * R ** prior_share`` in the place of ``P``; the thresholds are those of ``P``. The first
    renewal knows no ``R``.

    ``pseudo`` and ``smooth`` as there; ``autoencoder`` is the cross-entropy of ``R`` for the pseudo-labels, from a
    prediction whose cells are hidden with the probability ``hidden_share``. Only the auto-encoder learns from it.

    Attributes:
        kept_lr_factor: Learning rate of the auto-encoder over that of the backbone.
    """

    share: float = 0.33
    share_step: float = 0.0
    prior_share: float = 0.3
    hidden_share: float = 0.3
    kept_lr_factor: float = 10.0

    def left_out(self, plan: Plan) -> str | None:
        """Return why the auto-encoder corrects no renewal; None if it corrects one."""
        if len(plan.renewal_steps) > 1 or not self.prior_share:
            return None
        return (
            f"renewal_steps={list(plan.renewal_steps)} leaves out the correction by the auto-encoder, from the second "
            f"renewal on (method.prior_share={self.prior_share}); give a second step, or method.prior_share=0"
        )

    def keeps(self, network: nn.Module) -> PriorAutoencoder:
        """Return the auto-encoder."""
        return PriorAutoencoder(int(network.num_classes))  # type: ignore[arg-type]

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo``, ``autoencoder`` and, with a ``regularizer``, ``smooth``."""
        logits, pseudo = student(batch["image"]), pseudo_of(batch)
        likely = self.guessed(student.kept, logits.detach().float().softmax(dim=1), batch.get("shape"))
        return {**self.pseudo_terms(logits, pseudo, batch), "autoencoder": self.ce(likely, pseudo, batch)}

    def guessed(self, prior: PriorAutoencoder, probs: Tensor, shape: Tensor | None) -> Tensor:
        """Return the logits that the auto-encoder makes of images (B, C, H, W), with some of their cells hidden.

        They are 0 in the padding.
        """
        found = []
        for number, (height, width) in enumerate([probs.shape[2:]] * len(probs) if shape is None else shape.tolist()):
            hidden = torch.rand(-(-height // SIDE), -(-width // SIDE)) < self.hidden_share
            one = prior(probs[number : number + 1, :, :height, :width], hidden.to(probs.device, non_blocking=True))
            found.append(F.pad(one, (0, probs.shape[3] - width, 0, probs.shape[2] - height)))
        return torch.cat(found)

    def learn(self, found: NDArray[Any], kept: PriorAutoencoder, number: int) -> Refined:
        """Return the share and the thresholds of this renewal, and from the second one on the auto-encoder."""
        sure = super().learn(found, kept, number)
        return Refined(sure.share, sure.threshold_C, kept if number else None)

    def pseudo_label(self, logits: Tensor, learnt: Any) -> Tensor:
        """Return the pseudo-labels of an image, (1, h, w) uint8."""
        return labels_above(refined(logits, learnt.prior, self.prior_share), learnt.threshold_C)

    def facts(self, learnt: Any) -> dict[str, Any]:
        """Return the share, the thresholds by train id, and whether the auto-encoder has corrected predictions."""
        return {**super().facts(learnt), "is_refined": learnt.prior is not None}


@torch.no_grad()
def refined(logits: Tensor, prior: PriorAutoencoder | None, share: float) -> Tensor:
    """Return the logits of an image's prediction ``P ** (1 - share) * R ** share``, ``R`` what ``prior`` makes of it.

    Without a ``prior``, they are those of ``P``.
    """
    log_p = logits.float().log_softmax(dim=1)
    return log_p if prior is None else (1.0 - share) * log_p + share * prior(log_p.exp()).float().log_softmax(dim=1)
