"""The training objective (Eq. 7-12): supervised, consistency and negative learning losses.

Legend: B batch, C classes, H W size. ``logits`` are (B, C, H, W) raw network outputs, ``label`` (B, H, W) integer train
ids with 255 = no label. Every loss is a float32 scalar, computed in float32 whatever the precision of the logits. An
empty set of pixels gives exactly 0 with a zero gradient, never NaN.

``shape`` (B, 2), on the CPU, is the height and width of each image in a batch whose images are padded below and to the
right (``data.fit=pad``), None if none is. A loss then is that of the images without their padding: no pixel of it
counts, and windows end where the image does.

Each loss is the quotient of a sum and a count, with a gradient in closed form. Losses that share a :class:`Softmax`
also share their backward pass, which writes the gradient once (:mod:`ripu.functional.joint_gradient`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ripu.functional.joint_gradient import Cut, JointGradient, Slope, pixels_of

IGNORE = 255


@dataclass(frozen=True)
class Softmax:
    """The softmax of logits, in float32 and without a gradient; made once for all losses of the same logits.

    Attributes:
        logits, probs: (B, C, H, W).
        log_sum: (B, 1, H, W), the logarithm of the sum of the exponentials of the logits.
        joint: The gradient of the losses of these logits; None if no gradient is wanted.
    """

    logits: Tensor
    probs: Tensor
    log_sum: Tensor
    joint: JointGradient | None = None

    @classmethod
    def of(cls, logits: Tensor) -> Softmax:
        """Return the softmax of logits (B, C, H, W) of any floating type."""
        values = logits.detach().float().contiguous()
        highest = values.amax(dim=1, keepdim=True)
        probs = (values - highest).exp_()
        total = probs.sum(dim=1, keepdim=True)
        probs.div_(total)
        is_training = logits.requires_grad and torch.is_grad_enabled()
        joint = JointGradient(logits, probs) if is_training else None
        return cls(values, probs, total.log_().add_(highest), joint)

    def part(self, cut: Cut) -> Softmax:
        """Return the softmax of the pixels of a cut, without ``joint``."""
        pixels = pixels_of(cut)
        return Softmax(self.logits[pixels], self.probs[pixels], self.log_sum[pixels])


Sums = Callable[[Softmax, Tensor, bool], tuple[Tensor, Tensor, Slope | None]]
"""The sum, the count and the slope of the sum, from a softmax and labels.

The last argument says if the slope is needed; otherwise it is None.
"""


def supervised_loss(
    logits: Tensor,
    label: Tensor,
    *,
    average: Literal["labelled", "all"] = "labelled",
    class_balance: float = 0.0,
    shape: Tensor | None = None,
    softmax: Softmax | None = None,
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

    def sums(softmax: Softmax, label: Tensor, is_training: bool) -> tuple[Tensor, Tensor, Slope | None]:
        is_labelled = label != IGNORE
        weight_BHW = is_labelled.float() if weight_C is None else weight_of_label(weight_C, label)
        total, slope = _cross_entropy(softmax, label, weight_BHW, is_training)
        return total, is_labelled.sum() if average == "labelled" else _number(label.numel(), logits), slope

    return _mean(sums, logits, label, shape, softmax)


def weighted_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor, *, softmax: Softmax | None = None) -> Tensor:
    """Return the sum of the cross-entropies of the labelled pixels in nats, each times its weight (B, H, W) float32.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check_shapes(logits, label)

    def sums(softmax: Softmax, label: Tensor, is_training: bool) -> tuple[Tensor, Tensor, Slope | None]:
        total, slope = _cross_entropy(softmax, label, weight * (label != IGNORE), is_training)
        return total, _number(1, logits), slope

    return _mean(sums, logits, label, None, softmax)


def _cross_entropy(
    softmax: Softmax, label: Tensor, weight_BHW: Tensor, is_training: bool
) -> tuple[Tensor, Slope | None]:
    """Return the weighted sum over labelled pixels, and its slope; the weight of others is 0."""
    is_labelled = label != IGNORE
    class_BHW = torch.where(is_labelled, label, 0).long()
    loss_BHW = (softmax.log_sum - softmax.logits.gather(1, class_BHW[:, None])).squeeze(1)
    total = (torch.where(is_labelled, loss_BHW, 0.0) * weight_BHW).sum()
    return total, Slope(label=class_BHW, weight=weight_BHW) if is_training else None


def is_image(like: Tensor, shape: Tensor | None) -> Tensor:
    """Return the mask of the pixels that are not padding, (B, H, W) bool on the device of ``like`` (B, ..., H, W).

    >>> is_image(torch.zeros(1, 2, 3), torch.tensor([[1, 2]])).int().tolist()
    [[[1, 1, 0], [0, 0, 0]]]
    """
    found = torch.ones((len(like), *like.shape[-2:]), dtype=torch.bool, device=like.device)
    for place, (height, width) in enumerate(() if shape is None else shape.tolist()):
        found[place, height:], found[place, :, width:] = False, False
    return found


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of values where a mask of the same shape is True; 0 with a zero gradient if it is nowhere.

    >>> masked_mean(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True]))
    tensor(3.5000)
    """
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def weight_of_label(weight_C: Tensor, label: Tensor) -> Tensor:
    """Return the weight of the class of each pixel, (B, H, W) float32; 0 without a label.

    >>> weight_of_label(torch.tensor([0.5, 2.0]), torch.tensor([[[0, 1, 255]]]))
    tensor([[[0.5000, 2.0000, 0.0000]]])
    """
    is_labelled = label != IGNORE
    return weight_C[torch.where(is_labelled, label, 0).long()] * is_labelled


def class_weights(label: Tensor, num_classes: int, balance: float) -> Tensor:
    """Return the weight of each class, (C,) float32, from its share of the labels; see :func:`supervised_loss`.

    A class that does not occur has weight 0; without any label, all have.

    >>> class_weights(torch.tensor([[[0, 0, 0, 1, 255]]]), 3, 1.0)
    tensor([0.6667, 2.0000, 0.0000])
    """
    # Not bincount, for which the host waits for the device
    found = label.flatten().long()
    count_C = torch.zeros(IGNORE + 1, dtype=torch.int64, device=label.device)
    count_C = count_C.scatter_add(0, found, torch.ones_like(found))[:num_classes].float()
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
    if detector == "neighbors":
        is_boundary_BHW = _window_3x3(label, torch.maximum) != _window_3x3(label, torch.minimum)
    elif detector == "laplacian":
        kernel = torch.full((1, 1, 3, 3), -1.0, device=label.device)
        kernel[0, 0, 1, 1] = 8.0
        is_boundary_BHW = F.conv2d(label.float().unsqueeze(1), kernel, padding=1).round().squeeze(1) != 0
    else:
        raise ValueError(f"boundary detector {detector!r} is unknown; use 'neighbors' or 'laplacian'")
    return is_boundary_BHW & (label != IGNORE)


def consistency_loss(
    logits: Tensor,
    label: Tensor,
    boundary_only: bool = True,
    *,
    boundary_detector: Literal["neighbors", "laplacian"] = "neighbors",
    border: Literal["clip", "replicate"] = "clip",
    shape: Tensor | None = None,
    softmax: Softmax | None = None,
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
    if border not in ("clip", "replicate"):
        raise ValueError(f"border={border!r} is unknown; use 'clip' or 'replicate'")

    def sums(softmax: Softmax, label: Tensor, is_training: bool) -> tuple[Tensor, Tensor, Slope | None]:
        counted_BHW = label_boundary(label, detector=boundary_detector) if boundary_only else torch.ones_like(label) > 0
        counted_B1HW = counted_BHW[:, None].float()
        size_HW = window_sum_3x3(torch.ones_like(softmax.probs[:1, :1]), border)  # 9, or less where windows are clipped
        difference_BCHW = softmax.probs - window_sum_3x3(softmax.probs, border).div_(size_HW)
        # Minus the sign over the size, so that the window sum, its own transpose, has the sign of the derivative
        slope_BCHW = difference_BCHW.sign().mul_(counted_B1HW / -size_HW) if is_training else None
        total = difference_BCHW.abs_().sum(dim=1, keepdim=True).mul_(counted_B1HW).sum()
        if slope_BCHW is None:
            return total, counted_BHW.sum(), None
        by_probs_BCHW = window_sum_3x3(slope_BCHW, border).addcmul_(slope_BCHW, size_HW, value=-1)
        return total, counted_BHW.sum(), Slope(by_probs_BCHW)

    return _mean(sums, logits, label, shape, softmax)


def window_sum_3x3(x: Tensor, border: Literal["clip", "replicate"]) -> Tensor:
    """Return the sum over the 3x3 window of each pixel of (B, C, H, W), which is a symmetric map of the pixels.

    Windows are clipped at the image border, or its pixels are repeated.

    >>> window_sum_3x3(torch.tensor([[[[1.0, 10.0, 100.0]]]]), "replicate")
    tensor([[[[ 36., 333., 630.]]]])
    """
    return _window_3x3(x, torch.add, is_replicated=border == "replicate")


def _window_3x3(x: Tensor, combine: Callable[..., Tensor], *, is_replicated: bool = False) -> Tensor:
    """Combine the entries of the 3x3 window of each pixel of (..., H, W) inside the image; border pixels may repeat."""
    for dim in (-1, -2):
        length = x.shape[dim]
        result = torch.empty_like(x)
        result.narrow(dim, 0, 1).copy_(x.narrow(dim, 0, 1))
        combine(x.narrow(dim, 1, length - 1), x.narrow(dim, 0, length - 1), out=result.narrow(dim, 1, length - 1))
        part = result.narrow(dim, 0, length - 1)
        combine(part, x.narrow(dim, 1, length - 1), out=part)
        if is_replicated:
            for end in (0, length - 1):
                part = result.narrow(dim, end, 1)
                combine(part, x.narrow(dim, end, 1), out=part)
        x = result
    return x


def negative_learning_loss(
    logits: Tensor,
    threshold: float = 0.05,
    *,
    epsilon: float = 0.0,
    shape: Tensor | None = None,
    softmax: Softmax | None = None,
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

    def sums(softmax: Softmax, _: Tensor, is_training: bool) -> tuple[Tensor, Tensor, Slope | None]:
        # Numbers 0 and 1, as torch is several times slower with truth values on a CPU
        below_BCHW = torch.lt(softmax.probs, threshold, out=torch.empty_like(softmax.probs))
        kept_BCHW = softmax.probs * below_BCHW  # 0 at tau and above: log(1 - 1) would make the gradient NaN
        rest_BCHW = 1.0 - kept_BCHW + epsilon if epsilon else 1.0 - kept_BCHW
        log_BCHW = rest_BCHW.log().mul_(below_BCHW) if epsilon else kept_BCHW.neg_().log1p_()
        total, count = -log_BCHW.sum(), below_BCHW.sum()
        return total, count, Slope(below_BCHW.div_(rest_BCHW)) if is_training else None

    return _mean(sums, logits, logits[:, 0], shape, softmax)


def _mean(sums: Sums, logits: Tensor, label: Tensor, shape: Tensor | None, softmax: Softmax | None) -> Tensor:
    """Return the sum over the count that ``sums`` finds, in the whole batch or in its images without their padding."""
    softmax = Softmax.of(logits) if softmax is None else softmax
    is_training = softmax.joint is not None and torch.is_grad_enabled()
    sizes = [] if shape is None else shape.tolist()
    cuts: list[Cut] = [(place, *size) for place, size in enumerate(sizes)] or [None]
    found = [sums(softmax.part(cut), label[pixels_of(cut)], is_training) for cut in cuts]
    totals, counts, slopes = zip(*found, strict=True)
    total, count = torch.stack(totals).sum(), torch.stack(counts).sum().clamp(min=1)
    if softmax.joint is None or not is_training:
        return total / count
    return softmax.joint.mean(total, count, zip(cuts, slopes, strict=True))


def _number(value: int, like: Tensor) -> Tensor:
    """Return a number on the device of a tensor; copying it there would make the host wait."""
    return torch.full((), value, device=like.device)


def _check_shapes(logits: Tensor, label: Tensor) -> None:
    batch, _, height, width = logits.shape
    if label.shape != (batch, height, width):
        raise ValueError(
            f"label of shape {tuple(label.shape)} does not fit logits of shape {tuple(logits.shape)}; "
            f"resize the label to {(batch, height, width)} first"
        )
