"""The training objective (Eq. 7-12): supervised, consistency and negative learning losses.

Legend: B batch, C classes, H W size. ``logits`` are (B, C, H, W) raw network outputs, ``label`` (B, H, W) integer train
ids with 255 = no label. Every loss is a float32 scalar, computed in float32 whatever the precision of the logits. An
empty set of pixels gives exactly 0 with a zero gradient, never NaN.

``shape`` (B, 2) is the height and width of each image in a batch whose images are padded below and to the right
(``data.fit=pad``), None if none is. A loss then is that of the images without their padding: no pixel of it counts, and
windows end where the image does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255
Sums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def supervised_loss(
    logits: Tensor,
    label: Tensor,
    *,
    average: Literal["labelled", "all"] = "labelled",
    class_balance: float = 0.0,
    shape: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy over the labelled pixels in nats (Eq. 8), for source and target alike.

    ``L_CE = -1/|I| * sum_ij sum_c w_c Y_ijc log P_ijc``, where ``average`` says if ``|I|`` counts the ``labelled``
    pixels (the released code) or ``all`` of them (the paper's text). With ``n_c`` labelled pixels of class ``c`` in
    the batch, ``w_c`` is proportional to ``n_c ** -class_balance``, and 1 in the mean over the labelled pixels: 0 is
    Eq. 8, and 1 gives every class that occurs the same share of the loss.

    Raises:
        ValueError: The shapes do not fit, or ``average`` is unknown.
    """
    _check_shapes(logits, label)
    if average not in ("labelled", "all"):
        raise ValueError(f"average={average!r} is unknown; use 'labelled' or 'all'")
    weight_C = class_weights(label, logits.shape[1], class_balance) if class_balance else None

    def sums(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        # Summed here, because trainer.deterministic forbids the kernel that sums on a GPU.
        loss_BHW = F.cross_entropy(logits.float(), label.long(), weight_C, ignore_index=IGNORE, reduction="none")
        count = (label != IGNORE).sum() if average == "labelled" else torch.tensor(label.numel(), device=logits.device)
        return loss_BHW.sum(), count

    return _mean(sums, logits, label, shape)


def class_weights(label: Tensor, num_classes: int, balance: float) -> Tensor:
    """Return the weight of each class, (C,) float32, from its share of the labels; see :func:`supervised_loss`.

    A class that does not occur has weight 0; without any label, all have.

    >>> class_weights(torch.tensor([[[0, 0, 0, 1, 255]]]), 3, 1.0)
    tensor([0.6667, 2.0000, 0.0000])
    """
    count_C = torch.bincount(label.flatten().int(), minlength=IGNORE + 1)[:num_classes].float()
    weight_C = torch.where(count_C > 0, count_C.clamp(min=1.0) ** -balance, 0.0)
    return weight_C * (count_C.sum() / (weight_C * count_C).sum().clamp(min=1e-12))


def label_boundary(label: Tensor, *, detector: Literal["neighbors", "laplacian"] = "neighbors") -> Tensor:
    """Return the pixels that lie on a boundary between labels, (B, H, W) bool; never one that is 255 itself.

    Args:
        label: Train ids.
        detector: ``neighbors``: any of the 8 neighbours inside the image has another id (255 counts as another id).
            ``laplacian``: the released code, a zero-padded 3x3 Laplacian of the raw ids that is not 0; it misses a
            one-pixel 2 between a 1 and a 3 and calls every pixel at the image border whose id is not 0 a boundary.

    Raises:
        ValueError: ``detector`` is unknown.

    >>> label_boundary(torch.tensor([[[0, 0, 0, 1]]]))
    tensor([[[False, False,  True,  True]]])
    """
    ids_B1HW = label.float().unsqueeze(1)
    if detector == "neighbors":
        # The padding of max_pool2d never wins, so windows are clipped at the image border.
        largest_B1HW = F.max_pool2d(ids_B1HW, 3, stride=1, padding=1)
        smallest_B1HW = -F.max_pool2d(-ids_B1HW, 3, stride=1, padding=1)
        boundary_B1HW = largest_B1HW != smallest_B1HW
    elif detector == "laplacian":
        kernel = torch.full((1, 1, 3, 3), -1.0, device=label.device)
        kernel[0, 0, 1, 1] = 8.0
        boundary_B1HW = F.conv2d(ids_B1HW, kernel, padding=1).round() != 0
    else:
        raise ValueError(f"boundary detector {detector!r} is unknown; use 'neighbors' or 'laplacian'")
    return boundary_B1HW.squeeze(1) & (label != IGNORE)


def consistency_loss(
    logits: Tensor,
    label: Tensor,
    boundary_only: bool = True,
    *,
    boundary_detector: Literal["neighbors", "laplacian"] = "neighbors",
    border: Literal["clip", "replicate"] = "clip",
    shape: Tensor | None = None,
) -> Tensor:
    """Return the mean distance of a prediction to the mean prediction of its 3x3 window (Eq. 9), on source images.

    ``L_cr = 1/|I| * sum_ij || P_ij - mean_{uv in N_1(ij)} P_uv ||_1``, in [0, 2]

    Args:
        logits: Network outputs.
        label: Train ids; only used with ``boundary_only``.
        boundary_only: Average over the labelled pixels on a label boundary (the released code), or over all pixels
            (the paper's text).
        boundary_detector: See :func:`label_boundary`.
        border: ``clip`` the 3x3 window at the image border (the paper) or ``replicate`` the border pixels.
        shape: See the top of this module.

    Raises:
        ValueError: The shapes do not fit, or an option is unknown.
    """
    _check_shapes(logits, label)

    def sums(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        distance_BHW = _distance_to_window(logits, border)
        if not boundary_only:
            return distance_BHW.sum(), torch.tensor(label.numel(), device=logits.device)
        boundary_BHW = label_boundary(label, detector=boundary_detector)
        return (distance_BHW * boundary_BHW).sum(), boundary_BHW.sum()

    if shape is None and not boundary_only:
        return _distance_to_window(logits, border).mean()
    return _mean(sums, logits, label, shape)


def _distance_to_window(logits: Tensor, border: str) -> Tensor:
    """Return the L1 distance (B, H, W) of each pixel's softmax to the mean of its 3x3 window."""
    probs_BCHW = torch.softmax(logits.float(), dim=1)
    if border == "clip":
        mean_BCHW = F.avg_pool2d(probs_BCHW, 3, stride=1, padding=1, count_include_pad=False)
    elif border == "replicate":
        mean_BCHW = F.avg_pool2d(F.pad(probs_BCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    else:
        raise ValueError(f"border={border!r} is unknown; use 'clip' or 'replicate'")
    return (probs_BCHW - mean_BCHW).abs().sum(dim=1)


def negative_learning_loss(
    logits: Tensor, threshold: float = 0.05, *, epsilon: float = 0.0, shape: Tensor | None = None
) -> Tensor:
    """Return the loss in nats that pushes down the classes a pixel surely is not (Eq. 10-11), on target images.

    ``L_nl = -1/Lambda * sum_ij sum_c [P_ijc < tau] log(1 - P_ijc)``, where ``Lambda`` is the number of (pixel, class)
    pairs below tau. The gradient treats the choice of these pairs as constant.

    Args:
        logits: Network outputs.
        threshold: tau, in (0, 1).
        epsilon: Added inside the logarithm; 1e-6 in the released code.
        shape: See the top of this module.

    Raises:
        ValueError: ``threshold`` is outside (0, 1).
    """
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"negative threshold tau = {threshold} is outside (0, 1); the paper uses 0.05")

    def sums(logits: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        probs_BCHW = torch.softmax(logits.float(), dim=1)
        below_BCHW = ~(probs_BCHW.detach() >= threshold)  # includes NaN, which must reach the loss to be found
        # Classes at or above tau are masked before the logarithm: log(1 - 1) would make the gradient NaN.
        kept_BCHW = torch.where(below_BCHW, probs_BCHW, 0.0)
        log_complement_BCHW = torch.log1p(-kept_BCHW) if epsilon == 0.0 else torch.log(1.0 - kept_BCHW + epsilon)
        return -(log_complement_BCHW * below_BCHW).sum(), below_BCHW.sum()

    return _mean(sums, logits, logits[:, 0], shape)


def _mean(sums: Sums, logits: Tensor, label: Tensor, shape: Tensor | None) -> Tensor:
    """Return the sum over the count that ``sums`` finds, in the whole batch or in its images without their padding."""
    if shape is None:
        total, count = sums(logits, label)
    else:
        rows = [
            (slice(at, at + 1), ..., slice(height), slice(width)) for at, (height, width) in enumerate(shape.tolist())
        ]
        found = [sums(logits[part], label[part]) for part in rows]
        total, count = (torch.stack(values).sum() for values in zip(*found, strict=True))
    return total / count.clamp(min=1)


def _check_shapes(logits: Tensor, label: Tensor) -> None:
    batch, _, height, width = logits.shape
    if label.shape != (batch, height, width):
        raise ValueError(
            f"label of shape {tuple(label.shape)} does not fit logits of shape {tuple(logits.shape)}; "
            f"resize the label to {(batch, height, width)} first"
        )
