"""Square windows N_k of Eq. (1): side 2 * radius + 1, clipped at the image border.

Legend: B batch, H W size, R rows of a strip. Sums over windows are built from sums over 1, 2, 4, ... neighbours, so a
window of 65 pixels costs 7 additions per axis, in float32 with the error of a pairwise sum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ripu.functional.parallel import for_each, split_bands


def check_radius(radius: int) -> None:
    """Raise ValueError unless ``radius`` is an integer of at least 0."""
    if isinstance(radius, bool) or not isinstance(radius, int) or radius < 0:
        raise ValueError(f"radius {radius!r} must be an integer of at least 0 (0 is a window of one pixel).")


def axis_count(length: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Return how many of the 2 * radius + 1 positions around each position lie inside the axis, (length,) int64."""
    position = torch.arange(length, device=device)
    return (position + radius).clamp_(max=length - 1) - (position - radius).clamp_(min=0) + 1


def window_count(size: tuple[int, int], radius: int, device: torch.device | None = None) -> Tensor:
    """Return |N_k|, the number of pixels of each window that lie inside the image, (H, W) int64.

    >>> window_count((2, 3), 1).tolist()
    [[4, 6, 4], [4, 6, 4]]
    """
    check_radius(radius)
    return axis_count(size[0], radius, device)[:, None] * axis_count(size[1], radius, device)


def window_mean(x_BHW: Tensor, radius: int) -> Tensor:
    r"""Return the mean over every window, :math:`\frac{1}{|N_k|} \sum_{N_k} x` (Eq. 5 with x = H), in the unit of x.

    Args:
        x_BHW: (B, H, W) floating map.
        radius: k >= 0; at the image's size and beyond the window is the whole image.

    Returns:
        (B, H, W) float32. At the border the divisor is the number of pixels inside.

    Raises:
        ValueError: Not three dimensions, not floating, or a negative radius.

    >>> window_mean(torch.tensor([[[0.0, 3.0, 6.0]]]), 1).tolist()
    [[[1.5, 3.0, 4.5]]]
    """
    check_radius(radius)
    if x_BHW.ndim != 3 or not x_BHW.is_floating_point():
        raise ValueError(f"expected a floating (B, H, W) map, not {tuple(x_BHW.shape)} of {x_BHW.dtype}.")
    x_BHW = x_BHW.detach()
    mean_BHW = torch.empty(x_BHW.shape, dtype=torch.float32, device=x_BHW.device)
    if mean_BHW.numel() == 0:
        return mean_BHW

    def task(b: int, first: int, last: int) -> None:
        mean_BHW[b, first:last] = window_mean_rows(x_BHW[b], radius, first, last)

    batch, height, _ = x_BHW.shape
    bands = split_bands(height, 128, x_BHW.device)
    for_each(task, [(b, *band) for b in range(batch) for band in bands], x_BHW.device)
    return mean_BHW


def window_mean_rows(x_HW: Tensor, radius: int, first: int, last: int) -> Tensor:
    """Return rows ``first .. last - 1`` of the window mean of one floating (H, W) map, as float32 (last - first, W)."""
    height, width = x_HW.shape
    if radius == 0:
        return x_HW[first:last].float()
    reach_down, reach_right = min(radius, height - 1), min(radius, width - 1)
    top, bottom = max(0, first - reach_down), min(height, last + reach_down)
    part = x_HW[top:bottom].float()
    missing_above, missing_below = reach_down - (first - top), reach_down - (bottom - last)
    if missing_above or missing_below:
        part = pad(part, (0, 0, missing_above, missing_below))
    part = running_sum(part, 2 * reach_down + 1, 0)
    part = running_sum(pad(part, (reach_right, reach_right)), 2 * reach_right + 1, 1)
    rows_R1 = axis_count(height, radius, x_HW.device)[first:last, None]
    return part.div_((rows_R1 * axis_count(width, radius, x_HW.device)).float())


def running_sum(x: Tensor, length: int, dim: int) -> Tensor:
    """Return sums of ``length`` consecutive entries along ``dim``, which becomes ``length - 1`` entries shorter.

    Sums over the powers of two in ``length`` are added: about 2 log2(length) additions.

    >>> running_sum(torch.tensor([1, 2, 3, 4]), 3, 0).tolist()
    [6, 9]
    """
    num_out = x.shape[dim] - length + 1
    total: Tensor | None = None
    covered = 0
    power, span = x, 1
    while True:
        if length & span:
            part = power.narrow(dim, covered, num_out)
            total = part if total is None else total + part
            covered += span
        if 2 * span > length:
            break
        size = power.shape[dim] - span
        power = power.narrow(dim, 0, size) + power.narrow(dim, span, size)
        span *= 2
    assert total is not None
    return total if total is not x else x.clone()
