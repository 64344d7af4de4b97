"""Distillation from the network of a previous stage (ProDA, Zhang et al. 2021), a variant of its stages 2 and 3.

Legend: B batch, C classes, H W size.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ripu.losses import IGNORE, is_image, masked_mean
from ripu.methods.heads import divergence
from ripu.methods.supervised import Supervised
from ripu.objectives import Batch, Network, Student


class PreviousStage(nn.Module):
    """Keeps the network of the previous stage, which never learns and is always in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        """Begin with a copy of the network in training; :meth:`begin` gives it the weights of the previous stage."""
        super().__init__()
        self.network = deepcopy(network).requires_grad_(False)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(network.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(network.std).view(1, -1, 1, 1))
        self.train(False)

    def begin(self, trained: nn.Module) -> None:
        """Take the weights of a trained network, and its way to normalise images."""
        self.network.load_state_dict(trained.state_dict())
        for name in ("mean", "std"):
            getattr(self, name).copy_(torch.tensor(getattr(trained, name)).view(1, -1, 1, 1))

    def train(self, mode: bool = True) -> PreviousStage:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of raw images, (B, bands, H, W) uint8; no gradient reaches them."""
        logits: Tensor = self.network((image.float() / 255.0 - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class ProdaDistil(Supervised):
    """Cross-entropy on the source; on the target, sure labels of the previous stage's network, and its probabilities.

    With ``P`` the probabilities of the network and ``T`` those of the network of the previous stage in a pixel:

    - ``source_ce``;
    - ``pseudo``, the mean cross-entropy of the most probable class by ``T``, over pixels where its probability is
      ``threshold`` or more;
    - ``distillation = distillation_weight * mean over pixels of sum_c T_c log(T_c / P_c)``.

    Attributes:
        threshold: In [0, 1]; 0 labels every pixel.
        previous: The run of the previous stage, or its checkpoint; see :class:`ripu.objectives.Objective`.
    """

    threshold: float = 0.95
    distillation_weight: float = 1.0
    previous: str | None = None
    previous_method: ClassVar[str] = "proda"

    def keeps(self, network: nn.Module) -> PreviousStage:
        """Return the network of the previous stage."""
        return PreviousStage(network)

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo`` and ``distillation``."""
        logits, taught, shape = student(batch["image"]), student.kept(batch["image"]), batch.get("shape")
        far_BHW, inside = divergence(taught, logits), is_image(logits, shape)
        label = torch.where(inside, sure_labels(taught, self.threshold), IGNORE)
        return {
            "pseudo": self.ce(logits, label, batch),
            "distillation": self.distillation_weight * masked_mean(far_BHW, inside),
        }


def sure_labels(logits: Tensor, threshold: float) -> Tensor:
    """Return the most probable classes, (B, H, W) uint8; 255 where the probability is below ``threshold``.

    >>> logits = torch.tensor([[0.96, 0.5], [0.04, 0.5]]).log().view(1, 2, 1, 2)
    >>> sure_labels(logits, 0.95).tolist()
    [[[0, 255]]]
    """
    highest, label = logits.float().softmax(dim=1).max(dim=1)
    return torch.where(highest >= threshold, label, IGNORE).to(torch.uint8)
