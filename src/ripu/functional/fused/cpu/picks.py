"""Greedy picks from the best pixels of tiles.

Legend: H W size of the map, h w tiles of SIDE x SIDE pixels down and across the map.

The best pixel of every tile is known, and the best tile of every row of tiles. A pick is the best of the rows; the
tiles that its square touches are looked through again, and no others. That is the literal loop, ties included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numba import float32 as f32
from torch import Tensor

from ripu.functional.fused.cpu.compiler import kernel, part
from ripu.functional.fused.interface import Found
from ripu.functional.parallel import run_compiled, share_rows

SIDE = 16
"""Pixels along a side of a tile."""


@part
def _comes_before(score, tie, place, other_score, other_tie, other_place):
    """Return whether a pixel is picked before another; place -1 is none."""
    if place < 0 or other_place < 0:
        return place >= 0
    if score != other_score:
        return score > other_score
    if tie != other_tie:
        return tie > other_tie
    return place < other_place


@part
def _search_tile(score_HW, tie_HW, has_tie, tile_row, tile_column):
    """Return score, tie break and flat place of the best pixel of a tile; the first of equal ones."""
    height, width = score_HW.shape
    best, best_tie, place = f32(-float("inf")), f32(0.0), -1
    left, right = tile_column * SIDE, min(width, tile_column * SIDE + SIDE)
    for y in range(tile_row * SIDE, min(height, tile_row * SIDE + SIDE)):
        for x in range(left, right):
            score = score_HW[y, x]
            if score > best:
                best, place = score, y * width + x
                if has_tie:
                    best_tie = tie_HW[y, x]
            elif has_tie and score == best and place >= 0 and tie_HW[y, x] > best_tie:
                best_tie, place = tie_HW[y, x], y * width + x
    return best, best_tie, place


@kernel
def _search_rows(score_HW, tie_HW, has_tie, first, last, score_hw, tie_hw, place_hw):
    """Search the tiles of rows ``first`` to ``last`` of tiles; return whether a score or a tie break is NaN."""
    height, width = score_HW.shape
    has_nan = False
    for tile_row in range(first, last):
        for y in range(tile_row * SIDE, min(height, tile_row * SIDE + SIDE)):
            for x in range(width):
                has_nan |= score_HW[y, x] != score_HW[y, x]
            if has_tie:
                for x in range(width):
                    has_nan |= tie_HW[y, x] != tie_HW[y, x]
        for tile_column in range(score_hw.shape[1]):
            found = _search_tile(score_HW, tie_HW, has_tie, tile_row, tile_column)
            score_hw[tile_row, tile_column], tie_hw[tile_row, tile_column], place_hw[tile_row, tile_column] = found
    return has_nan


@part
def _best_of_row(score_w, tie_w, place_w):
    best = 0
    for column in range(1, score_w.shape[0]):
        if place_w[column] >= 0 and _comes_before(
            score_w[column], tie_w[column], place_w[column], score_w[best], tie_w[best], place_w[best]
        ):
            best = column
    return best


@kernel
def _pick(score_HW, tie_HW, has_tie, radius, score_hw, tie_hw, place_hw, picks):
    """Fill ``picks`` with flat places, and return their number; scores around picks become -inf."""
    height, width = score_HW.shape
    num_rows = score_hw.shape[0]
    best_h = place_hw[:, 0].copy()
    for row in range(num_rows):
        best_h[row] = _best_of_row(score_hw[row], tie_hw[row], place_hw[row])
    for number in range(picks.shape[0]):
        row = 0
        for other in range(1, num_rows):
            one, two = best_h[other], best_h[row]
            if _comes_before(
                score_hw[other, one], tie_hw[other, one], place_hw[other, one],
                score_hw[row, two], tie_hw[row, two], place_hw[row, two],
            ):  # fmt: skip
                row = other
        place = place_hw[row, best_h[row]]
        if place < 0:
            return number
        picks[number] = place
        y, x = place // width, place % width
        top, bottom = max(0, y - radius), min(height - 1, y + radius)
        left, right = max(0, x - radius), min(width - 1, x + radius)
        for blocked in range(top, bottom + 1):
            score_HW[blocked, left : right + 1] = f32(-float("inf"))
        for tile_row in range(top // SIDE, bottom // SIDE + 1):
            for tile_column in range(left // SIDE, right // SIDE + 1):
                # A tile whose best pixel is left keeps it.
                held = place_hw[tile_row, tile_column]
                if held >= 0 and score_HW[held // width, held % width] == f32(-float("inf")):
                    found = _search_tile(score_HW, tie_HW, has_tie, tile_row, tile_column)
                    score_hw[tile_row, tile_column], tie_hw[tile_row, tile_column] = found[0], found[1]
                    place_hw[tile_row, tile_column] = found[2]
            best_h[tile_row] = _best_of_row(score_hw[tile_row], tie_hw[tile_row], place_hw[tile_row])
    return picks.shape[0]


def greedy_places(
    score_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None,
    tie_break: Tensor | None,
    maps: Sequence[Tensor] = (),
) -> Found | None:
    """See :class:`ripu.functional.fused.Kernels`."""
    height, width = score_HW.shape
    score = score_HW.detach().float()
    score = torch.where(available, score, -torch.inf) if available is not None else score.clone()
    score = score.contiguous()
    tie = score if tie_break is None else tie_break.detach().float().contiguous()
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    tiles = (torch.empty(rows, columns), torch.zeros(rows, columns), torch.empty((rows, columns), dtype=torch.int64))
    given = (score.numpy(), tie.numpy(), tie_break is not None)
    state = tuple(one.numpy() for one in tiles)
    has_nan: list[bool] = []

    def search(first: int, last: int) -> None:
        has_nan.append(_search_rows(*given, first, last, *state))

    run_compiled(search, share_rows(rows, SIDE * width))
    if any(has_nan):
        return None
    places = torch.empty(num_picks, dtype=torch.int64)
    count = _pick(*given, min(suppress_radius, max(height, width)), *state, places.numpy())
    places = places[:count]
    flat = [one.detach().reshape(-1)[places].float() for one in maps]
    return Found(places, places, torch.stack(flat) if flat else torch.empty(0, count))
