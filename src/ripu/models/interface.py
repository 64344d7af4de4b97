"""The interface of a network, and contexts that change how its layers behave for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn


class SegmentationNetwork(Protocol):
    """The members that the package needs of a network; any ``nn.Module`` that has them will do.

    Inputs are normalised with ``mean`` and ``std``, one value for each band, on the 0..1 scale.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, bands, H, W), for any H and W."""

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trainable parameters of the backbone and of the head."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode; afterwards every submodule has its former mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def keeping_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms in training mode normalise by the batch without changing their running statistics."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
