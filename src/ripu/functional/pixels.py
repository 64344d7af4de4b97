"""Per-pixel statistics of up-sampled logits without ever holding the up-sampled logits.

Legend: B batch, C classes, h w size of the logits, H W size of the result, R rows of a strip.

Bilinear interpolation (``align_corners=True``) is separable: a strip stretches the few source rows that it needs along
W, then blends two of them for each of its own rows, with the positions and weights of torch's ``interpolate``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ripu.functional.parallel import band_rows, for_each, split_rows, strip_rows


class NonFiniteLogitsError(ValueError):
    """Logits that are NaN or infinite."""


PixelKernel = Callable[[Tensor], tuple[Tensor, ...]]
"""(C, R, W) float32 logits, which it may overwrite -> maps (R, W)."""


@dataclass(frozen=True)
class Rows:
    """A part of the rows of logits and maps, for images whose logits are never held whole.

    Attributes:
        first: The row of the whole logits that the given ones begin with.
        height: h of the whole logits.
        span: Half-open range of rows of the whole maps to return; :func:`source_rows` tells which logits it needs.
    """

    first: int
    height: int
    span: tuple[int, int]


def span_rows(num_classes: int, size: tuple[int, int], device: torch.device) -> int:
    """Return a number of rows: spans that begin at its multiples give the maps of the whole image, to the bit."""
    most = strip_rows(num_classes, size[1], device)
    return band_rows(size[0], 4 * most, device) if device.type == "cpu" else most


def source_rows(height: int, target: int, span: tuple[int, int]) -> tuple[int, int]:
    """Return the half-open range of rows, out of ``height``, that rows ``span`` out of ``target`` are blended from.

    >>> source_rows(10, 20, (0, 5))
    (0, 3)
    """
    upper, lower, _ = blend_taps(height, target, span)
    return upper[0], lower[-1] + 1


def map_pixels(
    logits_BChw: Tensor,
    size: tuple[int, int],
    kernel: PixelKernel,
    dtypes: Sequence[torch.dtype],
    rows: Rows | None = None,
) -> tuple[Tensor, ...]:
    """Up-sample logits to ``size`` (bilinear, align_corners) and reduce them to per-pixel maps, strip by strip.

    Args:
        logits_BChw: (B, C, h, w) floating logits; half precisions are computed in float32.
        size: (H, W) of the maps; nothing is interpolated if it equals (h, w).
        kernel: Reduction over classes, called on (C, R, W) strips.
        dtypes: The dtypes of the (B, H, W) maps that ``kernel`` returns.
        rows: The logits are these rows of larger ones, and only these rows of the maps are returned; ``size`` is that
            of the whole maps.

    Raises:
        ValueError: Not four dimensions, an empty one, not floating, or logits that are not finite (positions named).
    """
    check_logits(logits_BChw)
    check_size(size)
    height, width = size
    logits_BChw = logits_BChw.detach()
    batch, _, source_height, _ = logits_BChw.shape
    rows = rows or Rows(0, source_height, (0, height))
    upper, lower, blend = blend_taps(rows.height, height, rows.span)
    upper, lower = [row - rows.first for row in upper], [row - rows.first for row in lower]
    height = len(upper)
    device = logits_BChw.device
    maps = tuple(torch.empty((batch, height, width), dtype=dtype, device=device) for dtype in dtypes)
    if device.type == "cpu":
        _map_rows_on_cpu(logits_BChw, maps, kernel, (upper, lower, blend), size[0])
    else:
        _map_rows_on_device(logits_BChw, maps, kernel, (upper, lower, blend))
        refuse_broken(torch.isfinite(logits_BChw).flatten(1).all(dim=1))
    return maps


def _map_rows_on_cpu(
    logits_BChw: Tensor,
    maps_BHW: Sequence[Tensor],
    kernel: PixelKernel,
    taps: tuple[list[int], list[int], list[float]],
    whole_height: int,
) -> None:
    """Write the maps of :func:`map_pixels`, a band at a time, and check the logits that are read on the way.

    Rows of a band depend on ``whole_height``, that of the whole maps, alone.
    """
    batch, num_classes, source_height, source_width = logits_BChw.shape
    height, width = maps_BHW[0].shape[1:]
    upper, lower, blend = taps
    device = logits_BChw.device
    most = strip_rows(num_classes, width, device)
    # A worker takes four strips in a row: only at the start of a band is a source row stretched a second time.
    bands = split_rows(height, band_rows(whole_height, 4 * most, device))
    is_finite = torch.ones((batch, len(bands)), dtype=torch.bool, device=device)

    def task(b: int, number: int) -> None:
        """Write a band of rows of the maps of image ``b``."""
        first, last = bands[number]
        stretched: dict[int, Tensor] = {}  # source row -> its (C, W) values, stretched along W
        start = upper[first]
        for top, bottom in split_rows(last - first, most):
            top, bottom = top + first, bottom + first
            # Up to the next strip's first row: when shrinking, rows between strips must be seen to be checked.
            stop = max(lower[bottom - 1] + 1, upper[bottom] if bottom < height else source_height)
            if start < stop:
                source_Csw = logits_BChw[b, :, start:stop].float().contiguous()
                low, high = torch.aminmax(source_Csw)
                is_finite[b, number] &= torch.isfinite(low) & torch.isfinite(high)
                if width != source_width:
                    source_Csw = interpolate(source_Csw, width, mode="linear", align_corners=True)
                stretched = {row: values for row, values in stretched.items() if row >= upper[top]}
                stretched.update(zip(range(start, stop), source_Csw.unbind(1), strict=True))
                start = stop
            strip_CRW = logits_BChw.new_empty((num_classes, bottom - top, width), dtype=torch.float32)
            for row, row_CW in enumerate(strip_CRW.unbind(1), top):
                torch.lerp(stretched[upper[row]], stretched[lower[row]], blend[row], out=row_CW)
            for target, part in zip(maps_BHW, kernel(strip_CRW), strict=True):
                target[b, top:bottom] = part

    for_each(task, [(b, number) for b in range(batch) for number in range(len(bands))], device)
    refuse_broken(is_finite.all(dim=1))


def map_on_device(logits_BChw: Tensor, maps_BHW: Sequence[Tensor], kernel: PixelKernel) -> None:
    """Write the maps of :func:`map_pixels`, in a few large operations a strip; for accelerators."""
    height = maps_BHW[0].shape[1]
    _map_rows_on_device(logits_BChw, maps_BHW, kernel, blend_taps(logits_BChw.shape[2], height, (0, height)))


def _map_rows_on_device(
    logits_BChw: Tensor, maps_BHW: Sequence[Tensor], kernel: PixelKernel, taps: tuple[list[int], list[int], list[float]]
) -> None:
    batch, num_classes, _, source_width = logits_BChw.shape
    height, width = maps_BHW[0].shape[1:]
    device = logits_BChw.device
    upper, lower, blend = taps
    upper_H, lower_H = torch.tensor(upper, device=device), torch.tensor(lower, device=device)
    blend_H1 = torch.tensor(blend, device=device)[:, None]

    def task(b: int, top: int, bottom: int) -> None:
        """Write rows ``top`` to ``bottom`` of the maps of image ``b``."""
        start = upper[top]
        source_Csw = logits_BChw[b, :, start : lower[bottom - 1] + 1].float()
        if width != source_width:
            source_Csw = interpolate(source_Csw, width, mode="linear", align_corners=True)
        above_CRW = source_Csw.index_select(1, upper_H[top:bottom] - start)
        below_CRW = source_Csw.index_select(1, lower_H[top:bottom] - start)
        for target, part in zip(maps_BHW, kernel(torch.lerp(above_CRW, below_CRW, blend_H1[top:bottom])), strict=True):
            target[b, top:bottom] = part

    strips = split_rows(height, strip_rows(num_classes, width, device))
    for_each(task, [(b, *strip) for b in range(batch) for strip in strips], device)


def check_finite(logits_BCHW: Tensor) -> None:
    """Raise NonFiniteLogitsError if logits are NaN or infinite; the message names the batch positions."""
    refuse_broken(torch.isfinite(logits_BCHW).flatten(1).all(dim=1))


def refuse_broken(is_finite_B: Tensor) -> None:
    """Raise the error of :func:`check_finite` unless all flags are true."""
    broken = (~is_finite_B).nonzero().flatten().tolist()
    if broken:
        raise NonFiniteLogitsError(
            f"logits are NaN or infinite at batch position(s) {broken}: "
            "the network has diverged, it overflows in 16-bit precision, or its input is not finite; lower the "
            "learning rate, use 32-bit precision, or check the image."
        )


def check_size(size: tuple[int, int]) -> None:
    """Raise ValueError unless ``size`` is that of a map with pixels."""
    if min(size) < 1:
        raise ValueError(f"size {size} must be two positive numbers (H, W).")


def check_logits(logits_BCHW: Tensor) -> None:
    """Raise ValueError unless ``logits_BCHW`` is a floating (B, C, H, W) tensor with C, H, W >= 1."""
    if logits_BCHW.ndim != 4 or min(logits_BCHW.shape[1:]) < 1:
        raise ValueError(f"logits must be (B, C, H, W) without an empty dimension, not {tuple(logits_BCHW.shape)}.")
    if not logits_BCHW.is_floating_point():
        raise ValueError(f"logits must be floating, not {logits_BCHW.dtype}: pass the network's output before argmax.")


def blend_taps(source: int, target: int, span: tuple[int, int]) -> tuple[list[int], list[int], list[float]]:
    """Return the rows above and below, out of ``source``, of the rows ``span`` out of ``target``.

    The third list has the weights of the rows below.
    """
    scale = torch.tensor((source - 1) / (target - 1) if target > 1 else 0.0, dtype=torch.float32)
    position = torch.arange(*span, dtype=torch.float32) * scale
    upper = position.long().clamp_(max=source - 1)
    blend = (position - upper).clamp_(0.0, 1.0)
    return upper.tolist(), (upper + 1).clamp_(max=source - 1).tolist(), blend.tolist()
