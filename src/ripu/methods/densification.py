"""Pseudo-labels that are made denser in two phases (TPLD, Shin et al. 2020), a variant.

Legend: B batch, C classes, H W size, h w size of the network, K steps of the confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ripu.acquisition import Features
from ripu.functional import running_sum
from ripu.losses import IGNORE, is_image
from ripu.methods.adversary import Adversary
from ripu.methods.self_training import MOST_NATS, NUM_LEVELS, SelfTraining, Sure, level_reached, mean_entropy
from ripu.methods.supervised import pseudo_of
from ripu.objectives import Batch, Network, Student
from ripu.schedule import Plan

EASY, HARD = 0.0, 1.0


@dataclass(frozen=True)
class Dense(Sure):
    """Choice of a renewal, and the least level of the confidence of an easy image; None in the first phase."""

    easy_level: int | None


@dataclass(frozen=True)
class Densification(SelfTraining):
    """Class-balanced self-training whose labels spread to their neighbours, then fill the images that are easiest.

    Every renewal labels pixels as in :class:`ripu.methods.SelfTraining` and lets the others vote (:func:`voted`). The
    first ``first_phase`` renewals make the first phase: ``pseudo`` and ``smooth``, as there.

    In the second phase, images are ranked by their confidence: the mean, over the classes predicted in the image, of
    the mean probability of the pixels predicted as the class. The surest share of the images is easy: each of their
    pixels is labelled with its most probable class. It is ``easy_share`` at first, and ``easy_step`` more in each
    renewal. Other images are hard and keep the labels of the vote. In a batch, an image is easy if none of its pixels
    lacks a pseudo-label. Terms:

    - ``pseudo`` and ``smooth`` on the labels of hard images;
    - ``bootstrapped = bootstrap * CE + (1 - bootstrap) * mean of -sum_c P_c log P_c`` over easy images;
    - with ``D`` the probability of being hard that the discriminator gives to an image: over hard images
      ``adversarial = -adversarial_weight * mean log(1 - D)``, which only the network learns from, and
      ``discriminator_hard = -1/2 * mean log D``, and over easy ones ``discriminator_easy = -1/2 * mean log(1 - D)``;
      only the discriminator learns from these two.

    Attributes:
        first_phase: Renewals of the first phase.
        vote_radius: Radius of the window of the vote over the smaller side of the image.
        vote_passes, vote_limit: See :func:`voted`.
        kept_lr_factor: Learning rate of the discriminator over that of the backbone.
    """

    regularizer: float = 0.1
    first_phase: int = 2
    vote_radius: float = 0.05
    vote_passes: int = 2
    vote_limit: float = 0.25
    easy_share: float = 0.3
    easy_step: float = 0.1
    bootstrap: float = 0.8
    adversarial_weight: float = 0.001
    kept_lr_factor: float = 1.0

    def left_out(self, plan: Plan) -> str | None:
        """Return why the second phase is missing; None if it is there."""
        if len(plan.renewal_steps) > self.first_phase:
            return None
        return (
            f"method.first_phase={self.first_phase} leaves none of renewal_steps={list(plan.renewal_steps)} to the "
            "second phase, in which easy images are filled; lower it, or give more renewal_steps"
        )

    def keeps(self, network: nn.Module) -> Adversary:
        """Return the discriminator."""
        return Adversary(int(network.num_classes))  # type: ignore[arg-type]

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return the terms of the phase; those on pseudo-labels are 0 before the first renewal."""
        logits, pseudo, shape = student(batch["image"]), pseudo_of(batch), batch.get("shape")
        if student.num_renewals <= self.first_phase:
            return self.pseudo_terms(logits, pseudo, batch)
        inside = is_image(pseudo, shape)
        is_hard = (inside & (pseudo == IGNORE)).any(dim=2).any(dim=1)
        easy = ~is_hard[:, None, None]
        entropy = mean_entropy(logits, inside & easy)
        full = self.ce(logits, torch.where(easy, pseudo, IGNORE), batch)
        kept: Adversary = student.kept
        return {
            **self.pseudo_terms(logits, torch.where(easy, IGNORE, pseudo), batch),
            "bootstrapped": self.bootstrap * full + (1.0 - self.bootstrap) * entropy,
            "adversarial": self.adversarial_weight * kept.fooled(logits, EASY, shape, is_hard),
            "discriminator_easy": 0.5 * kept.told_apart(logits, EASY, shape, ~is_hard),
            "discriminator_hard": 0.5 * kept.told_apart(logits, HARD, shape, is_hard),
        }

    def survey(self, logits: Tensor, features: Features | None = None) -> NDArray[np.int64]:
        """Return the pixels of an image by predicted class and confidence, and the image by its own, (C + 1, K)."""
        count_CK = super().survey(logits)
        own_K = np.zeros(NUM_LEVELS, dtype=np.int64)
        own_K[level_of_image(count_CK)] = 1
        return np.concatenate([count_CK, own_K[None]])

    def learn(self, found: NDArray[np.int64], kept: Any, number: int) -> Dense:
        """Return the share and the thresholds of this renewal, and from which level on images are easy."""
        sure, easy_level = super().learn(found[:-1], kept, number), None
        if number >= self.first_phase:
            easy_share = min(1.0, self.easy_share + (number - self.first_phase) * self.easy_step)
            easy_level = level_reached(found[-1], easy_share)
        return Dense(sure.share, sure.threshold_C, easy_level)

    def pseudo_label(self, logits: Tensor, learnt: Any) -> Tensor:
        """Return the pseudo-labels of an image, (1, h, w) uint8."""
        if learnt.easy_level is not None and level_of_image(super().survey(logits)) >= learnt.easy_level:
            return logits.argmax(dim=1).to(torch.uint8)
        radius = max(1, round(self.vote_radius * min(logits.shape[2:])))
        return voted(logits, super().pseudo_label(logits, learnt), radius, self.vote_passes, self.vote_limit)

    def facts(self, learnt: Any) -> dict[str, Any]:
        """Return the share, the thresholds by train id, and the least confidence of an easy image, if there are any."""
        easy = {} if learnt.easy_level is None else {"easy_confidence": learnt.easy_level / NUM_LEVELS}
        return {**super().facts(learnt), **easy}


def level_of_image(count_CK: NDArray[np.int64]) -> int:
    """Return the confidence of an image in steps of 1 / K, from its pixels by predicted class and confidence.

    >>> level_of_image(np.array([[0, 0, 0, 5], [2, 2, 0, 0], [0, 0, 0, 0]]))  # (0.999994 + 0.490842) / 2, steps of 1/4
    2
    """
    num_levels = int(count_CK.shape[1])
    confidence_K = -np.expm1(-np.arange(num_levels) * MOST_NATS / num_levels)
    total_C = count_CK.sum(axis=1)
    is_there = total_C > 0
    confidence = float((count_CK[is_there] @ confidence_K / total_C[is_there]).mean())
    return min(int(confidence * num_levels), num_levels - 1)


def voted(logits: Tensor, label: Tensor, radius: int, passes: int, limit: float) -> Tensor:
    """Return the labels of an image, (1, h, w) uint8, and those that pixels without one get from their neighbours.

    With ``n_c`` the number of pixels labelled ``c`` in the window of a pixel and ``n`` their sum, the two most probable
    classes of the pixel score ``P_c * n_c / n``. The pixel gets the better one, the more probable one if they are
    equal, where its score is ``limit`` or more. Labels of one pass vote in the next.

    Args:
        logits: (1, C, h, w).
        label: (1, h, w) uint8, 255 for none.
        radius: k of the square window, which ends at the border.
        passes: How often pixels vote.
        limit: The least score.

    >>> logits = torch.tensor([0.6, 0.4, 0.0]).log().view(1, 3, 1, 1).expand(1, 3, 1, 4)
    >>> voted(logits, torch.tensor([[[1, 255, 255, 255]]], dtype=torch.uint8), 1, 2, 0.25).tolist()
    [[[1, 1, 1, 255]]]
    """
    probs = logits.float().softmax(dim=1)[0]
    candidates = _two_largest(probs)
    number_C = torch.arange(len(probs), device=probs.device)[:, None, None]
    for _ in range(passes):
        count_Chw = _window_sum((label == number_C).int(), radius)
        total = count_Chw.sum(dim=0).clamp(min=1)
        score = probs.gather(0, candidates) * (count_Chw.gather(0, candidates) / total)
        second = score[1] > score[0]
        winner = torch.where(second, candidates[1], candidates[0])
        is_won = (label[0] == IGNORE) & (torch.maximum(score[0], score[1]) >= limit)
        label = torch.where(is_won, winner, label[0])[None].to(torch.uint8)
    return label


def _two_largest(probs: Tensor) -> Tensor:
    """Return the most and the second most probable class of each pixel, (2, h, w) int64; of equal ones the first."""
    first = probs.argmax(dim=0, keepdim=True)
    return torch.cat([first, probs.scatter(0, first, -1.0).argmax(dim=0, keepdim=True)])


def _window_sum(x_Chw: Tensor, radius: int) -> Tensor:
    """Return the sum over the window of each pixel, which ends at the border."""
    for dim, sides in ((1, (0, 0, radius, radius)), (2, (radius, radius))):
        x_Chw = running_sum(F.pad(x_Chw, sides), 2 * radius + 1, dim)
    return x_Chw
