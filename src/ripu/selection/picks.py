"""Greedy picking with suppression (Eq. 2): the next pick is the best pixel that no earlier pick has blocked.

A pick blocks at most (2 r + 1)^2 pixels, so N picks come from the best N (2 r + 1)^2 available pixels, and usually from
far fewer. The best few are taken from the map in one pass and one transfer, sorted, and visited once with a map of
blocked pixels. Only if they run out are the next best fetched. The result is that of the literal loop, ties included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripu.functional import for_each, fused
from ripu.io.errors import ConfigError

_SAMPLES, _FEWEST_CANDIDATES, _CANDIDATES_PER_PICK = 1 << 15, 4096, 16


def greedy_picks(
    score_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None = None,
    tie_break: Tensor | None = None,
) -> Tensor:
    """Pick the highest scores one by one; every pick makes its neighbourhood unavailable.

    Equal to: repeat ``num_picks`` times {take the best available pixel; make all pixels within ``suppress_radius`` of
    it (Chebyshev distance) unavailable}. Equal scores are decided by the larger ``tie_break``, then the smaller row,
    then the smaller column.

    Args:
        score_HW: (H, W) floating scores; -inf means unavailable.
        num_picks: N >= 0.
        suppress_radius: r >= 0, in pixels. 0 makes only the pick itself unavailable.
        available: (H, W) bool, True where a pick may lie; everywhere by default.
        tie_break: (H, W) floating map that decides between equal scores, for instance the uncertainty.

    Returns:
        (n, 2) int64 rows and columns in picking order, on the device of the scores; n < N if nothing is left.

    Raises:
        ConfigError: Wrong shapes or dtypes, negative numbers, or NaN (the first place is named).

    >>> greedy_picks(torch.tensor([[1.0, 5.0, 4.0, 3.0]]), 2, 1).tolist()
    [[0, 1], [0, 3]]
    """
    _check(score_HW, num_picks, suppress_radius, available, tie_break)
    if (found := _fused(score_HW, num_picks, suppress_radius, available, tie_break, ())) is not None:
        place = found.place_on_device
        return torch.stack([place.div(score_HW.shape[1], rounding_mode="floor"), place % score_HW.shape[1]], dim=1)
    return _plain(score_HW, num_picks, suppress_radius, available, tie_break)


def picks_and_values(
    score_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None,
    tie_break: Tensor | None,
    maps: Sequence[Tensor],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what :func:`greedy_picks` does and the (V, n) values of V float32 (H, W) maps there, on the host."""
    _check(score_HW, num_picks, suppress_radius, available, tie_break)
    if (found := _fused(score_HW, num_picks, suppress_radius, available, tie_break, maps)) is not None:
        return np.stack(np.divmod(found.place.numpy(), score_HW.shape[1]), axis=1), found.values.numpy()
    picks = _plain(score_HW, num_picks, suppress_radius, available, tie_break)
    return picks.cpu().numpy(), values_at(picks, maps)


def values_at(picks: Tensor, maps: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the (V, n) values of V (H, W) maps at picks, on the host."""
    rows, columns = picks.unbind(1)
    return torch.stack([one[rows, columns].float() for one in maps]).cpu().numpy()


def _fused(
    score_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None,
    tie_break: Tensor | None,
    maps: Sequence[Tensor],
) -> fused.Found | None:
    """Return the picks of the fused kernels; None if they do not apply, or leave the decision to the plain code."""
    is_wide = any(one is not None and one.dtype == torch.float64 for one in (score_HW, tie_break))
    if is_wide or num_picks == 0 or not 0 < score_HW.numel() < 1 << 31:
        return None
    if not fused.is_used(score_HW, available, tie_break):
        return None
    return fused.kernels_on(score_HW.device).greedy_places(
        score_HW, num_picks, suppress_radius, available, tie_break, maps
    )


def _plain(
    score_HW: Tensor, num_picks: int, suppress_radius: int, available: Tensor | None, tie_break: Tensor | None
) -> Tensor:
    picks: list[tuple[int, int]] = []

    def task() -> None:
        picks.extend(_pick(score_HW.detach(), num_picks, suppress_radius, available, tie_break))

    for_each(task, [()], score_HW.device)  # on one core: the passes over the map are too short to share
    return torch.tensor(picks, dtype=torch.int64, device=score_HW.device).reshape(-1, 2)


def _pick(
    score_HW: Tensor, num_picks: int, suppress_radius: int, available: Tensor | None, tie_break: Tensor | None
) -> list[tuple[int, int]]:
    _refuse_nan(score_HW, tie_break)
    height, width = score_HW.shape
    left = _without_blocked(score_HW, available)
    tie_flat = None if tie_break is None else tie_break.detach().reshape(-1)
    reach = min(suppress_radius, max(height, width))
    side, stride = 2 * reach + 1, width + 2 * reach
    # Padded by the radius, so that no square has to be clipped. The bytearray is the same memory: indexing it from
    # Python is several times cheaper than indexing the array.
    memory = bytearray((height + 2 * reach) * stride)
    blocked = np.frombuffer(memory, dtype=np.uint8).reshape(height + 2 * reach, stride)
    picks: list[tuple[int, int]] = []
    num_candidates = max(_FEWEST_CANDIDATES, num_picks * min(side * side, _CANDIDATES_PER_PICK))
    while len(picks) < num_picks:
        candidates = _best(left, tie_flat, num_candidates)
        if candidates.size == 0:
            break
        rows, columns = np.divmod(candidates, width)
        middles = (rows + reach) * stride + columns + reach
        for row, column, middle in zip(rows.tolist(), columns.tolist(), middles.tolist(), strict=True):
            if memory[middle]:
                continue
            blocked[row : row + side, column : column + side] = 1
            picks.append((row, column))
            if len(picks) == num_picks:
                return picks
        # Not enough: visited and blocked pixels leave the map, and a larger set of the rest is fetched.
        inside = torch.from_numpy(blocked[reach : reach + height, reach : reach + width].astype(np.bool_))
        left = left.masked_fill(inside.reshape(-1).to(left.device), -torch.inf)
        left[torch.from_numpy(candidates).to(left.device)] = -torch.inf
        num_candidates *= 4
    return picks


def _refuse_nan(score_HW: Tensor, tie_break: Tensor | None) -> None:
    for name, values in (("score", score_HW), ("tie_break", tie_break)):
        if values is not None and values.numel() and bool(values.amax().isnan()):
            row, column = values.isnan().nonzero()[0].tolist()
            count = int(values.isnan().sum())
            raise ConfigError(f"{name} is NaN at {count} pixel(s), first at row {row}, column {column}.")


def _without_blocked(score_HW: Tensor, available: Tensor | None) -> Tensor:
    """Return the flat scores, at least float32; -inf where nothing is available."""
    left = score_HW if score_HW.dtype in (torch.float32, torch.float64) else score_HW.float()
    return (left if available is None else torch.where(available, left, -torch.inf)).reshape(-1)


def fair_picks(
    score_HW: Tensor,
    group_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None = None,
    tie_break: Tensor | None = None,
) -> Tensor:
    """Pick as :func:`greedy_picks` does, but let groups of pixels take turns.

    Equal to: repeat ``num_picks`` times {of the groups with the fewest picks so far that have an available pixel, take
    the best pixel; make all pixels within ``suppress_radius`` of it unavailable, whatever their group}. A group whose
    pixels run out leaves its share to the others.

    Args:
        group_HW: (H, W) integers, the group of each pixel.
        score_HW, num_picks, suppress_radius, available, tie_break: See :func:`greedy_picks`.

    Returns:
        (n, 2) int64 rows and columns in picking order, on the device of the scores.

    Raises:
        ConfigError: As :func:`greedy_picks`, or groups that are no integers of the same shape.

    >>> fair_picks(torch.tensor([[1.0, 5.0, 4.0, 3.0]]), torch.tensor([[0, 1, 1, 1]]), 2, 0).tolist()
    [[0, 1], [0, 0]]
    """
    _check(score_HW, num_picks, suppress_radius, available, tie_break)
    if group_HW.shape != score_HW.shape or group_HW.is_floating_point():
        raise ConfigError(
            f"group must be integers of the score's shape {tuple(score_HW.shape)}, not {tuple(group_HW.shape)} of "
            f"{group_HW.dtype}."
        )
    picks: list[tuple[int, int]] = []

    def task() -> None:
        picks.extend(_pick_in_turns(score_HW.detach(), group_HW, num_picks, suppress_radius, available, tie_break))

    for_each(task, [()], score_HW.device)
    return torch.tensor(picks, dtype=torch.int64, device=score_HW.device).reshape(-1, 2)


def _pick_in_turns(
    score_HW: Tensor,
    group_HW: Tensor,
    num_picks: int,
    suppress_radius: int,
    available: Tensor | None,
    tie_break: Tensor | None,
) -> list[tuple[int, int]]:
    _refuse_nan(score_HW, tie_break)
    left = _without_blocked(score_HW, available)
    tie_flat = None if tie_break is None else tie_break.detach().reshape(-1)
    is_blocked = np.zeros(score_HW.shape, dtype=np.bool_)
    flat, group_flat = is_blocked.reshape(-1), group_HW.reshape(-1)
    queues = []
    for number in torch.unique(group_flat).tolist():
        place = (group_flat == number).nonzero().flatten()
        queues.append(_Queue(place, left[place], None if tie_flat is None else tie_flat[place], num_picks))
    picks: list[tuple[int, int]] = []
    while len(picks) < num_picks:
        heads: list[tuple[tuple[float, float, int], _Queue]] = []
        for queue in sorted(queues, key=lambda queue: queue.num_picks):
            if heads and queue.num_picks > heads[0][1].num_picks:
                break
            if (head := queue.head(flat)) is not None:
                heads.append((head, queue))
        if not heads:
            break
        (_, _, place), queue = max(heads, key=lambda one: one[0])
        row, column = divmod(-place, score_HW.shape[1])
        is_blocked[max(0, row - suppress_radius) : row + suppress_radius + 1][
            :, max(0, column - suppress_radius) : column + suppress_radius + 1
        ] = True
        queue.num_picks += 1
        picks.append((row, column))
    return picks


class _Queue:
    """The pixels of a group, best first, and the number of its picks; its best few are fetched and sorted at a time."""

    def __init__(self, place: Tensor, score: Tensor, tie_break: Tensor | None, num_picks: int) -> None:
        self._place, self._score, self._tie_break = place, score, tie_break
        self._next = max(_FEWEST_CANDIDATES, _CANDIDATES_PER_PICK * num_picks)
        self._fetched: list[tuple[float, float, int]] = []
        self._at = self.num_picks = 0

    def head(self, is_blocked: NDArray[np.bool_]) -> tuple[float, float, int] | None:
        """Return score, tie break and minus the flat place of its best pixel that is left; None if there is none."""
        while True:
            while self._at < len(self._fetched):
                if not is_blocked[-self._fetched[self._at][2]]:
                    return self._fetched[self._at]
                self._at += 1
            best = torch.from_numpy(_best(self._score, self._tie_break, self._next)).to(self._score.device)
            if not len(best):
                self._fetched, self._at = [], 0
                return None
            tie = [0.0] * len(best) if self._tie_break is None else self._tie_break[best].double().tolist()
            places = (-self._place[best]).tolist()
            self._fetched = list(zip(self._score[best].double().tolist(), tie, places, strict=True))
            self._score[best] = -torch.inf
            self._next, self._at = 4 * self._next, 0


def _best(score: Tensor, tie_break: Tensor | None, at_least: int) -> NDArray[np.int64]:
    """Return the flat positions of about ``at_least`` of the best pixels, best first; none only if all scores are -inf.

    No other pixel would come before one of them.
    """
    position = _leading(score, at_least)
    too_many = 8 * at_least + _SAMPLES
    if position.numel() > too_many and _is_constant(score[position]):  # a plateau: the next key decides
        if tie_break is not None:
            lowest = torch.finfo(tie_break.dtype).min  # -inf is a tie break like any other, but not a score
            position = position[_leading(tie_break[position].clamp(min=lowest), at_least)]
        if position.numel() > too_many and (tie_break is None or _is_constant(tie_break[position])):
            position = position[:at_least]  # and the last key is the position
    keys = [-score[position].cpu().numpy().astype(np.float64)]
    if tie_break is not None:
        keys.insert(0, -tie_break[position].cpu().double().numpy())  # NumPy knows no bfloat16
    result: NDArray[np.int64] = position.cpu().numpy()[np.lexsort(keys)]
    return result


def _leading(value: Tensor, at_least: int) -> Tensor:
    """Return ascending positions of all values above -inf and a threshold that leaves roughly ``at_least`` of them."""
    threshold = -torch.inf
    if value.numel() > 4 * at_least:
        step = max(1, value.numel() // _SAMPLES) | 1  # odd: no resonance with the width of the map
        sample = value[::step]
        threshold = float(sample.topk(min(at_least // step + 1, sample.numel())).values[-1])
    position = (value >= threshold if threshold > -torch.inf else value > -torch.inf).nonzero().flatten()
    if position.numel() > 8 * at_least and threshold > -torch.inf:
        above = (value > threshold).nonzero().flatten()  # the threshold is a plateau: values above it come first
        if above.numel():
            return above
    return position


def _is_constant(value: Tensor) -> bool:
    return bool((value == value[0]).all())


def _check(
    score: Tensor, num_picks: int, suppress_radius: int, available: Tensor | None, tie_break: Tensor | None
) -> None:
    if score.ndim != 2 or not score.is_floating_point():
        raise ConfigError(f"score must be a floating (H, W) map, not {tuple(score.shape)} of {score.dtype}.")
    if num_picks < 0 or suppress_radius < 0:
        raise ConfigError(f"num_picks {num_picks} and suppress_radius {suppress_radius} must not be negative.")
    if available is not None and (available.shape != score.shape or available.dtype != torch.bool):
        raise ConfigError(
            f"available must be bool of the score's shape {tuple(score.shape)}, "
            f"not {tuple(available.shape)} of {available.dtype}."
        )
    if tie_break is not None and (tie_break.shape != score.shape or not tie_break.is_floating_point()):
        raise ConfigError(
            f"tie_break must be floating of the score's shape {tuple(score.shape)}, "
            f"not {tuple(tie_break.shape)} of {tie_break.dtype}."
        )
