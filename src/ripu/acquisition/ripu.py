"""The paper's score: region impurity times prediction uncertainty (Eq. 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ripu.acquisition.interface import ScoreMaps
from ripu.functional import (
    ImpurityKernel,
    check_logits,
    check_radius,
    for_each,
    fused,
    label_dtype,
    map_entropy_and_label,
    window_mean_rows,
)
from ripu.io.errors import ConfigError


@dataclass(frozen=True)
class RipuScore:
    """A = P * U (Eq. 6): impurity of the window times the window's mean entropy (RA) or the pixel's own entropy (PA).

    Attributes:
        radius: k of the window.
        pixel: False for regions (RA), True for pixels (PA).
        numerics: ``exact`` is the equation. ``released`` reproduces the published program: 1e-6 inside both logarithms
            and, for regions (RA), both factors divided by log 19. Pure windows become slightly negative, so the least
            uncertain of them wins.
    """

    radius: int
    pixel: bool = False
    numerics: Literal["exact", "released"] = "exact"
    needs_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.radius)
        if self.numerics not in ("exact", "released"):
            raise ConfigError(f"numerics {self.numerics!r} must be 'exact' or 'released'.")

    def __call__(self, logits: Tensor, size: tuple[int, int], keys: Sequence[int]) -> ScoreMaps:
        """Score a batch; see :class:`ripu.acquisition.Acquisition`. Ties go to the larger uncertainty."""
        if self.numerics == "released":
            # The program divides by log 19 whatever the number of classes.
            normalizer = 1.0 if self.pixel else math.log(19)
            return ripu_maps(logits, self.radius, size, self.pixel, 1e-6, normalizer)
        return ripu_maps(logits, self.radius, size, self.pixel)


def ripu_score(logits: Tensor, radius: int, size: tuple[int, int] | None = None, pixel: bool = False) -> Tensor:
    r"""Return the acquisition score :math:`A = P \odot U` (Eq. 6), up-sampling included.

    Args:
        logits: (B, C, h, w) floating; half precisions are computed in float32.
        radius: k of the window N_k, in pixels of the result.
        size: (H, W) of the result, to which the logits are up-sampled once (bilinear, align_corners). None: their own.
        pixel: False: U is the window mean of the pixel entropy (RA, Eq. 5); True: the pixel's own entropy (PA).

    Returns:
        (B, H, W) float32, nats squared, at least 0; exactly 0 if the window has one predicted class.

    Raises:
        ValueError: Wrong shape or dtype, negative radius, or logits that are not finite (batch positions named).

    >>> logits = torch.tensor([[[[8.0, 0.0, 0.0]], [[0.0, 0.0, 8.0]]]])
    >>> ripu_score(logits, radius=1, pixel=True).argmax().item()
    1
    """
    if size is None:
        size = (int(logits.shape[-2]), int(logits.shape[-1]))
    return ripu_maps(logits, radius, size, pixel).score


def ripu_maps(
    logits: Tensor, radius: int, size: tuple[int, int], pixel: bool, epsilon: float = 0.0, normalizer: float = 1.0
) -> ScoreMaps:
    """Return all four maps of a batch, with the uncertainty as the tie break; otherwise as :func:`ripu_score`.

    ``epsilon`` is added inside the logarithms of both factors, and ``normalizer`` divides both.
    """
    check_radius(radius)
    if fused.is_used(logits):
        return _fused_maps(logits, radius, size, pixel, epsilon, normalizer)
    entropy_BHW, label_BHW = map_entropy_and_label(logits, size, epsilon)
    impurity_BHW = torch.empty_like(entropy_BHW)
    uncertainty_BHW = entropy_BHW if pixel else torch.empty_like(entropy_BHW)
    score_BHW = torch.empty_like(entropy_BHW)
    kernel = ImpurityKernel(size, int(logits.shape[1]), radius, score_BHW.device, epsilon)

    def task(b: int, first: int, last: int) -> None:
        """Write rows ``first`` to ``last`` of the maps of image ``b``."""
        impurity_RW, uncertainty_RW = impurity_BHW[b, first:last], uncertainty_BHW[b, first:last]
        kernel.compute(label_BHW[b], first, last, impurity_RW)
        if not pixel:
            uncertainty_RW.copy_(window_mean_rows(entropy_BHW[b], radius, first, last))
        if normalizer != 1.0:
            impurity_RW.div_(normalizer)
            uncertainty_RW.div_(normalizer)
        torch.mul(impurity_RW, uncertainty_RW, out=score_BHW[b, first:last])

    for_each(task, [(b, *band) for b in range(len(label_BHW)) for band in kernel.bands()], score_BHW.device)
    return ScoreMaps(score_BHW, tie_break=uncertainty_BHW, impurity=impurity_BHW, uncertainty=uncertainty_BHW)


def _fused_maps(
    logits: Tensor, radius: int, size: tuple[int, int], pixel: bool, epsilon: float, normalizer: float
) -> ScoreMaps:
    """Return the maps of :func:`ripu_maps`, computed by the fused kernels."""
    check_logits(logits)
    kernels, num_classes = fused.kernels_on(logits.device), int(logits.shape[1])
    entropy, label, finite = kernels.entropy_and_label(logits, size, epsilon, label_dtype(num_classes))
    impurity, uncertainty, score = kernels.window_maps(
        label, entropy, num_classes, radius, pixel=pixel, epsilon=epsilon, normalizer=normalizer
    )
    finite.check()  # last: the device computes while the host waits for the answer
    assert score is not None
    return ScoreMaps(score, tie_break=uncertainty, impurity=impurity, uncertainty=uncertainty)
