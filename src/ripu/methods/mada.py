"""Multi-anchor active domain adaptation with whole images (MADA, Ning et al. 2021), a variant.

Legend: B batch, C classes, D features, h w cells of the features, K anchors, N images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ripu.acquisition import Features
from ripu.acquisition.anchors import anchors_of, at_cells, class_means, mean_square
from ripu.losses import IGNORE, is_image
from ripu.methods.supervised import Supervised
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student
from ripu.schedule import Plan


class Anchors(nn.Module):
    """Keeps the anchors of the target, (K, C * D)."""

    def __init__(self, num_anchors: int, length: int) -> None:
        super().__init__()
        self.anchors: Tensor
        self.register_buffer("anchors", torch.zeros(num_anchors, length))

    @torch.no_grad()
    def move(self, means_BD: Tensor, decay: float) -> None:
        """Let the nearest anchor of each image, one after the other, take ``1 - decay`` of its means."""
        for means_D in means_BD:
            nearest_K = torch.zeros(len(self.anchors), device=means_D.device)
            nearest_K = nearest_K.scatter(0, mean_square(means_D[None], self.anchors)[0].argmin()[None], 1.0 - decay)
            self.anchors += nearest_K[:, None] * (means_D - self.anchors)


@dataclass(frozen=True)
class Mada(Supervised):
    """Cross-entropy on the source and on revealed labels; after the renewal, anchors of the target, too.

    With ``d_k`` the mean square distance of the class means of an image (:func:`ripu.acquisition.anchors.class_means`)
    to the ``k``-th of K anchors. First stage: ``source_ce`` and ``target_ce``. A renewal makes the anchors from at most
    ``most_surveyed`` target images by k-means. Second stage, in addition: ``self_ce``, the cross-entropy of the
    network's own most probable classes on pixels without a label, and ``anchor = anchor_weight * mean over images of
    K / sum_k 1 / d_k``. The nearest anchor of each image follows it.

    Attributes:
        anchor_weight: Weight of the distance to the anchors.
        anchor_decay: Share of an anchor that stays when an image moves it.
        num_anchors: K.
        min_cells: Classes of fewer cells of the features count as missing, with features of 0.
        anchor_seed: Of k-means.
    """

    anchor_weight: float = 0.7
    anchor_decay: float = 0.999
    num_anchors: int = 10
    min_cells: int = 10
    anchor_seed: int = 31
    needs_features: ClassVar[bool] = True
    most_surveyed: ClassVar[int] = 500

    def left_out(self, plan: Plan) -> str | None:
        """Return why the second stage is missing; None if it is there."""
        if plan.renewal_steps:
            return None
        return "renewal_steps=[] leaves out the second stage, in which images keep near anchors; give a step"

    def keeps(self, network: nn.Module) -> Anchors:
        """Return the anchors, all 0."""
        return Anchors(self.num_anchors, int(network.num_classes) * num_features(network))  # type: ignore[arg-type]

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce`` and, in the second stage, ``self_ce`` and ``anchor``."""
        label = batch["label"]
        if not student.num_renewals:
            return {"target_ce": self.ce(student(batch["image"]), label, batch)}
        logits, features = student.with_features(batch["image"])
        predicted = torch.where(is_image(logits, batch.get("shape")), logits.detach().argmax(dim=1), IGNORE)
        own = torch.where(label == IGNORE, predicted, IGNORE).to(torch.uint8)
        means = self.means(predicted, features, int(logits.shape[1]))
        distance_BK = mean_square(means, student.kept.anchors.clone())
        student.kept.move(means.detach(), self.anchor_decay)
        return {
            "target_ce": self.ce(logits, label, batch),
            "self_ce": self.ce(logits, own, batch),
            "anchor": self.anchor_weight * harmonic_mean(distance_BK).mean(),
        }

    def means(self, label_BHW: Tensor, features: Features, num_classes: int) -> Tensor:
        """Return the class means of images by labels of their pixels, 255 for none: (B, C * D)."""
        return class_means(features.values, at_cells(label_BHW, features), num_classes, self.min_cells)

    def survey(self, logits: Tensor, features: Features) -> NDArray[np.float32]:
        """Return the class means of an image, (C * D,)."""
        found: NDArray[np.float32] = self.means(logits.argmax(dim=1), features, int(logits.shape[1]))[0].cpu().numpy()
        return found

    def learn(self, found: NDArray[np.float32], kept: Anchors, number: int) -> None:
        """Make the anchors from the class means of the images, (N, C * D)."""
        kept.anchors.copy_(torch.from_numpy(anchors_of(found, self.num_anchors, self.anchor_seed)))


def harmonic_mean(distance_BK: Tensor) -> Tensor:
    """Return ``K / sum_k 1 / d_k`` of each image, (B,).

    >>> harmonic_mean(torch.tensor([[1.0, 3.0]]))
    tensor([1.5000])
    """
    return distance_BK.shape[1] / (1.0 / distance_BK.clamp(min=1e-12)).sum(dim=1)
