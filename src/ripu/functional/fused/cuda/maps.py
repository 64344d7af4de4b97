"""Entropy and label of up-sampled logits in one pass over the low-resolution logits.

Legend: B batch, C classes, h w size of the logits, H W size of the result.

A program computes a few pixels. For each class it blends four logits in registers, twice: once for the largest one,
once for the sums of :mod:`ripu.functional.entropy`. Nothing with C planes of H x W is ever written. Products and sums
round as on a CPU (the fused ones are spelled out, the compiler makes no others), so up-sampled logits, and with them
labels, are those of torch's AVX2 and AVX-512 code to the bit; entropies differ by the rounding of exp and log.
"""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ripu.functional.pixels import blend_taps, check_logits, check_size, refuse_broken

_BLOCK, _CHECKED = 256, 4096
EXACT = {"enable_fp_fusion": False}
"""Launch option: no product and sum become one rounding unless ``tl.fma`` says so."""


@triton.jit
def _blended(plane, above, below, left, right, across, down, is_inside):
    """Return one class of the pixels: along the rows first, then between them, as torch does."""
    back = 1.0 - across
    upper_left = tl.load(plane + above + left, mask=is_inside, other=0.0).to(tl.float32)
    upper_right = tl.load(plane + above + right, mask=is_inside, other=0.0).to(tl.float32)
    lower_left = tl.load(plane + below + left, mask=is_inside, other=0.0).to(tl.float32)
    lower_right = tl.load(plane + below + right, mask=is_inside, other=0.0).to(tl.float32)
    upper = tl.fma(upper_left, back, upper_right * across)
    lower = tl.fma(lower_left, back, lower_right * across)
    is_near = down < 0.5  # torch.lerp starts from the nearer end
    return tl.fma(tl.where(is_near, down, down - 1.0), lower - upper, tl.where(is_near, upper, lower))


@triton.jit
def _entropy_and_label_kernel(
    logits, stride_b, stride_c, stride_h, stride_w,
    upper, lower, down, left, right, across,
    entropy, label, height, width, num_classes, epsilon,
    HAS_EPSILON: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    is_inside = place < height * width
    row, column = place // width, place % width
    above = tl.load(upper + row, mask=is_inside, other=0) * stride_h
    below = tl.load(lower + row, mask=is_inside, other=0) * stride_h
    weight_below = tl.load(down + row, mask=is_inside, other=0.0)
    first = tl.load(left + column, mask=is_inside, other=0) * stride_w
    second = tl.load(right + column, mask=is_inside, other=0) * stride_w
    weight_right = tl.load(across + column, mask=is_inside, other=0.0)
    image = logits + b * stride_b

    most = tl.full([BLOCK], float("-inf"), tl.float32)
    best = tl.zeros([BLOCK], tl.int32)
    plane = image
    for number in range(num_classes):
        value = _blended(plane, above, below, first, second, weight_right, weight_below, is_inside)
        is_more = value > most  # of equal logits the first class is the label
        best = tl.where(is_more, number, best)
        most = tl.where(is_more, value, most)
        plane += stride_c

    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    plane = image
    for _ in range(num_classes):
        value = _blended(plane, above, below, first, second, weight_right, weight_below, is_inside) - most
        power = tl.exp(value)
        total += power
        weighted += power * value
        plane += stride_c

    if HAS_EPSILON:
        weighted = tl.zeros([BLOCK], tl.float32)
        plane = image
        for _ in range(num_classes):
            value = _blended(plane, above, below, first, second, weight_right, weight_below, is_inside) - most
            share = tl.div_rn(tl.exp(value), total)
            weighted += share * tl.log(share + epsilon)
            plane += stride_c
        result = -weighted
    else:
        result = tl.div_rn(-weighted, total) + tl.log(total)
    place += b * height * width
    tl.store(entropy + place, result, mask=is_inside)
    tl.store(label + place, best.to(label.dtype.element_ty), mask=is_inside)


@triton.jit
def _broken_kernel(
    logits, stride_b, stride_c, stride_h, stride_w, is_broken, num_classes, height, width, BLOCK: tl.constexpr
):  # fmt: skip
    number, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    row = number // width
    place = row // height * stride_c + row % height * stride_h + number % width * stride_w
    value = tl.load(logits + b * stride_b + place, mask=row < num_classes * height, other=0.0).to(tl.float32)
    if tl.max((~(tl.abs(value) < float("inf"))).to(tl.int32)) > 0:
        tl.store(is_broken + b, 1)  # whoever stores, stores the same


class _Taps(NamedTuple):
    """The taps of every row or column: (length,) int32 positions, and float32 weights of the second."""

    first: Tensor
    second: Tensor
    weight: Tensor


@functools.lru_cache(maxsize=256)
def _taps_on(source: int, target: int, device: torch.device) -> _Taps:
    """Return the taps of one axis, kept: they are sent to the device once."""
    first, second, weight = blend_taps(source, target, (0, target))
    places = torch.tensor([first, second], dtype=torch.int32, device=device)
    return _Taps(places[0], places[1], torch.tensor(weight, dtype=torch.float32, device=device))


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which Triton launches kernels on ``device``."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class Finite:
    """The check that logits are finite, begun on the device; the kernels that follow do not wait for it."""

    def __init__(self, logits_BChw: Tensor) -> None:
        batch, num_classes, height, width = logits_BChw.shape
        is_broken_B = torch.zeros(batch, dtype=torch.int32, device=logits_BChw.device)
        if batch:
            _broken_kernel[(triton.cdiv(num_classes * height * width, _CHECKED), batch)](
                logits_BChw, *logits_BChw.stride(), is_broken_B, num_classes, height, width, BLOCK=_CHECKED
            )  # fmt: skip
        self._is_broken_B, self._event = is_broken_B, None
        if is_broken_B.is_cuda:
            self._is_broken_B = torch.empty(batch, dtype=torch.int32, pin_memory=True)
            self._is_broken_B.copy_(is_broken_B, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(is_broken_B.device))

    def check(self) -> None:
        """Wait for the flags alone, and raise ValueError if logits are NaN or infinite."""
        if self._event is not None:
            self._event.synchronize()
        refuse_broken(self._is_broken_B == 0)


def entropy_and_label(
    logits_BChw: Tensor, size: tuple[int, int], epsilon: float, label_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Finite]:
    """Return the (B, H, W) maps of :func:`ripu.functional.map_entropy_and_label`, and the check of the logits."""
    check_logits(logits_BChw)
    check_size(size)
    logits_BChw = logits_BChw.detach()
    batch, num_classes, source_height, source_width = logits_BChw.shape
    height, width = size
    device = logits_BChw.device
    entropy_BHW = torch.empty((batch, height, width), dtype=torch.float32, device=device)
    label_BHW = torch.empty((batch, height, width), dtype=label_dtype, device=device)
    with on(device):
        finite = Finite(logits_BChw)
        rows, columns = _taps_on(source_height, height, device), _taps_on(source_width, width, device)
        if batch:
            _entropy_and_label_kernel[(triton.cdiv(height * width, _BLOCK), batch)](
                logits_BChw, *logits_BChw.stride(),
                rows.first, rows.second, rows.weight, columns.first, columns.second, columns.weight,
                entropy_BHW, label_BHW, height, width, num_classes, epsilon,
                HAS_EPSILON=epsilon > 0.0, BLOCK=_BLOCK, **EXACT,
            )  # fmt: skip
    return entropy_BHW, label_BHW, finite
