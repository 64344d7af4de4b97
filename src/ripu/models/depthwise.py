"""Dilated depthwise convolutions with fast gradients on a CPU.

oneDNN computes their output fast, but their gradients 20 to 40 times slower (measured with AVX2), and networks that
keep an output stride of 16 or 8 have several. ``python scripts/bench.py --step`` measures their share of a training
step.
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
        is_plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32 and input.dim() == 4
        is_special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not torch.is_grad_enabled()
        if not is_plain or is_special:
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


def quicken_dilated_depthwise(network: nn.Module) -> int:
    """Give every dilated depthwise convolution of a network the gradients of :class:`DilatedDepthwiseConv2d`.

    The parameters, their names and the outputs stay the same. Return the number of these convolutions.
    """
    found = [module for module in network.modules() if DilatedDepthwiseConv2d.fits(module)]
    for module in found:
        module.__class__ = DilatedDepthwiseConv2d
    return len(found)
