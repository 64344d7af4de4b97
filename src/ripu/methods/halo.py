"""A hyperbolic head beside the network (HALO, Franco et al. 2024), a variant.

Legend: B batch, C classes, E dimensions of the embedding, h w cells of the features, H W size of the logits. The
curvature of the ball is -c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.acquisition import Features
from ripu.acquisition.interface import size_of
from ripu.methods.supervised import Supervised
from ripu.models.features import num_features
from ripu.objectives import Batch, Network, Student

FARTHEST = 3.8
"""The longest tangent vector, times the root of c: it ends at 0.999 of the way to the border of the ball."""


class Ball(nn.Module):
    """Embeds features in the Poincare ball of curvature -c, and tells classes apart there (Ganea et al. 2018)."""

    def __init__(self, num_features: int, num_classes: int, dimensions: int, curvature: float) -> None:
        """Begin with random directions of the classes, whose hyperplanes all go through the origin."""
        super().__init__()
        self.root = math.sqrt(curvature)
        self.embedding = nn.Conv2d(num_features, dimensions, kernel_size=1)
        self.normal = nn.Parameter(torch.randn(num_classes, dimensions) / math.sqrt(dimensions))
        self.offset = nn.Parameter(torch.zeros(num_classes, dimensions))  # tangent vectors at the origin

    def tangent(self, features: Features) -> Tensor:
        """Return the embeddings as tangent vectors at the origin, (B, E, h, w) float32, no longer than the limit."""
        return limited(self.embedding(features.float().values), self.root)

    def radius(self, features: Features) -> Tensor:
        """Return the distance of the embeddings to the origin, (B, 1, h, w) float32: twice the vectors' length."""
        length: Tensor = torch.linalg.vector_norm(self.tangent(features), dim=1, keepdim=True)
        return 2.0 * length

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Return logits (B, C, H, W) at the ``size`` of those of the network."""
        with torch.autocast(features.values.device.type, enabled=False):
            offset = limited(self.offset, self.root)
            small = class_logits(into_ball(self.tangent(features), self.root), self.normal, offset, self.root)
        covered = F.interpolate(small, features.extent, mode="bilinear", align_corners=False)
        return covered[:, :, : size[0], : size[1]]


def limited(tangent: Tensor, root: float) -> Tensor:
    """Return tangent vectors (B, E, ...), shortened where their points would be too near to the border of the ball."""
    length: Tensor = torch.linalg.vector_norm(tangent, dim=1, keepdim=True).clamp(min=1e-6)
    return tangent * (FARTHEST / root / length).clamp(max=1.0)


def into_ball(tangent: Tensor, root: float) -> Tensor:
    """Return the points of the ball that tangent vectors at the origin reach, ``tanh(root |v|) v / (root |v|)``.

    Args:
        tangent: (B, E, ...) float32.
        root: The root of c.

    >>> round(float(into_ball(torch.tensor([[3.0, 4.0]]), 0.1).norm()), 4)  # 10 tanh(0.5)
    4.6212
    """
    scaled: Tensor = root * torch.linalg.vector_norm(tangent, dim=1, keepdim=True).clamp(min=1e-6)
    return tangent * (scaled.tanh() / scaled)


def class_logits(point: Tensor, normal: Tensor, offset: Tensor, root: float) -> Tensor:
    """Return the logit of each class: its signed distance to the hyperplane of the class, by the length of the normal.

    With ``p`` the point of the ball that ``offset`` reaches, ``a`` the normal and ``x`` a point, it is
    ``l |a| / root * asinh(2 root <-p + x, a> / ((1 - c |-p + x|^2) |a|))``, where + is the addition of the ball and
    ``l = 2 / (1 - c |p|^2)`` (Ganea et al. 2018). Both factors that divide the sum -p + x cancel.

    Args:
        point: (B, E, h, w) float32 in the ball.
        normal, offset: (C, E).
        root: The root of c.

    Returns:
        (B, C, h, w) float32.
    """
    c = root * root
    back = -into_ball(offset, root)  # (C, E)
    length = torch.linalg.vector_norm(normal, dim=1).clamp(min=1e-6).view(1, -1, 1, 1)
    along = F.conv2d(point, normal[:, :, None, None])  # <x, a>
    between = F.conv2d(point, back[:, :, None, None])  # <-p, x>
    square = point.square().sum(dim=1, keepdim=True)
    own = back.square().sum(dim=1).view(1, -1, 1, 1)
    moved = (1.0 + 2.0 * c * between + c * square) * (back * normal).sum(dim=1).view(1, -1, 1, 1)
    moved = moved + (1.0 - c * own) * along
    inside = (1.0 - c * own) * (1.0 - c * square)
    logits: Tensor = torch.asinh(2.0 * root * moved / (inside * length)) * (2.0 * length / (root * (1.0 - c * own)))
    return logits


@dataclass(frozen=True)
class Halo(Supervised):
    """Cross-entropy of the network and of a hyperbolic head, on the source and on revealed labels.

    Terms: ``source_ce`` and ``hyperbolic_ce`` on the source, ``target_ce`` and ``hyperbolic_target_ce`` on the target,
    those of the head times ``hyperbolic_weight``. :class:`ripu.acquisition.HyperbolicRadius` asks by the head.

    Attributes:
        hyperbolic_weight: Weight of the cross-entropies of the head.
        dimensions: E.
        curvature: c, more than 0.
        kept_lr_factor: Learning rate of the head over that of the backbone.
    """

    hyperbolic_weight: float = 1.0
    dimensions: int = 64
    curvature: float = 1.0
    kept_lr_factor: float = 10.0
    needs_features: ClassVar[bool] = True
    kept_parts: ClassVar[tuple[str, ...]] = ("ball",)

    def keeps(self, network: nn.Module) -> nn.Module:
        """Return the head, as its part ``ball``."""
        num_classes: int = network.num_classes  # type: ignore[assignment]
        ball = Ball(num_features(network), num_classes, self.dimensions, self.curvature)
        return nn.ModuleDict({"ball": ball})

    def source_terms(self, student: Student, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return ``source_ce`` and ``hyperbolic_ce``."""
        first, second = self._both(student, batch)
        return {"source_ce": first, "hyperbolic_ce": second}

    def target_terms(
        self, student: Student, batch: Batch, *, source: Batch | None = None, teacher: Network | None = None
    ) -> dict[str, Tensor]:
        """Return ``target_ce`` and ``hyperbolic_target_ce``."""
        first, second = self._both(student, batch)
        return {"target_ce": first, "hyperbolic_target_ce": second}

    def _both(self, student: Student, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, features = student.with_features(batch["image"])
        head = student.kept.ball(features, size_of(logits))
        first, second = (self.ce(one, batch["label"], batch) for one in (logits, head))
        return first, self.hyperbolic_weight * second
