"""Classes of an image as labels, and an adversary for each class (WeakDA, Paul et al. 2020), a variant with points.

Legend: B batch, C classes, D features, H W size of the logits, h w cells of the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ripu.acquisition import Features
from ripu.acquisition.anchors import weighted_sums
from ripu.acquisition.cells import Cells
from ripu.acquisition.interface import size_of
from ripu.losses import IGNORE, is_image, masked_mean
from ripu.methods.adversary import SOURCE, TARGET
from ripu.methods.supervised import Supervised
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student


class ClassDiscriminators(nn.Module):
    """Keeps a discriminator for each class: a hidden layer with leaky rectifiers on the features of the class."""

    def __init__(self, num_features: int, num_classes: int, width: int = 64) -> None:
        """Make them; ``width`` units in the hidden layer of each."""
        super().__init__()
        # A convolution in groups is one linear layer for each class.
        self.layers = nn.Sequential(
            nn.Conv1d(num_classes * num_features, num_classes * width, kernel_size=1, groups=num_classes),
            nn.LeakyReLU(0.2),
            nn.Conv1d(num_classes * width, num_classes, kernel_size=1, groups=num_classes),
        )

    def forward(self, pooled_BCD: Tensor) -> Tensor:
        """Return the logits of the target by the features of each class, (B, C)."""
        found: Tensor = self.layers(pooled_BCD.flatten(1)[:, :, None])
        return found[:, :, 0]

    def told_apart(self, pooled_BCD: Tensor, domain: float, present_BC: Tensor) -> Tensor:
        """Return the cross-entropy of the discriminators for classes that are there; the network does not learn."""
        return _entropy(self(pooled_BCD.detach()), domain, present_BC)

    def fooled(self, pooled_BCD: Tensor, domain: float, present_BC: Tensor) -> Tensor:
        """Return the cross-entropy of the other ``domain``; the discriminators do not learn."""
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        return _entropy(functional_call(self, fixed, (pooled_BCD,)), domain, present_BC)


def _entropy(found_BC: Tensor, domain: float, present_BC: Tensor) -> Tensor:
    wanted = torch.full_like(found_BC, domain, dtype=torch.float32)
    return masked_mean(F.binary_cross_entropy_with_logits(found_BC.float(), wanted, reduction="none"), present_BC)


@dataclass(frozen=True)
class WeakLabels(Supervised):
    """Cross-entropy on the source and on revealed points, the classes of each image, and an adversary for each class.

    With ``A`` the logits of a class, its presence in an image is ``p_c = sigmoid(1/k log mean exp(k A_c))``, the mean
    over the pixels and ``k`` the ``sharpness``. A class is present (``y_c = 1``) in a source image if a pixel has its
    label; in a target image if a point has it, or if ``p_c`` is above ``threshold``. The features ``F_c`` of a class
    are the mean of the features of the cells, weighted by the softmax of ``A_c`` over the cells. With ``D_c`` the
    probability of the target that the discriminator of the class finds in ``F_c``:

    - on the source ``source_ce`` and, once the target is read, ``discriminator_source = -1/2 * mean log(1 - D_c)``;
    - on the target ``target_ce``; ``presence = presence_weight * mean over images of sum_c -y_c log p_c - (1 - y_c)
      log(1 - p_c)``; ``adversarial = adversarial_weight * mean -log(1 - D_c)``, which only the network learns from;
      and ``discriminator_target = -1/2 * mean log D_c``, which only the discriminators learn from.

    The means over discriminators are those over images and their present classes.

    Attributes:
        kept_lr_factor: Learning rate of the discriminators over that of the backbone.
    """

    presence_weight: float = 0.01
    adversarial_weight: float = 0.001
    sharpness: float = 1.0
    threshold: float = 0.2
    kept_lr_factor: float = 1.0
    needs_features: ClassVar[bool] = True

    def keeps(self, network: nn.Module) -> ClassDiscriminators:
        """Return the discriminators."""
        return ClassDiscriminators(num_features(network), int(network.num_classes))  # type: ignore[arg-type]

    def source_terms(self, student: Student, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce`` and, unless in pre-training, ``discriminator_source``."""
        if not is_adapting:
            return super().source_terms(student, batch, is_adapting=False)
        logits, features = student.with_features(batch["image"])
        pooled_BCD = class_features(logits, features, batch.get("shape"))
        present_BC = classes_of(batch["label"], int(logits.shape[1]))
        return {
            "source_ce": self.ce(logits, batch["label"], batch),
            "discriminator_source": 0.5 * student.kept.told_apart(pooled_BCD, SOURCE, present_BC),
        }

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce``, ``presence``, ``adversarial`` and ``discriminator_target``."""
        logits, features = student.with_features(batch["image"])
        found_BC = presence(logits, self.sharpness, batch.get("shape"))
        present_BC = classes_of(batch["label"], int(logits.shape[1])) | (found_BC.detach().sigmoid() > self.threshold)
        loss_BC = F.binary_cross_entropy_with_logits(found_BC, present_BC.float(), reduction="none")
        pooled_BCD = class_features(logits, features, batch.get("shape"))
        return {
            "target_ce": self.ce(logits, batch["label"], batch),
            "presence": self.presence_weight * loss_BC.sum(dim=1).mean(),
            "adversarial": self.adversarial_weight * student.kept.fooled(pooled_BCD, SOURCE, present_BC),
            "discriminator_target": 0.5 * student.kept.told_apart(pooled_BCD, TARGET, present_BC),
        }


def presence(logits: Tensor, sharpness: float, shape: Tensor | None = None) -> Tensor:
    """Return the logit of the presence of each class, ``1/k log mean exp(k A_c)``, (B, C) float32.

    For ``shape`` see :mod:`ripu.losses`.

    >>> logits = torch.tensor([[[[0.0, 3.0]], [[1.0, 1.0]]]]).log()
    >>> presence(logits, 2.0).exp().square()  # (0 + 9) / 2 and (1 + 1) / 2
    tensor([[4.5000, 1.0000]])
    """
    inside_B1M = is_image(logits, shape).flatten(1)[:, None]
    values_BCM = (sharpness * logits.float()).flatten(2).masked_fill(~inside_B1M, -math.inf)
    return (values_BCM.logsumexp(dim=2) - inside_B1M.sum(dim=2).log()) / sharpness


def classes_of(label: Tensor, num_classes: int) -> Tensor:
    """Return which classes the labels (B, H, W) of each image have, (B, C) bool.

    >>> classes_of(torch.tensor([[[0, 2, 255]]]), 3)
    tensor([[ True, False,  True]])
    """
    found = torch.zeros((len(label), IGNORE + 1), dtype=torch.bool, device=label.device)
    return found.scatter(1, label.flatten(1).long(), True)[:, :num_classes]


def class_features(logits: Tensor, features: Features, shape: Tensor | None = None) -> Tensor:
    """Return the mean features of each class, weighted by the softmax of its logits over the cells, (B, C, D) float32.

    The logits of a cell are those of the pixel in its middle.
    """
    cells = Cells.of(features, size_of(logits))
    middles = (..., torch.from_numpy(cells.rows)[:, None], torch.from_numpy(cells.columns))
    inside_Bhw = is_image(logits, shape)[middles]
    inside_Bhw[:, cells.inside[0] :], inside_Bhw[:, :, cells.inside[1] :] = False, False
    least = torch.finfo(torch.float32).min  # not -inf: an image of less than half a cell has no middle inside
    own_BChw = logits.float()[middles].masked_fill(~inside_Bhw[:, None], least)
    return weighted_sums(own_BChw.flatten(2).softmax(dim=2), features.values)
