"""Region impurity: the entropy of the predicted classes in a window.

Legend: B batch, C classes, H W size, R rows of a strip, n_c pixels of class c in the window, N = |N_k| its pixels.

With f(n) = n log n: impurity = log N - sum_c f(n_c) / N = (f(N) - sum_c f(n_c)) / N (Eq. 4). The counts are exact
integers and f is read from one table, so a pure window gives exactly 0. Counts come from running sums, first down the
columns, then along the rows; no step's work grows with the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ripu.functional.entropy import label_dtype
from ripu.functional.parallel import for_each, split_rows, strip_rows
from ripu.functional.windows import axis_count, check_radius


def region_impurity(pred_label_BHW: Tensor, num_classes: int, radius: int, *, epsilon: float = 0.0) -> Tensor:
    r"""Impurity of every window, :math:`P = -\sum_c \frac{|N_k^c|}{|N_k|} \log \frac{|N_k^c|}{|N_k|}` (Eq. 4), in nats.

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
            f"pred_label holds {low if low < 0 else high}, outside 0 .. {num_classes - 1}: "
            "predictions have no void label; pass logits.argmax(1) or the right num_classes."
        )
    windows = [LabelWindows(label_HW, num_classes, radius, epsilon) for label_HW in pred_label_BHW]

    def task(job: tuple[int, tuple[int, int]]) -> None:
        b, (first, last) = job
        windows[b].impurity_rows(first, last, impurity_BHW[b, first:last])

    jobs = [(b, band) for b in range(len(windows)) for band in windows[b].bands()]
    for_each(task, jobs, impurity_BHW.device)
    return impurity_BHW


class LabelWindows:
    """The class counts of all windows of one label map, computed a band of rows at a time.

    Args:
        label_HW: (H, W) integer labels in 0 .. num_classes - 1 (not checked).
        num_classes: C.
        radius: k >= 0.
        epsilon: As in :func:`region_impurity`.
    """

    def __init__(self, label_HW: Tensor, num_classes: int, radius: int, epsilon: float = 0.0) -> None:
        height, width = label_HW.shape
        device = label_HW.device
        self.height, self.width, self.num_classes, self.device = height, width, num_classes, device
        self.epsilon = epsilon
        self.reach_down, self.reach_right = min(radius, height - 1), min(radius, width - 1)
        dtype = label_dtype(num_classes)
        # One row more above than below: the row that leaves the first window. `num_classes` is no class: it counts nowhere.
        self.padded = torch.full(
            (height + 2 * self.reach_down + 1, width), num_classes, dtype=dtype, device=device
        )
        self.padded[self.reach_down + 1 : self.reach_down + 1 + height] = label_HW
        self.class_C11 = torch.arange(num_classes, device=device, dtype=dtype)[:, None, None]
        self.rows_H = axis_count(height, radius, device)
        self.columns_W = axis_count(width, radius, device)
        counts = torch.arange((2 * self.reach_down + 1) * (2 * self.reach_right + 1) + 1, dtype=torch.float64)
        self.table = torch.special.xlogy(counts, counts).float().to(device)

    def bands(self) -> list[tuple[int, int]]:
        """Row ranges that are worth a job of their own."""
        return split_rows(self.height, 128 if self.device.type == "cpu" else self.height)

    def impurity_rows(self, first: int, last: int, out_RW: Tensor) -> None:
        """Write the impurity of rows ``first .. last - 1`` to ``out_RW`` (float32)."""
        # Column counts of the row above the first: its window lies at padded rows first .. first + 2 * reach_down.
        column_CW = self._is_class(first, first + 2 * self.reach_down + 1).sum(dim=1, dtype=torch.int32)
        for top, bottom in split_rows(last - first, strip_rows(self.num_classes, self.width, self.device)):
            top, bottom = top + first, bottom + first
            side = 2 * self.reach_down + 1
            column_CRW = (
                self._is_class(top + side, bottom + side).int() - self._is_class(top, bottom).int()
            )
            column_CRW = column_CRW.cumsum(dim=1, dtype=torch.int32).add_(column_CW[:, None])
            column_CW = column_CRW[:, -1].clone()
            count_CRW = self._along_rows(column_CRW)
            window_RW = (self.rows_H[top:bottom, None] * self.columns_W[None, :])
            if self.epsilon > 0.0:
                share = count_CRW / window_RW
                out_RW[top - first : bottom - first] = -(share * (share + self.epsilon).log()).sum(dim=0)
            else:
                spread = self.table[window_RW] - self.table[count_CRW.long()].sum(dim=0)
                out_RW[top - first : bottom - first] = spread / window_RW

    def _is_class(self, start: int, stop: int) -> Tensor:
        return self.padded[start:stop] == self.class_C11

    def _along_rows(self, column_CRW: Tensor) -> Tensor:
        reach = self.reach_right
        running = torch.nn.functional.pad(column_CRW, (reach + 1, reach)).cumsum(dim=2, dtype=torch.int32)
        return running[:, :, 2 * reach + 1 :] - running[:, :, : self.width]
