"""Impurity, mean entropy and their product over windows, at a cost that does not grow with the window.

Legend: B batch, H W size, P planes, n_c pixels of class c in the window, N pixels of the window.

Windows of up to 3 x 3 pixels are read directly, in one launch. For larger ones, summed-area tables: the count of a
class in a window is four of its entries. Entries are 64-bit words that hold the counts of four classes in 16 bits each
(of two in 32 bits, from radius 128 on). Words wrap around, but a window's counts fit, and differences of wrapped words
are exact. One more table sums the entropies as integers, in steps far below their own rounding, so that sum is exact,
too. The tables of a few words exist at a time (48 MB).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ripu.functional.fused.cuda.maps import EXACT, on
from ripu.functional.fused.interface import room_for_maps
from ripu.functional.tables import window_table

_BLOCK = 256
_ROW, _ROW_LENGTH = 1, 1024
"""Rows of a program that sums along rows, and how much of them it sums at a time."""
_COLUMNS, _COLUMN_LENGTH = 32, 64
"""Likewise for columns."""
TABLE_BYTES = 48 << 20
"""The most that tables of words take at a time; one word is always allowed."""


@triton.jit
def _sum_of_three(pointer, row, column, height, width, is_wanted, DOWN: tl.constexpr):
    """Return the sum down a column of up to three pixels, in the order of :func:`ripu.functional.windows`."""
    is_wanted = is_wanted & (column >= 0) & (column < width)
    middle = tl.load(pointer + row * width + column, mask=is_wanted, other=0.0)
    if DOWN == 1:
        above = tl.load(pointer + (row - 1) * width + column, mask=is_wanted & (row > 0), other=0.0)
        below = tl.load(pointer + (row + 1) * width + column, mask=is_wanted & (row + 1 < height), other=0.0)
        middle = above + (middle + below)
    return middle


@triton.jit
def _small_windows_kernel(
    labels, entropies, table, impurities, uncertainties, scores, height, width, num_classes, normalizer,
    DOWN: tl.constexpr, RIGHT: tl.constexpr, HAS_ENTROPY: tl.constexpr, IS_PIXEL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, image = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64) * height * width
    is_inside = place < height * width
    row, column = place // width, place % width
    SIDE: tl.constexpr = 2 * RIGHT + 1
    FULL: tl.constexpr = (2 * DOWN + 1) * SIDE

    # The code of tables.small_window_table, by pixels instead of classes: o^3 - F^3 = n (n (3 F - n) - 3 F^2).
    code = tl.zeros([BLOCK], tl.int32) + num_classes * FULL * FULL * FULL
    for one in tl.static_range(FULL):
        y, x = row + one // SIDE - DOWN, column + one % SIDE - RIGHT
        is_own = is_inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        own = tl.load(labels + image + y * width + x, mask=is_own, other=0).to(tl.int32)
        same = tl.zeros([BLOCK], tl.int32)
        for other in tl.static_range(FULL):
            v, u = row + other // SIDE - DOWN, column + other % SIDE - RIGHT
            is_there = is_inside & (v >= 0) & (v < height) & (u >= 0) & (u < width)
            label = tl.load(labels + image + v * width + u, mask=is_there, other=0).to(tl.int32)
            same += (is_there & (label == own)).to(tl.int32)
        code += tl.where(is_own, same * (3 * FULL - same) - 3 * FULL * FULL, 0)
    rows = tl.minimum(row + DOWN, height - 1) - tl.maximum(row - DOWN, 0) + 1
    columns = tl.minimum(column + RIGHT, width - 1) - tl.maximum(column - RIGHT, 0) + 1
    entry = 256 * (3 * (rows - 1) + columns - 1) + (code & 255)
    impurity = tl.div_rn(tl.load(table + entry, mask=is_inside, other=0.0), normalizer)
    place += image
    tl.store(impurities + place, impurity, mask=is_inside)
    if HAS_ENTROPY:
        if IS_PIXEL:
            uncertainty = tl.load(entropies + place, mask=is_inside, other=0.0)
        else:
            entropy = entropies + image
            uncertainty = _sum_of_three(entropy, row, column, height, width, is_inside, DOWN)
            if RIGHT == 1:
                left = _sum_of_three(entropy, row, column - 1, height, width, is_inside, DOWN)
                right = _sum_of_three(entropy, row, column + 1, height, width, is_inside, DOWN)
                uncertainty = left + (uncertainty + right)
            uncertainty = tl.div_rn(tl.div_rn(uncertainty, tl.maximum(rows * columns, 1).to(tl.float32)), normalizer)
            tl.store(uncertainties + place, uncertainty, mask=is_inside)
        tl.store(scores + place, impurity * uncertainty, mask=is_inside)


@triton.jit
def _row_sums_kernel(
    labels, entropies, planes, height, width, num_words, first_class, scale,
    BITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write running sums along the rows: words of counts, and after the last word those of the entropies."""
    row, word = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.program_id(1)
    PER_WORD: tl.constexpr = 64 // BITS
    first_class += word * PER_WORD
    plane = planes + word.to(tl.int64) * height * width
    before = tl.zeros([ROWS], tl.int64)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)[None, :]
        is_inside = (row < height) & (column < width)
        place = row * width + column
        if word < num_words:
            field = tl.load(labels + place, mask=is_inside, other=0).to(tl.int32) - first_class
            is_counted = is_inside & (field >= 0) & (field < PER_WORD)
            one = tl.full([ROWS, BLOCK], 1, tl.int64) << (tl.where(is_counted, field, 0) * BITS).to(tl.int64)
            step = tl.where(is_counted, one, 0)
        else:
            step = (tl.load(entropies + place, mask=is_inside, other=0.0) * scale).to(tl.int64)
        tl.store(plane + place, before[:, None] + tl.cumsum(step, 1), mask=is_inside)
        before += tl.sum(step, 1)


@triton.jit
def _column_sums_kernel(planes, height, width, COLUMNS: tl.constexpr, ROWS: tl.constexpr):
    """Turn running sums along the rows into summed-area tables, in place."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    plane = planes + tl.program_id(1).to(tl.int64) * height * width
    before = tl.zeros([COLUMNS], tl.int64)
    for start in range(0, height, ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        is_inside = (row < height) & (column < width)
        place = plane + row * width + column
        step = tl.load(place, mask=is_inside, other=0)
        tl.store(place, before[None, :] + tl.cumsum(step, 0), mask=is_inside)
        before += tl.sum(step, 0)


@triton.jit
def _window_sum(plane, width, top, bottom, left, right, is_inside):
    """Return sums over rows ``top + 1 .. bottom`` and columns ``left + 1 .. right`` of a summed-area table."""
    last = tl.load(plane + bottom * width + right, mask=is_inside, other=0)
    last -= tl.load(plane + bottom * width + left, mask=is_inside & (left >= 0), other=0)
    first = tl.load(plane + top * width + right, mask=is_inside & (top >= 0), other=0)
    first -= tl.load(plane + top * width + left, mask=is_inside & (top >= 0) & (left >= 0), other=0)
    return last - first


@triton.jit
def _large_windows_kernel(
    planes, entropies, table, impurities, uncertainties, scores, height, width, plane_size, radius,
    num_words, normalizer, epsilon, unit,
    IS_FIRST: tl.constexpr, IS_LAST: tl.constexpr, HAS_EPSILON: tl.constexpr, HAS_ENTROPY: tl.constexpr,
    IS_PIXEL: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add f(n_c) over the classes of the tables; after the last ones, write the maps."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = place < plane_size
    row, column = place // width, place % width
    top, bottom = tl.maximum(row - radius, 0) - 1, tl.minimum(row + radius, height - 1)
    left, right = tl.maximum(column - radius, 0) - 1, tl.minimum(column + radius, width - 1)
    pixels = (bottom - top) * (right - left)
    inside = tl.maximum(pixels, 1).to(tl.float32)
    PER_WORD: tl.constexpr = 64 // BITS
    MASK: tl.constexpr = (1 << BITS) - 1

    total = tl.zeros([BLOCK], tl.float32)
    if not IS_FIRST:
        total = tl.load(impurities + place, mask=is_inside, other=0.0)
    plane = planes
    for _ in range(num_words):
        word = _window_sum(plane, width, top, bottom, left, right, is_inside)
        for field in tl.static_range(PER_WORD):
            count = ((word >> (field * BITS)) & MASK).to(tl.int32)
            if HAS_EPSILON:
                share = tl.div_rn(count.to(tl.float32), inside)
                total += share * tl.log(share + epsilon)
            else:
                total += tl.load(table + count, mask=is_inside, other=0.0)
        plane += plane_size
    if IS_LAST:
        if HAS_EPSILON:
            total = -total
        else:
            total = tl.div_rn(tl.load(table + pixels, mask=is_inside, other=0.0) - total, inside)
        total = tl.div_rn(total, normalizer)
        if HAS_ENTROPY:
            if IS_PIXEL:
                uncertainty = tl.load(entropies + place, mask=is_inside, other=0.0)
            else:
                summed = _window_sum(plane, width, top, bottom, left, right, is_inside)
                uncertainty = tl.div_rn(tl.div_rn(summed.to(tl.float32) * unit, inside), normalizer)
                tl.store(uncertainties + place, uncertainty, mask=is_inside)
            tl.store(scores + place, total * uncertainty, mask=is_inside)
    tl.store(impurities + place, total, mask=is_inside)


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
    table = window_table((height, width), num_classes, radius, label_BHW.device, epsilon)
    maps = (label_BHW, entropy_BHW, impurity_BHW, uncertainty_BHW, score_BHW)
    constants = {"HAS_ENTROPY": entropy_BHW is not None, "IS_PIXEL": pixel, "BLOCK": _BLOCK, **EXACT}
    with on(label_BHW.device):
        if radius <= 1:
            _small_windows_kernel[(triton.cdiv(height * width, _BLOCK), batch)](
                label_BHW, entropy_BHW, table, impurity_BHW, uncertainty_BHW, score_BHW, height, width, num_classes,
                normalizer, DOWN=min(radius, height - 1), RIGHT=min(radius, width - 1), **constants,
            )  # fmt: skip
        else:
            for b in range(batch):
                image = [None if one is None else one[b] for one in maps]
                _large_windows(image, num_classes, radius, table, epsilon, normalizer, constants)
    return impurity_BHW, uncertainty_BHW, score_BHW


def _large_windows(
    maps: Sequence[Tensor | None],
    num_classes: int,
    radius: int,
    table: Tensor,
    epsilon: float,
    normalizer: float,
    constants: dict[str, Any],
) -> None:
    """Write the maps of one image from summed-area tables, as many at a time as fit; see :func:`window_maps`."""
    label, entropy, impurity, uncertainty, score = maps
    assert label is not None
    height, width = label.shape
    window = min(2 * radius + 1, height) * min(2 * radius + 1, width)
    bits = 16 if window < 1 << 16 else 32
    # The largest power of two with which the sum of a window fits 63 bits.
    exponent = 62 - math.ceil(math.log2(window * (math.log(num_classes) + 1.0)))
    words = -(-num_classes * bits // 64)
    has_mean = entropy is not None and not constants["IS_PIXEL"]
    most = max(1, TABLE_BYTES // (8 * height * width) - has_mean)
    planes = torch.empty((min(most, words) + has_mean, height, width), dtype=torch.int64, device=label.device)
    for first in range(0, words, most):
        count, is_last = min(most, words - first), first + most >= words
        num_planes, first_class = count + (has_mean and is_last), first * 64 // bits
        _row_sums_kernel[(triton.cdiv(height, _ROW), num_planes)](
            label, impurity if entropy is None else entropy, planes, height, width, count, first_class,
            2.0**exponent, BITS=bits, ROWS=_ROW, BLOCK=_ROW_LENGTH,
        )  # fmt: skip
        _column_sums_kernel[(triton.cdiv(width, _COLUMNS), num_planes)](
            planes, height, width, COLUMNS=_COLUMNS, ROWS=_COLUMN_LENGTH
        )
        _large_windows_kernel[(triton.cdiv(height * width, _BLOCK),)](
            planes, entropy, table, impurity, uncertainty, score, height, width, height * width,
            min(radius, max(height, width)), count, normalizer, epsilon, 2.0**-exponent,
            IS_FIRST=first == 0, IS_LAST=is_last, HAS_EPSILON=epsilon > 0.0, BITS=bits, **constants,
        )  # fmt: skip
