"""Kernels for windows of any size.

Legend: H W size, P classes that occur, n_c pixels of class c in a window.

Counts of columns move down the map, and counts of the window along the rows. Sums of n log n, and of entropies, are
exact integers, so windows with equal counts have equal impurities, whatever their classes.
"""

from __future__ import annotations

import functools
import math

import torch
from numba import float32 as f32
from numba import float64 as f64
from numba import int64 as i64
from torch import Tensor

from ripu.functional.fused.cpu.compiler import kernel, part


@functools.lru_cache(maxsize=2)  # one may be as large as a map
def table_of_counts(most: int) -> tuple[Tensor, float]:
    """Return n log n up to ``most`` pixels, (most + 1,) int64, and the unit that it is in."""
    count = torch.arange(most + 1, dtype=torch.float64)
    # No sum over classes is larger than the last entry.
    unit = 2.0 ** (math.ceil(math.log2(most * math.log(most) + 1.0)) - 52)
    return (torch.special.xlogy(count, count) / unit).round().long(), unit


@part
def _num_inside(place, length, radius):
    return min(place + radius, length - 1) - max(place - radius, 0) + 1


@kernel
def number_classes(label_HW, first, last, slots_C):
    """Number the classes that occur in rows ``first`` to ``last``, and return how many do."""
    slots_C[:] = -1
    for y in range(first, last):
        for x in range(label_HW.shape[1]):
            slots_C[label_HW[y, x]] = 0
    num_found = 0
    for c in range(slots_C.shape[0]):
        if slots_C[c] == 0:
            slots_C[c] = num_found
            num_found += 1
    return num_found


@part
def _count_row(label_W, entropy_W, slots_C, step, scale, has_mean, counts_WP, sums_W):
    """Count a row of pixels in the columns, or no more (``step`` -1)."""
    for x in range(label_W.shape[0]):
        counts_WP[x, slots_C[label_W[x]]] += step
    if has_mean:
        for x in range(label_W.shape[0]):
            sums_W[x] += step * i64(f64(entropy_W[x]) * scale)


@part
def _count_column(counts_P, step, window_P):
    for p in range(window_P.shape[0]):
        window_P[p] += step * counts_P[p]


@part
def _impurity(window_P, inside, table, unit, epsilon):
    if epsilon > 0.0:
        total = 0.0
        for p in range(window_P.shape[0]):
            if window_P[p] > 0:
                share = window_P[p] / inside
                total -= share * math.log(share + epsilon)
        return total
    held = i64(0)
    for p in range(window_P.shape[0]):
        held += table[window_P[p]]
    return f64(table[inside] - held) * unit / inside


@part
def _write_row(counts_WP, sums_W, rows, radius, numbers, divisor, has_mean, window_P, impurity_W, uncertainty_W):
    table, unit, epsilon, scale = numbers
    width = impurity_W.shape[0]
    window_P[:] = 0
    entropy = i64(0)
    for x in range(-radius, width):
        if x + radius < width:
            _count_column(counts_WP[x + radius], 1, window_P)
            entropy += sums_W[x + radius]
        if x - radius - 1 >= 0:
            _count_column(counts_WP[x - radius - 1], -1, window_P)
            entropy -= sums_W[x - radius - 1]
        if x >= 0:
            inside = rows * _num_inside(x, width, radius)
            impurity_W[x] = f32(_impurity(window_P, inside, table, unit, epsilon)) / divisor
            if has_mean:
                uncertainty_W[x] = f32(f64(entropy) / scale / inside) / divisor


@part
def _multiply(impurity, uncertainty, score):
    for x in range(score.shape[0]):
        score[x] = impurity[x] * uncertainty[x]


@kernel
def write_rows(maps, first, last, radius, slots_C, numbers, kinds, counts_WP, window_P, sums_W):
    """Write rows ``first`` to ``last`` of the maps: label, entropy, impurity, uncertainty and score, (H, W).

    ``numbers`` are the table of n log n and its unit, epsilon, and what makes entropies integers. ``kinds`` are the
    divisor of both factors, and whether there are entropies and uncertainties are these. ``counts_WP``, ``window_P``
    and ``sums_W`` are 0.
    """
    label_HW, entropy_HW, impurity_HW, uncertainty_HW, score_HW = maps
    divisor, has_entropy, is_pixel = f32(kinds[0]), kinds[1], kinds[2]
    has_mean, scale, height = has_entropy and not is_pixel, numbers[3], label_HW.shape[0]
    for y in range(max(0, first - radius), min(height, first + radius)):
        _count_row(label_HW[y], entropy_HW[y], slots_C, 1, scale, has_mean, counts_WP, sums_W)
    for y in range(first, last):
        if y + radius < height:
            _count_row(label_HW[y + radius], entropy_HW[y + radius], slots_C, 1, scale, has_mean, counts_WP, sums_W)
        if y > first and y - radius - 1 >= 0:
            gone = y - radius - 1
            _count_row(label_HW[gone], entropy_HW[gone], slots_C, -1, scale, has_mean, counts_WP, sums_W)
        rows = _num_inside(y, height, radius)
        _write_row(
            counts_WP, sums_W, rows, radius, numbers, divisor, has_mean, window_P, impurity_HW[y], uncertainty_HW[y]
        )
        if has_entropy:
            _multiply(impurity_HW[y], uncertainty_HW[y], score_HW[y])
