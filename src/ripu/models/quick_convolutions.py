"""Convolutions with fast gradients on a CPU.

oneDNN computes the output of dilated depthwise convolutions fast, but their gradients 20 to 40 times slower (measured
with AVX2), and networks that keep an output stride of 16 or 8 have several. 1 x 1 convolutions, which are most of a
network of separable ones, are products of matrices in the channels-last layout, where BLAS is faster than oneDNN with
several threads. ``python scripts/bench.py --step`` measures their share of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Dilated depthwise convolution of stride 1 that keeps its input's size, with faster gradients on CPUs.

    Output and gradients (of any order) are those of ``nn.Conv2d``, up to the order of summation. Elsewhere (GPUs,
    autocast, double precision, ``torch.compile``, no gradients) ``nn.Conv2d`` runs. ``torch.func`` and, with gradients,
    ``torch.jit`` do not support it.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether this class can replace a module."""
        return (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels == module.out_channels
            and max(module.dilation) > 1
            and set(module.stride) == {1}
            and all(size % 2 == 1 for size in module.kernel_size)
            and module.padding == tuple(
                dilation * (size // 2) for dilation, size in zip(module.dilation, module.kernel_size, strict=True)
            )
            and module.padding_mode == "zeros"
            and module.bias is None
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W) to (B, C, H, W)."""
        if not _is_plain(input, self.weight):
            return super().forward(input)
        output: Tensor = _DilatedDepthwise.apply(input, self.weight, self.padding, self.dilation)
        return output


class _DilatedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(input, weight, padding=padding, dilation=dilation, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Convolve the gradient with the flipped kernel for the input; sum over every tap for the weight."""
        input, weight = ctx.saved_tensors
        of_input, of_weight = None, None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3)
            of_input = F.conv2d(gradient, flipped, padding=ctx.padding, dilation=ctx.dilation, groups=len(weight))
        if ctx.needs_input_grad[1]:
            (below, beside), (down, right) = ctx.padding, ctx.dilation
            height, width = gradient.shape[-2:]
            padded = F.pad(input, (beside, beside, below, below))
            taps = [
                (padded[..., row : row + height, column : column + width] * gradient).sum((0, 2, 3))
                for row in range(0, down * weight.shape[2], down)
                for column in range(0, right * weight.shape[3], right)
            ]
            of_weight = torch.stack(taps, dim=1).reshape(weight.shape)
        return of_input, of_weight, None, None


class PointwiseConv2d(nn.Conv2d):
    """1 x 1 convolution of stride 1 that is a product of matrices for channels-last inputs on CPUs.

    Output and gradients are those of ``nn.Conv2d``, up to the order of summation. Elsewhere ``nn.Conv2d`` runs: see
    :class:`DilatedDepthwiseConv2d`.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether this class can replace a module."""
        return (
            type(module) is nn.Conv2d
            and module.groups == 1
            and module.kernel_size == module.stride == (1, 1)
            and module.padding in ((0, 0), "same", "valid")
        )

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W) to (B, K, H, W)."""
        if not _is_plain(input, self.weight) or not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _is_plain(input: Tensor, weight: Tensor) -> bool:
    """Return whether this is training on a CPU in single precision, without a compiler."""
    is_plain = input.device.type == "cpu" and input.dtype == weight.dtype == torch.float32 and input.dim() == 4
    is_special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not torch.is_grad_enabled()
    return is_plain and not is_special


KINDS = (DilatedDepthwiseConv2d, PointwiseConv2d)


def quicken_convolutions(network: nn.Module) -> dict[type[nn.Conv2d], int]:
    """Give every convolution of a network that fits one of :data:`KINDS` its gradients.

    The parameters, their names and, up to rounding, the outputs stay the same. Return the number of each kind.
    """
    count: dict[type[nn.Conv2d], int] = dict.fromkeys(KINDS, 0)
    for module in network.modules():
        for kind in KINDS:
            if kind.fits(module):
                module.__class__ = kind
                count[kind] += 1
    return count
