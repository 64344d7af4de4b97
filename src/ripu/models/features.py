"""The features that the classifier of a network reads, for any network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ripu.io.errors import ConfigError
from ripu.models.interface import evaluating


def with_features(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of normalised images and the features that the classifier has read.

    The classifier is the layer with weights that is called last of all those that return a map of ``num_classes``
    channels. The network runs as it is written, even if it is compiled.

    Args:
        network: A :class:`ripu.models.interface.SegmentationNetwork`.
        image: (B, bands, H, W).

    Returns:
        Logits (B, C, H, W) and features (B, D, h, w).

    Raises:
        ConfigError: The network has no such layer.
    """
    known: Any = network
    read: list[Tensor] = []

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == known.num_classes:
            read[:] = inputs[:1]

    layers = [part for part in network.modules() if any(True for _ in part.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    try:
        logits: Tensor = known.forward(image)  # not the compiled call
    finally:
        for hook in hooks:
            hook.remove()
    if not read:
        raise ConfigError(
            f"the features that the classifier reads cannot be found: no layer of {type(network).__name__} returns a "
            f"map of {known.num_classes} channels, one a class; use another network, or a score and a method that read "
            "no features (e.g. acquisition=ripu, method=ripu)"
        )
    return logits, read[0]


def num_features(network: nn.Module) -> int:
    """Return the number of features that the classifier reads, D; found by a small black image.

    Raises:
        ConfigError: As :func:`with_features`.
    """
    known: Any = network
    device = next(network.parameters()).device
    with torch.no_grad(), evaluating(network):
        _, values = with_features(network, torch.zeros(1, len(known.mean), 64, 64, device=device))
    return int(values.shape[1])
