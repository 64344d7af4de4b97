"""The interface of an objective: the terms of the loss on source and target images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from torch import Tensor

Batch = Mapping[str, Tensor]
"""A batch of one domain.

``image`` (B, bands, H, W) uint8, ``label`` (B, H, W) uint8 train ids with 255 = none, and, of padded images,
``shape`` (B, 2); see :mod:`ripu.losses`.
"""

Network = Callable[[Tensor], Tensor]
"""Maps raw images, (B, bands, H, W) uint8, to logits, (B, C, H, W)."""


class Objective(Protocol):
    """The terms that training minimises; one file and one ``conf/objective/*.yaml`` make a new one.

    The terms of each domain are functions of its batch and of random numbers from the generator of torch, which the
    module seeds for every step. Each term is a scalar, already weighted, and is logged under its name.

    Attributes:
        needs_teacher: True if :meth:`target_terms` uses the teacher.
    """

    needs_teacher: ClassVar[bool]

    def source_terms(self, student: Network, batch: Batch, *, is_adapting: bool) -> dict[str, Tensor]:
        """Return the terms on source images; in pre-training ``is_adapting`` is False."""
        ...

    def target_terms(
        self, student: Network, batch: Batch, *, source: Batch | None, teacher: Network | None
    ) -> dict[str, Tensor]:
        """Return the terms on target images, whose ``label`` is 255 where it is not revealed.

        Args:
            student: The network in training.
            batch: The target images.
            source: The source images of the same step; None if the run reads none.
            teacher: The moving average of the network; its outputs have no gradient. None if the run has none.
        """
        ...
