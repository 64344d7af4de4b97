"""The moving average of a network's weights, which evaluations, rounds and a teacher use."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

_PREFIX = "average.network."


class MovingAverage(nn.Module):
    """The exponential moving average of a network: a second network, always in evaluation mode.

    With ``step`` steps before this one, ``average = d * average + (1 - d) * network``, where ``d`` is the smaller one
    of ``decay`` and ``(1 + step) / (10 + step)``: at the beginning of a run, the average spans a tenth of the steps so
    far. Running statistics are averaged like weights; whole numbers are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with a copy of the network; ``decay`` is in (0, 1)."""
        super().__init__()
        self.network = deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.train(False)

    def train(self, mode: bool = True) -> MovingAverage:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the averaged network."""
        logits: Tensor = self.network(image)
        return logits

    @torch.no_grad()
    def move(self, network: nn.Module, step: int) -> None:
        """Take the weights of a network into the average after training step ``step``, counted from 0."""
        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        averaged, current = self.network.state_dict(), network.state_dict()
        pairs = [(average, current[name]) for name, average in averaged.items()]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in floats], [new for _, new in floats], share)
        for average, new in pairs:
            if not average.is_floating_point():
                average.copy_(new)


def averaged_weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a module's state dict with the averaged weights in the place of the network's own.

    This is what evaluations of the run have measured. A state dict without an average is returned as it is.
    """
    averaged = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if not averaged:
        return state
    others = {key: value for key, value in state.items() if not key.startswith(("network.", _PREFIX))}
    return {**others, **{f"network.{key}": value for key, value in averaged.items()}}
