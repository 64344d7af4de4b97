"""The literal greedy picker: one arg-max over everything that is left for every pick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def greedy_picks(
    score: NDArray[np.floating],
    num_picks: int,
    suppress_radius: int,
    available: NDArray[np.bool_] | None = None,
    tie_break: NDArray[np.floating] | None = None,
) -> list[list[int]]:
    """Eq. (2): best score, then larger tie break, then smaller row, then smaller column; suppress; repeat."""
    return fair_picks(score, np.zeros(score.shape, dtype=np.int64), num_picks, suppress_radius, available, tie_break)


def fair_picks(
    score: NDArray[np.floating],
    group: NDArray[np.integer],
    num_picks: int,
    suppress_radius: int,
    available: NDArray[np.bool_] | None = None,
    tie_break: NDArray[np.floating] | None = None,
) -> list[list[int]]:
    """Eq. (2) among the groups with the fewest picks so far that have something left."""
    left = score > -np.inf
    if available is not None:
        left = left & available
    tie = np.zeros_like(score) if tie_break is None else tie_break
    counts = dict.fromkeys(np.unique(group).tolist(), 0)
    picks: list[list[int]] = []
    for _ in range(num_picks):
        open_groups = [number for number in counts if (left & (group == number)).any()]
        if not open_groups:
            break
        fewest = min(counts[number] for number in open_groups)
        best = left & np.isin(group, [number for number in open_groups if counts[number] == fewest])
        best &= score == score[best].max()
        best &= tie == tie[best].max()
        row, column = (int(value) for value in np.argwhere(best)[0])
        picks.append([row, column])
        counts[int(group[row, column])] += 1
        left[
            max(0, row - suppress_radius) : row + suppress_radius + 1,
            max(0, column - suppress_radius) : column + suppress_radius + 1,
        ] = False
    return picks
