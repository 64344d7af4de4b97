"""Kernels for windows of 3 x 3 pixels.

Legend: H W size, N pixels of a window inside the map, n_c those of class c.

Impurities are looked up by a code, sum_c n_c^4, which differs for any two ways to divide N <= 9 pixels: each of the
nine places adds the cube of the number of places with its label.
"""

from __future__ import annotations

import functools

import torch
from numba import float32 as f32
from numba import int64 as i64
from numba import uint8 as u8
from numba import uint16 as u16
from torch import Tensor

from ripu.functional.fused.cpu.compiler import kernel, part
from ripu.functional.tables import small_impurities


@functools.lru_cache(maxsize=8)
def table_of_codes(epsilon: float) -> Tensor:
    """Return the impurity by N and code, (10, 9^4 + 1) float32."""
    table = torch.zeros(10, 9**4 + 1, dtype=torch.float64)
    for counts, impurity in small_impurities(epsilon):
        table[sum(counts), sum(count**4 for count in counts)] = impurity
    return table.float()


@part
def _write_codes(above, own, below, codes):
    """Write the codes of a row of windows, from rows of labels with a place more on either side."""
    width = codes.shape[0]
    l0, l1, l2 = above[:width], above[1 : width + 1], above[2 : width + 2]
    l3, l4, l5 = own[:width], own[1 : width + 1], own[2 : width + 2]
    l6, l7, l8 = below[:width], below[1 : width + 1], below[2 : width + 2]
    for x in range(width):
        a, b, c, d, e, f, g, h, i = l0[x], l1[x], l2[x], l3[x], l4[x], l5[x], l6[x], l7[x], l8[x]
        ab, ac, ad, ae, af, ag, ah, ai = a == b, a == c, a == d, a == e, a == f, a == g, a == h, a == i
        bc, bd, be, bf, bg, bh, bi = b == c, b == d, b == e, b == f, b == g, b == h, b == i
        cd, ce, cf, cg, ch, ci = c == d, c == e, c == f, c == g, c == h, c == i
        de, df, dg, dh, di = d == e, d == f, d == g, d == h, d == i
        ef, eg, eh, ei = e == f, e == g, e == h, e == i
        fg, fh, fi = f == g, f == h, f == i
        gh, gi = g == h, g == i
        hi = h == i
        na = u16(u8(1) + u8(ab) + u8(ac) + u8(ad) + u8(ae) + u8(af) + u8(ag) + u8(ah) + u8(ai))
        nb = u16(u8(1) + u8(ab) + u8(bc) + u8(bd) + u8(be) + u8(bf) + u8(bg) + u8(bh) + u8(bi))
        nc = u16(u8(1) + u8(ac) + u8(bc) + u8(cd) + u8(ce) + u8(cf) + u8(cg) + u8(ch) + u8(ci))
        nd = u16(u8(1) + u8(ad) + u8(bd) + u8(cd) + u8(de) + u8(df) + u8(dg) + u8(dh) + u8(di))
        ne = u16(u8(1) + u8(ae) + u8(be) + u8(ce) + u8(de) + u8(ef) + u8(eg) + u8(eh) + u8(ei))
        nf = u16(u8(1) + u8(af) + u8(bf) + u8(cf) + u8(df) + u8(ef) + u8(fg) + u8(fh) + u8(fi))
        ng = u16(u8(1) + u8(ag) + u8(bg) + u8(cg) + u8(dg) + u8(eg) + u8(fg) + u8(gh) + u8(gi))
        nh = u16(u8(1) + u8(ah) + u8(bh) + u8(ch) + u8(dh) + u8(eh) + u8(fh) + u8(gh) + u8(hi))
        ni = u16(u8(1) + u8(ai) + u8(bi) + u8(ci) + u8(di) + u8(ei) + u8(fi) + u8(gi) + u8(hi))
        codes[x] = u16(
            na * na * na + nb * nb * nb + nc * nc * nc + nd * nd * nd + ne * ne * ne
            + nf * nf * nf + ng * ng * ng + nh * nh * nh + ni * ni * ni
        )  # fmt: skip


@part
def _num_inside(place, length):
    return min(place + 1, length - 1) - max(place - 1, 0) + 1


@part
def _look_up(codes, table, rows, divisor, impurity):
    width = impurity.shape[0]
    for x in range(width):
        inside = rows * _num_inside(x, width)
        # The places outside have a label of their own, so their number to the fourth is in the code.
        outside = 9 - inside
        value = table[inside, i64(codes[x]) - outside * outside * outside * outside]
        impurity[x] = value if divisor == f32(1.0) else value / divisor


@part
def _sum_down(above, own, below, sums):
    """The order of the sums is that of the plain code."""
    for x in range(own.shape[0]):
        sums[x] = above[x] + (own[x] + below[x])


@part
def _write_means(sums, rows, divisor, mean):
    """Write the means of a row of windows, from sums down the columns with a 0 on either side."""
    width = mean.shape[0]
    left, middle, right = sums[:width], sums[1 : width + 1], sums[2 : width + 2]
    inside = f32(rows * 3)
    for x in range(width):
        mean[x] = (left[x] + (middle[x] + right[x])) / inside
    for x in (0, width - 1):
        mean[x] = (left[x] + (middle[x] + right[x])) / f32(rows * _num_inside(x, width))
    if divisor != f32(1.0):
        for x in range(width):
            mean[x] = mean[x] / divisor


@part
def _multiply(impurity, uncertainty, score):
    for x in range(score.shape[0]):
        score[x] = impurity[x] * uncertainty[x]


@part
def _place_labels(label_HW, y, nothing, row):
    """Write a row of labels between two places that have none; a row outside the map has none at all."""
    width = label_HW.shape[1]
    row[:] = nothing
    if y >= 0 and y < label_HW.shape[0]:
        row[1 : width + 1] = label_HW[y]


@kernel
def write_rows(maps, first, last, nothing, table, kinds, labels_3W, codes_W, sums_W, zeros_W):
    """Write rows ``first`` to ``last`` of the maps: label, entropy, impurity, uncertainty and score, (H, W).

    ``nothing`` is a label that no pixel has. ``kinds`` are the divisor of both factors, and whether there are entropies
    and uncertainties are these. ``labels_3W`` and ``sums_W``, which is 0, have a place more on either side.
    """
    label_HW, entropy_HW, impurity_HW, uncertainty_HW, score_HW = maps
    divisor, has_entropy, is_pixel = f32(kinds[0]), kinds[1], kinds[2]
    height, width = label_HW.shape
    for y in (first - 1, first):
        _place_labels(label_HW, y, nothing, labels_3W[y % 3])
    for y in range(first, last):
        _place_labels(label_HW, y + 1, nothing, labels_3W[(y + 1) % 3])
        rows = _num_inside(y, height)
        _write_codes(labels_3W[(y - 1) % 3], labels_3W[y % 3], labels_3W[(y + 1) % 3], codes_W)
        _look_up(codes_W, table, rows, divisor, impurity_HW[y])
        if has_entropy and not is_pixel:
            above = entropy_HW[y - 1] if y > 0 else zeros_W
            below = entropy_HW[y + 1] if y + 1 < height else zeros_W
            _sum_down(above, entropy_HW[y], below, sums_W[1 : width + 1])
            _write_means(sums_W, rows, divisor, uncertainty_HW[y])
        if has_entropy:
            _multiply(impurity_HW[y], uncertainty_HW[y], score_HW[y])
