"""A first look at what the kernels compute on a device, beside plain torch on the CPU.

Kernels are compiled for the device at hand by the compiler that is installed there. A round that asks about the wrong
places is worse than a slow one, so every process compares a small image before it trusts them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from ripu.functional.fused.interface import Kernels

_CLASSES, _SOURCE, _SIZE = 5, (20, 27), (33, 41)
_RADII, _PICKS = (1, 3), ((80, 1), (6, 5))
"""Of the windows; number and suppression radius of the picks: many small squares, and a few large ones."""
_TOLERANCE = 1e-4


def first_difference(kernels: Kernels, device: torch.device) -> str | None:
    """Return what kernels compute on a device otherwise than plain torch on the CPU; None if nothing."""
    logits = 4.0 * torch.randn((1, _CLASSES, *_SOURCE), generator=torch.Generator().manual_seed(0))
    entropy, label, finite = kernels.entropy_and_label(logits.to(device), _SIZE, 0.0, torch.uint8)
    finite.check()
    probs = interpolate(logits, _SIZE, mode="bilinear", align_corners=True).softmax(dim=1)
    if not _is_close(entropy, torch.special.entr(probs).sum(dim=1)):
        return "the entropy"
    if (label.cpu() != probs.argmax(dim=1)).float().mean() > 0.01:  # another rounding may turn a near tie
        return "the label"
    for radius in _RADII:
        impurity, uncertainty, score = kernels.window_maps(label, entropy, _CLASSES, radius)
        assert uncertainty is not None
        assert score is not None
        share = _window_mean(one_hot(label.cpu().long(), _CLASSES).movedim(-1, 1).float(), radius)
        if not _is_close(impurity, torch.special.entr(share).sum(dim=1)):
            return f"the impurity for k = {radius}"
        if not _is_close(uncertainty, _window_mean(entropy.cpu(), radius)):
            return f"the uncertainty for k = {radius}"
        if not _is_close(score, impurity.cpu() * uncertainty.cpu()):
            return f"the score for k = {radius}"
        for num_picks, suppress_radius in _PICKS:
            found = kernels.greedy_places(score[0], num_picks, suppress_radius, None, uncertainty[0], (score[0],))
            places = _picks(score[0].cpu(), uncertainty[0].cpu(), num_picks, suppress_radius)
            if found is not None and found.place.tolist() != places:
                return f"the picks with r = {suppress_radius}"
    return None


def _window_mean(values: Tensor, radius: int) -> Tensor:
    return avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def _is_close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found.cpu(), wanted, rtol=0.0, atol=_TOLERANCE)


def _picks(score_HW: Tensor, tie_break_HW: Tensor, num_picks: int, suppress_radius: int) -> list[int]:
    """Return the flat places of the literal loop: the best that is left, and nothing near it any more."""
    height, width = score_HW.shape
    ranks = list(zip(score_HW.flatten().tolist(), tie_break_HW.flatten().tolist(), strict=True))
    found: list[int] = []
    for place in sorted(range(height * width), key=ranks.__getitem__, reverse=True):  # equal ones keep their order
        row, column = divmod(place, width)
        near = (max(abs(row - one // width), abs(column - one % width)) <= suppress_radius for one in found)
        if not any(near):
            found.append(place)
        if len(found) == num_picks:
            break
    return found
