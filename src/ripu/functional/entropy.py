"""Pixel entropy H, the predicted label of a pixel and the confidence of the prediction.

Legend: B batch, C classes, H W size, R rows of a strip. Entropies are in nats.

With d_c = x_c - max x and Z = sum_c exp d_c: H = -sum_c p_c log p_c = log Z - sum_c d_c exp(d_c) / Z. Both terms are
non-negative, so nothing cancels, and 0 log 0 = 0 needs no special case.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ripu.functional import fused
from ripu.functional.pixels import check_logits, map_pixels

_STEEP = 3e38
"""Its product with any negative difference of two normal float32 logits is below -C; with 0 it is 0."""


def pixel_entropy(logits_BCHW: Tensor, *, epsilon: float = 0.0) -> Tensor:
    r"""Return the predictive entropy of every pixel, :math:`H = -\sum_c P_c \log P_c` (Section 3.3), in nats.

    Args:
        logits_BCHW: (B, C, H, W) floating logits; half precisions are computed in float32.
        epsilon: Added to the probability inside the logarithm. 0 is the equation; 1e-6 is the published program.

    Returns:
        (B, H, W) float32 in [0, log C]. One class gives 0; an empty batch gives an empty map.

    Raises:
        ValueError: Wrong shape or dtype, or logits that are not finite (the batch positions are named).

    >>> pixel_entropy(torch.zeros(1, 4, 1, 1)).exp().round().item()
    4.0
    """
    check_logits(logits_BCHW)
    height, width = logits_BCHW.shape[2:]
    if fused.is_used(logits_BCHW):
        return map_entropy_and_label(logits_BCHW, (height, width), epsilon)[0]
    (entropy_BHW,) = map_pixels(
        logits_BCHW, (height, width), lambda strip_CRW: entropy_and_label(strip_CRW, epsilon)[:1], (torch.float32,)
    )
    return entropy_BHW


def map_entropy_and_label(logits_BChw: Tensor, size: tuple[int, int], epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the (B, H, W) maps of :func:`entropy_and_label` for up-sampled logits; see :func:`map_pixels`."""
    check_logits(logits_BChw)
    if fused.is_used(logits_BChw):
        kernels, label = fused.kernels_on(logits_BChw.device), label_dtype(logits_BChw.shape[1])
        entropy_BHW, label_BHW, finite = kernels.entropy_and_label(logits_BChw, size, epsilon, label)
        finite.check()
        return entropy_BHW, label_BHW
    entropy_BHW, label_BHW = map_pixels(
        logits_BChw,
        size,
        lambda strip_CRW: entropy_and_label(strip_CRW, epsilon),
        (torch.float32, label_dtype(logits_BChw.shape[1])),
    )
    return entropy_BHW, label_BHW


def entropy_and_label(strip_CRW: Tensor, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return entropy and arg-max label of a strip of finite float32 logits.

    The entropy is in nats (float32), the label of :func:`label_dtype`. The strip is overwritten. Of equal logits the
    first class is the label.
    """
    power_CRW, total_RW = _powers(strip_CRW)
    if epsilon > 0.0:
        probs_CRW = power_CRW.div_(total_RW)
        entropy_RW = probs_CRW.mul_((probs_CRW + epsilon).log_()).sum(dim=0).neg_()
    else:
        entropy_RW = power_CRW.mul_(strip_CRW).sum(dim=0).neg_().div_(total_RW).add_(total_RW.log())
    return entropy_RW, _first_largest(strip_CRW, power_CRW)


def map_confidence_and_label(logits_BChw: Tensor, size: tuple[int, int], num_views: int = 1) -> tuple[Tensor, Tensor]:
    """Return the largest probability and its class for up-sampled logits, without ever holding these; nothing else.

    Args:
        logits_BChw: (B, num_views * C, h, w) floating logits, of several views those of :func:`join_views`.
        size: (H, W); see :func:`map_pixels`.
        num_views: Views whose probabilities are averaged.

    Returns:
        (B, H, W) float32 in [1 / C, 1] and (B, H, W) of :func:`label_dtype`. Of equal probabilities the first is taken.

    Raises:
        ValueError: Wrong shape or dtype, or logits that are not finite (the batch positions are named).

    >>> confidence, label = map_confidence_and_label(torch.tensor([[[[0.0]], [[0.0]], [[9.0]]]]), (1, 1))
    >>> round(confidence.item(), 4), label.item()
    (0.9998, 2)
    """

    def kernel(strip_CRW: Tensor) -> tuple[Tensor, Tensor]:
        if num_views == 1:
            power_CRW, total_RW = _powers(strip_CRW)
            return total_RW.reciprocal_(), _first_largest(strip_CRW, power_CRW)
        probs_CRW = _mean_probs(strip_CRW, num_views)
        confidence_RW = probs_CRW.amax(dim=0)
        logits_CRW = _as_logits(probs_CRW)  # whose label entropy_and_label returns: rounding makes other ties
        return confidence_RW, _first_largest(logits_CRW.sub_(logits_CRW.amax(dim=0)), strip_CRW[: len(logits_CRW)])

    label = label_dtype(logits_BChw.shape[1] // num_views)
    confidence_BHW, label_BHW = map_pixels(logits_BChw, size, kernel, (torch.float32, label))
    return confidence_BHW, label_BHW


def join_views(logits_BChw: Tensor, *mirrored_BChw: Tensor) -> Tensor:
    """Return the logits of images with those of the mirrored images, mirrored back, (B, num_views * C, h, w).

    >>> join_views(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0]]]])).tolist()
    [[[[1.0, 2.0]], [[4.0, 3.0]]]]
    """
    if not mirrored_BChw:
        return logits_BChw
    return torch.cat([logits_BChw, *(other_BChw.flip(-1) for other_BChw in mirrored_BChw)], dim=1)


def mean_of_views(strip_CRW: Tensor, num_views: int) -> Tensor:
    """Return logits (C, R, W) whose softmax is the mean of those of (num_views * C, R, W)."""
    if num_views == 1:
        return strip_CRW
    return _as_logits(_mean_probs(strip_CRW, num_views))


def _mean_probs(strip_CRW: Tensor, num_views: int) -> Tensor:
    """Return the mean over the views of their softmax, (C, R, W), for logits (num_views * C, R, W)."""
    return strip_CRW.view(num_views, -1, *strip_CRW.shape[1:]).softmax(dim=1).mean(dim=0)


def _as_logits(probs_CRW: Tensor) -> Tensor:
    """Overwrite probabilities with logits whose softmax they are."""
    return probs_CRW.clamp_min_(1e-30).log_()


def _powers(strip_CRW: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the largest logit of each pixel; return exp of the differences (C, R, W) and its sum (R, W)."""
    strip_CRW.sub_(strip_CRW.amax(dim=0))
    power_CRW = torch.exp(strip_CRW)
    return power_CRW, power_CRW.sum(dim=0)


def _first_largest(difference_CRW: Tensor, spare_CRW: Tensor) -> Tensor:
    """Return the first class without a difference from the largest logit, (R, W); ``spare_CRW`` is overwritten.

    It is a maximum over codes. Torch's arg-max over planes is far slower.
    """
    num_classes = difference_CRW.shape[0]
    code_C11 = torch.arange(num_classes, 0, -1, dtype=torch.float32, device=difference_CRW.device)[:, None, None]
    torch.add(code_C11, difference_CRW, alpha=_STEEP, out=spare_CRW)
    return spare_CRW.amax(dim=0).neg_().add_(num_classes).to(label_dtype(num_classes))


def label_dtype(num_classes: int) -> torch.dtype:
    """Return the smallest integer dtype for labels 0 .. num_classes-1 and one more value that stands for no class."""
    return torch.uint8 if num_classes <= 255 else torch.int32
