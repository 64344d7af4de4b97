"""The gradient by the logits of several losses of the same softmax, written once.

Legend: B batch, C classes, H W size. With ``P`` the softmax, a loss is a sum over pixels divided by a count, and the
derivative of the sum by the logits is made of two parts. With ``g_c`` the derivative of the sum by ``P_c``, one is
``P_c (g_c - sum_k P_k g_k)``; that of a cross-entropy with labels ``Y`` and weights ``w`` is ``w (P_c - Y_c)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Cut = tuple[int, int, int] | None
"""An image of a batch, with the height and width that it has without padding; None is the whole batch."""


def pixels_of(cut: Cut) -> tuple[Any, ...]:
    """Return the index of a cut in tensors (B, ..., H, W), which keeps all dimensions.

    >>> torch.zeros(2, 3, 4, 5)[pixels_of((1, 2, 3))].shape
    torch.Size([1, 3, 2, 3])
    """
    if cut is None:
        return (...,)
    place, height, width = cut
    return (slice(place, place + 1), ..., slice(height), slice(width))


@dataclass(frozen=True)
class Slope:
    """The derivative of a sum of losses by the logits, in the parts that the top of this module names.

    Attributes:
        by_probs: (B, C, H, W) float32, the derivative by the probabilities; None for a cross-entropy.
        label, weight: (B, H, W) int64 and float32, the classes and weights of a cross-entropy; None for other losses.
    """

    by_probs: Tensor | None = None
    label: Tensor | None = None
    weight: Tensor | None = None


class JointGradient:
    """The gradient of all losses of the same logits.

    Losses depend on one number, which depends on the logits. In a backward pass each loss leaves its slopes here before
    that number is reached, whose own backward pass turns them into the gradient.
    """

    def __init__(self, logits: Tensor, probs: Tensor) -> None:
        """Begin with logits (B, C, H, W) that require a gradient, and their softmax in float32."""
        self.left: list[tuple[Cut, Tensor, Slope]] = []
        self.number: Tensor = _Number.apply(logits, probs, self.left)

    def mean(self, total: Tensor, count: Tensor, slopes: Iterable[tuple[Cut, Slope]]) -> Tensor:
        """Return ``total / count``, scalars, where the slopes of cuts are the derivative of ``total``."""
        cuts, tensors = [], []
        for cut, slope in slopes:
            cuts.append(cut)
            tensors += [slope.by_probs, slope.label, slope.weight]
        result: Tensor = _Mean.apply(self.number, total, count, self.left, cuts, *tensors)
        return result


def gradient_by_logits(probs: Tensor, slopes: Sequence[tuple[Tensor, Slope]]) -> Tensor:
    """Return the sum of slopes, each times a scalar, as the derivative by the logits, (B, C, H, W) float32."""
    shared_B1HW = torch.zeros_like(probs[:, :1])  # what every class has: sum w - sum_k P_k g_k
    for factor, slope in slopes:
        if slope.by_probs is not None:
            shared_B1HW.addcmul_((slope.by_probs * probs).sum(dim=1, keepdim=True), factor, value=-1)
        if slope.weight is not None:
            shared_B1HW.addcmul_(slope.weight[:, None], factor)
    gradient_BCHW = shared_B1HW
    for factor, slope in slopes:
        if slope.by_probs is not None:
            gradient_BCHW = torch.addcmul(gradient_BCHW, slope.by_probs, factor)
    gradient_BCHW = gradient_BCHW * probs if gradient_BCHW is shared_B1HW else gradient_BCHW.mul_(probs)
    for factor, slope in slopes:
        if slope.label is not None and slope.weight is not None:
            class_B1HW, weight_B1HW = slope.label[:, None], slope.weight[:, None] * factor
            gradient_BCHW.scatter_(1, class_B1HW, gradient_BCHW.gather(1, class_B1HW).sub_(weight_B1HW))
    return gradient_BCHW


class _Number(torch.autograd.Function):
    """A zero whose backward pass makes the gradient by the logits of the slopes that are left in a list."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, probs: Tensor, left: list[tuple[Cut, Tensor, Slope]]) -> Tensor:
        is_channels_last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
        ctx.layout = torch.channels_last if is_channels_last else torch.contiguous_format
        ctx.dtype, ctx.left = logits.dtype, left
        ctx.save_for_backward(probs)
        return torch.zeros((), device=logits.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None, None]:
        (probs,) = ctx.saved_tensors
        slopes_of: dict[Cut, list[tuple[Tensor, Slope]]] = {}
        for cut, factor, slope in ctx.left:
            slopes_of.setdefault(cut, []).append((factor, slope))
        ctx.left.clear()
        whole = slopes_of.pop(None, None)
        gradient = torch.zeros_like(probs) if whole is None else gradient_by_logits(probs, whole)
        for cut, slopes in slopes_of.items():
            gradient[pixels_of(cut)] += gradient_by_logits(probs[pixels_of(cut)], slopes)
        # On a CPU, up-sampling passes a gradient on three times faster in the layout of its output
        return gradient.to(ctx.dtype, memory_format=ctx.layout), None, None


class _Mean(torch.autograd.Function):
    """A sum over a count, which leaves the slopes of the sum in a list."""

    @staticmethod
    def forward(
        ctx: Any,
        number: Tensor,
        total: Tensor,
        count: Tensor,
        left: list[tuple[Cut, Tensor, Slope]],
        cuts: list[Cut],
        *tensors: Tensor | None,
    ) -> Tensor:
        ctx.left, ctx.cuts = left, cuts
        ctx.save_for_backward(count, *tensors)
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        count, *tensors = ctx.saved_tensors
        factor = slope / count
        for at, cut in enumerate(ctx.cuts):
            ctx.left.append((cut, factor, Slope(*tensors[3 * at : 3 * at + 3])))
        return torch.zeros_like(slope), *[None] * (4 + len(tensors))
