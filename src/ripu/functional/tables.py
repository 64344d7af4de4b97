"""Tables that impurities are read from.

Legend: n pixels of a class in a window, o_c pixels of an unclipped window that are not of class c.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def window_table(
    size: tuple[int, int], num_classes: int, radius: int, device: torch.device, epsilon: float = 0.0
) -> Tensor:
    """Return what impurities are read from, for maps of one ``size``; float32, shared between calls.

    Up to radius 1 it is :func:`small_window_table`; above, entry n is n log n, up to the pixels of a window.
    """
    full = (2 * min(radius, size[0] - 1) + 1) * (2 * min(radius, size[1] - 1) + 1)
    if radius <= 1:
        return small_window_table(num_classes, full, device, epsilon)
    return _table_of_counts(full, device)


@functools.lru_cache(maxsize=2)  # one may be as large as a map
def _table_of_counts(most: int, device: torch.device) -> Tensor:
    counts = torch.arange(most + 1, dtype=torch.float64)
    table: Tensor = torch.special.xlogy(counts, counts).float()
    return table.to(device)


@functools.cache
def small_window_table(num_classes: int, full: int, device: torch.device, epsilon: float = 0.0) -> Tensor:
    """Return the impurity of windows of at most 3 x 3 pixels by shape and code, (9 * 256,) float32.

    Entry 256 * (3 * (rows - 1) + columns - 1) + code for windows of ``rows`` x ``columns`` pixels inside the image.
    With o_c the pixels of an unclipped window (``full`` pixels) that are not of class c, the code is sum_c o_c^3 modulo
    256. For a given number of pixels inside, every way to divide them among classes has a code of its own, so the code
    stands for the counts. The tensor is shared between calls.

    >>> table = small_window_table(num_classes=2, full=9, device=torch.device("cpu"))
    >>> table[256 * 8 + (1**3 + 8**3) % 256].item()  # eight pixels of one class, one of the other
    0.3488321006298065
    """
    table = torch.zeros(9, 256, dtype=torch.float64)
    for shape, total in enumerate(rows * columns for rows in (1, 2, 3) for columns in (1, 2, 3)):
        for counts in _partitions(total, total):
            if len(counts) > num_classes or total > full:
                continue
            others = [full - count for count in counts] + [full] * (num_classes - len(counts))
            table[shape, sum(other**3 for other in others) % 256] = _impurity(counts, epsilon)
    return table.float().flatten().to(device)


def small_impurities(epsilon: float = 0.0) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield every way to divide the pixels of a window of at most 3 x 3, as counts by class, with its impurity."""
    for total in (1, 2, 3, 4, 6, 9):
        for counts in _partitions(total, total):
            yield counts, _impurity(counts, epsilon)


def _impurity(counts: Sequence[int], epsilon: float) -> float:
    shares = [count / sum(counts) for count in counts]
    impurity = -sum(share * math.log(share + epsilon) for share in shares)
    return impurity or 0.0  # not -0.0


def _partitions(total: int, largest: int) -> list[tuple[int, ...]]:
    if total == 0:
        return [()]
    return [(part, *rest) for part in range(min(total, largest), 0, -1) for rest in _partitions(total - part, part)]
