"""Entropy and label of up-sampled logits in one pass over the low-resolution logits.

Legend: B batch, C classes, h w size of the logits, H W size of the result.

Up-sampled logits, and with them labels, are those of torch's AVX2 and AVX-512 code to the bit; entropies differ by the
rounding of exp and log.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ripu.functional.fused.cpu import softmax
from ripu.functional.parallel import run_compiled, share_rows
from ripu.functional.pixels import blend_taps, check_logits, check_size, refuse_broken


class Checked(NamedTuple):
    """The check that logits are finite, which is done already."""

    is_finite_B: Tensor

    def check(self) -> None:
        """Raise ValueError if logits are NaN or infinite."""
        refuse_broken(self.is_finite_B)


@functools.lru_cache(maxsize=256)
def _taps(source: int, target: int) -> tuple[Any, Any, Any]:
    """Return the taps of one axis: (length,) uint32 positions, and float32 weights of the second."""
    first, second, weight = blend_taps(source, target, (0, target))
    places = torch.tensor([first, second], dtype=torch.int32).numpy().view("uint32")
    return places[0], places[1], torch.tensor(weight, dtype=torch.float32).numpy()


def entropy_and_label(
    logits_BChw: Tensor, size: tuple[int, int], epsilon: float, label_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Checked]:
    """Return the (B, H, W) maps of :func:`ripu.functional.map_entropy_and_label`, and the check of the logits."""
    check_logits(logits_BChw)
    check_size(size)
    batch, num_classes, source_height, source_width = logits_BChw.shape
    height, width = size
    entropy_BHW = torch.empty((batch, height, width))
    label_BHW = torch.empty((batch, height, width), dtype=label_dtype)
    rows, columns = _taps(source_height, height), _taps(source_width, width)
    bands = share_rows(height, width)
    # Every source row is checked by the band that reads it first; when shrinking, some are read by none.
    starts = [int(rows[0][first]) for first, _ in bands[1:]]
    checked = list(zip([0, *starts], [*starts, source_height], strict=True))
    is_finite = torch.ones((batch, len(bands)), dtype=torch.bool)
    source_BChw = logits_BChw.detach().float().contiguous()

    def task(b: int, number: int) -> None:
        """Write a band of rows of the maps of image ``b``."""
        source = source_BChw[b].numpy()
        is_finite[b, number] = softmax.rows_are_finite(source, *checked[number])
        softmax.entropy_and_label_rows(
            source, *bands[number], rows, columns, epsilon, torch.full((2,), -1).numpy(),
            torch.empty(2, num_classes, width).numpy(), torch.empty(num_classes + 4, softmax.TILE).numpy(),
            entropy_BHW[b].numpy(), label_BHW[b].numpy(),
        )  # fmt: skip

    run_compiled(task, [(b, number) for b in range(batch) for number in range(len(bands))])
    return entropy_BHW, label_BHW, Checked(is_finite.all(dim=1))
