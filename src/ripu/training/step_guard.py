"""Whether the state of training is that of a step, when an error strikes: then it can be kept, and gone on with bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class StepGuard:
    """Follows an optimiser step: until the optimiser acts, a forward has changed running statistics and nothing else."""

    def __init__(self) -> None:
        """Begin between two steps."""
        self._statistics: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._is_open = False
        self._is_changing = False

    def begin(self, network: nn.Module) -> None:
        """Remember the running statistics that the forwards of a step will change."""
        self._statistics = [
            buffer
            for part in network.modules()
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
            for buffer in part.buffers(recurse=False)
        ]
        with torch.no_grad():
            self._copies = [buffer.clone() for buffer in self._statistics]
        self._is_open = True

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While the optimiser changes weights; afterwards the step is over."""
        self._is_changing = True
        yield  # an error in here leaves the state between two steps
        self._is_open = self._is_changing = False

    def undo(self) -> bool:
        """Put the running statistics back, if a step was broken off.

        Returns:
            Whether the state is that of a whole step; False where the error struck while the optimiser changed it.
        """
        if self._is_changing:
            return False
        if self._is_open:
            with torch.no_grad():
                for buffer, copy in zip(self._statistics, self._copies, strict=True):
                    buffer.copy_(copy)
        self._is_open = False
        return True
