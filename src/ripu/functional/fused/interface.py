"""The functions that the kernels for every kind of device have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Found(NamedTuple):
    """Picks in their order: (n,) flat places on the host and on the device, and (V, n) float32 values there."""

    place: Tensor
    place_on_device: Tensor
    values: Tensor


class FiniteCheck(Protocol):
    """The check that logits are finite, which may still go on."""

    def check(self) -> None:
        """Wait for it, and raise ValueError if logits are NaN or infinite."""


class Kernels(Protocol):
    """The functions of :mod:`ripu.functional.fused.cuda` and :mod:`ripu.functional.fused.cpu`, which are modules."""

    def entropy_and_label(
        self, logits_BChw: Tensor, size: tuple[int, int], epsilon: float, label_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, FiniteCheck]:
        """Return the (B, H, W) maps of :func:`ripu.functional.map_entropy_and_label`, and the check of the logits."""

    def window_maps(
        self,
        label_BHW: Tensor,
        entropy_BHW: Tensor | None,
        num_classes: int,
        radius: int,
        *,
        pixel: bool = False,
        epsilon: float = 0.0,
        normalizer: float = 1.0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return impurity, uncertainty and score of contiguous (B, H, W) labels and float32 entropies.

        Args:
            label_BHW: Labels in 0 .. C - 1 of :func:`ripu.functional.label_dtype`; not checked.
            entropy_BHW: At most log C, and more than -1; None: only the impurity is computed.
            num_classes, radius, epsilon, normalizer: See :func:`ripu.acquisition.ripu.ripu_maps`.
            pixel: The uncertainty is the entropy itself instead of its window mean.
        """

    def greedy_places(
        self,
        score_HW: Tensor,
        num_picks: int,
        suppress_radius: int,
        available: Tensor | None,
        tie_break: Tensor | None,
        maps: Sequence[Tensor] = (),
    ) -> Found | None:
        """Return the first ``num_picks`` picks and the values of (H, W) ``maps`` there.

        For the arguments and the rule see :func:`ripu.selection.picks.greedy_picks`; a map has at least one pixel and
        fewer than 2^31, and is of at most 32 bits. None if the plain code must decide, as it does about NaN.
        """


def room_for_maps(
    label_BHW: Tensor, entropy_BHW: Tensor | None, pixel: bool, normalizer: float
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """Return the entropy that ``window_maps`` reads, and impurity, uncertainty and score for it to write.

    With ``pixel`` the uncertainty is the entropy, which is normalised here.
    """
    impurity_BHW = torch.empty(label_BHW.shape, dtype=torch.float32, device=label_BHW.device)
    if entropy_BHW is None:
        return None, impurity_BHW, None, None
    if pixel and normalizer != 1.0:
        entropy_BHW = entropy_BHW / normalizer
    uncertainty_BHW = entropy_BHW if pixel else torch.empty_like(impurity_BHW)
    return entropy_BHW, impurity_BHW, uncertainty_BHW, torch.empty_like(impurity_BHW)
