"""Pseudo-labels of images in both styles (DPL-Dual, Cheng et al. 2021), a variant with one network.

Legend: B batch, C classes, h w size of the network, K steps of the confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ripu.acquisition import Features
from ripu.methods.self_training import confidences, labels_reaching, thresholds
from ripu.methods.supervised import Supervised, pseudo_of
from ripu.objectives import Batch, Network, Student


@dataclass(frozen=True)
class DualPath(Supervised):
    """Cross-entropy on source images and on pseudo-labelled target images, each in its own or in the other style.

    Every second sample on average, drawn from (seed, position), is an image of ``translated`` in the place of the
    original, with the same label. A renewal averages the probabilities ``P`` of a target image and of its translation,
    if there is one. The threshold of a class is the value of ``P`` at rank ``rank`` of the pixels predicted as it, from
    the lowest to the highest over all images, and ``cap`` at most. A pixel that reaches it gets its most probable
    class.

    The terms are ``source_ce`` and ``pseudo``, the cross-entropy of the pseudo-labels, means over labelled pixels.

    Attributes:
        rank: In [0, 1): the share of the pixels of a class below its threshold, unless ``cap`` is lower.
        cap: The highest threshold.
        translated: A folder, see :mod:`ripu.datasets.translated`; the data of the run have its images.
    """

    rank: float = 0.3
    cap: float = 0.9
    translated: str | None = None
    adds_surveys: ClassVar[bool] = True
    needs_renewal: ClassVar[bool] = True

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``pseudo``; 0 before the first renewal."""
        return {"pseudo": self.ce(student(batch["image"]), pseudo_of(batch), batch)}

    def survey(self, logits: Tensor, features: Features | None = None) -> NDArray[np.int64]:
        """Return the pixels of an image by predicted class and confidence, (C, K) int64."""
        return confidences(logits)

    def learn(self, found: NDArray[np.int64], kept: Any, number: int) -> NDArray[np.float64]:
        """Return the threshold of each class, (C,) float64, from the counts of all images."""
        return np.minimum(thresholds(found, 1.0 - self.rank), self.cap)

    def pseudo_label(self, logits: Tensor, learnt: NDArray[np.float64]) -> Tensor:
        """Return the pseudo-labels of an image, (1, h, w) uint8."""
        return labels_reaching(logits, learnt)

    def facts(self, learnt: NDArray[np.float64]) -> dict[str, Any]:
        """Return the thresholds by train id."""
        return {"thresholds": learnt.tolist()}
