"""Self-training with class-balanced pseudo-labels: CBST (Zou et al. 2018) and MRKLD (Zou et al. 2019).

Legend: B batch, C classes, H W size, h w size of the network, K steps of the confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import Features
from ripu.io.errors import ConfigError
from ripu.losses import IGNORE, masked_mean
from ripu.methods.supervised import Supervised, pseudo_of
from ripu.objectives import Batch, Network, Student

NUM_LEVELS = 2**14
"""Steps of -log(1 - P) in which the confidence of a renewal is counted; a threshold is the lower end of one."""

MOST_NATS = 16.0
"""The end of the last step; float32 hardly tells probabilities beyond it from 1."""


@dataclass(frozen=True)
class Sure:
    """Choice of a renewal: the share of each predicted class that is sure, and its thresholds, (C,) float64."""

    share: float
    threshold_C: NDArray[np.float64]


@dataclass(frozen=True)
class SelfTraining(Supervised):
    """Cross-entropy on the source, and on target pixels with a pseudo-label.

    With ``P`` the probabilities of a pixel, a renewal finds the threshold ``t_c`` of each class: the probability that
    the surest share of the pixels predicted as ``c`` reach, over all target images. The share is ``share`` at first
    and ``share_step`` more in each renewal, ``most_share`` at most. The pseudo-label is the class with the largest
    ``P_c / t_c``, where that is 1 or more; other pixels have none. A class that is predicted nowhere has ``t_c = 1``.

    The terms are means over labelled pixels: ``source_ce``; ``pseudo``, the cross-entropy of pseudo-labels; and with a
    ``regularizer``, ``smooth = regularizer * mean of -1/C * sum_c log P_c`` over pixels with a pseudo-label.
    """

    share: float = 0.2
    share_step: float = 0.05
    most_share: float = 0.5
    regularizer: float = 0.0
    adds_surveys: ClassVar[bool] = True
    needs_renewal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.share > self.most_share:
            raise ConfigError(
                f"method.share={self.share} is above its own limit, method.most_share={self.most_share}; raise the "
                "limit, or lower the share"
            )

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo`` and, with a ``regularizer``, ``smooth``; both are 0 before the first renewal."""
        return self.pseudo_terms(student(batch["image"]), pseudo_of(batch), batch)

    def pseudo_terms(self, logits: Tensor, pseudo: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the terms on pseudo-labels (B, H, W) of a batch."""
        terms = {"pseudo": self.ce(logits, pseudo, batch)}
        if self.regularizer:
            terms["smooth"] = self.regularizer * smoothness(logits, pseudo)
        return terms

    def survey(self, logits: Tensor, features: Features | None = None) -> NDArray[np.int64]:
        """Return the pixels of an image by predicted class and confidence, (C, K) int64."""
        return confidences(logits)

    def learn(self, found: NDArray[np.int64], kept: Any, number: int) -> Sure:
        """Return the share of this renewal, and the threshold of each class from the counts of all images."""
        share = min(self.most_share, self.share + number * self.share_step)
        return Sure(share, thresholds(found, share))

    def pseudo_label(self, logits: Tensor, learnt: Sure) -> Tensor:
        """Return the pseudo-labels of an image, (1, h, w) uint8."""
        return labels_above(logits, learnt.threshold_C)

    def facts(self, learnt: Sure) -> dict[str, Any]:
        """Return the share, and the thresholds by train id."""
        return {"share": learnt.share, "thresholds": learnt.threshold_C.tolist()}


def confidences(logits: Tensor) -> NDArray[np.int64]:
    """Return the pixels of images by predicted class and step of ``-log(1 - P)``, (C, K) int64."""
    probs = logits.float().softmax(dim=1)
    label = probs.argmax(dim=1)
    rest = probs.scatter_(1, label[:, None], 0.0).sum(dim=1)  # 1 - P, which a difference would round
    level = (rest.log().neg_().clamp_(max=MOST_NATS) * (NUM_LEVELS / MOST_NATS)).long().clamp_(max=NUM_LEVELS - 1)
    counts = torch.bincount((label * NUM_LEVELS + level).flatten(), minlength=logits.shape[1] * NUM_LEVELS)
    found: NDArray[np.int64] = counts.view(logits.shape[1], NUM_LEVELS).cpu().numpy()
    return found


def thresholds(count_CK: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """Return the confidence that the surest ``share`` of the pixels of each class reach, (C,) float64.

    Of ``n`` pixels these are ``ceil(share * n)``; 1 for a class without pixels.

    >>> counts = np.array([[0, 6, 4, 0], [0, 0, 0, 0]])  # steps of 4 nats
    >>> thresholds(counts, 0.4).round(6).tolist(), thresholds(counts, 0.5).round(6).tolist()
    ([0.999665, 1.0], [0.981684, 1.0])
    """
    found = np.ones(len(count_CK))
    for number, count_K in enumerate(count_CK):
        if count_K.any():
            found[number] = -math.expm1(-level_reached(count_K, share) * MOST_NATS / len(count_K))
    return found


def level_reached(count_K: NDArray[np.int64], share: float) -> int:
    """Return the highest level that the highest ``ceil(share * n)`` of ``n`` values reach, from counts of the levels.

    >>> level_reached(np.array([0, 6, 4, 0]), 0.4), level_reached(np.array([0, 6, 4, 0]), 0.5)
    (2, 1)
    """
    wanted = math.ceil(round(share * int(count_K.sum()), 9))
    reached = np.cumsum(count_K[::-1])  # values at or above each level, from the highest down
    return len(count_K) - 1 - int(np.searchsorted(reached, wanted))


def labels_above(logits: Tensor, threshold_C: NDArray[np.float64]) -> Tensor:
    """Return the class with the largest probability over its threshold, (B, h, w) uint8; 255 where that is below 1."""
    probs = logits.float().softmax(dim=1)
    limit = torch.from_numpy(threshold_C.astype(np.float32)).to(logits.device)
    ratio, label = (probs / limit[:, None, None]).max(dim=1)
    return torch.where(ratio >= 1.0, label, IGNORE).to(torch.uint8)


def labels_reaching(logits: Tensor, threshold_C: NDArray[np.float64]) -> Tensor:
    """Return the most probable class, (B, h, w) uint8; 255 where it does not reach its threshold.

    >>> logits = torch.tensor([[0.6, 0.2], [0.4, 0.8]]).log().view(1, 2, 1, 2)
    >>> labels_reaching(logits, np.array([0.5, 0.9])).tolist()
    [[[0, 255]]]
    """
    highest, label = logits.float().softmax(dim=1).max(dim=1)
    limit = torch.from_numpy(threshold_C.astype(np.float32)).to(logits.device)
    return torch.where(highest >= limit[label], label, IGNORE).to(torch.uint8)


def smoothness(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean of ``-1/C * sum_c log P_c`` over pixels with a label, in nats; 0 without any.

    >>> float(smoothness(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8)))  # log 4
    1.3862943649291992
    """
    return masked_mean(-logits.float().log_softmax(dim=1).mean(dim=1), label != IGNORE)


def mean_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean entropy of the pixels of a mask, (B, H, W) bool, in nats; 0 without any.

    >>> float(mean_entropy(torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)))  # log 4
    1.3862943649291992
    """
    log_p = logits.float().log_softmax(dim=1)
    return masked_mean(-(log_p.exp() * log_p).sum(dim=1), mask)
