"""Region impurity: the entropy of the predicted classes in a window.

Legend: B batch, C classes, H W size, R rows of a strip, n_c pixels of class c in the window, N = |N_k| its pixels.

With f(n) = n log n: impurity = (f(N) - sum_c f(n_c)) / N (Eq. 4). The counts are exact integers and f is read from one
table, so a pure window gives exactly 0. Counts come from running sums, first down the columns, then along the rows; no
step's work grows with the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ripu.functional import fused
from ripu.functional.entropy import label_dtype
from ripu.functional.parallel import for_each, split_bands, split_rows, strip_rows
from ripu.functional.tables import window_table
from ripu.functional.windows import axis_count, check_radius, running_sum


def region_impurity(pred_label_BHW: Tensor, num_classes: int, radius: int, *, epsilon: float = 0.0) -> Tensor:
    r"""Return the impurity of every window in nats (Eq. 4).

    :math:`P = -\sum_c \frac{|N_k^c|}{|N_k|} \log \frac{|N_k^c|}{|N_k|}`

    Args:
        pred_label_BHW: (B, H, W) integer predicted labels in 0 .. num_classes - 1.
        num_classes: C >= 1.
        radius: k >= 0; at the image's size and beyond the window is the whole image.
        epsilon: Added to the share inside the logarithm. 0 is the equation (0 log 0 = 0, a pure window is exactly 0);
            1e-6 is the published program, which makes pure windows slightly negative.

    Returns:
        (B, H, W) float32 in [0, log C]. Windows are clipped at the border and divided by the pixels inside.

    Raises:
        ValueError: Not three dimensions, not integer, labels outside 0 .. num_classes - 1, or a negative radius.

    >>> label = torch.tensor([[[0, 0, 1]]])
    >>> [round(value, 4) for value in region_impurity(label, 2, 1)[0, 0].tolist()]
    [0.0, 0.6365, 0.6931]
    """
    check_radius(radius)
    if pred_label_BHW.ndim != 3 or pred_label_BHW.is_floating_point() or pred_label_BHW.dtype == torch.bool:
        raise ValueError(
            f"expected integer labels (B, H, W), not {tuple(pred_label_BHW.shape)} of {pred_label_BHW.dtype}: "
            "pass logits.argmax(1)."
        )
    if num_classes < 1:
        raise ValueError(f"num_classes {num_classes} must be at least 1.")
    impurity_BHW = torch.empty(pred_label_BHW.shape, dtype=torch.float32, device=pred_label_BHW.device)
    if impurity_BHW.numel() == 0:
        return impurity_BHW
    low, high = (int(value) for value in torch.aminmax(pred_label_BHW))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"pred_label contains {low if low < 0 else high}, outside 0 .. {num_classes - 1}: "
            "predictions have no void label; pass logits.argmax(1) or the right num_classes."
        )
    batch, height, width = pred_label_BHW.shape
    if fused.is_used(pred_label_BHW):
        label_BHW = pred_label_BHW.to(label_dtype(num_classes)).contiguous()
        kernels = fused.kernels_on(label_BHW.device)
        return kernels.window_maps(label_BHW, None, num_classes, radius, epsilon=epsilon)[0]
    kernel = ImpurityKernel((height, width), num_classes, radius, pred_label_BHW.device, epsilon)

    def task(b: int, first: int, last: int) -> None:
        kernel.compute(pred_label_BHW[b], first, last, impurity_BHW[b, first:last])

    for_each(task, [(b, *band) for b in range(batch) for band in kernel.bands()], impurity_BHW.device)
    return impurity_BHW


class ImpurityKernel:
    """Impurity of (H, W) label maps of one ``size``, computed a band of rows at a time; see :func:`region_impurity`."""

    def __init__(
        self, size: tuple[int, int], num_classes: int, radius: int, device: torch.device, epsilon: float = 0.0
    ) -> None:
        self.height, self.width = size
        self.num_classes, self.device, self.epsilon = num_classes, device, epsilon
        self.reach_down, self.reach_right = min(radius, self.height - 1), min(radius, self.width - 1)
        self.side_down, self.side_right = 2 * self.reach_down + 1, 2 * self.reach_right + 1
        self.class_C11 = torch.arange(num_classes, device=device, dtype=label_dtype(num_classes))[:, None, None]
        self.rows_H1 = axis_count(self.height, radius, device).int()[:, None]
        self.columns_W = axis_count(self.width, radius, device).int()
        self.is_small = radius <= 1
        if self.is_small:
            self.shape_H1, self.shape_W = (self.rows_H1 - 1) * 768, (self.columns_W - 1) * 256
        self.table = window_table(size, num_classes, radius, device, epsilon)

    def bands(self) -> list[tuple[int, int]]:
        """Return row ranges that are each worth a job."""
        return split_bands(self.height, 128, self.device)

    def compute(self, label_HW: Tensor, first: int, last: int, out_RW: Tensor) -> None:
        """Write the impurity of rows ``first .. last - 1`` to contiguous float32 ``out_RW``; check no label."""
        # The band and what its windows reach. Outside the map lies a label that is no class and counts nowhere. One row
        # more above than below: the row that leaves the first window.
        above, below = max(0, first - self.reach_down - 1), min(self.height, last + self.reach_down)
        size = (last - first + self.side_down, self.width + self.side_right - 1)
        padded = self.class_C11.new_full(size, self.num_classes)
        offset = above - (first - self.reach_down - 1)
        padded[offset:, self.reach_right :][: below - above, : self.width] = label_HW[above:below]
        column_CW: Tensor | None = None
        for top, bottom in split_rows(last - first, strip_rows(self.num_classes, self.width, self.device)):
            part, rows = padded[top : bottom + self.side_down], slice(first + top, first + bottom)
            if self.is_small:
                self._small(part, rows, out_RW[top:bottom])
            else:
                column_CRW = self._column_counts(part, column_CW)
                column_CW = column_CRW[:, -1]
                self._large(column_CRW, rows, out_RW[top:bottom])

    def _is_other(self, padded: Tensor) -> Tensor:
        """Return (C, rows, columns): 0 where a padded label is of the class, 1 elsewhere.

        Several times quicker than the comparison, which torch does not vectorise for one-byte integers.
        """
        difference = padded - self.class_C11
        if difference.dtype != torch.uint8:
            difference.abs_()
        return difference.clamp_(max=1)

    def _column_counts(self, padded: Tensor, above_CW: Tensor | None) -> Tensor:
        """Return (C, R, W + 2k) counts in columns of ``side_down`` pixels; ``above_CW``: those of the row above."""
        dtype = _dtype_for(self.side_down) if self.device.type == "cpu" else torch.int32
        if above_CW is None:
            above_CW = self.side_down - self._is_other(padded[: self.side_down]).sum(dim=1, dtype=dtype)
        entering_CRW = self._is_other(padded[self.side_down :]).to(dtype)
        # One-byte sums are taken modulo 256; the counts themselves are below.
        count_CRW = self._is_other(padded[: -self.side_down]).to(dtype).sub_(entering_CRW)
        if self.device.type != "cpu":
            return count_CRW.cumsum(dim=1, dtype=dtype).add_(above_CW[:, None])
        for row_CW in count_CRW.unbind(1):
            above_CW = row_CW.add_(above_CW)
        return count_CRW

    def _large(self, column_CRW: Tensor, rows: slice, out_RW: Tensor) -> None:
        """Write the impurity from column counts: sums along the rows, then the table, for the classes of a segment."""
        is_cpu = self.device.type == "cpu"
        dtype = _dtype_for(self.side_down * self.side_right)
        window_RW = self.rows_H1[rows] * self.columns_W
        if is_cpu:
            is_present_CW = column_CRW.amax(dim=1)
        for left, right in split_rows(self.width, max(1024, self.side_right) if is_cpu else self.width):
            columns = slice(left, right + self.side_right - 1)
            part_CRW = column_CRW[:, :, columns]
            if is_cpu:
                present = is_present_CW[:, columns].amax(dim=1).nonzero().flatten()
                if present.numel() < self.num_classes:
                    part_CRW = part_CRW.index_select(0, present)
            part_CRW = part_CRW.to(dtype)
            if dtype != torch.int32:  # in a narrow integer a few vector additions are quicker than a running sum
                count_CRW = running_sum(part_CRW, self.side_right, 2).int()
            else:
                running_CRW = torch.nn.functional.pad(part_CRW, (1, 0)).cumsum(dim=2, dtype=torch.int32)
                count_CRW = running_CRW[:, :, self.side_right :] - running_CRW[:, :, : -self.side_right]
            if self.epsilon > 0.0:
                share_CRW = count_CRW / window_RW[:, left:right]
                out_RW[:, left:right] = -(share_CRW * (share_CRW + self.epsilon).log()).sum(dim=0)
            else:
                nlogn_CRW = self.table.index_select(0, count_CRW.reshape(-1)).view(count_CRW.shape)
                torch.sum(nlogn_CRW, dim=0, out=out_RW[:, left:right])
        if self.epsilon == 0.0:
            full_RW = self.table.index_select(0, window_RW.view(-1)).view(window_RW.shape)
            torch.sub(full_RW, out_RW, out=out_RW).div_(window_RW)

    def _small(self, padded: Tensor, rows: slice, out_RW: Tensor) -> None:
        """Write the impurity of windows of at most 3 x 3 pixels, in one-byte integers (:func:`small_window_table`)."""
        other_CRW = self._is_other(padded[1:]).to(torch.uint8)
        other_CRW = running_sum(running_sum(other_CRW, self.side_down, 1), self.side_right, 2)
        code_RW = (other_CRW * other_CRW).mul_(other_CRW).sum(dim=0, dtype=torch.uint8).int()
        code_RW.add_(self.shape_H1[rows]).add_(self.shape_W)
        torch.index_select(self.table, 0, code_RW.view(-1), out=out_RW.view(-1))


def _dtype_for(largest: int) -> torch.dtype:
    return torch.uint8 if largest <= 255 else torch.int16 if largest <= 32767 else torch.int32
