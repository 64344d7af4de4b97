"""Pseudo-labels that prototypes correct (ProDA, Zhang et al. 2021), a variant of its first stage.

Legend: B batch, C classes, D features, H W size of the logits, h w cells of the features, N images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ripu.acquisition import Features
from ripu.acquisition.anchors import at_cells, class_sums, label_of_cells
from ripu.losses import IGNORE, is_image, masked_mean
from ripu.methods.self_training import smoothness
from ripu.methods.supervised import Supervised
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student
from ripu.objectives.mixing import disturbed

FLOOR = 1e-4
"""The probability that a label gives to other classes in the reverse cross-entropy."""


class Prototypes(nn.Module):
    """Keeps the mean features of each class in the target, (C, D)."""

    def __init__(self, num_classes: int, num_features: int) -> None:
        """Begin with 0, which makes all classes alike."""
        super().__init__()
        self.means: Tensor
        self.register_buffer("means", torch.zeros(num_classes, num_features))

    @torch.no_grad()
    def move(self, values_BDhw: Tensor, label_Bhw: Tensor, share: float) -> None:
        """Let the prototype of each class that occurs take a ``share`` of the mean features of its cells."""
        sum_CD, count_C = (part.sum(dim=0) for part in class_sums(values_BDhw, label_Bhw, len(self.means)))
        mean_CD = sum_CD / count_C.clamp(min=1.0)[:, None]
        self.means += torch.where(count_C[:, None] > 0, share * (mean_CD - self.means), 0.0)


@dataclass(frozen=True)
class Proda(Supervised):
    """Cross-entropy on the source; on the target, labels of a teacher that the distances to prototypes correct.

    With ``T`` the teacher's probabilities of a pixel, ``f`` its features there and ``m_c`` the prototypes, the label is
    the class with the largest ``T_c * W_c``, where ``W = softmax_c(-|f - m_c| / temperature)``. The renewal makes the
    prototypes from all target images; then each follows the teacher's features of its class by ``momentum``.
    The network sees the image in other colours and blurred (:func:`ripu.objectives.mixing.disturbed`). Terms:

    - ``source_ce``; ``pseudo = ce_weight * CE + reverse_weight * (1 - P_label) * -log 1e-4``, means over pixels, the
      second one being the reverse cross-entropy;
    - ``consistency = consistency_weight * mean over cells of KL(W, V)``, ``V`` the weights by the network's features;
    - ``smooth = regularizer * mean of -1/C * sum_c log P_c``.

    Attributes:
        teacher_decay: Not used here: the default of ``ema.decay``.
    """

    temperature: float = 1.0
    momentum: float = 1e-4
    ce_weight: float = 0.1
    reverse_weight: float = 1.0
    consistency_weight: float = 10.0
    regularizer: float = 0.1
    jitter: float = 0.3
    blur: float = 0.5
    teacher_decay: float | None = None
    needs_teacher: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True
    adds_surveys: ClassVar[bool] = True
    needs_renewal: ClassVar[bool] = True

    def keeps(self, network: nn.Module) -> Prototypes:
        """Return the prototypes."""
        return Prototypes(int(network.num_classes), num_features(network))  # type: ignore[arg-type]

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo``, ``consistency`` and ``smooth``."""
        image, shape, kept = batch["image"], batch.get("shape"), student.kept
        taught, features = student.teacher_with_features(image)
        weight_BChw = self.weights(features.values, kept.means)
        label = torch.where(is_image(image, shape), corrected(taught, features, weight_BChw), IGNORE)
        label_Bhw = at_cells(label, features)
        logits, own = student.with_features(disturbed(image, self.jitter, self.blur, shape))
        log_own = self.log_weights(own.values, kept.means.clone())
        far_Bhw = F.kl_div(log_own, weight_BChw, reduction="none").sum(dim=1)
        kept.move(features.values, label_Bhw, self.momentum)
        return {
            "pseudo": self.ce_weight * self.ce(logits, label, batch)
            + self.reverse_weight * reverse_entropy(logits, label),
            "consistency": self.consistency_weight * masked_mean(far_Bhw, label_Bhw != IGNORE),
            "smooth": self.regularizer * smoothness(logits, label),
        }

    def log_weights(self, values_BDhw: Tensor, mean_CD: Tensor) -> Tensor:
        """Return the logarithm of the weight of each class in each cell, (B, C, h, w) float32."""
        values_BMD = values_BDhw.float().flatten(2).transpose(1, 2)
        far_BMC = torch.cdist(values_BMD, mean_CD.float().expand(len(values_BMD), -1, -1))
        log_BMC = (-far_BMC / self.temperature).log_softmax(dim=2)
        return log_BMC.transpose(1, 2).reshape(len(log_BMC), -1, *values_BDhw.shape[2:])

    def weights(self, values_BDhw: Tensor, mean_CD: Tensor) -> Tensor:
        """Return the weight of each class in each cell, (B, C, h, w) float32."""
        return self.log_weights(values_BDhw, mean_CD).exp()

    def survey(self, logits: Tensor, features: Features) -> NDArray[np.float64]:
        """Return the sums of the features of each predicted class in an image, and their number, (C, D + 1)."""
        sums, counts = class_sums(features.values, label_of_cells(logits, features), int(logits.shape[1]))
        found: NDArray[np.float64] = torch.cat([sums[0], counts[0, :, None]], dim=1).cpu().double().numpy()
        return found

    def learn(self, found: NDArray[np.float64], kept: Prototypes, number: int) -> None:
        """Make the prototypes from the sums over all images; that of a class without a cell stays as it is."""
        counts = torch.from_numpy(found[:, -1:])
        means = torch.from_numpy(found[:, :-1]) / counts.clamp(min=1.0)
        kept.means.copy_(torch.where(counts > 0, means.float(), kept.means.cpu()))


def corrected(taught: Tensor, features: Features, weight_BChw: Tensor) -> Tensor:
    """Return the class with the largest probability times weight, (B, H, W) uint8; weights are up-sampled."""
    covered = F.interpolate(weight_BChw, features.extent, mode="bilinear", align_corners=False)
    weight_BCHW = covered[:, :, : taught.shape[2], : taught.shape[3]]
    return (taught.float().softmax(dim=1) * weight_BCHW).argmax(dim=1).to(torch.uint8)


def reverse_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean of ``-log 1e-4 * (1 - P_label)`` over labelled pixels; 0 without any.

    >>> round(float(reverse_entropy(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8))), 4)
    4.6052
    """
    is_labelled = label != IGNORE
    class_BHW = torch.where(is_labelled, label, 0).long()
    probs = logits.float().softmax(dim=1).gather(1, class_BHW[:, None])[:, 0]
    return masked_mean(-math.log(FLOOR) * (1.0 - probs), is_labelled)
