"""Further classifiers on the features that the classifier of a network reads.

Legend: B batch, C classes, D features, H W size of the logits.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ripu.acquisition import Features


class Head(nn.Module):
    """A 3 x 3 convolution from features to the logits of each class, after dropout of whole features."""

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        """Make it for features of a network (:func:`ripu.models.features.num_features`)."""
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.convolution = nn.Conv2d(num_features, num_classes, kernel_size=3, padding=1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Return logits (B, C, H, W) at the ``size`` of those of the network."""
        small = self.convolution(self.dropout(features.values))
        covered = F.interpolate(small, features.extent, mode="bilinear", align_corners=False)
        return covered[:, :, : size[0], : size[1]]


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of each pixel, ``sum_c P_c log(P_c / Q_c)``, (B, H, W) float32 nats.

    ``P`` and ``Q`` are the probabilities of the ``first`` and the ``second`` logits.

    >>> import torch
    >>> float(divergence(torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)))
    0.0
    """
    log_p, log_q = first.float().log_softmax(dim=1), second.float().log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)
