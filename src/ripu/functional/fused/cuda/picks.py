"""Greedy picks on the device, with one transfer to the host.

Legend: H W size of the map, M candidates, r suppression radius, N picks.

The order of pixels is one 64-bit key: the score, then the tie break, then the place (by a stable sort, or in the key
without a tie break).

1. A threshold from a sample of the map leaves a little more than N (2 r + 1)^2 candidates, which always suffice: no
   pick blocks more than (2 r + 1)^2 of them. They are gathered in the order of their places, and sorted.
2. Many small squares: rounds of elimination. A candidate with no better candidate left in its square is a pick, and one
   with a pick in its square is out. Every decision rests on decisions about better candidates, so it is that of the
   literal loop, whatever order programs run in, and whatever they see of each other's decisions.
3. One program walks through the sorted candidates: it takes the first that is left, drops what is in its square, and
   so on, to the N-th. After step 2 little is left to take.

If a plateau in score and tie break, or a sample that misleads, leaves too many candidates or too few, the result says
so (``None``), and the plain code decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ripu.functional.fused.cuda.maps import on
from ripu.functional.fused.interface import Found

_SAMPLES, _BLOCK, _CHUNK, _SETTLED = 8192, 1024, 2048, 128
_FEWEST, _MOST = 4096, 1 << 17
"""Bounds of the number of candidates that are aimed at."""
_LAUNCHES, _ROUNDS = 6, 8
"""Launches of the elimination, and its rounds in each."""
_LARGEST_SQUARE, _MANY_PICKS = 17 * 17, 64
"""Squares of more pixels, or fewer picks, leave all to step 3."""
_NOTHING = tl.constexpr(-(1 << 63))
"""Key of a pixel that is not available; smaller than that of any score."""
_PICKED, _OUT = tl.constexpr(-1), tl.constexpr((1 << 31) - 1)
"""Entries of the map of ranks that stand for decisions."""


@triton.jit
def _ordered(value):
    """Return integers in the order of float32 values; -0.0 and 0.0 are equal."""
    value = value.to(tl.float32)
    bits = tl.where(value == 0.0, 0.0, value).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)


@triton.jit
def _keys(score, tie_break, available, place, is_inside, HAS_TIE: tl.constexpr, HAS_MASK: tl.constexpr):
    """Return the keys of pixels, and where scores and tie breaks are NaN."""
    value = tl.load(score + place, mask=is_inside, other=float("-inf")).to(tl.float32)
    is_left = is_inside & (value > float("-inf"))
    is_nan = is_inside & (value != value)
    if HAS_MASK:
        is_left &= tl.load(available + place, mask=is_inside, other=0) != 0
    if HAS_TIE:
        tie = tl.load(tie_break + place, mask=is_inside, other=0.0).to(tl.float32)
        is_nan |= is_inside & (tie != tie)
        low = _ordered(tie) + 2147483648
    else:
        low = 2147483647 - place.to(tl.int64)
    return tl.where(is_left, _ordered(value) * 4294967296 + low, _NOTHING), is_nan


@triton.jit
def _threshold_kernel(
    score, tie_break, available, threshold, size, step, rank,
    HAS_TIE: tl.constexpr, HAS_MASK: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Store the ``rank``-th largest key of a sample, found bit by bit; _NOTHING if the sample has fewer."""
    place = tl.arange(0, SAMPLES) * step
    keys, _ = _keys(score, tie_break, available, place, place < size, HAS_TIE, HAS_MASK)
    found = tl.full([], _NOTHING, tl.int64)
    if tl.sum((keys >= 0).to(tl.int32)) >= rank:
        found = tl.zeros([], tl.int64)
    step_down = tl.full([], 1 << 62, tl.int64)
    for _ in range(63):
        if tl.sum((keys >= found + step_down).to(tl.int32)) >= rank:
            found += step_down
        step_down = step_down // 2
    tl.store(threshold, found)


@triton.jit
def _count_kernel(
    score, tie_break, available, threshold, counts, size, blocks,
    HAS_TIE: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Count candidates, available pixels and NaN of each block."""
    block = tl.program_id(0)
    place = block * BLOCK + tl.arange(0, BLOCK)
    keys, is_nan = _keys(score, tie_break, available, place, place < size, HAS_TIE, HAS_MASK)
    is_left = keys > _NOTHING
    tl.store(counts + block, tl.sum((is_left & (keys >= tl.load(threshold))).to(tl.int32)))
    tl.store(counts + blocks + block, tl.sum(is_left.to(tl.int32)))
    tl.store(counts + 2 * blocks + block, tl.sum(is_nan.to(tl.int32)))


@triton.jit
def _gather_kernel(
    score, tie_break, available, threshold, sums, places, sort_keys, size, most,
    HAS_TIE: tl.constexpr, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write places and keys of the candidates, in the order of their places; ``sums`` are running sums of counts."""
    block = tl.program_id(0)
    place = block * BLOCK + tl.arange(0, BLOCK)
    keys, _ = _keys(score, tie_break, available, place, place < size, HAS_TIE, HAS_MASK)
    is_candidate = (keys > _NOTHING) & (keys >= tl.load(threshold))
    own = tl.cumsum(is_candidate.to(tl.int32), 0)
    target = tl.load(sums + block).to(tl.int32) - tl.sum(is_candidate.to(tl.int32)) + own - 1
    is_candidate &= target < most
    tl.store(places + target, place, mask=is_candidate)
    tl.store(sort_keys + target, keys, mask=is_candidate)


@triton.jit
def _enter_kernel(order, total, ranks, most, BLOCK: tl.constexpr):
    """Write the rank of each candidate into the map of ranks."""
    rank = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_candidate = rank < tl.minimum(tl.load(total).to(tl.int32), most)
    tl.store(ranks + tl.load(order + rank, mask=is_candidate, other=0), rank, mask=is_candidate)


@triton.jit
def _settle_kernel(
    order, total, ranks, height, width, radius, most, rounds, DECIDES: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Decide about candidates as far as decisions about better ones allow; only drop those near picks, unless DECIDES.

    A stale view of the map only delays a decision: an entry changes once, and only from a rank to a decision.
    """
    rank = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_candidate = rank < tl.minimum(tl.load(total).to(tl.int32), most)
    place = tl.load(order + rank, mask=is_candidate, other=0)
    row, column = place // width, place % width
    is_left = is_candidate & (tl.load(ranks + place, mask=is_candidate, other=_OUT) == rank)
    side = 2 * radius + 1
    number = 0
    while (number < rounds) & (tl.max(is_left.to(tl.int32)) > 0):
        best = tl.zeros([BLOCK], tl.int32) + _OUT
        for offset in range(side * side):
            y, x = row + offset // side - radius, column + offset % side - radius
            is_there = is_left & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            best = tl.minimum(best, tl.load(ranks + y * width + x, mask=is_there, other=_OUT, volatile=True))
        is_out = is_left & (best == _PICKED)
        tl.store(ranks + place, _OUT, mask=is_out)
        is_left &= ~is_out
        if DECIDES:
            is_picked = is_left & (best == rank)
            tl.store(ranks + place, _PICKED, mask=is_picked)
            is_left &= ~is_picked
        tl.debug_barrier()
        number += 1


@triton.jit
def _take_kernel(
    order, total, ranks, own, picks, found, width, radius, most, num_picks,
    IS_SETTLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Walk through the candidates from the best on, to the N-th pick; of a single program."""
    last = tl.minimum(tl.load(total).to(tl.int32), most)
    start, num_found, num_own = 0, 0, 0
    while (start < last) & (num_found < num_picks):
        rank = start + tl.arange(0, BLOCK)
        is_left = rank < last
        is_picked = rank < 0
        place = tl.load(order + rank, mask=is_left, other=0)
        row, column = place // width, place % width
        if IS_SETTLED:
            state = tl.load(ranks + place, mask=is_left, other=_OUT)
            is_picked = is_left & (state == _PICKED)
            is_left &= state == rank
        number = 0
        while (number < num_own) & (tl.max(is_left.to(tl.int32)) > 0):
            pick = tl.load(own + number)
            is_left &= (tl.abs(row - pick // width) > radius) | (tl.abs(column - pick % width) > radius)
            number += 1
        while (num_own < num_picks) & (tl.max(is_left.to(tl.int32)) > 0):
            first = tl.min(tl.where(is_left, rank, _OUT))
            pick = tl.load(order + first)
            tl.store(own + num_own, pick)
            is_picked |= rank == first
            is_left &= (tl.abs(row - pick // width) > radius) | (tl.abs(column - pick % width) > radius)
            num_own += 1
        target = num_found + tl.cumsum(is_picked.to(tl.int32), 0) - 1
        tl.store(picks + target, place, mask=is_picked & (target < num_picks))
        num_found += tl.sum(is_picked.to(tl.int32))
        start += BLOCK
        tl.debug_barrier()
    tl.store(found, tl.minimum(num_found, num_picks))


def _sorted_candidates(
    score: Tensor, tie: Tensor, mask: Tensor, step: int, rank: int, most: int, kinds: dict[str, bool]
) -> tuple[Tensor, Tensor]:
    """Return the places of at most ``most`` candidates, best first, and counts: candidates, available pixels, NaN.

    The threshold is the ``rank``-th largest key of every ``step``-th pixel.
    """
    size, device = score.numel(), score.device
    threshold = torch.empty(1, dtype=torch.int64, device=device)
    _threshold_kernel[(1,)](score, tie, mask, threshold, size, step, rank, SAMPLES=_SAMPLES, num_warps=16, **kinds)
    blocks = triton.cdiv(size, _BLOCK)
    counts = torch.empty(3, blocks, dtype=torch.int32, device=device)
    _count_kernel[(blocks,)](score, tie, mask, threshold, counts, size, blocks, BLOCK=_BLOCK, **kinds)
    sums = counts.cumsum(dim=1, dtype=torch.int32)
    places = torch.zeros(most, dtype=torch.int32, device=device)
    sort_keys = torch.full((most,), _NOTHING.value, dtype=torch.int64, device=device)
    _gather_kernel[(blocks,)](
        score, tie, mask, threshold, sums, places, sort_keys, size, most, BLOCK=_BLOCK, **kinds
    )  # fmt: skip
    return places[torch.sort(sort_keys, descending=True, stable=True).indices], sums[:, -1].contiguous()


def _settled(order: Tensor, total: Tensor, shape: Sequence[int], radius: int, most: int) -> Tensor:
    """Return the map of ranks after the rounds of elimination: ranks of candidates that are left, and decisions."""
    height, width = shape
    ranks = torch.full((height * width,), _OUT.value, dtype=torch.int32, device=order.device)
    grid = (triton.cdiv(most, _SETTLED),)
    _enter_kernel[grid](order, total, ranks, most, BLOCK=_SETTLED)
    for number in range(_LAUNCHES + 1):
        decides = number < _LAUNCHES
        _settle_kernel[grid](
            order, total, ranks, height, width, radius, most, _ROUNDS if decides else 1, DECIDES=decides,
            BLOCK=_SETTLED,
        )  # fmt: skip
    return ranks


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
    size, device = height * width, score_HW.device
    radius = min(suppress_radius, max(height, width))
    square = (2 * radius + 1) ** 2
    aim = min(max(_FEWEST, min(num_picks * square, max(_MOST, 16 * num_picks)) * 5 // 4), size)
    most = min(2 * aim, size)
    score, tie = score_HW.detach().contiguous(), score_HW if tie_break is None else tie_break.detach().contiguous()
    mask = score if available is None else available.contiguous().view(torch.uint8)
    kinds = {"HAS_TIE": tie_break is not None, "HAS_MASK": available is not None}

    with on(device):
        step = max(1, size // _SAMPLES) | 1  # odd: no resonance with the width of the map
        rank = max(1, round(aim / step)) if aim < size else _SAMPLES + 1
        order, total = _sorted_candidates(score, tie, mask, step, rank, most, kinds)
        is_settled = square <= _LARGEST_SQUARE and num_picks >= _MANY_PICKS
        ranks = _settled(order, total, score_HW.shape, radius, most) if is_settled else order
        own, found = (torch.empty(count, dtype=torch.int32, device=device) for count in (num_picks, 1))
        picks = torch.zeros(num_picks, dtype=torch.int32, device=device)
        _take_kernel[(1,)](
            order, total, ranks, own, picks, found, width, radius, most, num_picks, IS_SETTLED=is_settled,
            BLOCK=_CHUNK, num_warps=8,
        )  # fmt: skip
        picks = picks.long()
        values = [one.reshape(-1)[picks].float().view(torch.int32) for one in maps]
        packet = torch.cat([found, total, picks.int(), *values]).cpu()  # the transfer
    count, num_candidates, num_available, num_nan = packet[:4].tolist()
    is_short = count < num_picks and num_candidates < num_available
    if num_nan or num_candidates > most or is_short:
        return None
    table = packet[4:].view(1 + len(maps), num_picks)[:, :count]
    return Found(table[0].long(), picks[:count], table[1:].view(torch.float32))
