"""Impurity, mean entropy and score of windows.

Legend: B batch, H W size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ripu.functional.fused.cpu import large_windows, small_windows
from ripu.functional.fused.interface import room_for_maps
from ripu.functional.parallel import run_compiled, share_rows


def window_maps(
    label_BHW: Tensor,
    entropy_BHW: Tensor | None,
    num_classes: int,
    radius: int,
    *,
    pixel: bool = False,
    epsilon: float = 0.0,
    normalizer: float = 1.0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """See :class:`ripu.functional.fused.Kernels`."""
    batch, height, width = label_BHW.shape
    entropy_BHW, impurity_BHW, uncertainty_BHW, score_BHW = room_for_maps(label_BHW, entropy_BHW, pixel, normalizer)
    if impurity_BHW.numel() == 0:
        return impurity_BHW, uncertainty_BHW, score_BHW
    maps = (label_BHW, entropy_BHW, impurity_BHW, uncertainty_BHW, score_BHW)
    kinds = (normalizer, entropy_BHW is not None, pixel)

    def task(b: int, first: int, last: int) -> None:
        """Write a band of rows of the maps of image ``b``; those that are not wanted are never looked at."""
        image = tuple((impurity_BHW if one is None else one)[b].detach().numpy() for one in maps)
        if radius == 1:
            _write_small(image, (first, last), num_classes, epsilon, kinds)
        else:
            _write_large(image, (first, last), num_classes, min(radius, max(height, width)), epsilon, kinds)

    run_compiled(task, [(b, *band) for b in range(batch) for band in share_rows(height, width)])
    return impurity_BHW, uncertainty_BHW, score_BHW


Arrays = tuple[Any, ...]
Kinds = tuple[float, bool, bool]


def _write_small(image: Arrays, band: tuple[int, int], num_classes: int, epsilon: float, kinds: Kinds) -> None:
    label = image[0]
    width = label.shape[1]
    small_windows.write_rows(
        image, *band, num_classes, small_windows.table_of_codes(epsilon).numpy(), kinds,
        torch.empty((3, width + 2), dtype=torch.from_numpy(label).dtype).numpy(),
        torch.empty(width, dtype=torch.int16).numpy().view("uint16"), torch.zeros(width + 2).numpy(),
        torch.zeros(width).numpy(),
    )  # fmt: skip


def _write_large(
    image: Arrays, band: tuple[int, int], num_classes: int, radius: int, epsilon: float, kinds: Kinds
) -> None:
    label = image[0]
    height, width = label.shape
    slots = torch.empty(num_classes, dtype=torch.int64).numpy()
    first, last = band
    num_slots = large_windows.number_classes(label, max(0, first - radius), min(height, last + radius), slots)
    pixels = min(2 * radius + 1, height) * min(2 * radius + 1, width)
    table, unit = large_windows.table_of_counts(pixels)
    # The largest power of two with which the sum of the entropies of a window fits 63 bits
    scale = 2.0 ** (62 - math.ceil(math.log2(pixels * (math.log(num_classes) + 1.0))))
    num_columns = width + 2 * radius + 1
    columns = (
        torch.zeros((num_columns, num_slots), dtype=torch.int32).numpy(),
        torch.zeros(num_slots, dtype=torch.int32).numpy(),
        torch.zeros(num_columns, dtype=torch.int64).numpy(),
    )
    spare, share = torch.empty((3, width), dtype=torch.int64).numpy(), torch.empty(width, dtype=torch.float64).numpy()
    numbers = (table.numpy(), unit, epsilon, scale)
    large_windows.write_rows(image, *band, radius, slots, numbers, kinds, columns, spare, share)
