"""Pixel entropy H and the predicted label of a pixel.

Legend: B batch, C classes, H W size, R rows of a strip. Entropies are in nats.

With d_c = x_c - max x and Z = sum_c exp d_c: H = -sum_c p_c log p_c = log Z - sum_c d_c exp(d_c) / Z. Both terms are
non-negative, so nothing cancels, and 0 log 0 = 0 needs no special case.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    (entropy_BHW,) = map_pixels(
        logits_BCHW, (height, width), lambda strip_CRW: entropy_and_label(strip_CRW, epsilon)[:1], (torch.float32,)
    )
    return entropy_BHW


def map_entropy_and_label(logits_BChw: Tensor, size: tuple[int, int], epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the (B, H, W) maps of :func:`entropy_and_label` for up-sampled logits; see :func:`map_pixels`."""
    check_logits(logits_BChw)
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
    strip_CRW.sub_(strip_CRW.amax(dim=0))
    power_CRW = torch.exp(strip_CRW)
    total_RW = power_CRW.sum(dim=0)
    if epsilon > 0.0:
        probs_CRW = power_CRW.div_(total_RW)
        entropy_RW = probs_CRW.mul_((probs_CRW + epsilon).log_()).sum(dim=0).neg_()
    else:
        entropy_RW = power_CRW.mul_(strip_CRW).sum(dim=0).neg_().div_(total_RW).add_(total_RW.log())
    # The label is the first class at the maximum: a maximum over codes. Torch's arg-max over planes is far slower.
    num_classes = strip_CRW.shape[0]
    code_C11 = torch.arange(num_classes, 0, -1, dtype=torch.float32, device=strip_CRW.device)[:, None, None]
    torch.add(code_C11, strip_CRW, alpha=_STEEP, out=power_CRW)
    return entropy_RW, power_CRW.amax(dim=0).neg_().add_(num_classes).to(label_dtype(num_classes))


def label_dtype(num_classes: int) -> torch.dtype:
    """Return the smallest integer dtype for labels 0 .. num_classes-1 and one more value that stands for no class."""
    return torch.uint8 if num_classes <= 255 else torch.int32
