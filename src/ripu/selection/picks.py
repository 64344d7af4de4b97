"""Greedy picking with suppression (Eq. 2): the next pick is the best pixel that no earlier pick has blocked.

Legend: H W size, N picks.

A pick blocks at most (2 r + 1)^2 pixels, so N picks come from the best N (2 r + 1)^2 available pixels, and most often
from far fewer. The best few are taken from the map in one pass and one transfer, sorted, and gone through once with a map
of blocked pixels; only if they run out are the next best fetched. The result is that of the literal loop, ties included.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SAMPLES = 1 << 15
_FEWEST_CANDIDATES = 4096
_CANDIDATES_PER_PICK = 16


def greedy_picks(
    score_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None = None,
    tie_break: Tensor | None = None,
) -> Tensor:
    """Pick the highest scores one by one; every pick makes its neighbourhood unavailable.

    Equal to: repeat ``num_picks`` times {take the best available pixel; make all pixels within ``suppress_radius`` of it
    (Chebyshev distance) unavailable}. Equal scores are decided by the larger ``tie_break``, then the smaller row, then the
    smaller column.

    Args:
        score_HW: (H, W) floating scores; -inf means unavailable.
        num_picks: N >= 0.
        suppress_radius: r >= 0, in pixels. 0 makes only the pick itself unavailable.
        available: (H, W) bool, True where a pick may lie; everywhere by default.
        tie_break: (H, W) floating map that decides between equal scores, for instance the uncertainty.

    Returns:
        (n, 2) int64 rows and columns in picking order, on the device of the scores; n < N where nothing is left.

    Raises:
        ValueError: Wrong shapes or dtypes, negative numbers, or NaN (the first place is named).

    >>> greedy_picks(torch.tensor([[1.0, 5.0, 4.0, 3.0]]), 2, 1).tolist()
    [[0, 1], [0, 3]]
    """
    _check(score_HW, num_picks, suppress_radius, available, tie_break)
    height, width = score_HW.shape
    left = score_HW.detach().clone() if score_HW.dtype in (torch.float32, torch.float64) else score_HW.detach().float()
    if available is not None:
        left.masked_fill_(~available, -torch.inf)
    reach = min(suppress_radius, max(height, width))
    side, stride = 2 * reach + 1, width + 2 * reach
    # Padded by the radius, so that a square never has to be clipped. The bytearray is the same memory: indexing it from
    # Python is several times cheaper than indexing the array.
    memory = bytearray((height + 2 * reach) * stride)
    blocked = np.frombuffer(memory, dtype=np.uint8).reshape(height + 2 * reach, stride)
    picks: list[tuple[int, int]] = []
    num_candidates = max(_FEWEST_CANDIDATES, num_picks * min(side * side, _CANDIDATES_PER_PICK))
    while len(picks) < num_picks:
        candidates = _best(left.view(-1), None if tie_break is None else tie_break.reshape(-1), num_candidates)
        if candidates.size == 0:
            break
        rows, columns = np.divmod(candidates, width)
        for row, column, middle in zip(
            rows.tolist(), columns.tolist(), ((rows + reach) * stride + columns + reach).tolist(), strict=True
        ):
            if memory[middle]:
                continue
            blocked[row : row + side, column : column + side] = 1
            picks.append((row, column))
            if len(picks) == num_picks:
                break
        else:
            left.view(-1)[torch.from_numpy(candidates).to(left.device)] = -torch.inf
            inside = blocked[reach : reach + height, reach : reach + width].astype(np.bool_)
            left.masked_fill_(torch.from_numpy(inside).to(left.device), -torch.inf)
            num_candidates *= 4
    return torch.tensor(picks, dtype=torch.int64, device=score_HW.device).reshape(-1, 2)


def _best(score: Tensor, tie_break: Tensor | None, at_least: int) -> NDArray[np.int64]:
    """Flat positions of about ``at_least`` of the best pixels, best first; no pixel left out is better than one of them.

    Empty only where all scores are -inf. All pixels that tie in every key with one that is returned may still be cut off
    by position, since position is the last key.
    """
    position = _leading(score, at_least, score > -torch.inf)
    value = score[position]
    keys: list[NDArray[np.float64]] = []
    if position.numel() > 8 * at_least + _SAMPLES and bool((value == value[0]).all()):
        # A plateau: the second key decides which of it come first.
        if tie_break is not None:
            position = position[_leading(tie_break[position], at_least, None)]
            if position.numel() > 8 * at_least + _SAMPLES and bool(
                (tie_break[position] == tie_break[position[0]]).all()
            ):
                position = position[:at_least]
        else:
            position = position[:at_least]
        value = score[position]
    if tie_break is not None:
        keys.append(-tie_break[position].cpu().numpy().astype(np.float64))
    keys.append(-value.cpu().numpy().astype(np.float64))
    order = np.lexsort(keys)
    result: NDArray[np.int64] = position.cpu().numpy()[order]
    return result


def _leading(value: Tensor, at_least: int, valid: Tensor | None) -> Tensor:
    """Positions (ascending) of all values above some threshold that leaves roughly ``at_least`` of them."""
    if value.numel() <= 4 * at_least:
        return torch.arange(value.numel(), device=value.device) if valid is None else valid.nonzero().flatten()
    step = max(1, value.numel() // _SAMPLES) | 1  # odd: no resonance with the width of the image
    sample = value[::step].sort(descending=True).values
    threshold = sample[min(at_least // step, sample.numel() - 1)]
    keep = value >= threshold
    if valid is not None:
        keep &= valid
    position = keep.nonzero().flatten()
    if position.numel() > 8 * at_least:
        above = (value > threshold) if valid is None else (value > threshold) & valid
        if bool(above.any()):
            return above.nonzero().flatten()
    return position


def _check(
    score: Tensor, num_picks: int, suppress_radius: int, available: Tensor | None, tie_break: Tensor | None
) -> None:
    if score.ndim != 2 or not score.is_floating_point():
        raise ValueError(f"score must be a floating (H, W) map, not {tuple(score.shape)} of {score.dtype}.")
    if num_picks < 0 or suppress_radius < 0:
        raise ValueError(f"num_picks {num_picks} and suppress_radius {suppress_radius} must not be negative.")
    if available is not None and (available.shape != score.shape or available.dtype != torch.bool):
        raise ValueError(
            f"available must be bool of the score's shape {tuple(score.shape)}, "
            f"not {tuple(available.shape)} of {available.dtype}."
        )
    if tie_break is not None and (tie_break.shape != score.shape or not tie_break.is_floating_point()):
        raise ValueError(
            f"tie_break must be floating of the score's shape {tuple(score.shape)}, "
            f"not {tuple(tie_break.shape)} of {tie_break.dtype}."
        )
    for name, values in (("score", score), ("tie_break", tie_break)):
        if values is not None and values.numel() and bool(values.amax().isnan()):
            row, column = values.isnan().nonzero()[0].tolist()
            count = int(values.isnan().sum())
            raise ValueError(f"{name} is NaN at {count} pixel(s), first at row {row}, column {column}.")
