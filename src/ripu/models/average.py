"""The moving average of a network's weights, which evaluations, rounds and a teacher use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PREFIX = "average.network."


class MovingAverage(nn.Module):
    """The exponential moving average of a network: a second network, always in evaluation mode.

    With ``step`` steps before this one, ``average = d * average + (1 - d) * network``, where ``d`` is the smaller one
    of ``decay`` and ``(1 + step) / (10 + step)``: at the beginning of a run, the average spans a tenth of the steps so
    far. Running statistics are averages already, and a second one would lag behind when the target is first read: they
    are those of the network, unless the average has seen images itself (:meth:`follow`). Whole numbers are copied.
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
    def follow(self, image: Tensor, network: nn.Module) -> Tensor:
        """Return the logits by the statistics of this batch, which the average's running statistics follow.

        Batch norms that ``network``, the one in training, keeps in evaluation mode stay as they are.
        """
        with self.following(network):
            logits: Tensor = self.network(image)
        return logits

    @contextmanager
    def following(self, network: nn.Module) -> Iterator[None]:
        """Let forward passes of the averaged network behave as :meth:`follow` says."""
        pairs = zip(self.network.modules(), network.modules(), strict=True)
        norms = [own for own, other in pairs if isinstance(own, _BatchNorm) and other.training]
        for norm in norms:
            norm.training = True
        try:
            yield
        finally:
            for norm in norms:
                norm.training = False

    @torch.no_grad()
    def move(self, network: nn.Module, step: int, *, statistics: bool = True) -> None:
        """Take the weights of a network into the average after training step ``step``, counted from 0.

        Without ``statistics``, those of batch norms stay: the average has seen images itself (:meth:`follow`).
        """
        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), share)
        of_norms = {id(buffer) for buffer in statistics_of(self.network).values()}
        for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
            if id(own) not in of_norms and own.is_floating_point():
                own.lerp_(other, share)
            elif id(own) not in of_norms or statistics:
                own.copy_(other)


def statistics_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of the batch norms of a network by name."""
    norms = [(name, part) for name, part in network.named_modules() if isinstance(part, _BatchNorm)]
    return {f"{name}.{key}".lstrip("."): buffer for name, norm in norms for key, buffer in norm.named_buffers()}


def averaged_weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a module's state dict with the averaged weights in the place of the network's own.

    This is what evaluations of the run have measured. A state dict without an average is returned as it is.
    """
    averaged = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if not averaged:
        return state
    others = {key: value for key, value in state.items() if not key.startswith(("network.", _PREFIX))}
    return {**others, **{f"network.{key}": value for key, value in averaged.items()}}
