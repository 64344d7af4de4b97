"""The training objective (Eq. 7-12): supervised, consistency and negative learning losses.

Notation: B batch, C classes, H height, W width; ``logits_BCHW`` are raw network outputs, ``label_BHW`` integer
train ids with 255 = no label. Every function returns a float32 scalar; an empty set of pixels gives exactly 0 with a
zero gradient, never NaN. All arithmetic is in float32 whatever the precision of the logits.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def _check(logits_BCHW: Tensor, label_BHW: Tensor) -> None:
    batch, _, height, width = logits_BCHW.shape
    if label_BHW.shape != (batch, height, width):
        raise ValueError(
            f"label of shape {tuple(label_BHW.shape)} does not fit logits of shape {tuple(logits_BCHW.shape)}; "
            f"resize the label to {(batch, height, width)} first"
        )


def supervised_loss(logits: Tensor, label: Tensor, *, average: Literal["labelled", "all"] = "labelled") -> Tensor:
    """Cross-entropy over the labelled pixels (Eq. 8), for source and target alike.

    ``L_CE = -1/|I| * sum_ij sum_c Y_ijc log P_ijc``

    Args:
        logits: (B, C, H, W) float.
        label: (B, H, W) integer train ids, 255 = no label.
        average: What ``|I|`` counts: the ``labelled`` pixels (the released code) or ``all`` pixels (the paper's text).

    Returns:
        float32 scalar in nats. With no labelled pixel it is 0 and its gradient is 0.

    Raises:
        ValueError: The shapes do not fit, or ``average`` is unknown.
    """
    _check(logits, label)
    if average not in ("labelled", "all"):
        raise ValueError(f"average={average!r} is unknown; use 'labelled' or 'all'")
    # summed here: the summing kernel is none of those that trainer.deterministic allows on a GPU
    total = F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="none").sum()
    count = (label != IGNORE).sum() if average == "labelled" else torch.tensor(label.numel(), device=logits.device)
    return total / count.clamp(min=1)


def label_boundary(label: Tensor, *, detector: Literal["neighbors", "laplacian"] = "neighbors") -> Tensor:
    """Pixels that lie on a boundary between labels.

    Args:
        label: (B, H, W) integer train ids, 255 = no label.
        detector: ``neighbors``: any of the 8 neighbours inside the image has another id (255 counts as another id).
            ``laplacian``: the released code, a zero-padded 3x3 Laplacian of the raw ids that is not 0; it misses a
            one-pixel 2 between a 1 and a 3 and calls every pixel at the image border whose id is not 0 a boundary.

    Returns:
        (B, H, W) bool. Pixels that are 255 themselves are never a boundary.

    Raises:
        ValueError: ``detector`` is unknown.

    Example:
        >>> label_boundary(torch.tensor([[[0, 0, 0, 1]]]))
        tensor([[[False, False,  True,  True]]])
    """
    if detector == "neighbors":
        ids = label.float().unsqueeze(1)
        # The padding of max_pool2d never wins, so windows are clipped at the image border.
        largest = F.max_pool2d(ids, 3, stride=1, padding=1)
        smallest = -F.max_pool2d(-ids, 3, stride=1, padding=1)
        boundary = (largest != smallest).squeeze(1)
    elif detector == "laplacian":
        kernel = torch.full((1, 1, 3, 3), -1.0, device=label.device)
        kernel[0, 0, 1, 1] = 8.0
        boundary = F.conv2d(label.float().unsqueeze(1), kernel, padding=1).squeeze(1).round() != 0
    else:
        raise ValueError(f"boundary detector {detector!r} is unknown; use 'neighbors' or 'laplacian'")
    return boundary & (label != IGNORE)


def consistency_loss(
    logits: Tensor,
    label: Tensor,
    boundary_only: bool = True,
    *,
    boundary_detector: Literal["neighbors", "laplacian"] = "neighbors",
    border: Literal["clip", "replicate"] = "clip",
) -> Tensor:
    """Distance of every prediction to the mean prediction of its 3x3 neighbourhood (Eq. 9), on source images.

    ``L_cr = 1/|I| * sum_ij || P_ij - mean_{uv in N_1(ij)} P_uv ||_1``

    Args:
        logits: (B, C, H, W) float.
        label: (B, H, W) integer train ids, 255 = no label; only used where ``boundary_only``.
        boundary_only: Average over the labelled pixels on a label boundary (the released code), or over all pixels
            (the paper's text).
        boundary_detector: See :func:`label_boundary`.
        border: ``clip`` the 3x3 window at the image border (the paper) or ``replicate`` the border pixels.

    Returns:
        float32 scalar in [0, 2]. With no boundary pixel it is 0 and its gradient is 0.

    Raises:
        ValueError: The shapes do not fit, or an option is unknown.
    """
    _check(logits, label)
    probs = torch.softmax(logits.float(), dim=1)
    if border == "clip":
        mean = F.avg_pool2d(probs, 3, stride=1, padding=1, count_include_pad=False)
    elif border == "replicate":
        mean = F.avg_pool2d(F.pad(probs, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    else:
        raise ValueError(f"border={border!r} is unknown; use 'clip' or 'replicate'")
    distance_BHW = (probs - mean).abs().sum(dim=1)
    if not boundary_only:
        return distance_BHW.mean()
    mask = label_boundary(label, detector=boundary_detector)
    return (distance_BHW * mask).sum() / mask.sum().clamp(min=1)


def negative_learning_loss(logits: Tensor, threshold: float = 0.05, *, epsilon: float = 0.0) -> Tensor:
    """Push down the classes that a pixel surely is not (Eq. 10-11), on target images.

    ``L_nl = -1/Lambda * sum_ij sum_c [P_ijc < tau] log(1 - P_ijc)`` with ``Lambda`` the number of (pixel, class) pairs
    below tau. Which pairs are below tau is a constant for the gradient.

    Args:
        logits: (B, C, H, W) float.
        threshold: tau, in (0, 1).
        epsilon: Added inside the logarithm; 1e-6 in the released code.

    Returns:
        float32 scalar in nats. With no pair below tau it is 0 and its gradient is 0.

    Raises:
        ValueError: ``threshold`` is outside (0, 1).
    """
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"negative threshold tau = {threshold} is outside (0, 1); the paper uses 0.05")
    probs = torch.softmax(logits.float(), dim=1)
    below = ~(probs.detach() >= threshold)  # NaN, too: it must reach the loss, where it is found
    # Classes at or above tau are masked before the logarithm: log(1 - 1) would put NaN into the gradient.
    kept = torch.where(below, probs, 0.0)
    log_complement = torch.log1p(-kept) if epsilon == 0.0 else torch.log(1.0 - kept + epsilon)
    return -(log_complement * below).sum() / below.sum().clamp(min=1)
