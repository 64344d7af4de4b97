"""Kernels for windows of any size.

Legend: H W size, V = W + 2 k + 1 columns with those outside the map, P classes that occur, n_c pixels of class c in a
window.

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
def _count_row(label_W, entropy_W, radius, slots_C, step, scale, has_mean, counts_VP, sums_V):
    """Count a row of pixels in the columns, or no more (``step`` -1)."""
    for x in range(label_W.shape[0]):
        counts_VP[x + radius + 1, slots_C[label_W[x]]] += step
    if has_mean:
        own = sums_V[radius + 1 : radius + 1 + label_W.shape[0]]
        for x in range(label_W.shape[0]):
            own[x] += step * i64(f64(entropy_W[x]) * scale)


@part
def _move_window(counts_VP, enters, leaves, table, window_P):
    """Move the window by a column, and return by how much the sum of n log n grows; most counts stay as they are."""
    growth = i64(0)
    for p in range(window_P.shape[0]):
        change = counts_VP[enters, p] - counts_VP[leaves, p]
        if change != 0:
            count = window_P[p]
            growth += table[count + change] - table[count]
            window_P[p] = count + change
    return growth


@part
def _released_impurity(window_P, inside, epsilon):
    total = 0.0
    for p in range(window_P.shape[0]):
        if window_P[p] > 0:
            share = window_P[p] / inside
            total -= share * math.log(share + epsilon)
    return total


@part
def _write_shares(rows, radius, table, share_W, full_W):
    """Write what one pixel of each window of a row is worth, and n log n of all its pixels."""
    width = share_W.shape[0]
    for x in range(width):
        inside = rows * _num_inside(x, width, radius)
        share_W[x] = 1.0 / inside
        full_W[x] = table[inside]


@part
def _write_impurities(full_W, held_W, share_W, unit, divisor, impurity_W):
    for x in range(impurity_W.shape[0]):
        impurity_W[x] = f32(f64(full_W[x] - held_W[x]) * unit * share_W[x]) / divisor


@part
def _write_means(total_W, share_W, back, divisor, uncertainty_W):
    for x in range(uncertainty_W.shape[0]):
        uncertainty_W[x] = f32(f64(total_W[x]) * back * share_W[x]) / divisor


@part
def _multiply(impurity, uncertainty, score):
    for x in range(score.shape[0]):
        score[x] = impurity[x] * uncertainty[x]


@part
def _move_along(columns, radius, numbers, divisor, share_W, held_W, total_W, impurity_W):
    """Move the window along a row: sums of n log n and of entropies, or impurities with an epsilon."""
    counts_VP, window_P, sums_V = columns
    table, epsilon = numbers[0], numbers[2]
    window_P[:] = 0
    held, total = i64(0), i64(0)
    for x in range(-radius, held_W.shape[0]):
        enters, leaves = x + 2 * radius + 1, max(x, 0)  # of the columns; the first radius + 1 are outside the map
        held += _move_window(counts_VP, enters, leaves, table, window_P)
        total += sums_V[enters] - sums_V[leaves]
        if x >= 0:
            held_W[x], total_W[x] = held, total
            if epsilon > 0.0:
                inside = round(1.0 / share_W[x])
                impurity_W[x] = f32(_released_impurity(window_P, inside, epsilon)) / divisor


@kernel
def write_rows(maps, first, last, radius, slots_C, numbers, kinds, columns, spare, share_W):
    """Write rows ``first`` to ``last`` of the maps: label, entropy, impurity, uncertainty and score, (H, W).

    ``numbers`` are the table of n log n and its unit, epsilon, and what makes entropies integers. ``kinds`` are the
    divisor of both factors, and whether there are entropies and uncertainties are these. ``columns``, which are 0, are
    (V, P) counts of columns, (P,) of a window, and (V,) sums of entropies. ``spare``, (3, W) int64, and ``share_W``,
    float64, are overwritten.
    """
    label_HW, entropy_HW, impurity_HW, uncertainty_HW, score_HW = maps
    divisor, has_entropy, is_pixel = f32(kinds[0]), kinds[1], kinds[2]
    table, unit, epsilon, scale = numbers
    counts_VP, sums_V = columns[0], columns[2]
    has_mean, height, rows_before = has_entropy and not is_pixel, label_HW.shape[0], 0
    held_W, total_W, full_W = spare[0], spare[1], spare[2]
    for y in range(max(0, first - radius), min(height, first + radius)):
        _count_row(label_HW[y], entropy_HW[y], radius, slots_C, 1, scale, has_mean, counts_VP, sums_V)
    for y in range(first, last):
        comes, goes = y + radius, y - radius - 1
        if comes < height:
            _count_row(label_HW[comes], entropy_HW[comes], radius, slots_C, 1, scale, has_mean, counts_VP, sums_V)
        if y > first and goes >= 0:
            _count_row(label_HW[goes], entropy_HW[goes], radius, slots_C, -1, scale, has_mean, counts_VP, sums_V)
        rows = _num_inside(y, height, radius)
        if rows != rows_before:
            _write_shares(rows, radius, table, share_W, full_W)
            rows_before = rows
        _move_along(columns, radius, numbers, divisor, share_W, held_W, total_W, impurity_HW[y])
        if epsilon == 0.0:
            _write_impurities(full_W, held_W, share_W, unit, divisor, impurity_HW[y])
        if has_mean:
            _write_means(total_W, share_W, 1.0 / scale, divisor, uncertainty_HW[y])
        if has_entropy:
            _multiply(impurity_HW[y], uncertainty_HW[y], score_HW[y])
