"""Adaptation without source data by positive and negative labels (LD, You et al. 2021), a variant.

Legend: B batch, C classes, H W size, h w size of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ripu.losses import IGNORE, is_image, masked_mean
from ripu.methods.self_training import SelfTraining, Sure, labels_reaching, mean_entropy, thresholds
from ripu.methods.supervised import pseudo_of
from ripu.objectives import Batch, Network, Student


@dataclass(frozen=True)
class PositiveNegative(SelfTraining):
    """Cross-entropy of sure labels, the entropy, and for other pixels a class that they are probably not.

    A renewal labels a pixel with its most probable class if its probability is among the surest ``share`` of the pixels
    of this class over all images, or of those of its own image. The share grows as in
    :class:`ripu.methods.SelfTraining`.

    - ``pseudo``, the cross-entropy of these labels, and ``smooth``, as there;
    - ``entropy = entropy_weight * mean of -sum_c P_c log P_c`` over all pixels;
    - ``negative = negative_weight * mean of -log(1 - P_k)`` over pixels without a label. With the classes of a pixel
      ranked by their probabilities, the largest at rank 0, ``k`` is the class of a random rank between
      ``C // 2 - rank_spread`` and ``C // 2 + rank_spread``, and never that of rank 0.
    """

    share: float = 0.1
    share_step: float = 0.05
    entropy_weight: float = 1.0
    negative_weight: float = 1.0
    rank_spread: int = 3

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo``, ``entropy`` and ``negative``."""
        logits, pseudo, shape = student(batch["image"]), pseudo_of(batch), batch.get("shape")
        low, high = max(1, logits.shape[1] // 2 - self.rank_spread), logits.shape[1] // 2 + self.rank_spread
        rank = torch.randint(low, min(high, logits.shape[1] - 1) + 1, pseudo.shape).to(logits.device, non_blocking=True)
        is_open = is_image(pseudo, shape) & (pseudo == IGNORE)
        return {
            **self.pseudo_terms(logits, pseudo, batch),
            "entropy": self.entropy_weight * mean_entropy(logits, is_image(logits, shape)),
            "negative": self.negative_weight * negative(logits, is_open, rank),
        }

    def pseudo_label(self, logits: Tensor, learnt: Sure) -> Tensor:
        """Return the pseudo-labels of an image, (1, h, w) uint8."""
        limit_C = np.minimum(learnt.threshold_C, thresholds(self.survey(logits), learnt.share))
        return labels_reaching(logits, limit_C)


def negative(logits: Tensor, is_open: Tensor, rank_BHW: Tensor) -> Tensor:
    """Return the mean of ``-log(1 - P_k)`` over pixels (B, H, W) bool, ``k`` the class of a rank; 0 without any.

    >>> logits = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1)
    >>> rank, is_open = torch.ones(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1, dtype=torch.bool)
    >>> round(float(negative(logits, is_open, rank).exp()), 4)  # 1 / (1 - 1/4)
    1.3333
    """
    probs = logits.float().softmax(dim=1)
    class_BHW = probs.detach().argsort(dim=1, descending=True, stable=True).gather(1, rank_BHW[:, None])
    return masked_mean(-torch.log1p(-probs.gather(1, class_BHW)[:, 0].clamp(max=1.0 - 1e-6)), is_open)
