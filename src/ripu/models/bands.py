"""Networks for other bands than RGB: their first convolution and their normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ripu.io.errors import ConfigError


def adapted(weight: Tensor, in_channels: int) -> Tensor:
    """Return the weights of a first convolution on RGB, (C, 3, h, w), for other bands, (C, in_channels, h, w).

    As in segmentation-models-pytorch: band i gets the weights of R, G or B, i modulo 3, times 3 / in_channels; a single
    band gets their sum. Weights that are not for RGB, or for as many bands, are returned as they are.
    """
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.shape[1] != 3 or in_channels == 3:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, torch.arange(in_channels) % 3] * (3 / in_channels)


def statistics(rgb: Sequence[float], in_channels: int) -> tuple[float, ...]:
    """Return means (or standard deviations) of RGB for other bands, as :func:`adapted` does the weights.

    Band i has the value of R, G or B, i modulo 3; a single band has their average.

    >>> statistics((0.5, 0.4, 0.3), 4)
    (0.5, 0.4, 0.3, 0.5)
    """
    if in_channels == 1:
        return (sum(rgb) / len(rgb),)
    return tuple(rgb[band % len(rgb)] for band in range(in_channels))


def checked_statistics(name: str, values: Sequence[float], in_channels: int) -> tuple[float, ...]:
    """Return ``model.mean`` or ``model.std``; refuse another number of values than bands."""
    if len(values) != in_channels:
        whose = (
            "three numbers, one for each of R, G and B" if in_channels == 3 else f"{in_channels} numbers, one a band"
        )
        raise ConfigError(f"model.{name}={list(values)} must be {whose}")
    return tuple(values)
