"""Kernels that pass over logits.

Legend: C classes, h w size of logits, H W size of maps. float32, unless said otherwise.

Loops over x become vector instructions. They do only where no index can be negative or of another array, which is why
rows are cut out before a loop, and taps are unsigned. Sums and products are fused where ``fma`` says so, and nowhere
else, so results do not depend on the instructions of the machine.
"""

from __future__ import annotations

from llvmlite import ir
from numba import float32 as f32
from numba import int32 as i32
from numba.extending import intrinsic

from ripu.functional.fused.cpu.compiler import kernel, part

TILE = 256
"""Columns whose logits of all classes are in the nearest cache at a time."""


@intrinsic
def fma(context, a, b, c):
    """Return ``a * b + c``, rounded once."""
    return f32(f32, f32, f32), lambda _, builder, __, given: builder.fma(*given)


@intrinsic
def floor(context, value):
    """Return the largest whole number up to a value."""

    def build(_, builder, __, given):
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [ir.FloatType()]), given)

    return f32(f32), build


@intrinsic
def truncated(context, value):
    """Return a value as an int32."""
    return i32(f32), lambda _, builder, __, given: builder.fptosi(given[0], ir.IntType(32))


@intrinsic
def bits_of(context, value):
    """Return the bits of a value as an int32."""
    return i32(f32), lambda _, builder, __, given: builder.bitcast(given[0], ir.IntType(32))


@intrinsic
def from_bits(context, value):
    """Return the value of the bits of an int32."""
    return f32(i32), lambda _, builder, __, given: builder.bitcast(given[0], ir.FloatType())


@part
def exp(x):
    """Return e^x for x <= 0, within 1.2e-7 of it; 0 below -87, exactly 1 at 0."""
    bounded = x if x >= f32(-87.0) else f32(-87.0)
    # x = n log 2 + r with |r| <= log(2) / 2; log 2 in two parts, of which the first has few digits
    n = floor(fma(bounded, f32(1.4426950408889634), f32(0.5)))
    r = fma(n, f32(2.12194440e-4), fma(n, f32(-0.693359375), bounded))
    p = fma(f32(1.9875691500e-4), r, f32(1.3981999507e-3))
    p = fma(p, r, f32(8.3334519073e-3))
    p = fma(p, r, f32(4.1665795894e-2))
    p = fma(p, r, f32(1.6666665459e-1))
    p = fma(p, r, f32(5.0000001201e-1))
    power = (fma(p, r * r, r) + f32(1.0)) * from_bits(i32((truncated(n) + i32(127)) << i32(23)))
    return power if x >= f32(-87.0) else f32(0.0)


@part
def log(x):
    """Return the logarithm of a normal x > 0, within 1.2e-7 of it where that is above 1; exactly 0 at 1."""
    # x = m 2^n with m between 1 / sqrt 2 and sqrt 2
    shifted = bits_of(x) - i32(0x3F3504F3)
    n = f32(shifted >> i32(23))
    r = from_bits(i32((shifted & i32(0x7FFFFF)) + i32(0x3F3504F3))) - f32(1.0)
    square = r * r
    p = fma(f32(7.0376836292e-2), r, f32(-1.1514610310e-1))
    p = fma(p, r, f32(1.1676998740e-1))
    p = fma(p, r, f32(-1.2420140846e-1))
    p = fma(p, r, f32(1.4249322787e-1))
    p = fma(p, r, f32(-1.6668057665e-1))
    p = fma(p, r, f32(2.0000714765e-1))
    p = fma(p, r, f32(-2.4999993993e-1))
    p = fma(p, r, f32(3.3333331174e-1))
    p = fma(square, f32(-0.5), fma(n, f32(-2.12194440e-4), p * r * square))
    return fma(n, f32(0.693359375), r + p)


@part
def _all_finite(row):
    num_broken = i32(0)
    for x in range(row.shape[0]):
        num_broken |= i32((bits_of(row[x]) & i32(0x7F800000)) == i32(0x7F800000))
    return num_broken == 0


@kernel
def rows_are_finite(planes_Chw, first, last):
    """Return whether rows ``first`` to ``last`` of all planes are finite."""
    are_finite = True
    for c in range(planes_Chw.shape[0]):
        for y in range(first, last):
            are_finite &= _all_finite(planes_Chw[c, y])
    return are_finite


@part
def _stretch(row, left, right, across, out):
    for x in range(out.shape[0]):
        weight = across[x]
        out[x] = fma(row[left[x]], f32(1.0) - weight, row[right[x]] * weight)


@part
def _stretch_four(row_0, row_1, row_2, row_3, left, right, across, out_0, out_1, out_2, out_3):
    """Do four rows at a time, which share the taps."""
    for x in range(out_0.shape[0]):
        weight, i, j = across[x], left[x], right[x]
        back = f32(1.0) - weight
        value_0 = fma(row_0[i], back, row_0[j] * weight)
        value_1 = fma(row_1[i], back, row_1[j] * weight)
        value_2 = fma(row_2[i], back, row_2[j] * weight)
        value_3 = fma(row_3[i], back, row_3[j] * weight)
        out_0[x] = value_0
        out_1[x] = value_1
        out_2[x] = value_2
        out_3[x] = value_3


@part
def _stretch_classes(source_Chw, y, left, right, across, out_CW):
    num_classes = source_Chw.shape[0]
    together = num_classes - num_classes % 4
    for c in range(0, together, 4):
        _stretch_four(
            source_Chw[c, y], source_Chw[c + 1, y], source_Chw[c + 2, y], source_Chw[c + 3, y], left, right, across,
            out_CW[c], out_CW[c + 1], out_CW[c + 2], out_CW[c + 3],
        )  # fmt: skip
    for c in range(together, num_classes):
        _stretch(source_Chw[c, y], left, right, across, out_CW[c])


@part
def _blend_first(above, below, nearer, weight, out, most, best):
    for x in range(out.shape[0]):
        value = fma(weight, below[x] - above[x], nearer[x])
        out[x] = value
        most[x] = value
        best[x] = f32(0.0)


@part
def _blend_next(above, below, nearer, weight, out, most, best, number):
    """Of equal logits the first class is the label."""
    for x in range(out.shape[0]):
        value = fma(weight, below[x] - above[x], nearer[x])
        out[x] = value
        best[x] = number if value > most[x] else best[x]
        most[x] = value if value > most[x] else most[x]


@part
def _add_powers(values, most, total, weighted):
    """Overwrite logits with their powers, and add these and their products with the differences."""
    for x in range(values.shape[0]):
        difference = values[x] - most[x]
        power = exp(difference)
        values[x] = power
        total[x] += power
        weighted[x] = fma(power, difference, weighted[x])


@part
def _add_shares(powers, total, weighted, epsilon):
    for x in range(powers.shape[0]):
        share = powers[x] / total[x]
        weighted[x] = fma(share, log(share + epsilon), weighted[x])


@part
def _finish(total, weighted, best, epsilon, entropy, label):
    if epsilon > f32(0.0):
        for x in range(entropy.shape[0]):
            entropy[x] = -weighted[x]
    else:
        for x in range(entropy.shape[0]):
            entropy[x] = log(total[x]) - weighted[x] / total[x]
    for x in range(entropy.shape[0]):
        label[x] = i32(best[x])


@part
def _hold_row(source_Chw, row, columns, held_2, stretched_2CW):
    """Stretch a source row along W, unless it is held already: the last even and the last odd row are."""
    left, right, across = columns
    if held_2[row % 2] != row:
        held_2[row % 2] = row
        _stretch_classes(source_Chw, row, left, right, across, stretched_2CW[row % 2])


@part
def _reduce(above_CW, below_CW, nearer_CW, weight, epsilon, start, strip, entropy, label):
    """Write entropy and label of a few columns of a row, beginning with ``start``."""
    num_classes, size = above_CW.shape[0], entropy.shape[0]
    stop = start + size
    most, best = strip[num_classes, :size], strip[num_classes + 1, :size]
    total, weighted = strip[num_classes + 2, :size], strip[num_classes + 3, :size]
    for c in range(num_classes):
        rows = above_CW[c, start:stop], below_CW[c, start:stop], nearer_CW[c, start:stop]
        if c == 0:
            _blend_first(rows[0], rows[1], rows[2], weight, strip[c, :size], most, best)
        else:
            _blend_next(rows[0], rows[1], rows[2], weight, strip[c, :size], most, best, f32(c))
    total[:] = f32(0.0)
    weighted[:] = f32(0.0)
    for c in range(num_classes):
        _add_powers(strip[c, :size], most, total, weighted)
    if epsilon > f32(0.0):
        weighted[:] = f32(0.0)
        for c in range(num_classes):
            _add_shares(strip[c, :size], total, weighted, epsilon)
    _finish(total, weighted, best, epsilon, entropy, label)


@kernel
def entropy_and_label_rows(
    source_Chw, first, last, rows, columns, epsilon, held_2, stretched_2CW, strip, entropy_HW, label_HW
):
    """Write rows ``first`` to ``last`` of the maps; see :func:`ripu.functional.fused.cpu.maps.entropy_and_label`.

    ``rows`` and ``columns`` are the taps: two uint32 places, and the weight of the second. ``held_2`` is -1;
    ``stretched_2CW`` and ``strip``, (C + 4, TILE), are overwritten.
    """
    upper, lower, down = rows
    width = entropy_HW.shape[1]
    for y in range(first, last):
        above, below = int(upper[y]), int(lower[y])
        _hold_row(source_Chw, above, columns, held_2, stretched_2CW)
        _hold_row(source_Chw, below, columns, held_2, stretched_2CW)
        above_CW, below_CW = stretched_2CW[above % 2], stretched_2CW[below % 2]
        is_near = down[y] < f32(0.5)  # torch.lerp starts from the nearer end
        nearer_CW = above_CW if is_near else below_CW
        weight = down[y] if is_near else down[y] - f32(1.0)
        for start in range(0, width, TILE):
            stop = min(start + TILE, width)
            _reduce(
                above_CW, below_CW, nearer_CW, weight, f32(epsilon), start, strip, entropy_HW[y, start:stop],
                label_HW[y, start:stop],
            )  # fmt: skip
