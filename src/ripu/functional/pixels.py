"""Per-pixel statistics of up-sampled logits without ever holding the up-sampled logits.

Legend: B batch, C classes, h w size of the logits, H W size of the result, R rows of a strip.

Bilinear interpolation (``align_corners=True``) is separable: a strip first stretches the few source rows that it needs
along W, then blends two of them for each of its own rows, then reduces the (C, R, W) strip to (R, W) maps. Positions and
weights are those of :func:`torch.nn.functional.interpolate`, in float32 as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ripu.functional.parallel import for_each, split_rows, strip_rows

PixelKernel = Callable[[Tensor], tuple[Tensor, ...]]
"""(C, R, W) float32 logits, which it may overwrite -> maps (R, W)."""


def map_pixels(
    logits_BChw: Tensor, size: tuple[int, int], kernel: PixelKernel, dtypes: Sequence[torch.dtype]
) -> tuple[Tensor, ...]:
    """Up-sample logits to ``size`` (bilinear, align_corners) and reduce them to per-pixel maps, strip by strip.

    Args:
        logits_BChw: (B, C, h, w) floating logits; half precisions are computed in float32.
        size: (H, W) of the maps; equal to (h, w) there is no interpolation.
        kernel: Reduction over classes, called on (C, R, W) strips.
        dtypes: The dtypes of the maps that ``kernel`` returns.

    Returns:
        One (B, H, W) map per entry of ``dtypes``, on the device of the logits.

    Raises:
        ValueError: Not four dimensions, an empty one, not floating, or logits that are not finite (positions named).
    """
    check_logits(logits_BChw)
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size {size} must be two positive numbers (H, W).")
    logits_BChw = logits_BChw.detach()
    batch, num_classes, source_height, source_width = logits_BChw.shape
    device = logits_BChw.device
    maps = tuple(torch.empty((batch, height, width), dtype=dtype, device=device) for dtype in dtypes)
    upper, lower, blend = _vertical_taps(source_height, height)
    strips = split_rows(height, strip_rows(num_classes, width, device))
    is_finite = torch.ones((batch, len(strips)), dtype=torch.bool, device=device)

    def task(job: tuple[int, int]) -> None:
        b, number = job
        first, last = strips[number]
        start = upper[first]
        stop = max(lower[last - 1] + 1, upper[last] if last < height else source_height)
        source_Csw = logits_BChw[b, :, start:stop].float()
        low, high = torch.aminmax(source_Csw)
        is_finite[b, number] = torch.isfinite(low) & torch.isfinite(high)
        if width != source_width:
            source_Csw = interpolate(source_Csw, width, mode="linear", align_corners=True)
        if height == source_height:
            strip_CRW = source_Csw.clone()
        else:
            strip_CRW = _blend_rows(
                source_Csw,
                [row - start for row in upper[first:last]],
                [row - start for row in lower[first:last]],
                blend[first:last],
            )
        for target, part in zip(maps, kernel(strip_CRW), strict=True):
            target[b, first:last] = part

    for_each(task, [(b, number) for b in range(batch) for number in range(len(strips))], device)
    broken = (~is_finite.all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"logits are NaN or infinite at batch position(s) {broken}: "
            "the network has diverged or its input is not finite; lower the learning rate or check the image."
        )
    return maps


def check_logits(logits_BCHW: Tensor) -> None:
    """Raise ValueError unless ``logits_BCHW`` is a floating (B, C, H, W) tensor with C, H, W >= 1."""
    if logits_BCHW.ndim != 4 or min(logits_BCHW.shape[1:]) < 1:
        raise ValueError(f"logits must be (B, C, H, W) without an empty dimension, not {tuple(logits_BCHW.shape)}.")
    if not logits_BCHW.is_floating_point():
        raise ValueError(f"logits must be floating, not {logits_BCHW.dtype}: pass the network's output before argmax.")


def _vertical_taps(source: int, target: int) -> tuple[list[int], list[int], list[float]]:
    """Rows above and below each of ``target`` rows among ``source`` rows, and the weight of the one below."""
    scale = torch.tensor((source - 1) / (target - 1) if target > 1 else 0.0, dtype=torch.float32)
    position = torch.arange(target, dtype=torch.float32) * scale
    upper = position.long().clamp_(max=source - 1)
    blend = (position - upper).clamp_(0.0, 1.0)
    return upper.tolist(), (upper + 1).clamp_(max=source - 1).tolist(), blend.tolist()


def _blend_rows(source_CsW: Tensor, upper: list[int], lower: list[int], blend: list[float]) -> Tensor:
    """(C, s, W) -> (C, R, W): row r is ``source[upper[r]] + blend[r] * (source[lower[r]] - source[upper[r]])``."""
    device = source_CsW.device
    if device.type != "cpu":
        above = source_CsW.index_select(1, torch.tensor(upper, device=device))
        below = source_CsW.index_select(1, torch.tensor(lower, device=device))
        return torch.lerp(above, below, torch.tensor(blend, device=device)[:, None])
    strip_CRW = source_CsW.new_empty((source_CsW.shape[0], len(upper), source_CsW.shape[2]))
    for row, (above_row, below_row, weight) in enumerate(zip(upper, lower, blend, strict=True)):
        torch.lerp(source_CsW[:, above_row], source_CsW[:, below_row], weight, out=strip_CRW[:, row])
    return strip_CRW
